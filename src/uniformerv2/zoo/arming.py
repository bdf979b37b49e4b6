"""Arm an image ViT: put the blocks of a timm model into local UniBlocks, and global UniBlocks on top.

Source:
    Li et al., UniFormerV2 (2022), https://arxiv.org/abs/2211.09552; the image ViTs are timm's, see ``image_vits``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

from uniformerv2.core.messages import did_you_mean, first_few
from uniformerv2.model.config import CheckpointInfo, UniFormerV2Config
from uniformerv2.model.image_vits import TimmViT, build_vit, check_supported, take_apart
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.convert import to_timm_vit
from uniformerv2.zoo.download import DownloadError, is_offline
from uniformerv2.zoo.files import read_checkpoint
from uniformerv2.zoo.hub import TimmWeights

__all__ = ["arm", "rebuild"]

HEAD_PREFIXES = ("norm.", "fc_norm.", "head.", "head_dist.", "attn_pool.")

OF_THE_IMAGE_VIT = {"patch_size", "dim", "depth", "num_heads", "mlp_ratio", "activation", "backbone"}
"""Fields of the configuration that nobody can override: the image ViT is as it is."""


def arm(
    vit: str | nn.Module,
    /,
    *,
    num_classes: int,
    num_frames: int = 8,
    preset: Literal["scene", "motion"] = "scene",
    freeze_backbone: bool = False,
    pretrained: bool = False,
    weights: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    num_blocks: int | None = None,
    num_stages: int | None = None,
    backbone_args: Mapping[str, Any] | None = None,
    class_names: tuple[str, ...] = (),
    **overrides: Any,
) -> UniFormerV2:
    """Turn an image ViT into a video network.

    The presets are the authors' advice. "scene", for Kinetics-like data: global UniBlocks on the last four layers.
    "motion", for Something-Something-like data: two local temporal steps in every block, global UniBlocks on the last
    two thirds of the layers, tubelets of two frames. The norms that read the last block's tokens start from the image
    ViT's final norm.

    Args:
        vit: A timm model (which is copied, not changed) or the name of one.
        num_classes: Classes; 0 leaves the head out.
        num_frames: Frames of a clip.
        preset: See above.
        freeze_backbone: The image ViT does not learn, and stays in eval mode.
        pretrained: Fetch timm's weights of that name.
        weights: A file with weights of the image ViT, in timm's names or Hugging Face's.
        image_size: Pixels, height and width; where None ``backbone_args["img_size"]``, else the ViT's own. Positions
            are interpolated, as timm does.
        num_blocks: Keep only the first so many blocks of the image ViT.
        num_stages: Global UniBlocks on the last so many layers, whatever the preset says.
        backbone_args: What timm's ``create_model`` is (or, for a model, was) given beside the name.
        class_names: In the order of the head's rows.
        **overrides: Fields of ``UniFormerV2Config``, for instance ``tubelet_size=1`` or ``fusion="parallel"``.

    Returns:
        The armed network, in eval mode; ``info.preprocessing`` has the image ViT's mean and std.

    Raises:
        ValueError: An image ViT that can't be taken apart, or arguments that contradict each other.

    Examples:
        >>> model = arm("vit_tiny_patch16_224", num_classes=6, image_size=32, num_frames=4)
        >>> model(torch.zeros(1, 4, 3, 32, 32)).shape
        torch.Size([1, 6])
    """
    if class_names and len(class_names) != num_classes:
        raise ValueError(f"class_names must name each of the {num_classes} classes, got {len(class_names)} names.")
    backbone_args = _plain(backbone_args or {})
    if decided := sorted(OF_THE_IMAGE_VIT & overrides.keys()):
        raise ValueError(f"The image ViT decides {', '.join(decided)}: give another one, or backbone_args=.")
    image_size = image_size or backbone_args.get("img_size")
    source = _load_image_vit(vit, pretrained=pretrained, weights=weights, size=image_size, backbone_args=backbone_args)
    if image_size is not None and image_size != backbone_args.get("img_size"):
        _check_size(image_size, source.patch_embed.patch_size)
        source.set_input_size(img_size=image_size)
    depth = len(source.blocks)
    if num_blocks is not None:
        if not 0 < num_blocks <= depth:
            raise ValueError(f"num_blocks must be 1 to {depth}, the image ViT's, got {num_blocks}.")
        source.blocks = source.blocks[:num_blocks]
    _check_rebuildable(source, backbone_args)
    config = UniFormerV2Config(
        **{
            **_image_fields(source, backbone_args),
            **_preset_fields(preset, len(source.blocks)),
            **_stage_fields(num_stages, len(source.blocks)),
            "num_frames": num_frames,
            "num_classes": num_classes,
            **overrides,
        }
    )
    info = replace(_info(source, config, weights), class_names=class_names)
    model = UniFormerV2(config, image_vit=take_apart(source, config), info=info)
    _start_from_final_norm(model, source.norm if num_blocks in {None, depth} else None)
    if freeze_backbone:
        model.freeze_backbone()
    return model.eval()


def _plain(backbone_args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, if a checkpoint can hold them.

    Raises:
        ValueError: It cannot.
    """
    try:
        json.dumps(dict(backbone_args))
    except TypeError as error:
        raise ValueError(
            f"backbone_args are stored with a checkpoint as numbers and names, got {dict(backbone_args)}: {error}."
        ) from error
    return dict(backbone_args)


