"""Frames of a video for people: evenly spread, what a report plays of it; small ones at given times; or by number."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.evaluation.gallery import FrameStrips
from uniformerv2.evaluation.scores import SEGMENT, VideoScores
from uniformerv2.inference.window_grid import frame_at
from uniformerv2.media.decoding import VideoError, VideoReader, open_video

__all__ = [
    *("frame_strip", "inline_picture", "path_below", "pictures_of"),
    *("small_picture", "strips_below", "strips_of", "thumbnails"),
]


def frame_strip(video: VideoScores, *, num_frames: int = 12) -> NDArray[np.uint8] | None:
    """The middle frames of ``num_frames`` equal parts of a video, or of its segment of the file.

    ::

        10 frames, 5 parts  |..|..|..|..|..|  ->  1 3 5 7 9

    Args:
        video: Of a test; its path is a file or a folder of frames.
        num_frames: At most so many; a shorter video gives each of its frames once.

    Returns:
        RGB frames [n, H, W, 3]; None where the video cannot be read.

    Raises:
        ValueError: ``num_frames`` is below 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}.")
    record = VideoRecord(video.path, **{name: getattr(video, name) for name in SEGMENT})

    def strip(reader: VideoReader, start: int, stop: int) -> NDArray[np.uint8]:
        count = min(num_frames, stop - start)
        indices = [start + (2 * part + 1) * (stop - start) // (2 * count) for part in range(count)]
        return np.ascontiguousarray(reader.frames(indices).permute(0, 2, 3, 1).numpy())

    try:
        return ClipReader(preprocessing=Preprocessing()).visit(record, strip)
    except VideoError:
        return None


def strips_of(paths: Iterable[str]) -> FrameStrips:
    """``frame_strip`` for these videos alone: a dump that is read again may name any file of this machine.

    Args:
        paths: Of the videos that a test was asked to read.
    """
    allowed = frozenset(paths)
    return lambda video: frame_strip(video) if video.path in allowed else None


def strips_below(root: str | Path) -> FrameStrips:
    """``frame_strip`` for videos below a folder alone; for dumps of others, which may name any file of this machine.

    Args:
        root: The folder; a link in it that leads out of it is not followed. Where a dump's relative path is not found
            in it from the current folder, it starts from ``root``.
    """

    def strip(video: VideoScores) -> NDArray[np.uint8] | None:
        real = path_below(video.path, root)
        return None if real is None else frame_strip(replace(video, path=real))

    return strip


def path_below(path: str, root: str | Path) -> str | None:
    """Where a video is that a stranger's file names, if it is below a folder.

    Args:
        path: As the file has it; a relative one that is not found from the current folder starts from ``root``.
        root: The folder; a link in it that leads out of it is not followed.

    Returns:
        The real path; None where it is elsewhere, or nothing is there.
    """
    top = os.path.realpath(root)
    for each in (path, os.path.join(top, path)):  # noqa: PTH118 an absolute path stays as it is
        try:
            real = os.path.realpath(each)
            if Path(real).is_relative_to(top) and os.path.lexists(real):
                return real
        except (OSError, ValueError):  # no path at all, such as one with a zero byte
            return None
    return None


def thumbnails(
    video: str | Path, times: Sequence[float], *, height: int, reader: ClipReader, fps: float
) -> list[Image.Image | None]:
    """Small pictures of what is on the screen at some times.

    Args:
        video: A file or a folder of frames.
        times: Seconds, in any order.
        height: Of a picture in pixels; its shape is kept.
        reader: Whose decoder and time limit hold.
        fps: Of a video whose frames have no times.

    Returns:
        A picture for each time; None from where on the video cannot be read.
    """
    found: list[Image.Image | None] = [None] * len(times)

    def read() -> None:
        with open_video(video, decoder=reader.decoder, allow_truncated=True) as opened:
            seconds = opened.timestamps or [number / fps for number in range(len(opened))]
            for places, frame in opened.stream(frame_at(seconds, time) for time in times):
                picture = Image.fromarray(frame[0].permute(1, 2, 0).numpy())
                size = max(1, round(height * picture.width / picture.height)), height
                small = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
                for place in places:
                    found[place] = small

    with suppress(VideoError):
        reader.within_time(str(video), read)
    return found


def pictures_of(video: VideoRecord, numbers: Sequence[int], *, side: int, reader: ClipReader) -> list[Image.Image]:
    """Frames by number, reduced where they are larger; one is held at its full size at a time.

    Args:
        video: A record.
        numbers: Of the video's frames, whatever the record's segment; one may come twice.
        side: Pixels of the longer side, at most.
        reader: Whose decoder and time limit hold.

    Raises:
        VideoError: The video cannot be read.
    """
    found: dict[int, Image.Image] = {}

    def read(opened: VideoReader, _start: int, _stop: int) -> None:
        for places, frame in opened.stream(numbers):
            found.update(dict.fromkeys(places, small_picture(frame, side=side)))

    reader.visit(video, read)
    return [found[place] for place in range(len(numbers))]


def small_picture(frame: Tensor, *, side: int) -> Image.Image:
    """A frame of a reader, uint8 RGB [1, 3, H, W], reduced where its longer side has more pixels than ``side``."""
    picture = Image.fromarray(np.ascontiguousarray(frame[0].permute(1, 2, 0).numpy()))
    picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2)
    return picture


def inline_picture(picture: Image.Image) -> str:
    """A picture as an address that holds it, for a page that needs no other file."""
    file = BytesIO()
    picture.save(file, format="WEBP", quality=50, method=2)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
