"""Networks on random clips: a forward pass and a training step, against their matrix products and a linear law.

A forward pass is what ``Predictor`` does with a network, its neighbouring linear maps merged. A training step is
forward, cross-entropy, backward and AdamW. Precisions:

==============  ===========================================================
``fp32``        weights and activations in float32
``bf16``        weights and activations in bfloat16
``bf16-mixed``  weights in float32, bfloat16 autocast
==============  ===========================================================

The linear law of frames and resolution is that of tokens: twice the tokens, twice the cost. Attention inside a frame is
quadratic in the tokens of a frame, so that resolution may lie above it; frames may not. The law of fusion stages is
that of the multiply-adds counted.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2.core.optional import require
from uniformerv2.lab.benchmark import FRAMES, SIZES, Pass, Precision
from uniformerv2.lab.benchmark.machine import peak_bytes, time_in_turns
from uniformerv2.lab.benchmark.products import MatrixProducts, record_products, square_product
from uniformerv2.model.summary import count_macs
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.arming import arm
from uniformerv2.zoo.checkpoint import create_model, load_model

__all__ = [
    *("PEERS", "Subject", "TestClip", "Work", "build_run", "make_ours", "measure_growth", "measure_networks"),
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
        source: A folder, a file, a name of the zoo, or with ``is_timm`` timm's name of an image ViT to arm.
        is_timm: See ``source``.
        num_frames: Frames of the clip; the network's own where None.
        image_size: Side of a frame in pixels; the network's own where None.
        freeze_backbone: The backbone does not learn.
        **overrides: Fields of ``UniFormerV2Config``; none for a folder or a file.

    Raises:
        ValueError: No such model.
        FileNotFoundError: No such folder or file.
    """
    given: dict[str, Any] = {"num_frames": num_frames, "image_size": image_size}
    fields = {name: value for name, value in given.items() if value is not None}
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


def build_run(subject: Subject, work: Work) -> Callable[[], object]:
    """Make the network and a batch, and return what does one forward pass or training step."""
    torch.manual_seed(0)
    model, clip = subject.make()
    video = clip.batch(work.batch_size).to(work.device)
    if work.precision == "bf16":
        model, video = model.bfloat16(), video.bfloat16()
    model = model.to(work.device)
    if work.is_checkpointed and isinstance(model, UniFormerV2):
        model.set_grad_checkpointing()
    model.train(work.kind == "step")
    if work.kind == "forward" and isinstance(model, UniFormerV2):
        model.merge_linear()
    call: Callable[[Tensor], Any] = torch.compile(model) if work.is_compiled else model
    is_mixed = work.precision == "bf16-mixed"
    autocast = partial(torch.autocast, work.device.partition(":")[0], torch.bfloat16, enabled=is_mixed)

    def forward() -> Any:
        with autocast():
            return call(video)

    return _step(model, forward, video) if work.kind == "step" else torch.no_grad()(forward)


def _step(model: nn.Module, forward: Callable[[], Any], video: Tensor) -> Callable[[], None]:
    labels = torch.zeros(len(video), dtype=torch.long, device=video.device)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-5)

    def run() -> None:
        output = forward()
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
        A row per network.
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
        flops = products[subject.name].flops
        row = {**_head(subject, work), **timed.to_row()}
        row["clips_per_second"] = work.batch_size / timed.median
        row["speed_to_first"] = first / timed.median
        row["gmacs"] = flops / 2e9 / work.batch_size
        row["products_seconds"] = alone.median
        row["over_products"] = timed.median / alone.median
        row["teraflops"] = flops / timed.median / 1e12
        row["ceiling_teraflops"] = ceiling / 1e12
        row["share_of_ceiling"] = flops / timed.median / ceiling
        row["peak_bytes"] = _peak_of(subject, work)
        rows.append(row)
    return rows


def _peak_of(subject: Subject, work: Work) -> int:
    """The most memory that a network takes in a pass, its weights included, in bytes."""
    return peak_bytes(partial(build_run, subject, work), work.device, imports=partial(_without_weights, subject))


def _without_weights(subject: Subject) -> tuple[nn.Module, TestClip]:
    with torch.device("meta"):
        return subject.make()


def _head(subject: Subject, work: Work) -> dict[str, Any]:
    """What a row is about."""
    model, clip = _without_weights(subject)
    weights = list(model.parameters())
    return {
        **{"model": subject.name, "note": subject.note, "pass": work.kind, "precision": work.precision},
        **{"num_frames": clip.num_frames, "image_size": clip.image_size, "batch_size": work.batch_size},
        **{"compiled": work.is_compiled, "checkpointing": work.is_checkpointed},
        "num_parameters": sum(weight.numel() for weight in weights),
        "num_trainable": sum(weight.numel() for weight in weights if weight.requires_grad),
    }


def _from_torchvision(maker: str, clip: TestClip, **fields: Any) -> tuple[nn.Module, TestClip]:
    """A network of torchvision with random weights and 400 classes."""
    from torchvision.models import video

    return getattr(video, maker)(weights=None, **fields), clip


