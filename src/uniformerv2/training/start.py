"""The network that training starts from: an image ViT that is armed, or a video network with a head for the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import timm

from uniformerv2.checkpoint import load_model
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.arming import arm
from uniformerv2.model.presets import list_models
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.plan import Preset

__all__ = ["arm_image_vit", "is_image_vit", "load_video_network"]

DROP_PATH = 0.1


def is_image_vit(backbone: str) -> bool:
    """Whether a word is timm's name of an image model, and no checkpoint nor a name of the zoo.

    Args:
        backbone: What the user typed.

    Raises:
        ValueError: It is none of them.
    """
    if Path(backbone).exists() or backbone.startswith("hf:") or backbone in list_models():
        return False
    if timm.is_model(backbone.partition(".")[0]):
        return True
    near = timm.list_models(f"*{backbone.partition('.')[0]}*")[:3] or ["vit_small_patch14_dinov2.lvd142m"]
    raise ValueError(
        f"{backbone!r} is no checkpoint, no model of the zoo (see 'uniformerv2 models') and no timm model. "
        f"Such are: {', '.join([list_models()[0], *near])}."
    )


def arm_image_vit(
    backbone: str,
    *,
    weights: str | None,
    preset: Preset,
    class_names: Sequence[str],
    num_frames: int,
    image_size: int,
) -> UniFormerV2:
    """An image ViT of timm with a new armour.

    Args:
        backbone: timm's name.
        weights: A file; None fetches timm's own.
        preset: See ``arm``.
        class_names: In head order.
        num_frames: Of a clip.
        image_size: Of a frame.

    Raises:
        ValueError: Weights that cannot be fetched or do not fit.
        OSError: The file cannot be read.
    """
    try:
        return arm(
            backbone,
            num_classes=len(class_names),
            class_names=tuple(class_names),
            preset=preset,
            pretrained=weights is None,
            weights=weights,
            num_frames=num_frames,
            image_size=image_size,
            drop_path_rate=DROP_PATH,
        )
    except OSError as error:
        if weights is not None:
            raise
        raise ValueError(
            f"The weights of {backbone} could not be fetched ({error}) Where there is no network, bring the file here "
            f"(timm's or Hugging Face's names) and add --weights FILE; or start from a checkpoint, --backbone FILE."
        ) from error


def load_video_network(
    backbone: str, *, class_names: Sequence[str], num_frames: int | None, image_size: int | None
) -> UniFormerV2:
    """A video network with a head for these classes: its own where its classes are the same, else a new one.

    Args:
        backbone: What ``load_model`` takes.
        class_names: In head order.
        num_frames: None: the checkpoint's own.
        image_size: None: the checkpoint's own.

    Raises:
        ValueError: A checkpoint that cannot be used.
    """
    network = load_model(backbone)
    if network.info.class_names != tuple(class_names):
        network.reset_classifier(len(class_names))
    size = {"num_frames": network.config.num_frames, "image_size": network.config.image_size}
    own = Preprocessing.from_dict({**size, **network.info.preprocessing})
    changed = replace(own, num_frames=num_frames or own.num_frames, image_size=image_size or own.image_size)
    tubelet = network.config.tubelet_size
    if changed.num_frames % tubelet:
        raise ValueError(f"{backbone} takes a multiple of {tubelet} frames, got {changed.num_frames}.")
    network.info = replace(network.info, preprocessing=changed.to_dict(), class_names=tuple(class_names))
    return network
