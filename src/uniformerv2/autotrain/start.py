"""The network that training starts from: an image ViT that is armed, or a video network with a head for the data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from uniformerv2.autotrain.plan import Preset, is_video_network
from uniformerv2.core.messages import UsageError, did_you_mean, usage_errors
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.optim import IMAGE_VIT
from uniformerv2.zoo.arming import arm
from uniformerv2.zoo.cards import model_card
from uniformerv2.zoo.checkpoint import create_model, load_model
from uniformerv2.zoo.download import cached_path
from uniformerv2.zoo.hub import TimmWeights, cached_from_hub

__all__ = [
    *("arm_image_vit", "beside_probe", "check_backbone", "fetch_start", "load_video_network", "weights_to_fetch"),
]

BYTES = 4
"""Of a published weight."""


def check_backbone(name: str) -> None:
    """Refuse what is no image ViT of timm.

    Args:
        name: What the user typed.

    Raises:
        UsageError: It is a video network, or nothing that is known.
    """
    if is_video_network(name):
        raise UsageError(f"--backbone names an image ViT of timm, and {name} is a video network: give --model {name}.")
    if not timm.is_model(name.partition(".")[0]):
        stem = name.partition(".")[0]
        near = timm.list_models(f"*{stem}*")[:3]
        such = near or ["vit_small_patch14_dinov2.lvd142m"]
        hint = "" if near else did_you_mean(stem, timm.list_models())
        raise UsageError(
            f"{name!r} is no image ViT of timm; such are: {', '.join(such)}.{hint} A video network to start from "
            "(folder, checkpoint, name of the zoo, see 'uniformerv2 models') is given with --model."
        )


def weights_to_fetch(start: str, network: UniFormerV2, *, weights: str | None) -> str | None:
    """What has to be downloaded before training can start, and its size; None where everything is on this machine.

    Args:
        start: What training starts from.
        network: Made of it, with any weights; its size tells the size of the file.
        weights: The file of weights that the user gave.
    """
    if weights is not None or not _is_absent(start):
        return None
    if not is_video_network(start):
        where = str(TimmWeights.of(start))
        counts = [value.numel() for name, value in network.named_parameters() if IMAGE_VIT.match(name)]
    else:
        card = model_card(start)
        where = f"{'/'.join(card.huggingface)} of the Hugging Face hub" if card.huggingface else card.url
        counts = [value.numel() for value in network.parameters()]
    return f"{where}, about {BYTES * sum(counts) / 1e6:.0f} MB"


def _is_absent(start: str) -> bool:
    """Whether the weights of a name are known and not on this machine."""
    if Path(start).exists() or start.startswith("hf:"):
        return False  # what a repository of the hub holds is known once it is here
    if not is_video_network(start):
        return not TimmWeights.of(start).is_cached
    card = model_card(start)
    copy = card.huggingface
    return not cached_path(card.url).exists() and (copy is None or cached_from_hub(copy[0], copy[1:]) is None)


def fetch_start(start: str) -> None:
    """Fetch the weights of a name that are not here, before anything else takes time.

    Args:
        start: What training starts from.

    Raises:
        DownloadError: They could not be had.
        ValueError: There are none of this name.
    """
    if not _is_absent(start):
        return
    if is_video_network(start):
        load_model(start)
    else:
        TimmWeights.of(start).overlay()


def arm_image_vit(
    backbone: str,
    *,
    weights: str | None,
    preset: Preset,
    class_names: Sequence[str],
    num_stages: int | None,
    dropout: float | None,
    num_frames: int,
    image_size: int,
    fetch: bool = True,
) -> UniFormerV2:
    """An image ViT of timm with new video blocks.

    Args:
        backbone: timm's name.
        weights: A file; None: timm's own, fetched where they are not here.
        preset: See ``arm``.
        class_names: In head order.
        num_stages: Global UniBlocks; None: those of the preset.
        dropout: Before the classifier and in the FFN of global UniBlocks; None: as published.
        num_frames: Of a clip.
        image_size: Of a frame.
        fetch: False: random weights where timm's own are not on this machine; for a plan.

    Raises:
        DownloadError: The weights could not be had.
        ValueError: Weights that do not fit; of a file a ``UsageError``.
        OSError: The file cannot be read.
    """
    rates: dict[str, Any] = {} if dropout is None else {"classifier_dropout": dropout, "global_dropout": (dropout,)}
    with nullcontext() if weights is None else usage_errors():  # a file that is no such weights was named wrongly
        return arm(
            backbone,
            num_classes=len(class_names),
            class_names=tuple(class_names),
            preset=preset,
            pretrained=weights is None and (fetch or not _is_absent(backbone)),
            weights=weights,
            num_stages=num_stages,
            num_frames=num_frames,
            image_size=image_size,
            **rates,
        )


def load_video_network(
    model: str,
    *,
    class_names: Sequence[str],
    num_frames: int | None,
    image_size: int | None,
    fetch: bool = True,
) -> UniFormerV2:
    """A video network with a head for these classes: its own where its classes are the same, else a new one.

    Args:
        model: What ``load_model`` takes.
        class_names: In head order.
        num_frames: None: the checkpoint's own.
        image_size: None: the checkpoint's own.
        fetch: False: random weights where those of the zoo are not on this machine; for a plan.

    Raises:
        DownloadError: The weights could not be had.
        ValueError: A checkpoint that cannot be used.
    """
    network = load_model(model) if fetch or not _is_absent(model) else create_model(model)
    if network.info.class_names != tuple(class_names):
        network.reset_classifier(len(class_names))
    size = {"num_frames": network.config.num_frames, "image_size": network.config.image_size}
    own = Preprocessing.from_dict({**size, **network.info.preprocessing})
    changed = replace(own, num_frames=num_frames or own.num_frames, image_size=image_size or own.image_size)
    tubelet = network.config.tubelet_size
    if changed.num_frames % tubelet:
        raise ValueError(f"{model} takes a multiple of {tubelet} frames, got {changed.num_frames}.")
    network.info = replace(network.info, preprocessing=changed.to_dict(), class_names=tuple(class_names))
    return network


@torch.no_grad()
def beside_probe(network: UniFormerV2, probe: UniFormerV2) -> None:
    """Make the head of a network the mean of its own and of the probe that it started at.

    Where the backbone was frozen its logits are then the mean of both. Weights between those of a robust start and the
    trained ones are often better than either: Wortsman et al., "Robust fine-tuning of zero-shot models" (2022),
    https://arxiv.org/abs/2109.01903.

    Args:
        network: Trained; changed in place.
        probe: With the same statistics.
    """
    head, start = network.head, probe.head
    assert isinstance(head, nn.Linear)  # it was trained
    assert isinstance(start, nn.Linear)
    head.weight.mul_(0.5)
    head.weight[:, network.config.dim :].add_(start.weight.to(head.weight.device), alpha=0.5)
    head.bias.lerp_(start.bias.to(head.bias.device), 0.5)
