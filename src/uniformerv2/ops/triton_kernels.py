"""The Triton kernels as PyTorch operators ``torch.ops.uniformerv2.*``, with gradients. Imported only when chosen.

How the stage of C_MHRA is cut, counting the tokens [B, S, C] read or written as one::

    forward   position_encoding           reads x, writes z     2    27 multiply-adds a number take as long
              attend                      reads z               1    LayerNorm, scores, online softmax, weighted sum
    backward  attend_backward             reads z, writes dz    2    computes again what attend saw
              position_encoding           reads dz, writes dx   2    the same convolution with its taps reversed
              position_encoding_weights   reads dz and x        2

One kernel for all of the forward pass would save writing and reading z, but each of its programs would need all
channels of 27 neighbours, nine reads from the L2 cache. Cut like this each kernel has the shape that suits it.

They are opaque operators (``custom_op``, not ``triton_op``): ``torch.compile`` keeps them whole, and there is nothing
beside them it could fuse; the same code runs under Triton's interpreter on a CPU.

Letters of this file: B videos, T frames, L patches a frame, P prefix tokens a frame, N = P + L, S tokens of a video,
C and D channels, R rows of the query.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import custom_op

from uniformerv2.ops import triton_attention as attention
from uniformerv2.ops import triton_convolutions as convolutions

__all__ = ["attend", "position_encoding", "temporal_mix"]

MIX = {"block_l": 16, "block_d": 128, "num_warps": 4}
MIX_GRADIENT = {"block_l": 16, "block_d": 64, "num_warps": 4}
POSITION = {"frames": 8, "block_n": 16, "block_c": 128, "num_warps": 4}
POSITION_GRADIENT = {"frames": 8, "block_l": 8, "block_c": 32, "num_warps": 4}
ATTEND = {"block_s": 16, "num_stages": 1}
ATTEND_GRADIENT = {"block_s": 16, "num_stages": 1}
TILE_ROWS = 16  # of a query: what a tensor core multiplies at once
PROGRAMS = 264  # fill a large GPU of 132 processors twice; more would only write more partial sums
OPTIONS = {"enable_fp_fusion": True}  # multiply-add as one instruction; Triton warns where this is left open


@custom_op("uniformerv2::temporal_mix", mutates_args=())
def temporal_mix(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Tokens [B, T, L, D], three taps [D, 3] and bias [D] -> [B, T, L, D]."""
    videos, frames, patches, dim = x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grid = (videos * triton.cdiv(patches, MIX["block_l"]), triton.cdiv(dim, MIX["block_d"]))
    with torch.cuda.device_of(x):
        convolutions.temporal_mix_kernel[grid](
            x,
            weight.t().contiguous(),
            bias.contiguous(),
            y,
            frames,
            patches,
            dim,
            *x.stride(),
            **MIX,
            **OPTIONS,
        )
    return y


