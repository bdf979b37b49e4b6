"""Image ViTs, taken apart: what a timm model looks like is decided here and nowhere else.

Source:
    Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.

Attention and FFN modules are timm's own, not copies: the tokens of a frame are the image ViT's, bit for bit.

Letters of this file: B videos, T frames, N tokens a frame, C channels, h heads.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Final

import timm
import torch
from timm.layers import PatchEmbed
from timm.layers.attention import Attention
from timm.models.beit import Beit
from timm.models.beit import Block as BeitBlock
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block as PlainBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from uniformerv2.core.limits import get_limits
from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.embedding import ImagePositions, VideoEmbedding, inflate
from uniformerv2.model.residual import Residual
from uniformerv2.model.uniformerv2 import ImageViT, block_drop_paths
from uniformerv2.ops import functional as ops

__all__ = ["SUPPORTED", "TimmViT", "build_vit", "check_supported", "take_apart"]

SUPPORTED = (
    "plain, AugReg and MAE ViTs, DeiT III, CLIP, SigLIP, DINO, DINOv2 with and without registers (timm's "
    "VisionTransformer); DINOv3, EVA and EVA-02 (timm's Eva); BEiT and BEiTv2 (timm's Beit)"
)

TimmViT = Any  # timm gives its models no attribute types
TimmBlock = Any
TimmAttention = Any


NOT_FROM_A_FILE: Final = frozenset({"self", "num_classes", "device", "dtype"})
"""Arguments of timm's constructors that are ours to give."""


def build_vit(name: str, args: Mapping[str, Any]) -> TimmViT:
    """A timm model with random weights, from a name and arguments that may come from a stranger's file.

    The name is one of timm's registry: no path, no repository, no file of weights. The arguments are those of the
    constructors of the supported families, as numbers, names and lists of them. Nothing is read or fetched.

    Args:
        name: Such as ``"vit_small_patch14_dinov2"``.
        args: What the constructor is given.

    Raises:
        ValueError: No such name, another argument, or values with which the model can't be made.
    """
    if not timm.is_model(name):
        raise ValueError(f"backbone must be a name of timm's registry, got {name!r}.")
    allowed = {key for family in (VisionTransformer, Eva, Beit) for key in inspect.signature(family).parameters}
    if refused := sorted(args.keys() - (allowed - NOT_FROM_A_FILE)):
        raise ValueError(f"backbone_args are arguments of an image ViT's constructor, got {', '.join(refused)}.")
    for key, value in args.items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if not isinstance(item, str | bool | int | float | None):
                raise ValueError(f"backbone_args are numbers and names, got {key} = {value!r}.")
            limit = {"depth": "depth", "img_size": "image_size"}.get(key, "width")
            if isinstance(item, int | float) and not abs(item) <= getattr(get_limits(), limit):
                raise ValueError(f"backbone_args: {key} = {value!r} is above the limit {limit}.")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **args)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"timm's '{name}' with {dict(args)} can't be made: {error}") from error


def take_apart(vit: TimmViT, config: UniFormerV2Config) -> ImageViT:
    """The embedding and the steps of a timm model; its own modules, not copies.

    Args:
        vit: A model of a supported family.
        config: For the tubelets and the stochastic depth.

    Raises:
        ValueError: The family, or an option of it, is not supported.
    """
    check_supported(vit)
    steps = []
    for block, drop_path in zip(vit.blocks, block_drop_paths(config), strict=True):
        first, second = _scales(block)
        steps.append(
            (
                Residual(_attention(vit, block.attn), block.norm1, first, drop_path),
                Residual(block.mlp, block.norm2, second, drop_path),
            )
        )
    return ImageViT(_embedding(vit, config), steps)


class ImageAttention(nn.Module):
    """An image ViT's attention, frame by frame.

    Args:
        attn: timm's module.
    """

    def __init__(self, attn: nn.Module) -> None:
        super().__init__()
        self.attn = attn

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C]."""
        return self.attn(x.flatten(0, 1)).view(x.shape)


class PlainAttention(nn.Module):
    """An image ViT's attention without extras, frame by frame: timm's weights, our operation.

    Args:
        attn: timm's module; see ``_is_plain``.
    """

    def __init__(self, attn: TimmAttention) -> None:
        super().__init__()
        self.attn = attn

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C]."""
        qkv = self.attn.qkv(x.flatten(0, 1)).unflatten(-1, (3, self.attn.num_heads, -1))
        q, k, v = qkv.transpose(1, 3).unbind(2)  # [B * T, h, N, C / h]
        return self.attn.proj(ops.frame_attention(q, k, v).transpose(1, 2).flatten(2)).view(x.shape)


