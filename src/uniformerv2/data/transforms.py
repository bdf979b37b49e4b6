"""What happens to the pixels at test time: ``Preprocessing``, the specification that travels with a checkpoint.

Two published protocols, which differ by up to 0.06 in a score:

- ``Preprocessing.official()``: the authors' repository (Li et al., 2022, https://github.com/OpenGVLab/UniFormerV2), on
  PySlowFast's transforms. Resizing in floating point.
- ``Preprocessing.mmaction2()``: the port of the models to MMAction2 (https://github.com/open-mmlab/mmaction2). Resizing
  in 8 bits, as OpenCV does it.

Letters: K clips, T frames, C colours, H x W pixels of a frame, h x w of the network's input, V views.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import torch

from uniformerv2.core.limits import get_limits
from uniformerv2.core.messages import did_you_mean
from uniformerv2.data.sampling import dense_clips, random_dense_clip, random_segment_clip, segment_clips

__all__ = ["Preprocessing", "resize_as_opencv", "resize_without_rounding"]

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


def resize_bicubic(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[T, C, H, W] -> [T, C, *size], as Pillow: antialiased, rounded to uint8 after each side.

    What torchvision calls for such frames; torchvision itself takes longer to import than a prediction takes.
    """
    if frames.shape[-2:] == size:
        return frames
    is_bytes = frames.dtype == torch.uint8 and frames.device.type != "cpu"  # only the CPU resizes bytes
    pixels = frames.to(torch.float32) if is_bytes else frames
    resized = torch.nn.functional.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp_(0, 255).round_().to(torch.uint8) if is_bytes else resized


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
    """Indices of the two neighbours of each new pixel of a row (int64), and their weights (int32)."""
    centre = (torch.arange(new_side, dtype=torch.float64) + 0.5) * (side / new_side) - 0.5
    centre = centre.to(torch.float32)  # as OpenCV: computed in double, kept in single precision
    near = centre.floor()
    beyond = (near < 0) | (near >= side - 1)
    fraction = torch.where(beyond, 0.0, centre - near)
    near = near.clamp(0, side - 1).long()
    scale = 2**OPENCV_BITS
    weights = (((1 - fraction) * scale).round().int(), (fraction * scale).round().int())
    return tuple(taps.to(device) for taps in (near, (near + 1).clamp(max=side - 1), *weights))


