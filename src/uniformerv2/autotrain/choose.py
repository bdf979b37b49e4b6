"""From what was asked for to a ``TrainingPlan`` and the network it trains: each choice with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from uniformerv2.autotrain.measure import largest_batch_size
from uniformerv2.autotrain.plan import (
    DEFAULT_BACKBONES,
    DEFAULT_CACHE_VIEWS,
    AugmentationName,
    Preset,
    TrainingPlan,
    default_augmentation,
    default_batch_size,
    default_dropout,
    default_epochs,
    default_num_frames,
    default_rates,
    default_stages,
    default_views,
)
from uniformerv2.autotrain.start import arm_image_vit, is_image_vit, load_video_network
from uniformerv2.core.workers import available_cores
from uniformerv2.data.splits import Splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.precision import gains_from_bf16
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.feature_key import StorageName, check_cacheable

__all__ = ["Asked", "make_plan"]

MANY = 64
"""No larger batch is of use to a fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user decided; None leaves the choice to us. See ``TrainingPlan`` for the fields.

    Attributes:
        root: Where relative paths of a list start; None: at its folder.
        classes: Names of the list's class numbers, as typed.
    """

    data: str
    root: str | None = None
    classes: str | None = None
    preset: Preset | None = None
    backbone: str | None = None
    weights: str | None = None
    freeze_backbone: bool = False
    num_frames: int | None = None
    image_size: int | None = None
    num_stages: int | None = None
    dropout: float | None = None
    batch_size: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    num_clips: int | None = None
    num_crops: int | None = None
    augmentation: AugmentationName | None = None
    precision: str | None = None
    seed: int = 0
    cache_features: bool = False
    cache_views: int | None = None
    cache_dtype: StorageName | None = None
    cache_dir: str | None = None


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
    asked: Asked,
    splits: Splits,
    *,
    out: str,
    device: torch.device,
    num_workers: int | None = None,
    fetch: bool = True,
) -> tuple[TrainingPlan, UniFormerV2]:
    """Every choice, and the network to train.

    Args:
        asked: What the user decided.
        splits: The videos.
        out: Folder to write.
        device: Where training will run.
        num_workers: Processes that read videos; None: up to 8, without a GPU up to 2, as they share the cores.
        fetch: False: random weights where those of a name are not on this machine; for a plan that is only shown.

    Returns:
        The plan, and the network before its first step.

    Raises:
        ValueError: Choices that contradict each other, or weights that cannot be had.
    """
    choices = _Choices()
    choices.why["split"] = splits.rule
    has_gpu = device.type == "cuda"
    preset: Preset = choices.take("preset", asked.preset, "scene", "most data are told apart by what is seen")
    hardware = "a GPU" if has_gpu else "no GPU, so a small one"
    backbone = choices.take("backbone", asked.backbone, DEFAULT_BACKBONES[preset, has_gpu], f"for {preset}, {hardware}")
    is_armed_anew = is_image_vit(backbone)
    network = _network(asked, splits, choices, preset=preset, backbone=backbone, has_gpu=has_gpu, fetch=fetch)
    if asked.cache_features:
        check_cacheable(network)
    size = {"num_frames": network.config.num_frames, "image_size": network.config.image_size}
    preprocessing = Preprocessing.from_dict({**size, **network.info.preprocessing})
    num_train = len(splits.train)
    auto = "bf16-mixed" if gains_from_bf16(network, device) else "32-true"
    precision = choices.take("precision", asked.precision, auto, "what is fastest on this hardware")
    batch_size = asked.batch_size
    if batch_size is None:
        wanted = default_batch_size(num_train, largest=MANY)
        batch_size = largest_batch_size(network, preprocessing, wanted=wanted, device=device, precision=precision)
        choices.why["batch_size"] = "four steps an epoch or more, up to " + (
            "64, tried out on this GPU" if has_gpu else "16 without a GPU, if the memory holds it"
        )
    seen = max(1, min(batch_size, num_train))  # by a step
    rates = default_rates(seen, preset=preset, freeze_backbone=asked.freeze_backbone, is_armed_anew=is_armed_anew)
    highest = choices.take(
        "rates", asked.learning_rate, rates.learning_rate, "for a batch of 16, times the root of batch / 16"
    )
    epochs = choices.take("epochs", asked.epochs, default_epochs(num_train), "5000 videos seen; 5 to 50")
    augmentation = default_augmentation(num_train, epochs)
    clips, crops = default_views(preset)
    plan = TrainingPlan(
        data=asked.data,
        out=out,
        class_names=splits.class_names,
        num_train=num_train,
        num_val=len(splits.val),
        num_test=len(splits.test),
        preset=preset,
        backbone=backbone,
        weights=asked.weights,
        freeze_backbone=asked.freeze_backbone,
        num_frames=preprocessing.num_frames,
        image_size=preprocessing.image_size,
        batch_size=batch_size,
        num_stages=len(network.config.fusion_stages),
        dropout=network.config.classifier_dropout,
        rates=replace(rates, learning_rate=highest),
        epochs=epochs,
        num_clips=choices.take("num_clips", asked.num_clips, clips, f"as published for {preset}"),
        num_crops=choices.take("num_crops", asked.num_crops, crops, f"as published for {preset}"),
        augmentation=choices.take("augmentation", asked.augmentation, augmentation, "strong from 100,000 clips shown"),
        flip=0.0 if preset == "motion" else 0.5,
        label_smoothing=0.1,
        is_multi_label=splits.is_multi_label,
        precision=precision,
        seed=asked.seed,
        num_workers=min(available_cores(), 8 if has_gpu else 2) if num_workers is None else num_workers,
        why=choices.why,
        warnings=tuple(splits.warnings()),
        **_cache(asked, choices, epochs=epochs),
    )
    return plan, network


def _network(
    asked: Asked, splits: Splits, choices: _Choices, *, preset: Preset, backbone: str, has_gpu: bool, fetch: bool
) -> UniFormerV2:
    """Armed, or loaded; its ``info.preprocessing`` has the frames and the size of this training.

    Raises:
        ValueError: Weights or stages of an image ViT for something that is none.
    """
    if is_image_vit(backbone):
        num_frames = default_num_frames(preset, has_gpu=has_gpu)
        num_stages = default_stages(preset, len(splits.train))
        why = "as published" if num_stages is None else "few videos, which more of them overfit"
        dropout = default_dropout(freeze_backbone=asked.freeze_backbone, num_train=len(splits.train))
        why_dropout = "as published" if dropout is None else "few videos and a frozen image ViT"
        torch.manual_seed(asked.seed)  # of the video blocks
        network = arm_image_vit(
            backbone,
            weights=asked.weights,
            preset=preset,
            class_names=splits.class_names,
            num_stages=choices.take("num_stages", asked.num_stages, num_stages, why),
            dropout=choices.take("dropout", asked.dropout, dropout, why_dropout),
            num_frames=choices.take("num_frames", asked.num_frames, num_frames, f"for {preset}"),
            image_size=choices.take("image_size", asked.image_size, 224 if has_gpu else 112, "224; 112 without a GPU"),
            fetch=fetch,
        )
    elif asked.weights is not None:
        raise ValueError(
            f"--weights is a file for an image ViT, but {backbone} is a video network that has its own: name the "
            "image ViT with --backbone, for instance vit_small_patch14_dinov2, or leave --weights out."
        )
    elif asked.num_stages is not None or asked.dropout is not None:
        option = "--dropout" if asked.num_stages is None else "--stages"
        raise ValueError(f"{option} is for an image ViT, but {backbone} is a video network that has its own.")
    else:
        torch.manual_seed(asked.seed)  # of the head
        network = load_video_network(
            backbone,
            class_names=splits.class_names,
            num_frames=asked.num_frames,
            image_size=asked.image_size,
            fetch=fetch,
        )
        for name in ("num_stages", "dropout", "num_frames", "image_size"):
            choices.take(name, getattr(asked, name), None, "the checkpoint's own")
    if asked.freeze_backbone:
        network.freeze_backbone()
    return network


def _cache(asked: Asked, choices: _Choices, *, epochs: int) -> dict[str, Any]:
    """Fields of the plan."""
    if not asked.cache_features:
        return {}
    why = "each costs one pass of the image ViT"
    wanted = choices.take("cache_views", asked.cache_views, DEFAULT_CACHE_VIEWS, why)
    views = min(wanted, epochs)
    if asked.cache_views is not None and views < wanted:
        choices.why["cache_views"] = f"not {wanted}: an epoch reads one, and there are {epochs}"
    return {"cache_views": views, "cache_dtype": asked.cache_dtype or "float16", "cache_dir": asked.cache_dir}
