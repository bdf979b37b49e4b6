"""Frames of a video by number: ``open_video`` reads files with PyAV or torchcodec, and folders of frames.

    with open_video("clip.mp4") as video:
        clip = video.frames([0, 30, 60])  # [3, C, H, W], uint8, RGB

Frame numbers are exact and count in presentation order. Decoding starts at the last keyframe before a frame, and
one pass over a group of pictures serves all frames wanted from it:

    keyframes    K . . . . . . K . . . . . . K . . .
    wanted               x   x                 x
    decoded      > > > > > > >               > >        one seek
"""

from __future__ import annotations

import operator
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, SupportsIndex

import torch
from torch import Tensor

from uniformerv2.media.frame_index import FrameIndex
from uniformerv2.media.frame_sources import (
    FrameSource,
    ImageFrames,
    PyAVFrames,
    TorchcodecFrames,
    torchcodec_decoder,
)
from uniformerv2.media.video_error import VideoError, VideoErrorKind, check_limit
from uniformerv2.media.video_file import VideoFile

Decoder = Literal["auto", "pyav", "torchcodec"]

ROUNDING_SECONDS: Final = 1e-4
"""Lists round their times; a frame that starts so little after a segment's bound counts as on it."""

__all__ = ["Decoder", "VideoError", "VideoErrorKind", "VideoInfo", "VideoReader", "open_video"]


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video is, known once it is open.

    Attributes:
        num_frames: Frames that are shown, in presentation order.
        fps: Mean frames per second; 0.0 where the source does not say (a folder, a single picture).
        constant_rate: Every frame is shown equally long, to the container's clock tick.
        duration_seconds: Time from the first frame to the end of the last; 0.0 without ``fps``.
        height: Height of a frame as it is shown, rotation applied.
        width: Width of a frame, likewise.
        rotation: Degrees clockwise that the container asks for and that were applied: 0, 90, 180 or 270.
        mirrored: The container asks for left and right to change places before the rotation, and they have.
        codec: FFmpeg's name, such as ``"h264"``, or ``"images"``.
        container: FFmpeg's name, such as ``"mov"``, or ``"folder"``.
        gop_length: The longest run of frames from one keyframe to the next, what a random access may have to decode.
        missing_bytes: What the header promises beyond the end of the file; above 0 only with ``allow_truncated``.
    """

    num_frames: int
    fps: float = 0.0
    constant_rate: bool = True
    duration_seconds: float = 0.0
    height: int
    width: int
    rotation: int = 0
    mirrored: bool = False
    codec: str
    container: str
    gop_length: int = 1
    missing_bytes: int = 0


class VideoReader:
    """An open video: its length, and its frames by number. Made by ``open_video``; close it, or use ``with``.

    One reader serves one thread of one process; another process opens the video anew.

    Attributes:
        path: The file or folder.
        info: What the video is.
        keyframes: Numbers of the frames at which decoding can start.
        timestamps: Seconds from the first frame to each frame; empty where ``info.fps`` is 0.
    """

    def __init__(
        self, path: Path, info: VideoInfo, source: FrameSource, keyframes: Sequence[int], timestamps: Sequence[float]
    ) -> None:
        self.path = path
        self.info = info
        self.keyframes = tuple(keyframes)
        self.timestamps = tuple(timestamps)
        self._source = source
        self._is_closed = False
        self._process = os.getpid()

    def __len__(self) -> int:
        return self.info.num_frames

    @property
    def fps(self) -> float:
        """Mean frames per second; 0.0 where the source does not say."""
        return self.info.fps

    @property
    def height(self) -> int:
        """Height of the frames as they are returned."""
        return self.info.height

    @property
    def width(self) -> int:
        """Width of the frames as they are returned."""
        return self.info.width

    @property
    def decoder(self) -> Literal["pyav", "torchcodec", "images"]:
        """What decodes this video."""
        return self._source.name

    def frames(self, indices: Iterable[SupportsIndex]) -> Tensor:
        """Decode frames.

        Args:
            indices: Frame numbers from 0 to ``len(self) - 1``, in any order; a number may come twice.

        Returns:
            uint8 RGB frames [T, C, H, W], in the order of ``indices``. In memory the channels are last.

        Raises:
            IndexError: There is no such frame. A frame that is there and cannot be decoded is a ``VideoError``.
            RuntimeError: The reader was opened in another process.
            ValueError: The reader is closed.
            VideoError: They are more than the limit ``bytes_per_request``; ``stream`` needs memory for one.
        """
        wanted = [operator.index(index) for index in indices]
        what = f"{len(wanted)} frames of {self.width} x {self.height} pixels at once, 3 bytes a pixel,"
        check_limit(self.path, "bytes_per_request", 3 * len(wanted) * self.width * self.height, what=what)
        clip = torch.empty(len(wanted), self.height, self.width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        for places, frame in self.stream(wanted):
            clip[places] = frame
        return clip

    def stream(self, indices: Iterable[SupportsIndex]) -> Iterator[tuple[list[int], Tensor]]:
        """Decode frames one by one, each of them once and in increasing order; memory for one is enough.

        Args:
            indices: What ``frames`` takes.

        Yields:
            Where in ``indices`` the frame is wanted, and the frame, uint8 RGB [1, C, H, W], channels last in memory.

        Raises:
            IndexError: There is no such frame.
            RuntimeError: The reader was opened in another process.
            ValueError: The reader is closed.
        """
        if self._is_closed:
            raise ValueError(f"{self.path} is closed; call open_video again")
        if os.getpid() != self._process:
            raise RuntimeError(f"{self.path} was opened in another process; call open_video in the one that reads")
        places: dict[int, list[int]] = {}
        for place, index in enumerate(map(operator.index, indices)):
            if not 0 <= index < len(self):
                raise IndexError(f"{self.path} has no frame {index}: its {len(self)} frames are 0 to {len(self) - 1}")
            places.setdefault(index, []).append(place)
        numbers = sorted(places)
        frames = self._source.read(numbers)
        for number in numbers:  # no name holds a frame here while the next is decoded
            yield places[number], next(frames)[None].permute(0, 3, 1, 2)

    def segment_frames(
        self,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        start_frame: int | None = None,
        end_frame: int | None = None,
    ) -> tuple[int, int]:
        """First frame of a segment, and one past its last; what reaches beyond the video is cut off.

        Seconds become frames by the video's own timestamps: the first is the one on the screen at the start::

            frames at    0.0   0.4   0.8   1.2   1.6
            segment          [ 0.5 ....... 1.2 )           ->  1, 3

        Raises:
            VideoError: The segment starts after the end, or is in seconds where the frames have no times.
        """
        start, stop = start_frame or 0, len(self) if end_frame is None else end_frame
        if start_seconds is not None or end_seconds is not None:
            if not self.timestamps:
                detail = "its segment is given in seconds, and its frames have no times: give start_frame and end_frame"
                raise VideoError(self.path, "unsupported", detail)
            if start_seconds is not None:
                start = max(bisect_right(self.timestamps, start_seconds + ROUNDING_SECONDS) - 1, 0)
                if start_seconds >= self.info.duration_seconds:
                    start = len(self)
            if end_seconds is not None:
                stop = bisect_left(self.timestamps, end_seconds - ROUNDING_SECONDS)
        if start >= len(self):
            bound = f"{start_seconds} s" if start_seconds is not None else f"frame {start}"
            has = f"{len(self)} frames, {self.info.duration_seconds:.2f} s"
            raise VideoError(self.path, "truncated", f"its segment starts at {bound}, the video has {has}")
        return start, max(min(stop, len(self)), start + 1)

    def segment_seconds(
        self,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        start_frame: int | None = None,
        end_frame: int | None = None,
    ) -> float | None:
        """How long a segment lasts; None where nothing tells."""
        if start_seconds is not None and end_seconds is not None:
            return end_seconds - start_seconds
        whole = self.info.duration_seconds
        if start_frame is not None and end_frame is not None and self.fps:
            return (end_frame - start_frame) / self.fps
        return ((min(end_seconds or whole, whole)) - (start_seconds or 0.0) if whole else None) or None

    def close(self) -> None:
        """Free the decoder, its threads and the file. Closing twice is harmless."""
        self._is_closed = True
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_video(
    path: str | os.PathLike[str],
    *,
    decoder: Decoder = "auto",
    num_threads: int = 1,
    allow_truncated: bool = False,
) -> VideoReader:
    """Open a video file or a folder of frames; what cannot be read is a ``VideoError`` that says why.

    PyAV opens and indexes every file, so that both decoders count the same frames and refuse the same files.
    With ``"torchcodec"`` that then decodes the files whose packets tell their frames, PyAV the others.
    A folder holds one sequence of images, numbered at the end of their names (``img_00001.jpg``).

    Args:
        path: A local file or folder. An address on the network is not fetched.
        decoder: ``"auto"`` is PyAV, which is always there and through this reader the faster of the two: the frames
            are the same, the files are indexed by PyAV in any case, and torchcodec takes a second to import.
        num_threads: Threads of the decoder; leave 1 where several processes decode.
        allow_truncated: Open a file whose end is missing with the frames before the break, where its tables are there;
            ``info.missing_bytes`` tells it. Otherwise it is a ``VideoError``, as its length would be wrong.

    Returns:
        The reader, a context manager.

    Raises:
        ValueError: ``decoder`` or ``num_threads`` is not allowed.
    """
    if decoder not in {"auto", "pyav", "torchcodec"}:
        raise ValueError(f"decoder is {decoder!r}; it is one of 'auto', 'pyav', 'torchcodec'")
    if num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}; it is at least 1")
    path = Path(path)
    if _is_folder(path):
        return _open_folder(path)
    file = VideoFile(path, num_threads=num_threads, allow_truncated=allow_truncated)
    try:
        return _open_file(file, decoder=decoder, num_threads=num_threads)
    except BaseException:
        file.close()
        raise


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # what is wrong is said when it is opened as a file
        return False


def _open_file(file: VideoFile, *, decoder: Decoder, num_threads: int) -> VideoReader:
    decoder_class = torchcodec_decoder() if decoder == "torchcodec" else None
    frames = PyAVFrames(file)
    index = frames.index
    source: FrameSource = frames
    if decoder_class is not None and index.timed:
        source = TorchcodecFrames(frames, decoder_class=decoder_class, num_threads=num_threads)
    fps, timestamps = _timing(file, index)
    info = VideoInfo(
        num_frames=len(index.keys),
        fps=fps,
        constant_rate=index.constant_rate,
        duration_seconds=timestamps[-1] + 1 / fps if fps else 0.0,
        height=frames.height,
        width=frames.width,
        rotation=frames.rotation,
        mirrored=frames.mirrored,
        codec=file.codec_name,
        container=file.container_name,
        gop_length=index.gop_length,
        missing_bytes=file.missing_bytes,
    )
    return VideoReader(file.path, info, source, index.keyframes, timestamps)


def _open_folder(path: Path) -> VideoReader:
    images = ImageFrames(path)
    count, height, width = len(images.paths), images.height, images.width
    info = VideoInfo(num_frames=count, height=height, width=width, codec="images", container="folder")
    return VideoReader(path, info, images, range(count), ())


def _timing(file: VideoFile, index: FrameIndex) -> tuple[float, list[float]]:
    """Frames per second, and the time of each frame in seconds."""
    stream, num_frames = file.stream, len(index.keys)
    tick = float(stream.time_base or 0)
    times = [(time - index.times[0]) * tick for time in index.times]
    span = times[-1] if times else 0.0
    # The average also counts the packets without a frame, which AVI may have; the guess does not.
    fps = float((stream.average_rate if times else stream.guessed_rate) or 0)
    # An average may be that of the first frames alone: then the last frame lies far (a tenth and more) after the end.
    if span and (not fps or span > 1.1 * num_frames / fps):
        fps = (num_frames - 1) / span
    if not fps:
        return 0.0, []
    return fps, times or [number / fps for number in range(num_frames)]
