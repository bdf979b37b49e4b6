"""Resizing as the published codes do it: bilinear, without antialiasing, in floating point or in OpenCV's integers.

Letters: T frames, C colours, H x W pixels of a frame.
"""

from __future__ import annotations

import mmap

import torch

__all__ = ["resize_as_opencv", "resize_without_rounding"]

OPENCV_BITS = 11
"""OpenCV's 8-bit bilinear weights are integers out of 2 ** 11."""


def resize_without_rounding(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[T, C, H, W] uint8 -> [T, C, *size] float32."""
    return torch.nn.functional.interpolate(_floating(frames, size[0]), size=size, mode="bilinear")


def _floating(frames: torch.Tensor, new_height: int) -> torch.Tensor:
    """[T, C, H, W] uint8 -> float32: of a much larger frame only the rows that ``new_height`` rows are made of.

    The other rows are zeros that nothing reads and that the system therefore never allocates: an 8K frame takes a tenth
    of its 400 MB. The result of resizing has the same bits.
    """
    num_frames, num_colors, height, width = frames.shape
    is_usual = frames.device.type == "cpu" and frames.is_contiguous(memory_format=torch.channels_last)
    if height < 8 * new_height or not is_usual:
        return frames.to(torch.float32)
    centre = (torch.arange(new_height, dtype=torch.float64) + 0.5) * (height / new_height) - 0.5
    near = centre.floor().long()
    rows = torch.cat([near + step for step in range(-1, 3)]).clamp_(0, height - 1).unique()  # one more on each side
    memory = mmap.mmap(-1, 4 * frames.numel())
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    floating = torch.frombuffer(memory, dtype=torch.float32).view(num_frames, height, width, num_colors)
    for some in rows.split(64):
        floating[:, some] = frames.permute(0, 2, 3, 1)[:, some].to(torch.float32)
    return floating.permute(0, 3, 1, 2)


def resize_as_opencv(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[T, C, H, W] uint8 -> [T, C, *size] uint8: ``INTER_LINEAR`` of OpenCV, in its fixed-point arithmetic.

    Rows and columns are weighted by integers out of 2 ** 11. Between the two passes 4 bits are dropped, in the second
    16 of each product, at the end 2 with rounding: 22 in all.
    """
    if tuple(frames.shape[-2:]) == size:
        return frames
    (top, bottom, weight_top, weight_bottom) = _opencv_taps(frames.shape[-2], size[0], frames.device)
    (left, right, weight_left, weight_right) = _opencv_taps(frames.shape[-1], size[1], frames.device)

    def along_columns(rows: torch.Tensor) -> torch.Tensor:
        picked = frames.index_select(-2, rows)
        near, far = picked.index_select(-1, left).int(), picked.index_select(-1, right).int()
        return (near * weight_left + far * weight_right) >> 4

    upper = (along_columns(top) * weight_top[:, None]) >> 16
    lower = (along_columns(bottom) * weight_bottom[:, None]) >> 16
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _opencv_taps(side: int, new_side: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """For each new pixel of a row: indices of its two neighbours (int64) and their weights (int32)."""
    centre = (torch.arange(new_side, dtype=torch.float64) + 0.5) * (side / new_side) - 0.5
    centre = centre.to(torch.float32)  # as OpenCV: computed in double, kept in single precision
    near = centre.floor()
    beyond = (near < 0) | (near >= side - 1)
    fraction = torch.where(beyond, 0.0, centre - near)
    near = near.clamp(0, side - 1).long()
    scale = 2**OPENCV_BITS
    weights = (((1 - fraction) * scale).round().int(), (fraction * scale).round().int())
    return tuple(taps.to(device) for taps in (near, (near + 1).clamp(max=side - 1), *weights))