def _from_transformers(maker: str, clip: TestClip, **fields: Any) -> tuple[nn.Module, TestClip]:
    """A network of transformers with random weights and 400 classes."""
    transformers = require("transformers", extra="peers")
    config = getattr(transformers, f"{maker}Config")(num_labels=400, **fields)
    return getattr(transformers, f"{maker}ForVideoClassification")(config), clip


_PUBLISHED: Final[tuple[tuple[str, str, str, TestClip, dict[str, int]], ...]] = (
    ("VideoMAE-B", "transformers", "VideoMAE", TestClip(16, 224), {}),
    ("TimeSformer-B", "transformers", "Timesformer", TestClip(8, 224), {"num_frames": 8}),
    ("V-JEPA 2 ViT-L", "transformers", "VJEPA2", TestClip(16, 256), {"frames_per_clip": 16}),
    ("MViTv2-S", "torchvision", "mvit_v2_s", TestClip(16, 224, is_channels_first=True), {}),
    ("Swin3D-T", "torchvision", "swin3d_t", TestClip(32, 224, is_channels_first=True), {}),
)
"""Name, package, name there, the clip it was published with, fields beside the defaults."""
_MAKERS: Final = {"transformers": _from_transformers, "torchvision": _from_torchvision}
PEERS: Final = {
    name: Subject(name, partial(_MAKERS[package], maker, clip, **fields), note=package)
    for name, package, maker, clip, fields in _PUBLISHED
}
"""Networks of other packages; the note is the package."""


def peer_subjects() -> tuple[list[Subject], dict[str, str]]:
    """The peers that can be measured here, and why the others cannot."""
    absent = {
        name: f"{peer.note} is not installed: pip install 'uniformerv2[peers]'"
        for name, peer in PEERS.items()
        if importlib.util.find_spec(peer.note) is None
    }
    return [peer for name, peer in PEERS.items() if name not in absent], absent


def measure_growth(
    make: Callable[..., tuple[UniFormerV2, TestClip]],
    work: Work,
    *,
    frames: Sequence[int] = FRAMES,
    sizes: Sequence[int] = SIZES,
    stages: Sequence[int] = (),
    repeats: int,
) -> list[dict[str, Any]]:
    """Change one thing at a time; each of the three curves is timed in turns.

    Args:
        make: ``make_ours`` or a ``partial`` of it.
        work: What one call does.
        frames: Numbers of frames, at the network's own size.
        sizes: Sides of a frame in pixels, at the network's own number of frames.
        stages: Numbers of fused blocks, counted from the last; none: about five of them, from one to all.
        repeats: Rounds.

    Returns:
        A row per point; ``linear`` is the cost that the law says, in units of the curve's first point.
    """
    with torch.device("meta"):
        depth = make()[0].config.depth
    counts = stages or sorted({1, *(round(depth * part / 4) for part in (1, 2, 3)), depth} - {0})
    fused = {n: {"fusion_stages": tuple(range(depth - n, depth)), "global_dropout": (0.0,)} for n in counts}
    sweeps: dict[str, dict[int, dict[str, Any]]] = {
        "frames": {value: {"num_frames": value} for value in frames},
        "size": {value: {"image_size": value} for value in sizes},
        "stages": fused,
    }
    rows = []
    for sweep, points in sweeps.items():
        subjects = {value: Subject(f"{sweep} {value}", partial(make, **fields)) for value, fields in points.items()}
        rows += _measure_sweep(sweep, subjects, work, repeats)
    return rows


def _measure_sweep(sweep: str, subjects: Mapping[int, Subject], work: Work, repeats: int) -> list[dict[str, Any]]:
    runs = {subject.name: build_run(subject, work) for subject in subjects.values()}
    times = time_in_turns(runs, repeats=repeats, device=work.device)
    runs.clear()
    law = "gmacs" if sweep == "stages" else "tokens"
    rows: list[dict[str, Any]] = []
    for value, subject in subjects.items():
        row: dict[str, Any] = {
            **{"sweep": sweep, "value": value, "pass": work.kind, **_counts(subject)},
            **{"precision": work.precision, "batch_size": work.batch_size, **times[subject.name].to_row()},
            "peak_bytes": _peak_of(subject, work),
        }
        first = rows[0] if rows else row
        for ratio, cost in (("linear", law), ("time_ratio", "seconds"), ("memory_ratio", "peak_bytes")):
            row[ratio] = row[cost] / first[cost]
        rows.append(row)
    return rows


def _counts(subject: Subject) -> dict[str, float]:
    """Tokens and multiply-adds of a clip."""
    model, _ = _without_weights(subject)
    assert isinstance(model, UniFormerV2)
    config = model.config
    tokens = model.embedding.num_prefix_tokens + config.grid[0] * config.grid[1]
    return {"tokens": config.num_frames // config.tubelet_size * tokens, "gmacs": count_macs(model)[0] / 1e9}
