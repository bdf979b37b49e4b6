"""Parts that the published model does not have, and the networks of ablations, which have them.

Nothing else uses them: a network with such parts is measured, never saved. They start as zero where what they replace
does, so that an armed network stays the image ViT it was on its first step.

Letters of this file: B videos, T time steps, P prefix tokens and H x W patches a step, N = P + H * W, C channels, D
channels of the bottleneck, Q queries, S keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2.lab.ablation import PRETRAINED, RANDOM, AblationSettings
from uniformerv2.model.blocks import GlobalUniBlock, LocalTemporalMHRA, LocalUniBlock
from uniformerv2.model.fusion import MultiStageFusion
from uniformerv2.model.image_vits import check_supported
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.arming import arm

__all__ = [
    *("AverageRelation", "FrameAverage", "NoPosition", "TemporalAttention"),
    *("arm_plainly", "average_frames", "blocks_of", "build_network", "depth_of", "stages_of"),
]

Kind = TypeVar("Kind", bound=nn.Module)

HEAD_CHANNELS: Final = 64
"""Channels per head of the temporal attention, where the bottleneck has so many; as in the image ViTs."""

POSITION_STD: Final = 0.02
PUBLISHED_DROPOUT: Final = 0.5


class TemporalAttention(nn.Module):
    """An affinity that is computed, in place of LT_MHRA's learnt one: each patch attends to its place in every frame.

    It lies where ``TemporalAffinity`` does, between ``value`` and ``proj``, so that only the relation differs. It
    learns positions in time: without them it would not see the order of the frames.

    Args:
        dim: Channels D.
        num_heads: Divides D.
        num_steps: T.

    Raises:
        ValueError: ``dim`` is no multiple of ``num_heads``.
    """

    def __init__(self, dim: int, *, num_heads: int, num_steps: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads, got {dim = } and {num_heads = }.")
        self.num_heads = num_heads
        self.positions = nn.Parameter(POSITION_STD * torch.randn(num_steps, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim, bias=False)  # a bias of the keys would cancel in the softmax
        self.v = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H * W, D] -> [B, T, H * W, D]."""
        x = x + self.positions
        q, k, v = (self._heads(part(x)) for part in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v).permute(0, 3, 1, 2, 4).flatten(3)

    def _heads(self, x: Tensor) -> Tensor:
        """[B, T, H * W, D] -> [B, H * W, heads, T, D / heads]."""
        return x.unflatten(-1, (self.num_heads, -1)).permute(0, 2, 3, 1, 4)


class AverageRelation(nn.Module):
    """Average pooling in place of C_MHRA: every token counts the same, whatever the video token asks.

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, query: Tensor, tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Query [B, Q, C], tokens [B, S, C] -> [B, Q, C]."""
        return self.proj(norm(tokens).mean(dim=1, keepdim=True)).expand_as(query)


class NoPosition(nn.Module):
    """Leaves the tokens as they are, in place of DPE."""

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C]."""
        return x


class FrameAverage(MultiStageFusion):
    """The mean over the frames of what the image ViT pools: its class token, else the mean of its patches.

    It has no parameter and does not see the order of the frames.

    Args:
        dim: Channels C.
        pool: Tokens [B, T, N, C] -> [B, C].
    """

    def __init__(self, dim: int, *, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__((), dim)
        self.register_parameter("video_token", None)
        self.pool = pool

    def start(self, batch_size: int) -> Tensor:
        """Nothing yet, [B, 0]."""
        return torch.empty(batch_size, 0)

    def step(self, index: int, video: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Any, [B, T, N, C] -> [B, 1, C]."""
        return self.pool(tokens)[:, None]


def average_frames(network: UniFormerV2) -> None:
    """Leave the global UniBlocks out: the head reads ``FrameAverage`` of the last block.

    Args:
        network: Armed with the last block as its only fusion stage, and without a gate; changed in place.

    Raises:
        ValueError: It has other stages, or a gate.
    """
    config = network.config
    if config.use_gate or config.fusion_stages != (config.depth - 1,):
        raise ValueError(
            f"Arm with use_gate=False and fusion_stages=({config.depth - 1},) to leave the global UniBlocks out, got "
            f"use_gate={config.use_gate} and fusion_stages={config.fusion_stages}."
        )
    network.fusion = FrameAverage(config.dim, pool=network.embedding.pool)


