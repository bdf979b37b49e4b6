"""Triton kernels of the two depth-wise convolutions, on channels-last tokens that are read once.

Definitions:
    ``functional.temporal_conv`` with three taps, and ``functional.position_encoding``.

A program owns a block of tokens and channels and walks it through the frames. What it needs of the frames before and
after stays in registers, so a frame is read once, by rows of adjacent channels. No atomics: gradients of the weights
are partial sums, one per program, added in a fixed order. Sums are in float32. Conditions on a frame are written as a
number of tokens because Triton's interpreter gives a bare comparison of scalars the wrong type.

Letters of this file: B videos, T frames, H x W patches a frame, L = H * W, P prefix tokens a frame, N = P + L,
C and D channels.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "position_encoding_kernel",
    "position_gradient_kernel",
    "temporal_mix_backward_kernel",
    "temporal_mix_kernel",
]


@triton.jit
def temporal_mix_kernel(
    x: tl.tensor,
    weight: tl.tensor,  # [3, D]
    bias: tl.tensor,
    y: tl.tensor,  # [B, T, L, D], contiguous
    num_frames: tl.tensor,
    num_patches: tl.tensor,
    dim: tl.tensor,
    stride_b: tl.tensor,
    stride_t: tl.tensor,
    stride_l: tl.tensor,
    stride_d: tl.tensor,
    block_l: tl.constexpr,
    block_d: tl.constexpr,
) -> None:
    """A program walks a block of patches and channels through all frames, three of them in registers."""
    blocks = tl.cdiv(num_patches, block_l)
    video = (tl.program_id(0) // blocks).to(tl.int64)
    patch = (tl.program_id(0) % blocks) * block_l + tl.arange(0, block_l)[:, None]
    channel = tl.program_id(1) * block_d + tl.arange(0, block_d)[None, :]
    inside = (patch < num_patches) & (channel < dim)
    weight_0 = tl.load(weight + channel, mask=channel < dim, other=0).to(tl.float32)
    weight_1 = tl.load(weight + dim + channel, mask=channel < dim, other=0).to(tl.float32)
    weight_2 = tl.load(weight + 2 * dim + channel, mask=channel < dim, other=0).to(tl.float32)
    shift = tl.load(bias + channel, mask=channel < dim, other=0).to(tl.float32)

    source = x + video * stride_b + patch * stride_l + channel * stride_d
    target = y + (video * num_frames * num_patches + patch) * dim + channel
    before = tl.zeros([block_l, block_d], tl.float32)
    here = tl.load(source, mask=inside, other=0).to(tl.float32)
    for frame in range(num_frames):
        source += stride_t
        following = inside & (patch < tl.where(frame + 1 < num_frames, num_patches, 0))
        after = tl.load(source, mask=following, other=0).to(tl.float32)
        mixed = shift + weight_0 * before + weight_1 * here + weight_2 * after
        tl.store(target, mixed.to(y.dtype.element_ty), mask=inside)
        target += tl.cast(num_patches, tl.int64) * dim
        before, here = here, after


@triton.jit
def temporal_mix_backward_kernel(
    gradient: tl.tensor,  # [B, T, L, D], contiguous
    x: tl.tensor,
    weight: tl.tensor,  # [3, D]
    gradient_x: tl.tensor,  # [B, T, L, D], contiguous
    partial: tl.tensor,  # [B * blocks of L, 4, D]: for the three taps and the bias
    num_frames: tl.tensor,
    num_patches: tl.tensor,
    dim: tl.tensor,
    stride_b: tl.tensor,
    stride_t: tl.tensor,
    stride_l: tl.tensor,
    stride_d: tl.tensor,
    block_l: tl.constexpr,
    block_d: tl.constexpr,
) -> None:
    """The same walk: the gradient's own mix with reversed taps, and the taps' sums."""
    blocks = tl.cdiv(num_patches, block_l)
    video = (tl.program_id(0) // blocks).to(tl.int64)
    patch = (tl.program_id(0) % blocks) * block_l + tl.arange(0, block_l)[:, None]
    channel = tl.program_id(1) * block_d + tl.arange(0, block_d)[None, :]
    inside = (patch < num_patches) & (channel < dim)
    weight_0 = tl.load(weight + channel, mask=channel < dim, other=0).to(tl.float32)
    weight_1 = tl.load(weight + dim + channel, mask=channel < dim, other=0).to(tl.float32)
    weight_2 = tl.load(weight + 2 * dim + channel, mask=channel < dim, other=0).to(tl.float32)

    source = x + video * stride_b + patch * stride_l + channel * stride_d
    offset = (video * num_frames * num_patches + patch) * dim + channel
    frame_size = tl.cast(num_patches, tl.int64) * dim
    zero = tl.zeros([block_l, block_d], tl.float32)
    sum_0, sum_1, sum_2, sum_bias = zero, zero, zero, zero
    x_before, gradient_before = zero, zero
    x_here = tl.load(source, mask=inside, other=0).to(tl.float32)
    gradient_here = tl.load(gradient + offset, mask=inside, other=0).to(tl.float32)
    for frame in range(num_frames):
        source += stride_t
        following = inside & (patch < tl.where(frame + 1 < num_frames, num_patches, 0))
        x_after = tl.load(source, mask=following, other=0).to(tl.float32)
        gradient_after = tl.load(gradient + offset + frame_size, mask=following, other=0).to(tl.float32)
        mixed = weight_2 * gradient_before + weight_1 * gradient_here + weight_0 * gradient_after
        tl.store(gradient_x + offset, mixed.to(gradient_x.dtype.element_ty), mask=inside)
        sum_0 += gradient_here * x_before
        sum_1 += gradient_here * x_here
        sum_2 += gradient_here * x_after
        sum_bias += gradient_here
        x_before, x_here = x_here, x_after
        gradient_before, gradient_here = gradient_here, gradient_after
        offset += frame_size

    column = tl.program_id(1) * block_d + tl.arange(0, block_d)
    target = partial + tl.program_id(0).to(tl.int64) * 4 * dim + column
    tl.store(target, tl.sum(sum_0, 0), mask=column < dim)
    tl.store(target + dim, tl.sum(sum_1, 0), mask=column < dim)
    tl.store(target + 2 * dim, tl.sum(sum_2, 0), mask=column < dim)
    tl.store(target + 3 * dim, tl.sum(sum_bias, 0), mask=column < dim)


@triton.jit
def position_encoding_kernel(
    x: tl.tensor,
    weight: tl.tensor,  # [27, C], taps in the order frame, row, column
    bias: tl.tensor,
    y: tl.tensor,  # [B, T, N, C], contiguous
    num_frames: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    num_prefix: tl.tensor,
    dim: tl.tensor,
    stride_b: tl.tensor,
    stride_t: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    frames: tl.constexpr,
    block_n: tl.constexpr,
    block_c: tl.constexpr,
) -> None:
    """A program walks a block of tokens and channels through some frames; each frame read adds to three outputs."""
    num_tokens = num_prefix + height * width
    token_blocks, frame_blocks = tl.cdiv(num_tokens, block_n), tl.cdiv(num_frames, frames)
    token = (tl.program_id(0) % token_blocks) * block_n + tl.arange(0, block_n)[:, None]
    first = (tl.program_id(0) // token_blocks) % frame_blocks * frames
    video = (tl.program_id(0) // (token_blocks * frame_blocks)).to(tl.int64)
    channel = tl.program_id(1) * block_c + tl.arange(0, block_c)[None, :]
    inside = (token < num_tokens) & (channel < dim)
    is_patch = inside & (token >= num_prefix)
    row, column = (token - num_prefix) // width, (token - num_prefix) % width
    shift = tl.where(is_patch, tl.load(bias + channel, mask=channel < dim, other=0).to(tl.float32), 0.0)

    source = x + video * stride_b + token * stride_n + channel * stride_c
    target = y + (video * num_frames * num_tokens + token) * dim + channel
    before = tl.zeros([block_n, block_c], tl.float32)
    here = tl.zeros([block_n, block_c], tl.float32)
    last = tl.minimum(first + frames, num_frames)
    for frame in range(first - 1, last + 1):
        present = token < tl.where((frame >= 0) & (frame < num_frames), num_tokens, 0)
        plane = source + tl.cast(frame, tl.int64) * stride_t
        here += tl.load(plane, mask=inside & present, other=0).to(tl.float32)
        after = tl.zeros([block_n, block_c], tl.float32)
        for tap in range(9):
            down, right = tap // 3 - 1, tap % 3 - 1
            seen = is_patch & (row + down >= 0) & (row + down < height) & (column + right >= 0)
            seen = seen & (column + right < width) & present
            value = tl.load(plane + (down * width + right) * stride_n, mask=seen, other=0).to(tl.float32)
            taps = weight + tap * dim + channel
            before += value * tl.load(taps + 18 * dim, mask=channel < dim, other=0).to(tl.float32)
            here += value * tl.load(taps + 9 * dim, mask=channel < dim, other=0).to(tl.float32)
            after += value * tl.load(taps, mask=channel < dim, other=0).to(tl.float32)
        place = target + tl.cast(frame - 1, tl.int64) * num_tokens * dim
        tl.store(
            place,
            (before + shift).to(y.dtype.element_ty),
            mask=inside & (token < tl.where(frame > first, num_tokens, 0)),
        )
        before, here = here, after


@triton.jit
def position_gradient_kernel(
    gradient: tl.tensor,  # [B, T, N, C], contiguous
    x: tl.tensor,
    partial: tl.tensor,  # [B * blocks of T, 28, C]: for the 27 taps and the bias
    num_frames: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    num_prefix: tl.tensor,
    dim: tl.tensor,
    stride_b: tl.tensor,
    stride_t: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    frames: tl.constexpr,
    block_l: tl.constexpr,
    block_c: tl.constexpr,
) -> None:
    """A program sums over some frames of a video; the 27 taps are an axis of its tile."""
    frame_blocks = tl.cdiv(num_frames, frames)
    first = tl.program_id(0) % frame_blocks * frames
    video = (tl.program_id(0) // frame_blocks).to(tl.int64)
    channel = tl.program_id(1) * block_c + tl.arange(0, block_c)[None, None, :]
    tap = tl.arange(0, 32)[:, None, None]
    ahead, down, right = tap // 9 - 1, tap // 3 % 3 - 1, tap % 3 - 1
    num_patches = height * width
    reach = ahead.to(tl.int64) * stride_t + (down * width + right) * stride_n
    sums = tl.zeros([32, block_l, block_c], tl.float32)
    sum_bias = tl.zeros([1, block_l, block_c], tl.float32)
    for frame in range(first, tl.minimum(first + frames, num_frames)):
        place = video * num_frames + frame
        source = x + video * stride_b + tl.cast(frame, tl.int64) * stride_t + channel * stride_c + reach
        for start in range(0, num_patches, block_l):
            patch = start + tl.arange(0, block_l)[None, :, None]
            inside = (patch < num_patches) & (channel < dim)
            row, column = patch // width + down, patch % width + right
            seen = inside & (tap < 27) & (frame + ahead >= 0) & (frame + ahead < num_frames)
            seen = seen & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            token = num_prefix + patch
            offset = (place * (num_prefix + num_patches) + token) * dim + channel
            upstream = tl.load(gradient + offset, mask=inside, other=0).to(tl.float32)
            sums += upstream * tl.load(source + token * stride_n, mask=seen, other=0).to(tl.float32)
            sum_bias += upstream
    taps = tl.arange(0, 32)[:, None]
    columns = tl.program_id(1) * block_c + tl.arange(0, block_c)[None, :]
    target = partial + (tl.program_id(0).to(tl.int64) * 28 + taps) * dim + columns
    total = tl.where(taps == 27, tl.sum(sum_bias, 1), tl.sum(sums, 1))
    tl.store(target, total, mask=(taps < 28) & (columns < dim))
