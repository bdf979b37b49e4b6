"""Sources of frames behind ``VideoReader``: PyAV, torchcodec, a folder of images."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor

from uniformerv2.core.optional import require
from uniformerv2.media.frame_pixels import FramePixels
from uniformerv2.media.video_error import IMAGE_SUFFIXES, VideoError, check_limit
from uniformerv2.media.video_file import VideoFile, open_regular

__all__ = ["FrameSource", "ImageFrames", "PyAVFrames", "TorchcodecFrames", "torchcodec_decoder"]

_BATCH_BYTES = 2**26
"""Pixels that torchcodec decodes at once."""


class PyAVFrames:
    """Frames of a file, decoded by PyAV: it seeks where the index is timed, else counts from the start.

    A frame is the same pixels whatever was read before. What a decoder makes of a damaged stream depends on what it
    decoded before, so that a group of pictures with damage is decoded by a new one, from its keyframe on.

    Args:
        file: An open file, closed with this source. Where it holds no frame that decodes, a ``VideoError`` says so.
    """

    name: Literal["pyav"] = "pyav"

    def __init__(self, file: VideoFile) -> None:
        self.file = file
        self.index, frames = file.index()
        self._decoded = self._keyed(frames)
        self._start = self.index.seek_points[0]
        self._fresh_start: int | None = self._start
        self._current: tuple[int, VideoFrame] | None = None
        self._step()
        first = self._frame(0)
        self._pixels = FramePixels(first, path=file.path)
        self.mirrored, self.rotation = self._pixels.mirrored, self._pixels.rotation
        self.width, self.height = self._pixels.width, self._pixels.height

    def read(self, numbers: list[int]) -> Iterator[Tensor]:
        """See ``FrameSource``."""
        for number in numbers:
            yield torch.from_numpy(np.ascontiguousarray(self._pixels(self._frame(number))))

    def close(self) -> None:
        """See ``FrameSource``."""
        self._decoded, self._current = iter(()), None
        self.file.close()

    def _frame(self, number: int) -> VideoFrame:
        target = self.index.keys[number]
        points = self.index.seek_points
        start = points[bisect_right(points, target) - 1]
        if self._current is None or not start <= self._current[0] <= target:
            self._start_at(start, target, fresh=self.file.is_damaged)
        self._step_to(target)
        if self.index.timed and self.file.is_damaged and self._fresh_start != start:
            self._start_at(start, target, fresh=True)
            self._step_to(target)
        if self._current is None or self._current[0] != target:
            raise VideoError(self.file.path, "corrupt", f"frame {number} of {len(self.index.keys)} cannot be decoded")
        return self._current[1]

    def _step(self) -> None:
        self._current = next(self._decoded, None)
        if self._current is not None:
            number, frame = self._current
            # Before the keyframe in an open group of pictures come frames that only decoding from an earlier one gives.
            self.file.is_damaged |= frame.is_corrupt and number >= self._start

    def _step_to(self, target: int) -> None:
        while self._current is not None and self._current[0] < target:
            self._step()

    def _start_at(self, start: int, target: int, *, fresh: bool) -> None:
        """Decode from the keyframe at ``start``; from the beginning where a seek leads past ``target``."""
        self._start, self._fresh_start = start, start if fresh else None
        if self.index.timed:
            if fresh:
                self.file.restart()
            self.file.seek(start)
            self._decoded = self._keyed(self.file.decode())
            self._step()
            if self._current is not None and self._current[0] <= target:
                return
        self.file.restart()
        self._start = self._fresh_start = self.index.seek_points[0]
        self._decoded = self._keyed(self.file.decode())
        self._step()

    def _keyed(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        if not self.index.timed:
            return enumerate(frames)
        return ((frame.pts, frame) for frame in frames if frame.pts is not None)


class TorchcodecFrames:
    """Frames of a file, decoded by torchcodec; by ``exact`` from the first request on that torchcodec cannot serve.

    Args:
        exact: The same file read by PyAV, with a timed index. What torchcodec refuses (a size that changes on the way),
            replaces by a neighbour (a frame that does not decode) or turns another way (a mirrored picture, an angle
            between two quarter turns) is read by ``exact``, or gets its error.
        decoder_class: torchcodec's ``VideoDecoder``.
        num_threads: Threads of the decoder.
    """

    def __init__(self, exact: PyAVFrames, *, decoder_class: Any, num_threads: int) -> None:
        self._exact = exact
        self._tick = float(exact.file.stream.time_base or 0)
        self._decoder: Any = None
        # torchcodec gets no path: from a file object it can reach no other file.
        self._bytes = open_regular(exact.file.path)
        if exact.mirrored:  # torchcodec would turn it instead
            return
        stream_index = exact.file.stream.index
        try:
            decoder = decoder_class(
                self._bytes, stream_index=stream_index, dimension_order="NHWC", num_ffmpeg_threads=num_threads
            )
        except (RuntimeError, ValueError):
            return
        if len(decoder) == len(exact.index.keys):
            self._decoder = decoder

    @property
    def name(self) -> Literal["pyav", "torchcodec"]:
        """What decodes from here on."""
        return "pyav" if self._decoder is None else "torchcodec"

    def read(self, numbers: list[int]) -> Iterator[Tensor]:
        """See ``FrameSource``."""
        at_once = max(1, _BATCH_BYTES // (3 * self._exact.height * self._exact.width))
        while numbers:
            batch = self._batch(numbers[:at_once])
            if batch is None:
                yield from self._exact.read(numbers)
                return
            yield from batch
            numbers = numbers[at_once:]

    def _batch(self, numbers: list[int]) -> Tensor | None:
        """Frames [T, H, W, C]; None where ``exact`` must read them."""
        if self._decoder is None:
            return None
        try:
            batch = self._decoder.get_frames_at(numbers)
        except RuntimeError:
            self._decoder = None
            return None
        keys = torch.tensor([self._exact.index.keys[number] for number in numbers], dtype=torch.float64)
        if batch.data.shape[1:3] != (self._exact.height, self._exact.width):
            self._decoder = None
        elif torch.allclose(batch.pts_seconds, keys * self._tick, rtol=0, atol=self._tick / 2):
            frames: Tensor = batch.data
            return frames
        return None

    def close(self) -> None:
        """See ``FrameSource``."""
        self._decoder = None
        self._bytes.close()
        self._exact.close()


def torchcodec_decoder() -> Any:
    """Import ``VideoDecoder`` of torchcodec.

    Raises:
        ModuleNotFoundError: torchcodec is not installed, or does not find FFmpeg's libraries.
    """
    torchcodec = require("torchcodec", extra="torchcodec")
    if torchcodec.ffmpeg_major_version is None:
        raise ModuleNotFoundError(
            "torchcodec finds no FFmpeg libraries: install FFmpeg, or take the decoder 'pyav'.", name="torchcodec"
        )
    return torchcodec.decoders.VideoDecoder


class ImageFrames:
    """The images of a folder, by the number at the end of their names.

    Args:
        folder: Holds one sequence, such as ``img_00001.jpg`` ...; optical flow (``flow_*``) beside it is left out.
            Anything else in it is a ``VideoError``.
    """

    name: Literal["images"] = "images"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.paths = _image_sequence(folder)
        self.height, self.width = self._pixels(0).shape[:2]

    def read(self, numbers: list[int]) -> Iterator[Tensor]:
        """See ``FrameSource``."""
        for number in numbers:
            yield torch.from_numpy(self._same_size(number))

    def close(self) -> None:
        """Nothing stays open between two reads."""

    def _same_size(self, number: int) -> NDArray[np.uint8]:
        pixels = self._pixels(number)
        if pixels.shape != (self.height, self.width, 3):
            found = f"{self.paths[number].name} is {pixels.shape[1]}x{pixels.shape[0]}"
            raise VideoError(self._folder, "corrupt", f"{found}, the first image {self.width}x{self.height}")
        return pixels

    def _pixels(self, number: int) -> NDArray[np.uint8]:
        from PIL import Image

        path = self.paths[number]
        try:
            with (
                open_regular(path, folder=self._folder) as file,
                Image.open(file, formats=("JPEG", "PNG", "WEBP", "BMP")) as image,
            ):
                size = f"{path.name}, an image of {image.width} x {image.height} pixels,"
                check_limit(self._folder, "pixels_per_frame", image.width * image.height, what=size)
                if image.mode.startswith("I"):  # 16-bit grey, all of which above 255 Pillow would make white
                    return np.stack([(np.asarray(image) >> 8).astype(np.uint8)] * 3, axis=2)
                return np.array(image.convert("RGB"))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise VideoError(self._folder, "too large", f"{path.name} ({error})") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise VideoError(self._folder, "corrupt", f"{path.name} cannot be decoded") from error


FrameSource = PyAVFrames | TorchcodecFrames | ImageFrames
"""What turns frame numbers into pixels.

``name`` says what decodes. ``read`` takes increasing frame numbers, already checked, and gives each frame as uint8 RGB
[H, W, C], upright. ``close`` frees what is held; closing twice is harmless.
"""


def _image_sequence(folder: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise VideoError(folder, "unreadable", str(error.strerror)) from error
    if not names:
        raise VideoError(folder, "empty", "the folder holds no files")
    numbered: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)(\d+)(\.\w+)", name)
        if match and match[3].lower() in IMAGE_SUFFIXES and not match[1].startswith("flow_"):
            numbered.setdefault(match[1], []).append((int(match[2]), name))
    if not numbered:
        raise VideoError(folder, "not a video", "the folder holds no numbered images such as img_00001.jpg")
    if len(numbered) > 1:
        found = ", ".join(f"{prefix}*" for prefix in numbered)
        raise VideoError(folder, "unsupported", f"the folder holds several sequences: {found}")
    (sequence,) = numbered.values()
    return [folder / name for _, name in sorted(sequence)]