Sampling = Literal["segments", "dense"]
Resize = Literal["bilinear_float", "bilinear_uint8", "bicubic_antialias"]
Rounding = Literal["floor", "nearest"]
CropOffset = Literal["floor", "ceil"]
CropOrder = Literal["first_middle_last", "first_last_middle"]
ProtocolName = Literal["official", "mmaction2"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a video becomes the input of one particular network; the defaults are the official protocol.

    Attributes:
        num_frames: T, frames of a clip.
        image_size: Input of the network in pixels: a square, or (h, w).
        mean: Subtracted from each colour (R, G, B), on a scale of 0 to 1.
        std: Each colour is divided by it, on the same scale.
        sampling: ``segments`` spreads a clip over the whole video, ``dense`` takes frames ``frame_stride`` apart.
        frame_stride: Distance between frames in dense sampling.
        resize: ``bilinear_float`` reads the four neighbours of a point, without antialiasing, and does not round the
            result; ``bilinear_uint8`` reads the same four with OpenCV's integer weights and rounds to 8 bits;
            ``bicubic_antialias`` is what most image ViTs were trained with.
        long_side: The frame is resized, its shape kept, until it just covers h x w. One side then fits exactly (for a
            square input the short one); the other is rounded so.
        crop_offset: Rounding of the offset of the middle crop. ``floor`` (MMAction2) also puts the last crop at twice
            this offset, which is one pixel before the end where the slack is odd.
        crop_order: Order of three crops along the side with slack: the first is left or top.
        num_clips: K, where nothing else is asked for.
        num_crops: 1 (the middle) or 3.
    """

    num_frames: int = 8
    image_size: int | tuple[int, int] = 224
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    sampling: Sampling = "segments"
    frame_stride: int = 1
    resize: Resize = "bilinear_float"
    long_side: Rounding = "floor"
    crop_offset: CropOffset = "ceil"
    crop_order: CropOrder = "first_middle_last"
    num_clips: int = 1
    num_crops: int = 1

    def __post_init__(self) -> None:
        for name in ("image_size", "mean", "std"):
            if isinstance(value := getattr(self, name), list):  # JSON and YAML know no tuples
                object.__setattr__(self, name, tuple(value))
        for name in ("num_frames", "frame_stride", "num_clips"):
            if not _is_count(value := getattr(self, name)):
                raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 on")
        size = self.image_size
        if not (_is_count(size) or (isinstance(size, tuple) and len(size) == 2 and all(map(_is_count, size)))):
            raise ValueError(f"image_size is {size!r}; it must be a number of pixels or a pair (height, width) of them")
        for name, lowest in (("mean", -math.inf), ("std", 0.0)):
            value = getattr(self, name)
            if not _are_colours(value, lowest=lowest):
                message = f"{name} is {value!r}; it must be three finite numbers{', all above 0' * (name == 'std')}"
                raise ValueError(message)
        for name, allowed in _CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)
        _check_num_crops(self.num_crops)
        self._check_limits()

    def _check_limits(self) -> None:
        """Refuse what would take memory without end.

        Raises:
            ValueError: The input or the views of a video are above a limit.
        """
        limits, (height, width) = get_limits(), self.input_size
        limits.check("image_size", max(height, width), what=f"an input of {height} x {width} pixels")
        num_frames = self.num_clips * self.num_crops * self.num_frames
        views = f"{self.num_clips} clips x {self.num_crops} crops x {self.num_frames} frames"
        limits.check("frames_per_video", num_frames, what=views)
        num_bytes = 3 * num_frames * height * width * (4 if self.resize == "bilinear_float" else 1)
        limits.check("bytes_per_request", num_bytes, what=f"{views} of {height} x {width} pixels, {num_bytes} bytes,")

    @classmethod
    def official(cls, **fields: Any) -> Self:
        """The protocol of the authors' repository; ``fields`` replace what a checkpoint does otherwise.

        >>> Preprocessing.official(num_frames=16).resize
        'bilinear_float'
        """
        return cls(**fields)

    @classmethod
    def mmaction2(cls, **fields: Any) -> Self:
        """The protocol of MMAction2's port; ``fields`` replace what a checkpoint does otherwise.

        Its views come crop by crop there; here, as in the official protocol, clip by clip. The mean over views is
        the same.

        >>> Preprocessing.mmaction2(num_frames=16).resize
        'bilinear_uint8'
        """
        return cls(**(_MMACTION2 | fields))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; also what stands in a configuration file.

        Args:
            fields: Names and values of fields. What is missing comes from the protocol named by the key ``protocol``
                (``official`` where there is none).

        Returns:
            The checked specification.

        Raises:
            ValueError: A key is unknown (the message names the nearest), or a value is not allowed.
        """
        given = dict(fields)
        protocol = given.pop("protocol", "official")
        _check_choice("protocol", protocol, get_args(ProtocolName))
        known = [field.name for field in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                hint = did_you_mean(key, [*known, "protocol"]) or f" Known are: {', '.join(known)}, protocol."
                raise ValueError(f"Preprocessing has no field {key!r}.{hint}")
        return cls.mmaction2(**given) if protocol == "mmaction2" else cls.official(**given)

    def to_dict(self) -> dict[str, Any]:
        """All fields, in types that JSON knows."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    def indices(
        self,
        num_frames_in_video: int,
        num_clips: int | None = None,
        *,
        rng: np.random.Generator | None = None,
        start: int = 0,
    ) -> list[list[int]]:
        """Which frames to decode.

        Args:
            num_frames_in_video: Length of the video, or of the part of it that starts at ``start``.
            num_clips: K; ``None`` is the specification's own number, or 1 with ``rng``.
            rng: Draws the frames (training); without it they are the published test frames.
            start: Index of the first frame.

        Returns:
            K lists of T indices.
        """
        lengths = num_frames_in_video, self.num_frames
        stride = {"frame_stride": self.frame_stride} if self.sampling == "dense" else {}
        if rng is not None:
            draw: Any = random_dense_clip if stride else random_segment_clip
            return [draw(*lengths, **stride, rng=rng, start=start) for _ in range(num_clips or 1)]
        spread: Any = dense_clips if stride else segment_clips
        clips: list[list[int]] = spread(
            *lengths, self.num_clips if num_clips is None else num_clips, **stride, start=start
        )
        return clips

    def views(self, clips: torch.Tensor | Sequence[torch.Tensor], num_crops: int | None = None) -> torch.Tensor:
        """K clips uint8 [K, T, C, H, W], or a sequence of [T, C, H, W] -> [V, T, C, h, w] float32, normalised.

        The crops of the first clip come first, then those of the second. ``num_crops`` replaces the
        specification's own.
        """
        return self.normalize(torch.cat([self.resize_and_crop(clip, num_crops) for clip in clips]))

    def resize_and_crop(self, frames: torch.Tensor, num_crops: int | None = None) -> torch.Tensor:
        """[T, C, H, W] uint8 -> [num_crops, T, C, h, w], still 0 to 255; on any device.

        The result is uint8, a quarter of the bytes to move to a device, unless the protocol does not round
        (``bilinear_float``): then it is float32.

        Args:
            frames: RGB.
            num_crops: 1 or 3 instead of the specification's own.

        Returns:
            The crops, in the specification's order.

        Raises:
            ValueError: Not uint8, not of four dimensions, or empty.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.numel() == 0:
            message = f"frames are {frames.dtype} {list(frames.shape)}; needed are uint8 [T, C, H, W], none of them 0"
            raise ValueError(message)
        num_crops = self.num_crops if num_crops is None else num_crops
        _check_num_crops(num_crops)
        size = self.covering_size(frames.shape[-2], frames.shape[-1])
        # One frame at a time: half the time of all at once (caches), and no clip of full frames in floating point.
        resized = torch.cat([self._resize(frame, size) for frame in frames.split(1)])
        height, width = self.input_size
        boxes = self._crop_offsets(size, num_crops)
        return torch.stack([resized[..., top : top + height, left : left + width] for top, left in boxes])

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """[..., C, h, w], 0 to 255, uint8 or floating -> float32 of the network's scale, on the pixels' device."""
        mean = pixels.new_tensor(self.mean, dtype=torch.float32).mul_(255).view(-1, 1, 1)
        std = pixels.new_tensor(self.std, dtype=torch.float32).mul_(255).view(-1, 1, 1)
        return (pixels.to(torch.float32) - mean) / std

    def covering_size(self, frame_height: int, frame_width: int) -> tuple[int, int]:
        """Height and width of the smallest frame of the same shape that covers h x w."""
        height, width = self.input_size
        if frame_width * height >= frame_height * width:  # relatively wider than the input: the height fits
            return height, max(self._round_side(frame_width, frame_height, height), width)
        return max(self._round_side(frame_height, frame_width, width), height), width

    def crop_boxes(self, frame_height: int, frame_width: int) -> list[tuple[float, float, float, float]]:
        """Where each crop lies in a frame: top, left, height and width in pixels of the frame, not rounded."""
        height, width = self.covering_size(frame_height, frame_width)
        rows, columns = frame_height / height, frame_width / width
        size = self.input_size[0] * rows, self.input_size[1] * columns
        boxes = self._crop_offsets((height, width), self.num_crops)
        return [(top * rows, left * columns, *size) for top, left in boxes]

    def _round_side(self, side: int, fitted_from: int, fitted_to: int) -> int:
        # The order of operations is the published one: another order may round to another pixel.
        if self.long_side == "floor":
            return math.floor(side / fitted_from * fitted_to)
        return int(side * (fitted_to / fitted_from) + 0.5)

    def _crop_offsets(self, size: tuple[int, int], num_crops: int) -> list[tuple[int, int]]:
        """Top and left of each crop; three crops lie along the side with more slack."""
        slack = [side - target for side, target in zip(size, self.input_size, strict=True)]
        middle = [amount // 2 if self.crop_offset == "floor" else -(-amount // 2) for amount in slack]
        if num_crops == 1:
            return [(middle[0], middle[1])]
        axis = 0 if slack[0] > slack[1] else 1
        last = 2 * middle[axis] if self.crop_offset == "floor" else slack[axis]
        along = [0, middle[axis], last] if self.crop_order == "first_middle_last" else [0, last, middle[axis]]
        return [(offset, middle[1]) if axis == 0 else (middle[0], offset) for offset in along]

    def _resize(self, frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if self.resize == "bilinear_uint8":
            return resize_as_opencv(frames, size)
        if self.resize == "bilinear_float":
            return resize_without_rounding(frames, size)
        return resize_bicubic(frames, size)


_MMACTION2: dict[str, Any] = {
    "resize": "bilinear_uint8",
    "long_side": "nearest",
    "crop_offset": "floor",
    "crop_order": "first_last_middle",
}

_CHOICES: dict[str, tuple[Any, ...]] = {
    "sampling": get_args(Sampling),
    "resize": get_args(Resize),
    "long_side": get_args(Rounding),
    "crop_offset": get_args(CropOffset),
    "crop_order": get_args(CropOrder),
}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_colours(value: object, *, lowest: float) -> bool:
    if not isinstance(value, tuple) or len(value) != 3:
        return False
    return all(isinstance(colour, int | float) and lowest < colour < math.inf for colour in value)


def _check_choice(name: str, value: object, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        hint = did_you_mean(value, allowed)
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}.{hint}")


def _check_num_crops(num_crops: int) -> None:
    if num_crops not in {1, 3}:
        raise ValueError(f"num_crops is {num_crops!r}; it must be 1 (the middle) or 3 (along the side with slack)")