@torch.no_grad()
def _start_from_final_norm(model: UniFormerV2, final: nn.Module | None) -> None:
    """Give the norms that read the image ViT's last tokens the scales of its own last norm, which was trained for them.

    The published code leaves CLIP's out. DINOv2's last tokens are mostly one constant vector: after a norm without
    these scales, two thirds of their second moment tell nothing of the image.
    """
    if not isinstance(final, nn.LayerNorm) or not final.elementwise_affine or final.bias is None:
        return
    readers: list[nn.Module] = [model.norm] if model.config.use_gate else []
    if model.config.fusion_stages[-1] == model.config.depth - 1 and model.config.fusion != "statistics":
        readers.append(model.fusion.stages[-1].get_submodule("norm_tokens"))
    for norm in readers:
        norm.load_state_dict(final.state_dict())


def _check_size(image_size: int | tuple[int, int], patch_size: tuple[int, int]) -> None:
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    for side, patch in zip(sides, patch_size, strict=True):
        if side < patch or side % patch:
            nearest = max(1, round(side / patch)) * patch
            raise ValueError(
                f"The image size must be a multiple of {patch}, its patches; got {side}, near is {nearest}."
            )


def _info(vit: TimmViT, config: UniFormerV2Config, weights: str | Path | None) -> CheckpointInfo:
    published = vit.pretrained_cfg
    preprocessing = {
        "num_frames": config.num_frames,
        "image_size": config.image_size,
        "mean": tuple(published["mean"]),
        "std": tuple(published["std"]),
        "resize": "bicubic_antialias",
    }
    return CheckpointInfo(
        preprocessing=preprocessing,
        licence=published.get("license") or "unknown",
        source=f"armed {config.backbone}" + (f", weights {Path(weights).name}" if weights else ""),
    )


def rebuild(config: UniFormerV2Config, info: CheckpointInfo | None = None) -> UniFormerV2:
    """An armed network with random weights, from its configuration alone.

    Args:
        config: With ``backbone`` set.
        info: What travels with the weights.

    Returns:
        A network whose state dict has the same names and shapes as the one the configuration comes from.

    Raises:
        ValueError: The backbone is no image ViT of timm's registry, or another one than the other fields say.
    """
    source = build_vit(str(config.backbone), config.backbone_args)
    check_supported(source)
    found = _image_fields(source, {})
    for name in sorted(OF_THE_IMAGE_VIT & found.keys() - {"backbone"}):
        if getattr(config, name) != found[name]:
            raise ValueError(
                f"{name} is {getattr(config, name)}, but {config.backbone} with these backbone_args has {found[name]}."
            )
    return UniFormerV2(config, image_vit=take_apart(source, config), info=info)