@custom_op("uniformerv2::temporal_mix_backward", mutates_args=())
def temporal_mix_backward(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of y -> gradients of x, and of the taps and the bias [D, 4] in float32."""
    videos, frames, patches, dim = x.shape
    gradient = gradient.contiguous()
    gradient_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    groups = videos * triton.cdiv(patches, MIX_GRADIENT["block_l"])
    partial = torch.empty(groups, 4, dim, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        convolutions.temporal_mix_backward_kernel[groups, triton.cdiv(dim, MIX_GRADIENT["block_d"])](
            gradient,
            x,
            weight.t().contiguous(),
            gradient_x,
            partial,
            frames,
            patches,
            dim,
            *x.stride(),
            **MIX_GRADIENT,
            **OPTIONS,
        )
    return gradient_x, partial.sum(0).t().contiguous()


@custom_op("uniformerv2::position_encoding", mutates_args=())
def position_encoding(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Tokens [B, T, N, C], taps [C, 1, 3, 3, 3] and bias [C] -> [B, T, N, C] of the type asked for."""
    videos, frames, tokens, dim = x.shape
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    groups = videos * triton.cdiv(frames, POSITION["frames"]) * triton.cdiv(tokens, POSITION["block_n"])
    with torch.cuda.device_of(x):
        convolutions.position_encoding_kernel[groups, triton.cdiv(dim, POSITION["block_c"])](
            x,
            weight.flatten(1).t().contiguous(),
            bias.contiguous(),
            y,
            frames,
            height,
            width,
            tokens - height * width,
            dim,
            *x.stride(),
            **POSITION,
            **OPTIONS,
        )
    return y


@custom_op("uniformerv2::position_encoding_weights", mutates_args=())
def position_encoding_weights(gradient: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """Gradient of the encoded tokens, and the tokens -> gradients of the taps and the bias [C, 28] in float32."""
    videos, frames, tokens, dim = x.shape
    groups = videos * triton.cdiv(frames, POSITION_GRADIENT["frames"])
    partial = torch.empty(groups, 28, dim, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        convolutions.position_gradient_kernel[groups, triton.cdiv(dim, POSITION_GRADIENT["block_c"])](
            gradient.contiguous(),
            x,
            partial,
            frames,
            height,
            width,
            tokens - height * width,
            dim,
            *x.stride(),
            **POSITION_GRADIENT,
            **OPTIONS,
        )
    return partial.sum(0).t().contiguous()


@custom_op("uniformerv2::attend", mutates_args=())
def attend(tokens: Tensor, query: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Softmax attention over normed tokens that are keys and values at once.

    Args:
        tokens: [B, S, C], before a LayerNorm without scale and shift. On a GPU C is at most 1024 in bfloat16 and 256
            in float32: a tile of all channels must fit in shared memory.
        query: [B, R, C] of the tokens' type, R at most 16.
        eps: Epsilon of the LayerNorm.

    Returns:
        The weighted sums [B, R, C], and the logarithms of the sums of exponentials [B, R], both float32.

    Raises:
        ValueError: The query has more rows than a tile.
    """
    videos, length, dim = tokens.shape
    rows = query.shape[1]
    if rows > TILE_ROWS:
        raise ValueError(f"The query has {rows} rows; at most {TILE_ROWS} are taken at once: split it.")
    per_split, tile = _tiling(tokens, ATTEND)
    splits = triton.cdiv(length, per_split)
    wide: dict[str, Any] = {"dtype": torch.float32, "device": tokens.device}
    partial = torch.empty(videos, splits, rows, dim, **wide)
    extent = torch.empty(videos, splits, 2, rows, **wide)
    mixed = torch.empty(videos, rows, dim, **wide)
    log_sum = torch.empty(videos, rows, **wide)
    with torch.cuda.device_of(tokens):
        attention.attend_kernel[videos, splits](
            tokens,
            query.contiguous(),
            partial,
            extent,
            length,
            dim,
            rows,
            per_split,
            *tokens.stride(),
            eps,
            **tile,
        )
        attention.combine_kernel[videos, rows](
            partial,
            extent,
            mixed,
            log_sum,
            dim,
            rows,
            splits,
            block_c=triton.next_power_of_2(dim),
            block_splits=triton.next_power_of_2(splits),
            **OPTIONS,
        )
    return mixed, log_sum


@custom_op("uniformerv2::attend_backward", mutates_args=())
def attend_backward(
    gradient: Tensor, mixed: Tensor, log_sum: Tensor, tokens: Tensor, query: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradient of the weighted sums -> gradients of the tokens [B, S, C] and of the query [B, R, C]."""
    videos, length, dim = tokens.shape
    rows = query.shape[1]
    gradient = gradient.to(tokens.dtype).contiguous()
    inner = (gradient.float() * mixed).sum(-1)
    per_split, tile = _tiling(tokens, ATTEND_GRADIENT)
    splits = triton.cdiv(length, per_split)
    gradient_tokens = torch.empty(tokens.shape, dtype=tokens.dtype, device=tokens.device)
    partial = torch.empty(videos, splits, rows, dim, dtype=torch.float32, device=tokens.device)
    with torch.cuda.device_of(tokens):
        attention.attend_backward_kernel[videos, splits](
            tokens,
            query.contiguous(),
            gradient,
            log_sum,
            inner,
            gradient_tokens,
            partial,
            length,
            dim,
            rows,
            per_split,
            *tokens.stride(),
            eps,
            **tile,
        )
    return gradient_tokens, partial.sum(1).to(query.dtype)


def _tiling(tokens: Tensor, options: dict[str, int]) -> tuple[int, dict[str, Any]]:
    """Tokens of a split (at least 64: partial sums should stay small beside the tokens), and a program's tile."""
    videos, length, dim = tokens.shape
    splits = max(1, PROGRAMS // max(1, videos))
    block_s = options["block_s"]
    per_split = max(64, triton.cdiv(triton.cdiv(length, splits), block_s) * block_s)
    columns = min(128, max(16, triton.next_power_of_2(dim)))
    chunks = triton.next_power_of_2(triton.cdiv(dim, columns))
    tile = {"num_rows": TILE_ROWS, "chunks": chunks, "columns": columns, "num_warps": max(4, chunks)}
    return per_split, {**tile, **options, **OPTIONS}


@temporal_mix.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@temporal_mix_backward.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), weight.new_empty(x.shape[-1], 4, dtype=torch.float32)


@position_encoding.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device)


@position_encoding_weights.register_fake
def _(gradient: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty(x.shape[-1], 28, dtype=torch.float32)


@attend.register_fake
def _(tokens: Tensor, query: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape, dtype=torch.float32), query.new_empty(query.shape[:2], dtype=torch.float32)


@attend_backward.register_fake
def _(
    gradient: Tensor, mixed: Tensor, log_sum: Tensor, tokens: Tensor, query: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return torch.empty(tokens.shape, dtype=tokens.dtype, device=tokens.device), query.new_empty(query.shape)


def _save_temporal_mix(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_temporal_mix(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
    x, weight, bias = ctx.saved_tensors
    gradient_x, sums = temporal_mix_backward(gradient, x, weight)
    return gradient_x, sums[:, :3].to(weight.dtype), sums[:, 3].to(bias.dtype)


def _save_position_encoding(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, *ctx.grid, _ = inputs
    ctx.save_for_backward(x, weight, bias)


def _differentiate_position_encoding(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    reversed_taps = weight.flip(2, 3, 4)
    gradient_x = position_encoding(gradient, reversed_taps, torch.zeros_like(bias), *ctx.grid, x.dtype)
    sums = position_encoding_weights(gradient, x, *ctx.grid)
    return gradient_x, sums[:, :27].reshape(weight.shape).to(weight.dtype), sums[:, 27].to(bias.dtype), None, None, None


def _save_attend(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tokens, query, ctx.eps = inputs
    ctx.save_for_backward(*output, tokens, query)
    ctx.mark_non_differentiable(output[1])


def _differentiate_attend(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return *attend_backward(gradient, *ctx.saved_tensors, ctx.eps), None


temporal_mix.register_autograd(_differentiate_temporal_mix, setup_context=_save_temporal_mix)
position_encoding.register_autograd(_differentiate_position_encoding, setup_context=_save_position_encoding)
attend.register_autograd(_differentiate_attend, setup_context=_save_attend)
