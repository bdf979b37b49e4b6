"""The operations of UniFormerV2, each written once in plain PyTorch: the definition.

Source:
    Li et al., UniFormerV2 (2022), https://arxiv.org/abs/2211.09552, equations of the local and global UniBlock.

The published code runs LT_MHRA as 3-D convolutions on permuted copies and projects keys and values for a single
query. Both are linear maps that commute with what follows, so here they are done where they are cheap; the numbers
are the same, the copies and most multiplications are gone.

Letters of this file: B videos, T frames, H x W patches a frame, L = H * W, P prefix tokens a frame, N = P + L,
C channels, D channels of the bottleneck, S tokens in all, Q queries, h heads, R = Q * h, M frames of all videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

__all__ = [
    "cross_mhra",
    "depthwise_conv3d",
    "fold_batch_norm",
    "frame_attention",
    "interpolate_positions",
    "pool_tokens",
    "position_encoding",
    "temporal_conv",
    "tubelets",
]


def tubelets(video: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Embed tubelets: a convolution whose spatial stride is its spatial kernel.

    Time is padded with zeros by ``(kernel - 1) // 2`` frames on both sides::

        8 frames, kernel 3, stride 2   0 [0 1] 2 3 4 5 6 7   ->   4 time steps, centred on frames 0 2 4 6

    Tubelets of one frame are what an image ViT does, and by the same 2-D convolution, so that it gives the same bits.
    On a GPU a linear map of the cut-out tubelets, since PyTorch's convolutions take a tenth of a forward pass there.

    Args:
        video: Pixels [B, T, 3, height, width].
        weight: [C, 3, kernel, p, p].
        bias: [C] or none.
        stride: Frames from one tubelet to the next.

    Returns:
        Tokens [B, T', L, C].
    """
    kernel, *patch = weight.shape[2:]
    if video.device.type == "cuda":
        return F.linear(cut_tubelets(video, kernel, stride, patch), weight.flatten(1), bias)
    if kernel == stride == 1:
        x = F.conv2d(video.flatten(0, 1), weight.squeeze(2), bias, stride=patch)
        return x.flatten(2).transpose(1, 2).unflatten(0, video.shape[:2])
    padding = ((kernel - 1) // 2, 0, 0)
    x = F.conv3d(video.transpose(1, 2), weight, bias, stride=(stride, *patch), padding=padding)
    return x.flatten(3).permute(0, 2, 3, 1)


def cut_tubelets(video: Tensor, kernel: int, stride: int, patch: Sequence[int]) -> Tensor:
    """The pixels that each tubelet sees, in the order of a convolution's weights: [B, T', L, 3 kernel p p]."""
    height, width = patch
    pixels = video.unflatten(4, (-1, width)).unflatten(3, (-1, height))  # [B, T, 3, H, p, W, p]
    if kernel == stride == 1:
        return pixels.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
    before = (kernel - 1) // 2
    pixels = F.pad(pixels, (0,) * 10 + (before, before)).unfold(1, kernel, stride)  # [B, T', 3, H, p, W, p, kernel]
    return pixels.permute(0, 1, 3, 5, 2, 7, 4, 6).flatten(4).flatten(2, 3)


def fold_batch_norm(
    weight: Tensor, bias: Tensor, *, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """A linear map after a batch norm with known statistics, as one linear map.

    Args:
        weight: The linear map [D, C].
        bias: Its bias [D].
        mean: Running mean [C].
        variance: Running variance [C].
        scale: The batch norm's weight [C].
        shift: The batch norm's bias [C].
        eps: Added to the variance.

    Returns:
        The folded weight [D, C] and bias [D].
    """
    gain = scale * torch.rsqrt(variance + eps)
    return weight * gain, bias + (weight * (shift - mean * gain)).sum(dim=1)  # element-wise: no autocast


def temporal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depth-wise convolution along time, zero padded: as many shifted multiply-adds as taps.

    On a CPU the same by PyTorch's 2-D convolution, which reads tokens as the channels-last image they are: forward and
    backward in a fifth of the time.

    Args:
        x: Tokens [B, T, L, D].
        weight: Taps [D, kernel], kernel odd.
        bias: [D].

    Returns:
        Tokens [B, T, L, D].
    """
    if x.device.type == "cpu":
        image = x.permute(0, 3, 1, 2)
        y = F.conv2d(image, weight[:, None, :, None], bias, padding=(weight.shape[1] // 2, 0), groups=weight.shape[0])
        return y.permute(0, 2, 3, 1)
    return shifted_multiply_adds(x, weight, bias)


def shifted_multiply_adds(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``temporal_conv``, as its name says."""
    num_taps, num_frames = weight.shape[1], x.shape[1]
    padded = F.pad(x, (0, 0, 0, 0, num_taps // 2, num_taps // 2))
    y = bias.to(x.dtype)
    for tap, weight_of_tap in enumerate(weight.to(x.dtype).unbind(1)):
        y = torch.addcmul(y, padded[:, tap : tap + num_frames], weight_of_tap)
    return y


def depthwise_conv3d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depth-wise 3-D convolution on channels-last tokens, zero padded to the same size.

    PyTorch's is slow where a step trains: on a CPU its backward pass takes a hundred times the forward pass, on a GPU
    (H100, bfloat16) twenty to a hundred times. ``_DepthwiseConv3d`` and ``conv2d_per_tap`` are the same function.

    Args:
        x: Tokens [B, T, H, W, C].
        weight: [C, 1, kernel, kernel, kernel].
        bias: [C].

    Returns:
        Tokens [B, T, H, W, C].
    """
    if x.device.type == "cuda":
        return conv2d_per_tap(x, weight, bias)
    if x.device.type == "cpu" and torch.is_grad_enabled():
        dtype = _product_dtype(x)
        return _DepthwiseConv3d.apply(x.to(dtype), weight.to(dtype)) + bias.to(dtype)
    return conv3d_of_tokens(x, weight, bias)


def conv2d_per_tap(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``depthwise_conv3d`` as one 2-D convolution of all frames for each tap of time, summed over shifted frames."""
    num_taps, num_frames = weight.shape[2], x.shape[1]
    padded = F.pad(x.to(_product_dtype(x)), (0, 0, 0, 0, 0, 0, num_taps // 2, num_taps // 2))
    padding = tuple(size // 2 for size in weight.shape[3:])
    taps = [
        F.conv2d(_images(padded[:, tap : tap + num_frames]), of_tap, padding=padding, groups=weight.shape[0])
        for tap, of_tap in enumerate(weight.unbind(2))
    ]
    y = sum(taps[1:], taps[0]).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
    return y + bias.to(y.dtype)


def _product_dtype(x: Tensor) -> torch.dtype:
    """The type that a convolution of x computes in: autocast's where it is enabled."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def conv3d_of_tokens(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``depthwise_conv3d`` by PyTorch's convolution."""
    padding = tuple(size // 2 for size in weight.shape[2:])
    y = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, bias, padding=padding, groups=weight.shape[0])
    return y.permute(0, 2, 3, 4, 1)


class _DepthwiseConv3d(torch.autograd.Function):
    """The gradient of the tokens is a convolution again; that of the weights is one of images for each tap of time."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return conv3d_of_tokens(x, weight, None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        num_taps, num_frames = weight.shape[2], x.shape[1]
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, num_taps // 2, num_taps // 2))
        image = _images(gradient)
        of_tap = partial(conv2d_weight, weight_size=weight.shape[:2] + weight.shape[3:], grad_output=image)
        padding = tuple(size // 2 for size in weight.shape[3:])
        taps = [
            of_tap(_images(padded[:, tap : tap + num_frames]), padding=padding, groups=weight.shape[0])
            for tap in range(num_taps)
        ]
        return conv3d_of_tokens(gradient, weight.flip(2, 3, 4), None), torch.stack(taps, dim=2)


def _images(x: Tensor) -> Tensor:
    """[B, T, H, W, C] -> [B * T, C, H, W], channels last in memory."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def position_encoding(x: Tensor, weight: Tensor, bias: Tensor, grid: tuple[int, int]) -> Tensor:
    """Add to the patches their depth-wise 3-D convolution; prefix tokens pass unchanged.

    Args:
        x: Tokens [B, T, N, C].
        weight: [C, 1, kernel, kernel, kernel].
        bias: [C].
        grid: Patches H, W.

    Returns:
        Tokens [B, T, N, C].
    """
    prefix, patches = x.tensor_split([x.shape[2] - grid[0] * grid[1]], dim=2)
    encoding = depthwise_conv3d(patches.unflatten(2, grid), weight, bias)
    return torch.cat([prefix, patches + encoding.flatten(2, 3)], dim=2)


def pool_tokens(rows: Tensor, tokens: Tensor) -> Tensor:
    """Softmax attention to tokens that are keys and values at once; the softmax is in float32 at least.

    Args:
        rows: Queries, scaled [B, R, C].
        tokens: [B, S, C].

    Returns:
        Weighted sums of the tokens [B, R, C].
    """
    scores = rows @ tokens.transpose(1, 2)  # [B, R, S]
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(tokens.dtype)
    return weights @ tokens


def cross_mhra(
    query: Tensor,
    tokens: Tensor,
    *,
    key_weight: Tensor,
    value_weight: Tensor,
    value_bias: Tensor,
    num_heads: int,
    pool: Callable[[Tensor, Tensor], Tensor] = pool_tokens,
) -> Tensor:
    """Cross attention of a few queries over many tokens, without ever projecting a token.

    With q_h the query of head h, the scores are ``(q_h W_k,h) . y`` and the output ``(softmax . y) W_v,h``: per token
    and query 2 h C multiply-adds instead of the 2 C C that keys and values cost. A bias of the keys adds the same
    number to every score of a head and cancels in the softmax, so there is none.

    Args:
        query: Projected queries [B, Q, C].
        tokens: Keys and values before their projection [B, S, C].
        key_weight: [C, C].
        value_weight: [C, C].
        value_bias: [C].
        num_heads: Heads h; divides C.
        pool: ``pool_tokens``, or another form of it.

    Returns:
        The heads' outputs side by side, before the output projection [B, Q, C].
    """
    num_queries, head_dim = query.shape[1], query.shape[2] // num_heads
    q = query.unflatten(-1, (num_heads, head_dim))  # [B, Q, h, C / h]
    absorbed = torch.einsum("bqhd,hdc->bqhc", q * head_dim**-0.5, key_weight.unflatten(0, (num_heads, head_dim)))
    mixed = pool(absorbed.flatten(1, 2), tokens).unflatten(1, (num_queries, num_heads))  # [B, Q, h, C]
    values = torch.einsum("bqhc,hdc->bqhd", mixed, value_weight.unflatten(0, (num_heads, head_dim)))
    return values.flatten(2) + value_bias


def frame_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of the tokens of each frame to one another.

    PyTorch's fused kernel. On a CPU its backward pass is two times slower in bfloat16 than in float32 for frames of
    65 tokens (1.2 for 197), so that there a training step computes it in float32.

    Args:
        q: Queries of M frames [M, h, N, C / h].
        k: Keys, of the same shape.
        v: Values, of the same shape.

    Returns:
        [M, h, N, C / h].
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        return _AttentionInFloat32.apply(q, k, v)[0]
    return F.scaled_dot_product_attention(q, k, v)


class _AttentionInFloat32(torch.autograd.Function):
    """Attention of bfloat16 tensors, computed in float32 and kept for the backward pass in bfloat16."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        y, log_sum = attend(q.float(), k.float(), v.float())
        return y.to(q.dtype), log_sum

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        *half, log_sum = ctx.saved_tensors
        wide = [tensor.float() for tensor in (gradients[0], *half)]
        return tuple(found.to(half[0].dtype) for found in backward(*wide, log_sum, 0.0, False))


def interpolate_positions(positions: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Position embedding of another grid, by antialiased bicubic interpolation in float32 (as timm does).

    Args:
        positions: [P + L, C]; the first P rows belong to prefix tokens and stay as they are.
        old_grid: H, W with L = H * W.
        new_grid: The H, W wanted.

    Returns:
        [P + new H * new W, C].
    """
    if old_grid == new_grid:
        return positions
    num_prefix = positions.shape[0] - old_grid[0] * old_grid[1]
    prefix, grid = positions[:num_prefix], positions[num_prefix:]
    image = grid.float().unflatten(0, old_grid).permute(2, 0, 1).unsqueeze(0)
    image = F.interpolate(image, size=new_grid, mode="bicubic", antialias=True)
    return torch.cat([prefix, image.squeeze(0).flatten(1).t().to(positions.dtype)])
