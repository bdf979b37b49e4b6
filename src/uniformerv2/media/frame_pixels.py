"""A decoded frame as RGB pixels, upright: the same pixels for files and for live streams.

Letters of this file: H x W pixels of a frame, C colours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from uniformerv2.media.video_error import VideoError

__all__ = ["FramePixels"]


class FramePixels:
    """Makes frames of one video into RGB, turned upright, all of the size of the first.

    Args:
        first: Decides the size and how frames are turned.
        path: The video, for errors.

    Attributes:
        width: Of the pixels that come out.
        height: Likewise.
        mirrored: Left and right change places, before the rotation.
        rotation: Degrees clockwise: 0, 90, 180 or 270.
    """

    def __init__(self, first: VideoFrame, *, path: Path) -> None:
        self._path = path
        self._coded_size = (first.width, first.height)
        self.mirrored, self._left_turns = _orientation(first)
        self.width, self.height = self._coded_size[:: -1 if self._left_turns % 2 else 1]
        self.rotation = -90 * self._left_turns % 360
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """RGB [H, W, C], turned upright; a frame of another size is resized to the first, as FFmpeg's tools do.

        Raises:
            VideoError: FFmpeg does not convert pixels of this kind.
        """
        width, height = self._coded_size
        is_plain = frame.format.components[0].bits <= 8 and not frame.height % 2 and not frame.interlaced_frame
        if not is_plain and not frame.format.has_palette:
            frame = _without_chroma_position(frame)
        try:
            rgb = self._reformatter.reformat(
                frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1
            )
        except av.FFmpegError as error:
            detail = f"pixels of the format {frame.format.name} cannot be made RGB ({error.strerror})"
            raise VideoError(self._path, "unsupported", detail) from error
        pixels = _rows(rgb.planes[0])[:, : 3 * width].reshape(height, width, 3)
        return np.rot90(pixels[:, ::-1] if self.mirrored else pixels, self._left_turns)


def _orientation(frame: VideoFrame) -> tuple[bool, int]:
    """Whether to mirror the picture from left to right, and how many quarter turns to the left it then needs."""
    try:
        matrix = cast("SideDataContainer", frame.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return False, 0
    except ValueError:  # PyAV has no name for some of what a decoder tells, such as Exif, and then gives nothing
        return False, round(frame.rotation / 90) % 4
    a, b, _, c, d, *_ = np.frombuffer(memoryview(matrix), np.int32).tolist()
    mirrored = a * d < b * c
    sign = -1 if mirrored else 1
    return mirrored, round(math.atan2(-sign * b, sign * a) / (math.pi / 2)) % 4  # atan2(0, 0) is 0: zeros turn nothing


def _rows(plane: VideoPlane) -> NDArray[np.uint8]:
    """The bytes of a plane, one row per line, padding included."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)


def _without_chroma_position(frame: VideoFrame) -> VideoFrame:
    """The same picture, silent about where its chroma samples lie.

    FFmpeg 8 honours the position in pictures with more than 8 bits or an odd height, and takes the chroma of interlaced
    pictures field by field. Earlier versions, torchcodec and the decoders that the published models were trained with
    do not, and their colours are the ones to give.
    """
    plain = VideoFrame(frame.width, frame.height, frame.format.name)
    for source, copy in zip(frame.planes, plain.planes, strict=True):
        num_bytes = min(source.line_size, copy.line_size)
        _rows(copy)[:, :num_bytes] = _rows(source)[:, :num_bytes]
    plain.colorspace, plain.color_range = frame.colorspace, frame.color_range
    return plain
