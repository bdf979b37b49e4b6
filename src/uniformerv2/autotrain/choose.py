"""From ``TrainOptions`` to a ``TrainingPlan`` and the network it trains: each choice with its reason.

What is taken where the user leaves a number open, and why, stands in ``defaults``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch

from uniformerv2.autotrain.defaults import (
    MOST_EPOCHS,
    PROBE_EPOCHS,
    default_augmentation,
    default_batch_size,
    default_dropout,
    default_epochs,
    default_num_frames,
    default_rates,
    default_stages,
    default_views,
)
from uniformerv2.autotrain.measure import largest_batch_size
from uniformerv2.autotrain.plan import (
    DEFAULT_CACHE_VIEWS,
    FEW_VIDEOS,
    Preset,
    Rates,
    TrainingPlan,
    TrainOptions,
    is_video_network,
)
from uniformerv2.autotrain.probing import FittedProbe, can_start_at, start_at_probe
from uniformerv2.autotrain.start import arm_image_vit, load_video_network
from uniformerv2.core.messages import UsageError
from uniformerv2.core.workers import available_cores
from uniformerv2.data.splits import Splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.precision import gains_from_bf16
from uniformerv2.model.statistics import KINDS
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.feature_key import check_cacheable

__all__ = ["make_plan"]

DEFAULT_STARTS: Final[Mapping[tuple[Preset, bool], str]] = {
    ("scene", True): "uniformerv2_b16_k400_k710_8x224",
    ("motion", True): "vit_base_patch16_clip_224.openai",
    ("scene", False): "vit_small_patch14_dinov2.lvd142m",
    ("motion", False): "vit_small_patch14_dinov2.lvd142m",
}
"""(preset, whether there is a GPU) -> what training starts from. The authors start scenes from Kinetics-710 weights and
motion from the image ViT; without a GPU a base-size network takes days, a small one minutes."""

IMBALANCED: Final = 4
"""A class with so many times the training videos of another is worth a word."""
MANY: Final = 64
"""No larger batch is of use to a fine-tuning."""
PRECISIONS: Final[Mapping[str, str | None]] = {"auto": None, "fp32": "32-true", "bf16": "bf16-mixed"}
"""Our words, and Lightning's."""


class _Choices:
    """Chooses, and keeps the reasons of what the user left open."""

    def __init__(self) -> None:
        self.why: dict[str, str] = {}

    def take(self, name: str, asked: Any, default: Any, why: str) -> Any:
        """What was asked for, else the default, with its reason."""
        if asked is not None:
            return asked
        self.why[name] = why
        return default