class RotaryAttention(nn.Module):
    """An image ViT's attention with rotary positions, frame by frame.

    Args:
        attn: timm's module.
        rope: timm's rotary embedding; has no weights. Copied, as ``torch.func.functional_call`` spoils what is shared.
    """

    def __init__(self, attn: nn.Module, rope: Any) -> None:
        super().__init__()
        self.attn = attn
        self.rope = copy.deepcopy(rope)
        self.rope._use_cached_embed = False  # else timm's axial form ignores the grid asked for; DINOv3's never does

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C], with H, W = grid."""
        cached = self.rope.feat_shape
        is_cached = cached is not None and tuple(cached) == tuple(grid)
        rope = self.rope.get_embed() if is_cached else self.rope.get_embed(shape=list(grid))
        return self.attn(x.flatten(0, 1), rope=rope).view(x.shape)


class RelativeAttention(nn.Module):
    """An image ViT's attention with a relative position bias, frame by frame.

    Args:
        attn: timm's module; its bias is for one grid only.
    """

    def __init__(self, attn: Any) -> None:
        super().__init__()
        self.attn = attn

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C].

        Raises:
            ValueError: Another grid than the bias is for.
        """
        window = tuple(self.attn.window_size)
        if tuple(grid) != window:
            raise ValueError(
                f"The relative position bias is for frames of {window[0]} x {window[1]} patches, got "
                f"{grid[0]} x {grid[1]}: arm the image ViT again with image_size=."
            )
        return self.attn(x.flatten(0, 1)).view(x.shape)


class ChannelScale(nn.Module):
    """LayerScale whose weight timm keeps as a parameter of the block.

    Args:
        gamma: [C].
    """

    def __init__(self, gamma: nn.Parameter) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return self.gamma * x


def check_supported(vit: TimmViT) -> None:
    """Refuse what can't be taken apart.

    Args:
        vit: Any module.

    Raises:
        ValueError: Names what it is and what is supported.
    """
    name = getattr(vit, "pretrained_cfg", {}).get("architecture") or type(vit).__name__
    block_of = {VisionTransformer: PlainBlock, Eva: EvaBlock, Beit: BeitBlock}.get(type(vit))
    if block_of is None:
        raise ValueError(f"'{name}' ({type(vit).__name__}) can't be armed. Supported: {SUPPORTED}.")
    odd_block = next((block for block in vit.blocks if type(block) is not block_of), None)
    if odd_block is not None:
        raise ValueError(f"'{name}' has blocks of type {type(odd_block).__name__}. Supported: {SUPPORTED}.")
    unsupported = {
        "patch embedding other than one convolution": not isinstance(vit.patch_embed, PatchEmbed)
        or not isinstance(vit.patch_embed.norm, nn.Identity),
        "padding to whole patches (dynamic_img_pad)": getattr(vit.patch_embed, "dynamic_img_pad", False),
        "position dropout (pos_drop_rate)": vit.pos_drop.p > 0,
        "patch dropout (patch_drop_rate)": not isinstance(getattr(vit, "patch_drop", None), nn.Identity | None),
        "rotary positions that differ by layer (mixed RoPE)": getattr(vit, "rope_mixed", False),
        "one relative position bias shared by all blocks": getattr(vit, "rel_pos_bias", None) is not None,
    }
    for what, is_there in unsupported.items():
        if is_there:
            raise ValueError(f"'{name}' has {what}, which can't be armed. Supported: {SUPPORTED}.")


def _embedding(vit: TimmViT, config: UniFormerV2Config) -> VideoEmbedding:
    tokens = [token[0] for token in (vit.cls_token, getattr(vit, "reg_token", None)) if token is not None]
    prefix = torch.cat(tokens) if tokens else torch.zeros(0, vit.embed_dim)
    positions = None if vit.pos_embed is None else ImagePositions(vit.pos_embed[0].detach(), vit.patch_embed.grid_size)
    proj = vit.patch_embed.proj
    return VideoEmbedding(
        inflate(proj.weight.detach(), config.tubelet_kernel_size),
        bias=None if proj.bias is None else proj.bias.detach(),
        stride=config.tubelet_size,
        prefix_tokens=prefix.detach(),
        has_class_token=vit.cls_token is not None,
        positions=positions,
        norm=getattr(vit, "norm_pre", None),
    )


def _attention(vit: TimmViT, attn: TimmAttention) -> nn.Module:
    rope = getattr(vit, "rope", None)
    if rope is not None:
        return RotaryAttention(attn, rope)
    if isinstance(vit, Beit) and attn.window_size:
        return RelativeAttention(attn)
    return PlainAttention(attn) if _is_plain(attn) else ImageAttention(attn)


def _is_plain(attn: TimmAttention) -> bool:
    """Whether it is projection, attention, projection and nothing else."""
    if type(attn) is not Attention:
        return False
    extras = (attn.q_norm, attn.k_norm, attn.norm)
    has_dropout = attn.attn_drop.p > 0 or attn.proj_drop.p > 0
    return all(isinstance(extra, nn.Identity) for extra in extras) and attn.gate is None and not has_dropout


def _scales(block: TimmBlock) -> tuple[nn.Module | None, nn.Module | None]:
    if isinstance(block, PlainBlock):
        return block.ls1, block.ls2
    first, second = (None if gamma is None else ChannelScale(gamma) for gamma in (block.gamma_1, block.gamma_2))
    return first, second