def _load_image_vit(
    vit: str | nn.Module,
    *,
    pretrained: bool,
    weights: str | Path | None,
    size: int | tuple[int, int] | None,
    backbone_args: Mapping[str, Any],
) -> TimmViT:
    if pretrained and weights is not None:
        raise ValueError("Give pretrained=True (timm's weights) or weights= (a file), not both.")
    if isinstance(vit, str):
        source = _named(vit, pretrained=pretrained, backbone_args=backbone_args)
        check_supported(source)
    else:
        check_supported(vit)
        if pretrained:
            raise ValueError("pretrained=True is for a name; a timm model has its weights already.")
        source = copy.deepcopy(vit).requires_grad_(True)
    if weights is not None:
        _load_weights(source, Path(weights), size)
    return source


def _named(name: str, *, pretrained: bool, backbone_args: Mapping[str, Any]) -> TimmViT:
    """A model of timm's, or what its prefixes ``hf-hub:`` and ``local-dir:`` name.

    Raises:
        DownloadError: It would have to be fetched in offline mode.
        ValueError: timm knows no such name.
    """
    if name.startswith("hf-hub:") and is_offline():
        raise DownloadError(f"{name} is on the Hugging Face hub, and offline mode is on (UNIFORMERV2_OFFLINE).")
    if ":" not in name and not pretrained and not timm.is_model(name.partition(".")[0]):
        stem = name.partition(".")[0]
        near = (timm.list_models(f"{stem}*") or timm.list_models(f"*{stem}*"))[:3]
        hint = f" Near are {', '.join(near)}." if near else did_you_mean(stem, timm.list_models())
        raise ValueError(f"timm has no model called {name!r}.{hint}")
    overlay = TimmWeights.of(name).overlay() if pretrained and ":" not in name else None
    return timm.create_model(
        name, pretrained=pretrained, num_classes=0, pretrained_cfg_overlay=overlay, **backbone_args
    )


