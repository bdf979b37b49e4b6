"""Triton kernels of C_MHRA: a few queries attend to many tokens, which are normed as they are read.

Definition:
    ``functional.cross_mhra`` after a LayerNorm. The online softmax and its split over the sequence follow Milakov and
    Gimelshein (2018), https://arxiv.org/abs/1805.02867, and Dao et al., Flash-Decoding (2023),
    https://crfm.stanford.edu/2023/10/12/flashdecoding.html.

LayerNorm's scale and shift stay outside: the shift cancels in the softmax, the scale goes into the query and onto the
result. The token y = (z - m) r of mean m and inverse deviation r then scores ``r (query . z - m sum(query))``, so the
tensor cores multiply z as it lies in memory. No atomics: programs write partial sums, added in a fixed order. Sums
are in float32; products of float32 tokens too (three TF32 products each), those of bfloat16 tokens in bfloat16.

Letters of this file: B videos, S tokens of a video, C channels, R rows of the query (queries x heads, at most 16). A
tile of tokens is [chunk, token, column] with C = chunks * columns, so that each warp multiplies a chunk of its own.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend_backward_kernel", "attend_kernel", "combine_kernel"]

_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _product(left: tl.tensor, right: tl.tensor) -> tl.tensor:
    """Matrix products over the last two dimensions; the interpreter would multiply the bits of bfloat16 numbers."""
    if _INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="tf32x3")


@triton.jit
def attend_kernel(
    tokens: tl.tensor,
    query: tl.tensor,  # [B, R, C], contiguous, in the tokens' type
    partial: tl.tensor,  # [B, splits, R, C]
    extent: tl.tensor,  # [B, splits, 2, R]: each split's largest score, and its sum of exponentials
    length: tl.tensor,
    dim: tl.tensor,
    rows: tl.tensor,
    tokens_per_split: tl.tensor,
    stride_b: tl.tensor,
    stride_s: tl.tensor,
    stride_c: tl.tensor,
    eps: tl.tensor,
    num_rows: tl.constexpr,
    chunks: tl.constexpr,
    columns: tl.constexpr,
    block_s: tl.constexpr,
) -> None:
    """Softmax attention of the query's rows over normed tokens, for one split of the sequence.

    With y = (z - m) r, the score is ``r (query . z - m sum(query))``: the tensor cores take z as it lies in memory.
    """
    video, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, chunks)[:, None, None] * columns + tl.arange(0, columns)[None, :, None]
    row = tl.arange(0, num_rows)
    asked = (channel < dim) & (row < rows)[None, None, :]
    ask = tl.load(query + (video * rows + row) * dim + channel, mask=asked, other=0)  # [chunk, column, row]
    ask_sum = tl.sum(tl.sum(ask.to(tl.float32), 1), 0)[None, :]

    channel = tl.arange(0, chunks)[:, None, None] * columns + tl.arange(0, columns)[None, None, :]
    accumulator = tl.zeros([chunks, num_rows, columns], tl.float32)
    mean_sum = tl.zeros([num_rows], tl.float32)
    largest = tl.full([num_rows], float("-inf"), tl.float32)
    exp_sum = tl.zeros([num_rows], tl.float32)
    end = tl.minimum((split + 1) * tokens_per_split, length)
    for start in range(split * tokens_per_split, end, block_s):
        token = start + tl.arange(0, block_s)
        inside = (token < end)[None, :, None] & (channel < dim)
        place = tokens + video * stride_b + token.to(tl.int64)[None, :, None] * stride_s + channel * stride_c
        tile = tl.load(place, mask=inside, other=0)  # [chunk, token, column]
        wide = tile.to(tl.float32)
        mean = tl.sum(tl.sum(wide, 2), 0) / dim
        centred = tl.where(channel < dim, wide - mean[None, :, None], 0.0)
        scale = tl.rsqrt(tl.sum(tl.sum(centred * centred, 2), 0) / dim + eps)[:, None]

        raw = tl.sum(_product(tile, ask), 0)  # [token, row]
        scores = tl.where((token < end)[:, None], scale * (raw - mean[:, None] * ask_sum), float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 0))
        fade = tl.exp(largest - larger)
        weights = tl.exp(scores - larger[None, :])
        exp_sum = exp_sum * fade + tl.sum(weights, 0)
        weights = (weights * scale).to(tile.dtype)
        mean_sum = mean_sum * fade + tl.sum(weights.to(tl.float32) * mean[:, None], 0)
        weights = tl.broadcast_to(tl.trans(weights)[None, :, :], (chunks, num_rows, block_s))
        accumulator = accumulator * fade[None, :, None] + _product(weights, tile)
        largest = larger

    index = video * tl.num_programs(1) + split
    target = partial + (index * rows + row)[None, :, None] * dim + channel
    mixed = accumulator - mean_sum[None, :, None]
    tl.store(target, mixed, mask=(row < rows)[None, :, None] & (channel < dim))
    tl.store(extent + index * 2 * rows + row, largest, mask=row < rows)
    tl.store(extent + (index * 2 + 1) * rows + row, exp_sum, mask=row < rows)


@triton.jit
def combine_kernel(
    partial: tl.tensor,
    extent: tl.tensor,
    mixed: tl.tensor,  # [B, R, C]
    log_sum: tl.tensor,  # [B, R]: logarithm of the sum of exponentials
    dim: tl.tensor,
    rows: tl.tensor,
    splits: tl.tensor,
    block_c: tl.constexpr,
    block_splits: tl.constexpr,
) -> None:
    """One row of the query: its splits become one softmax."""
    video, row = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, block_c)
    split = tl.arange(0, block_splits)
    reach = extent + (video * splits + split) * 2 * rows + row
    largest = tl.load(reach, mask=split < splits, other=float("-inf"))
    exp_sum = tl.load(reach + rows, mask=split < splits, other=0)
    top = tl.max(largest, 0)
    total = tl.sum(tl.exp(largest - top) * exp_sum, 0)
    accumulator = tl.zeros([block_c], tl.float32)
    for index in range(splits):
        place = video * splits + index
        weight = tl.exp(tl.load(extent + place * 2 * rows + row) - top)
        accumulator += weight * tl.load(partial + (place * rows + row) * dim + channel, mask=channel < dim, other=0)
    tl.store(mixed + (video * rows + row) * dim + channel, accumulator / total, mask=channel < dim)
    tl.store(log_sum + video * rows + row, top + tl.log(total))


@triton.jit
def attend_backward_kernel(
    tokens: tl.tensor,
    query: tl.tensor,  # [B, R, C], contiguous, in the tokens' type
    gradient: tl.tensor,  # of mixed: [B, R, C], contiguous, in the tokens' type
    log_sum: tl.tensor,
    inner: tl.tensor,  # [B, R]: mixed . gradient
    gradient_tokens: tl.tensor,  # [B, S, C], contiguous
    partial: tl.tensor,  # [B, splits, R, C]: gradient of the query
    length: tl.tensor,
    dim: tl.tensor,
    rows: tl.tensor,
    tokens_per_split: tl.tensor,
    stride_b: tl.tensor,
    stride_s: tl.tensor,
    stride_c: tl.tensor,
    eps: tl.tensor,
    num_rows: tl.constexpr,
    chunks: tl.constexpr,
    columns: tl.constexpr,
    block_s: tl.constexpr,
) -> None:
    """Gradients of ``attend``; LayerNorm's two means follow from the weights, without a sum over channels."""
    video, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = tl.arange(0, num_rows)
    channel = tl.arange(0, chunks)[:, None, None] * columns + tl.arange(0, columns)[None, None, :]
    known = (row < rows)[None, :, None] & (channel < dim)
    offset = (video * rows + row)[None, :, None] * dim + channel
    ask = tl.load(query + offset, mask=known, other=0)  # [chunk, row, column]
    upstream = tl.load(gradient + offset, mask=known, other=0)
    ask_sum = tl.sum(tl.sum(ask.to(tl.float32), 2), 0)[None, :]
    upstream_sum = tl.sum(tl.sum(upstream.to(tl.float32), 2), 0)[None, :]
    log_sums = tl.load(log_sum + video * rows + row, mask=row < rows, other=0)[None, :]
    inners = tl.load(inner + video * rows + row, mask=row < rows, other=0)[None, :]

    accumulator = tl.zeros([chunks, num_rows, columns], tl.float32)
    mean_sum = tl.zeros([num_rows], tl.float32)
    end = tl.minimum((split + 1) * tokens_per_split, length)
    for start in range(split * tokens_per_split, end, block_s):
        token = start + tl.arange(0, block_s)
        inside = (token < end)[None, :, None] & (channel < dim)
        place = tokens + video * stride_b + token.to(tl.int64)[None, :, None] * stride_s + channel * stride_c
        tile = tl.load(place, mask=inside, other=0)
        wide = tile.to(tl.float32)
        mean = tl.sum(tl.sum(wide, 2), 0) / dim
        centred = tl.where(channel < dim, wide - mean[None, :, None], 0.0)
        scale = tl.rsqrt(tl.sum(tl.sum(centred * centred, 2), 0) / dim + eps)[:, None]

        raw = tl.sum(_product(tile, tl.trans(ask, 0, 2, 1)), 0)
        scores = scale * (raw - mean[:, None] * ask_sum)  # [token, row]
        raw = tl.sum(_product(tile, tl.trans(upstream, 0, 2, 1)), 0)
        slope = scale * (raw - mean[:, None] * upstream_sum)
        weights = tl.where((token < end)[:, None] & (row < rows)[None, :], tl.exp(scores - log_sums), 0.0)
        pull = weights * (slope - inners)  # gradient of the scores

        along = tl.sum(weights * slope + pull * scores, 1) / dim  # mean of gradient * normed token
        level = tl.sum(weights * upstream_sum + pull * ask_sum, 1) / dim  # mean of gradient
        spread = tl.broadcast_to(weights.to(tile.dtype)[None, :, :], (chunks, block_s, num_rows))
        normed = _product(spread, upstream)
        spread = tl.broadcast_to(pull.to(tile.dtype)[None, :, :], (chunks, block_s, num_rows))
        normed += _product(spread, ask)  # gradient of the normed tokens
        slant = along[:, None] * scale
        lift = (slant * mean[:, None] - level[:, None])[None, :, :]
        result = scale[None, :, :] * (normed + lift - wide * slant[None, :, :])
        target = gradient_tokens + (video * length + token)[None, :, None] * dim + channel
        tl.store(target, result.to(gradient_tokens.dtype.element_ty), mask=inside)

        pull = (pull * scale).to(tile.dtype)
        mean_sum += tl.sum(pull.to(tl.float32) * mean[:, None], 0)
        spread = tl.broadcast_to(tl.trans(pull)[None, :, :], (chunks, num_rows, block_s))
        accumulator += _product(spread, tile)

    target = partial + ((video * tl.num_programs(1) + split) * rows + row)[None, :, None] * dim + channel
    tl.store(target, accumulator - mean_sum[None, :, None], mask=known)
