"""Networks on random clips: a forward pass and a training step, against the matrix products they are made of.

A forward pass is what ``Predictor`` does with a network, its neighbouring linear maps merged. A training step is
forward, cross-entropy, backward and AdamW. Precisions:

==============  ===========================================================
``fp32``        weights and activations in float32
``bf16``        weights and activations in bfloat16
``bf16-mixed``  weights in float32, bfloat16 autocast
==============  ===========================================================
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2.core.optional import require
from uniformerv2.lab.benchmark.choices import Pass, Precision
from uniformerv2.lab.benchmark.clock import peak_bytes, time_in_turns
from uniformerv2.lab.benchmark.products import MatrixProducts, record_products, square_product
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.arming import arm
from uniformerv2.zoo.checkpoint import create_model, load_model

__all__ = [
    "PEERS",
    "Peer",
    "Subject",
    "TestClip",
    "Work",
    "build_run",
    "make_ours",
    "measure_networks",
    "peak_of",
    "peer_subjects",
]


@dataclass(frozen=True)
class TestClip:
    """What a network is shown.

    Attributes:
        num_frames: T.
        image_size: Height and width in pixels.
        is_channels_first: [B, 3, T, H, W], as 3-D convolutions want it; else [B, T, 3, H, W].
    """

    __test__ = False  # pytest takes a class of this name for tests

    num_frames: int
    image_size: int
    is_channels_first: bool = False

    def batch(self, size: int) -> Tensor:
        """Random numbers."""
        video = torch.randn(size, self.num_frames, 3, self.image_size, self.image_size)
        return video.transpose(1, 2).contiguous() if self.is_channels_first else video


@dataclass(frozen=True)
class Subject:
    """A network to measure.

    Attributes:
        name: For the table.
        make: Makes it anew, in any process, with the clip it is for.
        note: What a reader must know to compare.
    """

    name: str
    make: Callable[[], tuple[nn.Module, TestClip]]
    note: str = ""


@dataclass(frozen=True)
class Work:
    """What a network is measured at.

    Attributes:
        kind: A forward pass, or a whole training step.
        precision: See the top of this file.
        batch_size: Clips of a call.
        device: Where.
        is_compiled: By ``torch.compile``.
        is_checkpointed: Blocks are computed again in the backward pass of a step (our networks only).
    """

    kind: Pass = "forward"
    precision: Precision = "fp32"
    batch_size: int = 1
    device: str = "cpu"
    is_compiled: bool = False
    is_checkpointed: bool = False


def make_ours(
    source: str,
    *,
    is_timm: bool = False,
    num_frames: int | None = None,
    image_size: int | None = None,
    freeze_backbone: bool = False,
    **overrides: Any,
) -> tuple[UniFormerV2, TestClip]:
    """One of our networks; with random weights unless it comes from a folder or a file.

    Args:
        source: A folder, a file, a name of the zoo, or with ``is_timm`` timm's name of an image ViT.
        is_timm: Arm an image ViT.
        num_frames: Frames of the clip; the network's own where None.
        image_size: Side of a frame in pixels; the network's own where None.
        freeze_backbone: The backbone does not learn.
        **overrides: Fields of ``UniFormerV2Config``; none for a folder or a file.

    Raises:
        ValueError: No such model.
        FileNotFoundError: No such folder or file.
    """
    given = {"num_frames": num_frames, "image_size": image_size}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if is_timm:
        model = arm(source, num_classes=400, **fields, **overrides)
    elif Path(source).exists():
        with torch.device("cpu"):  # also where the device is "meta": there are weights to read
            model = load_model(source)
    else:
        model = create_model(source, **fields, **overrides)
    if freeze_backbone:
        model.freeze_backbone()
    size = model.config.image_size
    own_size = size if isinstance(size, int) else max(size)
    return model, TestClip(num_frames or model.config.num_frames, image_size or own_size)


def build_run(subject: Subject, work: Work) -> Callable[[], None]:
    """Make the network and a batch.

    Args:
        subject: The network.
        work: What one call does.

    Returns:
        One forward pass or training step.
    """
    torch.manual_seed(0)
    model, clip = subject.make()
    video = clip.batch(work.batch_size).to(work.device)
    if work.precision == "bf16":
        model, video = model.bfloat16(), video.bfloat16()
    model = model.to(work.device)
    if work.is_checkpointed and isinstance(model, UniFormerV2):
        model.set_grad_checkpointing()
    build = _step if work.kind == "step" else _forward
    autocast = partial(
        torch.autocast, work.device.partition(":")[0], torch.bfloat16, enabled=work.precision == "bf16-mixed"
    )
    return build(model, video, autocast, is_compiled=work.is_compiled)


def _forward(model: nn.Module, video: Tensor, autocast: Callable[[], Any], *, is_compiled: bool) -> Callable[[], None]:
    model.eval()
    if isinstance(model, UniFormerV2):
        model.merge_linear()
    call: Callable[[Tensor], Any] = torch.compile(model) if is_compiled else model

    def run() -> None:
        with torch.no_grad(), autocast():
            call(video)

    return run


def _step(model: nn.Module, video: Tensor, autocast: Callable[[], Any], *, is_compiled: bool) -> Callable[[], None]:
    model.train()
    call: Callable[[Tensor], Any] = torch.compile(model) if is_compiled else model
    labels = torch.zeros(len(video), dtype=torch.long, device=video.device)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-5)

    def run() -> None:
        with autocast():
            output = call(video)
        logits = output if isinstance(output, Tensor) else output.logits
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def measure_networks(subjects: Sequence[Subject], work: Work, *, repeats: int) -> list[dict[str, Any]]:
    """Time networks, their matrix products and a large square product in turns.

    The fastest of all square products is the GEMM ceiling: what the machine can, not what it could at that moment.

    Args:
        subjects: The first is what the others are compared with.
        work: What one call does.
        repeats: Rounds.

    Returns:
        A row each: see ``_row``.
    """
    runs: dict[str, Callable[[], object]] = {}
    products: dict[str, MatrixProducts] = {}
    square = square_product(torch.float32 if work.precision == "fp32" else torch.bfloat16, work.device)
    for subject in subjects:
        runs[subject.name] = build_run(subject, work)
        eager = build_run(subject, replace(work, is_compiled=False)) if work.is_compiled else runs[subject.name]
        products[subject.name] = record_products(eager)
        runs[f"products of {subject.name}"] = products[subject.name]
        runs[f"square after {subject.name}"] = square
    times = time_in_turns(runs, repeats=repeats, device=work.device)
    runs.clear()
    ceiling = square.flops / min(min(times[f"square after {subject.name}"].seconds) for subject in subjects)
    first = times[subjects[0].name].median
    rows = []
    for subject in subjects:
        timed, alone = times[subject.name], times[f"products of {subject.name}"]
        rows.append(
            {
                **_head(subject, work),
                **timed.to_row(),
                "clips_per_second": work.batch_size / timed.median,
                "speed_to_first": first / timed.median,
                "gmacs": products[subject.name].flops / 2e9 / work.batch_size,
                "products_seconds": alone.median,
                "over_products": timed.median / alone.median,
                "teraflops": products[subject.name].flops / timed.median / 1e12,
                "ceiling_teraflops": ceiling / 1e12,
                "share_of_ceiling": products[subject.name].flops / timed.median / ceiling,
                "peak_bytes": peak_of(subject, work),
            }
        )
    return rows


def peak_of(subject: Subject, work: Work) -> int:
    """The most memory that a network takes in a pass, its weights included, in bytes."""
    return peak_bytes(partial(build_run, subject, work), work.device, imports=partial(_without_weights, subject))


def _without_weights(subject: Subject) -> tuple[nn.Module, TestClip]:
    with torch.device("meta"):
        return subject.make()


def _head(subject: Subject, work: Work) -> dict[str, Any]:
    """What a row is of."""
    model, clip = _without_weights(subject)
    return {
        "model": subject.name,
        "note": subject.note,
        "pass": work.kind,
        "precision": work.precision,
        "num_frames": clip.num_frames,
        "image_size": clip.image_size,
        "batch_size": work.batch_size,
        "compiled": work.is_compiled,
        "checkpointing": work.is_checkpointed,
        "num_parameters": sum(weight.numel() for weight in model.parameters()),
        "num_trainable": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
    }


@dataclass(frozen=True)
class Peer:
    """A network of another package.

    Attributes:
        package: Where it is from.
        maker: Its name there: the stem of a configuration and a classifier, or a function.
        clip: What it was published with.
        fields: Of its configuration, beside the defaults.
    """

    package: str
    maker: str
    clip: TestClip
    fields: tuple[tuple[str, Any], ...] = ()

    def make(self) -> tuple[nn.Module, TestClip]:
        """The network, with random weights and 400 classes."""
        make = _of_torchvision if self.package == "torchvision" else _of_transformers
        return make(self.maker, dict(self.fields)), self.clip


def _of_torchvision(maker: str, fields: dict[str, Any]) -> nn.Module:
    from torchvision.models import video

    make: Callable[..., nn.Module] = getattr(video, maker)
    return make(weights=None, **fields)


def _of_transformers(maker: str, fields: dict[str, Any]) -> nn.Module:
    transformers = require("transformers", extra="peers")
    config = getattr(transformers, f"{maker}Config")(num_labels=400, **fields)
    model: nn.Module = getattr(transformers, f"{maker}ForVideoClassification")(config)
    return model


PEERS: Final = {
    "VideoMAE-B": Peer("transformers", "VideoMAE", TestClip(16, 224)),
    "TimeSformer-B": Peer("transformers", "Timesformer", TestClip(8, 224), (("num_frames", 8),)),
    "V-JEPA 2 ViT-L": Peer("transformers", "VJEPA2", TestClip(16, 256), (("frames_per_clip", 16),)),
    "MViTv2-S": Peer("torchvision", "mvit_v2_s", TestClip(16, 224, is_channels_first=True)),
    "Swin3D-T": Peer("torchvision", "swin3d_t", TestClip(32, 224, is_channels_first=True)),
}


def peer_subjects() -> tuple[list[Subject], dict[str, str]]:
    """The peers that can be measured here, and why the others cannot."""
    subjects, absent = [], {}
    for name, peer in PEERS.items():
        if importlib.util.find_spec(peer.package) is None:
            absent[name] = f"{peer.package} is not installed: pip install 'uniformerv2[peers]'"
        else:
            subjects.append(Subject(name, partial(Peer.make, peer), note=peer.package))
    return subjects, absent