def _load_weights(vit: TimmViT, path: Path, size: int | tuple[int, int] | None) -> None:
    """Weights of the image ViT; what only its head needs may be absent or left over.

    Positions of another number of patches are those of a frame of ``size`` where it has as many, else of a square.

    Raises:
        ValueError: They are another model's.
    """
    state = to_timm_vit(read_checkpoint(path)).state
    if "pos_embed" in state and vit.pos_embed is not None:
        num_prefix = vit.pos_embed.shape[1] - vit.patch_embed.num_patches
        num_patches = state["pos_embed"].shape[1] - num_prefix
        patch = vit.patch_embed.patch_size
        height, width = (size, size) if isinstance(size, int) else size or vit.patch_embed.img_size
        side = round(max(0, num_patches) ** 0.5)
        if (height // patch[0]) * (width // patch[1]) == num_patches:
            vit.set_input_size(img_size=(height, width))
        elif side * side == num_patches:
            vit.set_input_size(img_size=(side * patch[0], side * patch[1]))
    own = {key: tuple(tensor.shape) for key, tensor in vit.state_dict().items()}
    other = [
        f"{key} {tuple(tensor.shape)}, wanted {own[key]}"
        for key, tensor in state.items()
        if key in own and tuple(tensor.shape) != own[key]
    ]
    if other:
        raise ValueError(
            f"{path.name} does not fit '{vit.pretrained_cfg['architecture']}', it is of a ViT of another size, or for "
            f"frames of another size: {_few(other, count=2)}. Name the image ViT that it was saved from, and where its "
            "frames were not square, or positions lie in its attention, their size by image_size=."
        )
    result = vit.load_state_dict(state, strict=False)
    missing = [key for key in result.missing_keys if not key.startswith(HEAD_PREFIXES)]
    unexpected = [key for key in result.unexpected_keys if not key.startswith(HEAD_PREFIXES)]
    if missing or unexpected:
        raise ValueError(
            f"{path.name} does not fit '{vit.pretrained_cfg['architecture']}': missing {_few(missing)}; "
            f"unknown {_few(unexpected)}."
        )


def _few(keys: list[str], *, count: int = 5) -> str:
    return first_few(keys, shown=count) or "none"


def _check_rebuildable(vit: TimmViT, backbone_args: Mapping[str, Any]) -> None:
    """A checkpoint holds a name and arguments: make sure that they give this very model.

    Raises:
        ValueError: They do not.
    """
    fields = _image_fields(vit, dict(backbone_args))
    told = f"timm's '{fields['backbone']}' with {fields['backbone_args']}"
    try:
        with torch.device("meta"):
            again = build_vit(fields["backbone"], fields["backbone_args"])
    except ValueError as error:
        raise ValueError(f"A checkpoint could not be loaded again: {error}") from error
    if _traits(again) != _traits(vit):
        raise ValueError(
            f"{told} is another model than the one given, so that a checkpoint could not be loaded again: pass the "
            "arguments it was made with as backbone_args=."
        )


def _traits(vit: TimmViT) -> tuple[Any, ...]:
    """What makes two image ViTs the same network: shapes, modules, and settings that neither of them shows."""
    shapes = {key: value.shape for key, value in vit.state_dict().items() if not key.startswith(HEAD_PREFIXES)}
    silent = [getattr(vit, "rope", None), *(block.attn for block in vit.blocks)]
    return shapes, repr(vit.blocks), [_settings(module) for module in silent]


def _settings(module: nn.Module | None) -> dict[str, Any]:
    plain = int | float | str | tuple | None
    of_use = {"training", "aug_active", "fused_attn"}  # and not of the network; neither is what begins with _
    values = {} if module is None else vars(module)
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, plain) and not name.startswith("_") and name not in of_use
    }


def _image_fields(vit: TimmViT, backbone_args: dict[str, Any]) -> dict[str, Any]:
    """Fields of the configuration that the image ViT decides.

    ``image_size`` is of whole patches: SigLIP's SO400M/14 for 384 pixels leaves the last 6 out.

    Raises:
        ValueError: Its patches are not square.
    """
    height, width = vit.patch_embed.img_size
    rows, columns = vit.patch_embed.grid_size
    patch_height, patch_width = vit.patch_embed.patch_size
    if patch_height != patch_width:
        raise ValueError(f"Patches must be square, got {patch_height} x {patch_width}.")
    num_heads = vit.blocks[0].attn.num_heads
    found = {
        "img_size": height if height == width else (height, width),
        "patch_size": patch_height,
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": num_heads,
    }
    return {
        "image_size": rows * patch_height if height == width else (rows * patch_height, columns * patch_width),
        "patch_size": patch_height,
        "dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": num_heads,
        "backbone": vit.pretrained_cfg["architecture"],
        "backbone_args": {**backbone_args, **found},
    }


def _preset_fields(preset: str, depth: int) -> dict[str, Any]:
    if preset == "scene":
        return {"num_local_steps": 0, "tubelet_size": 1, "fusion_stages": tuple(range(max(0, depth - 4), depth))}
    if preset == "motion":
        return {"num_local_steps": 2, "tubelet_size": 2, "fusion_stages": tuple(range(depth // 3, depth))}
    raise ValueError(f"preset is 'scene' or 'motion', got {preset!r}.")


def _stage_fields(num_stages: int | None, depth: int) -> dict[str, Any]:
    if num_stages is None:
        return {}
    if not 0 < num_stages <= depth:
        raise ValueError(f"num_stages must be 1 to {depth}, the blocks, got {num_stages}.")
    return {"fusion_stages": tuple(range(depth - num_stages, depth))}
