"""How large a model is, and what one clip costs: counted, not typed.

Convention of the paper (Table 1 of https://arxiv.org/abs/2211.09552, whose "FLOPs" are multiply-adds): products of
matrices and convolutions, attention included; norms, activations and additions are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from uniformerv2.model.blocks import TemporalAffinity
from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["ModelSummary", "count_macs", "summarize"]

FEW_CLIPS: Final = 8
"""Twice as many keep more by what so many clips keep; what depends on the weights alone is in both."""


@dataclass(frozen=True)
class ModelSummary:
    """Size and cost of a model for one clip.

    Attributes:
        clip_shape: T, 3, height, width.
        num_parameters: All weights; buffers are not counted.
        num_trainable: Those that get gradients.
        macs: Multiply-adds of a forward pass as it is computed here.
        published_macs: Those of the published code, which projects every token to keys and values.
        activation_bytes: What a training step in float32 keeps for the backward pass, for each clip of a batch.
    """

    clip_shape: tuple[int, int, int, int]
    num_parameters: int
    num_trainable: int
    macs: int
    published_macs: int
    activation_bytes: int


def summarize(model: UniFormerV2, *, num_frames: int | None = None) -> ModelSummary:
    """Count without computing (on PyTorch's meta device).

    Args:
        model: On any device; left as it is.
        num_frames: Frames of the clip; the configuration's where None.

    Returns:
        The counts.
    """
    clip_shape = _clip_shape(model, num_frames)
    macs, published_macs = count_macs(model, num_frames=num_frames)
    tensors = _meta_tensors(model)
    was_training = model.training
    try:
        few, many = (
            _count_kept_bytes(model.train(), tensors, torch.empty(clips, *clip_shape, device="meta"))
            for clips in (FEW_CLIPS, 2 * FEW_CLIPS)
        )
    finally:
        model.train(was_training)
    return ModelSummary(
        clip_shape=clip_shape,
        num_parameters=sum(weight.numel() for weight in model.parameters()),
        num_trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        macs=macs,
        published_macs=published_macs,
        activation_bytes=(many - few) // FEW_CLIPS,
    )


def count_macs(model: UniFormerV2, *, num_frames: int | None = None) -> tuple[int, int]:
    """Count multiply-adds alone, in a third of the time of ``summarize``.

    Args:
        model: On any device; left as it is.
        num_frames: Frames of the clip; the configuration's where None.

    Returns:
        As in ``ModelSummary``: ``macs`` and ``published_macs``.
    """
    clip_shape = _clip_shape(model, num_frames)
    was_training = model.training
    try:
        macs = _count_macs(model.eval(), _meta_tensors(model), torch.empty(1, *clip_shape, device="meta"))
    finally:
        model.train(was_training)
    macs += _temporal_taps(model, clip_shape[0])
    return macs, macs + _saved_by_absorption(model, clip_shape[0])


def _clip_shape(model: UniFormerV2, num_frames: int | None) -> tuple[int, int, int, int]:
    config = model.config
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    return num_frames or config.num_frames, 3, height, width


def _meta_tensors(model: UniFormerV2) -> dict[str, Tensor]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}


def _count_macs(model: nn.Module, tensors: dict[str, Tensor], video: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, tensors, (video,))
    return counter.get_total_flops() // 2


def _count_kept_bytes(model: nn.Module, tensors: dict[str, Tensor], video: Tensor) -> int:
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    tensors = {name: tensor.clone().requires_grad_(name in trainable) for name, tensor in tensors.items()}
    kept = {
        tensor.untyped_storage()._cdata: tensor for tensor in tensors.values()
    }  # alive, so that no address is used twice
    weights = set(kept)

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        functional_call(model, tensors, (video,))
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in weights)


def _num_patches(model: UniFormerV2, num_frames: int) -> int:
    height, width = model.config.grid
    return num_frames // model.config.tubelet_size * height * width


def _temporal_taps(model: UniFormerV2, num_frames: int) -> int:
    """Multiply-adds of LT_MHRA's convolution along time, which here is no convolution that could be counted."""
    taps = sum(module.weight.numel() for module in model.modules() if isinstance(module, TemporalAffinity))
    return taps * _num_patches(model, num_frames)


def _saved_by_absorption(model: UniFormerV2, num_frames: int) -> int:
    """Multiply-adds of the published C_MHRA beyond those of the absorbed form, over all stages (sequential fusion)."""
    config = model.config
    steps = num_frames // config.tubelet_size
    num_tokens = _num_patches(model, num_frames) + steps * model.embedding.num_prefix_tokens
    dim, heads = config.dim, config.global_num_heads
    published = 2 * num_tokens * dim * dim + 2 * num_tokens * dim
    absorbed = 2 * num_tokens * heads * dim + 2 * dim * dim
    return 0 if config.fusion == "statistics" else len(config.fusion_stages) * (published - absorbed)