def make_plan(
    options: TrainOptions,
    splits: Splits,
    *,
    device: torch.device,
    fetch: bool = True,
    why: Mapping[str, str] | None = None,
    start_at: FittedProbe | None = None,
) -> tuple[TrainingPlan, UniFormerV2]:
    """Every choice, and the network to train.

    Args:
        options: What the user decided.
        splits: The videos.
        device: Where training will run.
        fetch: False: random weights where those of a name are not on this machine; for a plan that is only shown.
        why: Reasons of options that the probe decided.
        start_at: The probe that an image ViT armed anew starts at, where it can.

    Returns:
        The plan, and the network before its first step.

    Raises:
        ValueError: Choices that contradict each other, or weights that cannot be had.
    """
    choices = _Choices()
    choices.why |= {"split": splits.rule, **(why or {})}
    has_gpu, num_train = device.type == "cuda", len(splits.train)
    preset: Preset = choices.take(
        "preset", options.preset, "scene", "not measured: what is seen tells most classes apart"
    )
    start = _start(options, choices, preset=preset, has_gpu=has_gpu)
    is_armed_anew = start["model"] is None
    network = _network(options, splits, choices, preset=preset, has_gpu=has_gpu, fetch=fetch, **start)
    keeps_start = False
    if start_at is not None and can_start_at(start_at, network):
        network, keeps_start = start_at_probe(network, start_at), num_train < FEW_VIDEOS
    if options.freeze_backbone:
        network.freeze_backbone()
    if options.cache_features:
        check_cacheable(network)
    size = {"num_frames": network.config.num_frames, "image_size": network.config.image_size}
    preprocessing = Preprocessing.from_dict({**size, **network.info.preprocessing})
    auto = "bf16-mixed" if gains_from_bf16(network, device) else "32-true"
    precision = choices.take("precision", PRECISIONS[options.precision], auto, "what is fastest on this hardware")
    batch_size = options.batch_size
    if batch_size is None:
        batch_size = _batch_size(options, choices, network, preprocessing, num_train, device, precision)
    is_frozen = bool(options.freeze_backbone)
    seen = max(1, min(batch_size, num_train))  # by a step
    start_of = {"freeze_backbone": is_frozen, "keeps_start": keeps_start}
    rates = default_rates(seen, preset=preset, is_armed_anew=is_armed_anew, **start_of)
    rates, epochs = _pace(options, choices, rates, num_train, **start_of)
    num_workers = max(1, min(available_cores() // options.devices, 8 if has_gpu else 2))
    plan = TrainingPlan(
        **{
            **options.request(),
            **start,
            "out": str(options.folder.path),
            "device": options.device,
            "devices": options.devices,
            "preset": preset,
            "freeze_backbone": is_frozen,
            "num_frames": preprocessing.num_frames,
            "image_size": preprocessing.image_size,
            "batch_size": batch_size,
            "num_stages": len(network.config.fusion_stages),
            "dropout": network.config.classifier_dropout,
            "learning_rate": rates.learning_rate,
            "epochs": epochs,
            **_shown(options, choices, preset=preset, num_train=num_train, epochs=epochs),
            "precision": precision,
            "num_workers": num_workers if options.num_workers is None else options.num_workers,
            **_cache(options, choices, epochs=epochs),
        },
        **_of_videos(splits),
        rates=rates,
        flip=0.0 if preset == "motion" or _reads_order(network) else 0.5,  # left and right may be classes
        label_smoothing=0.1,
        why=choices.why,
        warnings=(*splits.warnings(), *_imbalance(options, splits)),
    )
    return plan, network


def _pace(
    options: TrainOptions,
    choices: _Choices,
    rates: Rates,
    num_train: int,
    *,
    freeze_backbone: bool,
    keeps_start: bool,
) -> tuple[Rates, int]:
    """Rates and epochs; ``rates`` are those of the videos and the start."""
    kept = "so that the probe is not forgotten"
    root = "suits a batch of 16; grows with the square root of the batch"
    why = f"slow, {kept}; {root}" if keeps_start and not freeze_backbone else root
    highest = choices.take("learning_rate", options.learning_rate, rates.learning_rate, why)
    most = PROBE_EPOCHS[freeze_backbone] if keeps_start else MOST_EPOCHS
    why = f"at most {most}, {kept}" if keeps_start else "5000 videos seen; 5 to 50"
    epochs = choices.take("epochs", options.epochs, default_epochs(num_train, most=most), why)
    return replace(rates, learning_rate=highest), epochs


def _batch_size(
    options: TrainOptions,
    choices: _Choices,
    network: UniFormerV2,
    preprocessing: Preprocessing,
    num_train: int,
    device: torch.device,
    precision: str,
) -> int:
    """Videos a step over all devices, of which each takes what its memory holds."""
    has_gpu = device.type == "cuda"
    choices.why["batch_size"] = "four steps per epoch or more, up to " + (
        "64, tried out on this GPU" if has_gpu else "16 without a GPU, if the memory holds it"
    )
    wanted = max(1, default_batch_size(num_train, largest=MANY) // options.devices)
    each = largest_batch_size(network, preprocessing, wanted=wanted, device=device, precision=precision)
    return each * options.devices


def _shown(options: TrainOptions, choices: _Choices, *, preset: Preset, num_train: int, epochs: int) -> dict[str, Any]:
    """What of a video is shown to the network, in training and in the final test: fields of the plan."""
    clips, crops = default_views(preset)
    augmentation = default_augmentation(num_train, epochs)
    return {
        "num_clips": choices.take("num_clips", options.num_clips, clips, f"as published for {preset}"),
        "num_crops": choices.take("num_crops", options.num_crops, crops, f"as published for {preset}"),
        "augmentation": choices.take(
            "augmentation", options.augmentation, augmentation, "strong from 100,000 clips shown"
        ),
    }


def _of_videos(splits: Splits) -> dict[str, Any]:
    """Fields of the plan that follow from the videos."""
    numbers = {f"num_{name}": len(getattr(splits, name)) for name in ("train", "val", "test")}
    return {"class_names": splits.class_names, "is_multi_label": splits.is_multi_label, **numbers}


def _start(options: TrainOptions, choices: _Choices, *, preset: Preset, has_gpu: bool) -> dict[str, str | None]:
    """``model`` or ``backbone``, of which one is None.

    Raises:
        UsageError: Weights of an image ViT for a video network.
    """
    why = f"for {preset}, {'a GPU' if has_gpu else 'no GPU, so a small one'}"
    start = choices.take("start", options.model or options.backbone, DEFAULT_STARTS[preset, has_gpu], why)
    is_network = options.model is not None or (options.backbone is None and is_video_network(start))
    if is_network and options.backbone_weights is not None:
        raise UsageError(
            f"--backbone-weights is a file for an image ViT, but {start} is a video network that has its own: name the "
            "image ViT with --backbone, for instance vit_small_patch14_dinov2, or leave --backbone-weights out."
        )
    return {"model": start if is_network else None, "backbone": None if is_network else start}


def _network(
    options: TrainOptions,
    splits: Splits,
    choices: _Choices,
    *,
    preset: Preset,
    model: str | None,
    backbone: str | None,
    has_gpu: bool,
    fetch: bool,
) -> UniFormerV2:
    """Armed, or loaded; its ``info.preprocessing`` has the frames and the size of this training.

    Raises:
        UsageError: Stages or dropout of new video blocks for a network that has its own.
    """
    torch.manual_seed(options.seed)  # of the video blocks, or of the head
    if backbone is not None:
        num_frames = default_num_frames(preset, has_gpu=has_gpu)
        num_stages = default_stages(preset, len(splits.train))
        why = "as published" if num_stages is None else "one stage, as more would overfit so few videos"
        dropout = default_dropout(freeze_backbone=bool(options.freeze_backbone), num_train=len(splits.train))
        why_dropout = "as published" if dropout is None else "few videos and a frozen backbone"
        size = 224 if has_gpu else 112
        network = arm_image_vit(
            backbone,
            weights=options.backbone_weights,
            preset=preset,
            class_names=splits.class_names,
            num_stages=choices.take("num_stages", options.num_stages, num_stages, why),
            dropout=choices.take("dropout", options.dropout, dropout, why_dropout),
            num_frames=choices.take("num_frames", options.num_frames, num_frames, f"for {preset}"),
            image_size=choices.take("image_size", options.image_size, size, "224; 112 without a GPU"),
            fetch=fetch,
        )
    else:
        if options.num_stages is not None or options.dropout is not None:
            flag = "--dropout" if options.num_stages is None else "--stages"
            raise UsageError(f"{flag} is for an image ViT, but {model} is a video network that has its own.")
        network = load_video_network(
            str(model),
            class_names=splits.class_names,
            num_frames=options.num_frames,
            image_size=options.image_size,
            fetch=fetch,
        )
        for name in ("num_stages", "dropout", "num_frames", "image_size"):
            choices.take(name, getattr(options, name), None, "the checkpoint's own")
    return network


def _imbalance(options: TrainOptions, splits: Splits) -> list[str]:
    """A sentence where one class has far more training videos than another."""
    counts = Counter(label for record in splits.train for label in record.labels)
    ranked = counts.most_common()
    (common, most), (rare, least) = ranked[0], ranked[-1]
    if options.balanced or options.probe or most < IMBALANCED * least:
        return []
    names = splits.class_names
    return [
        f"The classes differ in size: {names[common]} has {most} training videos and {names[rare]} {least}. --balanced "
        "draws every class equally often; without it the rare ones may be overlooked, and the accuracy hides it: look "
        "at the mean over the classes."
    ]


def _cache(options: TrainOptions, choices: _Choices, *, epochs: int) -> dict[str, Any]:
    """Fields of the plan."""
    if not options.cache_features:
        return {"cache_views": 0, "cache_dtype": "float16"}
    why = "each costs one pass of the backbone"
    wanted = choices.take("cache_views", options.cache_views, DEFAULT_CACHE_VIEWS, why)
    views = min(wanted, epochs)
    if options.cache_views is not None and views < wanted:
        choices.why["cache_views"] = f"not {wanted}: an epoch reads one, and there are {epochs}"
    return {"cache_views": views, "cache_dtype": options.cache_dtype or "float16"}


def _reads_order(network: UniFormerV2) -> bool:
    """Whether the head of a network reads which way things change."""
    return not set(KINDS["order"]).isdisjoint(network.config.statistics)