def build_network(settings: AblationSettings, class_names: Sequence[str], *, seed: int) -> UniFormerV2:
    """Arm the image ViT and put in the parts of the variant.

    Args:
        settings: What the variant is.
        class_names: In head order.
        seed: Decides all random weights.

    Raises:
        ValueError: Settings that do not fit the image ViT.
        OSError: Weights that cannot be read or fetched.
    """
    depth = depth_of(settings)
    dropout = PUBLISHED_DROPOUT if settings.dropout is None else settings.dropout
    torch.manual_seed(seed)
    network = arm_plainly(
        settings,
        class_names,
        num_local_steps=settings.local_steps,
        local_reduction=settings.local_reduction,
        fusion=settings.fusion,
        fusion_stages=stages_of(settings, depth),
        use_gate=settings.has_global,
        global_dropout=(dropout,),
        classifier_dropout=dropout,
        drop_path_rate=settings.drop_path_rate,
        global_drop_path_rate=settings.drop_path_rate,
    )
    _change_blocks(network, settings, settings.numbered(settings.local_blocks, depth))
    if settings.has_global:
        _change_stages(network, settings)
    else:
        average_frames(network)
    if settings.freeze_backbone:
        network.freeze_backbone()
    return network


def _change_blocks(network: UniFormerV2, settings: AblationSettings, has_local: Collection[int]) -> None:
    """Leave local temporal steps out of some blocks; put attention in the place of their learnt affinity."""
    for index, block in enumerate(blocks_of(network)):
        if index not in has_local:
            block.local = nn.ModuleList()
        for local in _all(block.local, LocalTemporalMHRA):
            if settings.local_relation == "attention":
                dim = local.value.out_features
                num_steps = settings.num_frames // settings.tubelet_size
                attention = TemporalAttention(dim, num_heads=_num_heads(dim), num_steps=num_steps)
                local.register_module("affinity", attention)


def _change_stages(network: UniFormerV2, settings: AblationSettings) -> None:
    """Put average pooling in the place of C_MHRA, and leave out DPE or the FFN, as the settings say."""
    for stage in _all(network.fusion.stages, GlobalUniBlock):
        if settings.global_relation == "average":  # nothing asks then, so that the norm of the query goes too
            stage.register_module("norm_query", nn.Identity())
            stage.register_module("cross", AverageRelation(network.config.dim))
        if not settings.has_positions:  # without DPE the stage does not see the order of the frames
            stage.register_module("position", NoPosition())
        if not settings.has_feed_forward:
            stage.register_module("ffn", nn.Identity())


def arm_plainly(settings: AblationSettings, class_names: Sequence[str], **overrides: Any) -> UniFormerV2:
    """The image ViT of the settings, armed; none of their parts is changed.

    Args:
        settings: The image ViT and its clips.
        class_names: In head order.
        **overrides: Fields of ``UniFormerV2Config``.
    """
    is_file = settings.weights not in {PRETRAINED, RANDOM}
    return arm(
        settings.backbone,
        num_classes=len(class_names),
        class_names=tuple(class_names),
        num_frames=settings.num_frames,
        pretrained=settings.weights == PRETRAINED,
        weights=settings.weights if is_file else None,
        image_size=settings.image_size,
        num_blocks=settings.num_blocks,
        tubelet_size=settings.tubelet_size,
        **overrides,
    )


def depth_of(settings: AblationSettings) -> int:
    """Blocks of the image ViT.

    Raises:
        ValueError: The backbone is none that can be armed.
    """
    return settings.num_blocks or _blocks_of(settings.backbone)


@cache
def _blocks_of(backbone: str) -> int:
    with torch.device("meta"):
        vit: Any = timm.create_model(backbone, pretrained=False)
    check_supported(vit)
    return len(vit.blocks)


def stages_of(settings: AblationSettings, depth: int) -> tuple[int, ...]:
    """Blocks that the fusion reads; without global UniBlocks the last one."""
    return settings.numbered(settings.fusion_stages, depth) if settings.has_global else (depth - 1,)


def _num_heads(dim: int) -> int:
    """Heads of 64 channels, or the next larger ones that divide the channels.

    >>> _num_heads(256), _num_heads(192), _num_heads(32)
    (4, 3, 1)
    """
    return next(count for count in range(max(1, dim // HEAD_CHANNELS), 0, -1) if dim % count == 0)


def blocks_of(network: UniFormerV2) -> Iterator[LocalUniBlock]:
    """The blocks of an armed network.

    Raises:
        TypeError: One of another type.
    """
    return _all(network.blocks, LocalUniBlock)


def _all(modules: Iterable[nn.Module], kind: type[Kind]) -> Iterator[Kind]:
    for module in modules:
        if not isinstance(module, kind):
            raise TypeError(f"The network has a {type(module).__name__} where a {kind.__name__} should be.")
        yield module
