"""The view of a video that is explained: its pixels for the network, where it lies, and its frames for people.

Letters of this file: T frames, C colours, H x W pixels of a frame, h x w of the network's input.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader
from uniformerv2.inference.strips import small_picture
from uniformerv2.media.decoding import VideoReader

__all__ = ["SeenView", "ViewPlace", "middle_view", "read_view"]


@dataclass(frozen=True, kw_only=True)
class ViewPlace:
    """Which view of a video was explained, and where it lies.

    Attributes:
        clip: Number of the clip, from 0.
        num_clips: Of how many.
        crop: Number of the crop, from 0, in the order of the preprocessing.
        num_crops: Of how many.
        frame_indices: The T frames of the video.
        frame_seconds: Their times from the first frame of the video; None where the frames have no times.
        frame_height: Pixels of a frame as it is shown, rotation applied.
        frame_width: Likewise.
        box: The crop in a frame: top, left, height, width in its pixels.
    """

    clip: int
    num_clips: int
    crop: int
    num_crops: int
    frame_indices: tuple[int, ...]
    frame_seconds: tuple[float, ...] | None
    frame_height: int
    frame_width: int
    box: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        times = None if self.frame_seconds is None else [round(seconds, 3) for seconds in self.frame_seconds]
        return {**asdict(self), "frame_seconds": times, "box": [round(side, 3) for side in self.box]}


@dataclass(frozen=True)
class SeenView:
    """A view, read.

    Attributes:
        pixels: [T, C, h, w], 0 to 255.
        place: Where it lies.
        pictures: The T frames, not cropped; none where none were asked for.
        duration_seconds: How long the video or segment is; None where nothing tells it.
    """

    pixels: Tensor
    place: ViewPlace
    pictures: tuple[Image.Image, ...] = ()
    duration_seconds: float | None = None


def middle_view(reader: ClipReader) -> ClipReader:
    """A reader of one view, the middle crop of one clip."""
    return replace(reader, preprocessing=replace(reader.preprocessing, num_clips=1, num_crops=1))


def read_view(
    reader: ClipReader, video: VideoRecord | Tensor, number: int, *, picture_side: int | None = None
) -> SeenView:
    """Read one view; each of its frames is decoded once.

    Args:
        reader: Whose preprocessing makes the view.
        video: A video or a segment of it; or its frames, uint8 RGB [T, C, H, W].
        number: Which view, from 0.
        picture_side: Pixels of the longer side of pictures of a video's frames, at most; None: none.

    Raises:
        VideoError: The video cannot be read.
    """
    preprocessing = reader.preprocessing
    clip, crop = divmod(number, preprocessing.num_crops)

    def place(numbers: list[int], times: tuple[float, ...] | None, height: int, width: int) -> ViewPlace:
        return ViewPlace(
            clip=clip,
            num_clips=preprocessing.num_clips,
            crop=crop,
            num_crops=preprocessing.num_crops,
            frame_indices=tuple(numbers),
            frame_seconds=times,
            frame_height=height,
            frame_width=width,
            box=preprocessing.crop_boxes(height, width)[crop],
        )

    def read(opened: VideoReader, start: int, stop: int) -> SeenView:
        numbers = preprocessing.indices(stop - start, start=start)[clip]
        small: dict[int, Tensor] = {}
        pictures: dict[int, Image.Image] = {}

        def look(places: list[int], frame: Tensor) -> None:
            if picture_side is not None:
                pictures.update(dict.fromkeys(places, small_picture(frame, side=picture_side)))

        for places, crops, _ in reader.crops(opened, numbers, look=look):
            small.update(dict.fromkeys(places, crops[crop, 0]))
        times = tuple(opened.timestamps[frame] for frame in numbers) if opened.timestamps else None
        pixels = torch.stack([small[one] for one in range(len(numbers))])
        shown = tuple(pictures[one] for one in sorted(pictures))
        where = place(numbers, times, opened.height, opened.width)
        return SeenView(pixels, where, shown, opened.segment_seconds(*segment))

    if isinstance(video, VideoRecord):
        segment = video.segment
        return reader.visit(video, read)
    numbers = preprocessing.indices(len(video))[clip]
    return SeenView(preprocessing.resize_and_crop(video[numbers])[crop], place(numbers, None, *video.shape[2:]))
