"""The frames that the windows of a video look at: which they are, and their crops; this reads and computes nothing.

::

    source = WindowFrames(record=VideoRecord("match.mp4"), reader=predictor.reader)
    with source.opened() as video:
        plan = source.plan(video)                       # which frames, known before any is decoded
        for crops in source.crops(video, plan.numbers[:256]):
            ...                                         # some of them: another process may open the video for the rest

``WindowFrames`` and ``WindowPlan`` can be pickled, so that a worker process reads a long video piece by piece. What
computes (``windows.WindowFeed``) takes ``GridFrame`` from wherever they come.

Letters of this file: T frames of a window, F frames of a plan, V crops of a frame, C colours, h x w of the network's
input.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader
from uniformerv2.inference.window_grid import WindowGrid, frame_at, window_lengths
from uniformerv2.media.decoding import VideoError, VideoReader, open_video
from uniformerv2.media.video_error import TRUNCATED, check_limit

__all__ = ["GridFrame", "WindowFrames", "WindowPlan"]

Item = TypeVar("Item")
AT_A_TIME: Final = 64
"""Frames that are asked for at once: they come one by one, and their numbers are sorted together."""


class GridFrame(NamedTuple):
    """A frame on the grid of the windows.

    Attributes:
        number: Of the frame in its video.
        repeats: For how many steps of the grid, one after the other, it is the frame on the screen.
        crops: [V, C, h, w], 0 to 255.
    """

    number: int
    repeats: int
    crops: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowPlan:
    """How the windows of a video lie, and which frames they look at.

    Attributes:
        grid: Of the windows.
        fps: Frames per second of the video.
        duration_seconds: Of the video, as its container says.
        numbers: Each frame of the grid once, in order [F].
        repeats: For how many steps of the grid each of them stands [F].
        missing_bytes: At the end of the file; the frames of the plan lie before the break.
    """

    grid: WindowGrid
    fps: float
    duration_seconds: float
    numbers: NDArray[np.int64]
    repeats: NDArray[np.int64]
    missing_bytes: int = 0

    def check_whole(self, video: str) -> None:
        """Tell, once all frames have come, that others are missing.

        Raises:
            VideoError: The end of the file is missing.
        """
        if self.missing_bytes:
            raise VideoError(video, "truncated", TRUNCATED.format(self.missing_bytes))


@dataclass(frozen=True, kw_only=True)
class WindowFrames:
    """Reads the frames of the windows of one video.

    Attributes:
        record: The video, or a segment of it.
        reader: Makes the crops; its preprocessing says how many frames a window has.
        window_seconds: See ``window_lengths``.
        stride_seconds: Likewise.
        fps: Frames per second of a video that has no times.
    """

    record: VideoRecord
    reader: ClipReader
    window_seconds: float | None = None
    stride_seconds: float | None = None
    fps: float | None = None

    @contextmanager
    def opened(self) -> Iterator[VideoReader]:
        """The video, opened up to a break in it."""
        with open_video(self.record.path, decoder=self.reader.decoder, allow_truncated=True) as video:
            yield video

    def plan(self, video: VideoReader) -> WindowPlan:
        """Which frames the windows look at.

        Args:
            video: Of ``opened``.

        Raises:
            VideoError: The frames have no times, the segment lies behind the end, or there are too many windows.
        """
        fps = video.fps or self.fps or 0.0
        if not fps:
            detail = "its frames have no times, so that windows of seconds cannot be found: give fps (--fps)"
            raise VideoError(video.path, "unsupported", detail)
        duration = video.info.duration_seconds or len(video) / fps
        times = video.timestamps or [number / fps for number in range(len(video))]
        first, stop = video.segment_frames(*self.record.segment)
        grid = self._grid(video, times, (first, stop), fps=fps, duration=duration)
        steps = (min(max(frame_at(times, grid.time(k)), first), stop - 1) for k in range(grid.num_steps))
        shown = np.fromiter(steps, np.int64, grid.num_steps)
        starts = np.flatnonzero(np.diff(shown, prepend=-1))
        return WindowPlan(
            grid=grid,
            fps=fps,
            duration_seconds=duration,
            numbers=shown[starts],
            repeats=np.diff(starts, append=len(shown)),
            missing_bytes=video.info.missing_bytes,
        )

    def _grid(
        self, video: VideoReader, times: Sequence[float], segment: tuple[int, int], *, fps: float, duration: float
    ) -> WindowGrid:
        record, (first, stop) = self.record, segment
        start = times[first] if record.start_seconds is None else record.start_seconds
        end = times[stop] if stop < len(times) else duration
        end = end if record.end_seconds is None else min(record.end_seconds, duration)
        preprocessing = self.reader.preprocessing
        lengths = window_lengths(
            preprocessing, fps=fps, window_seconds=self.window_seconds, stride_seconds=self.stride_seconds
        )
        grid = WindowGrid.over(
            start,
            max(end, start + 1e-3),
            num_frames=preprocessing.num_frames,
            window_seconds=lengths[0],
            stride_seconds=lengths[1],
        )
        check_limit(video.path, "packets_per_file", grid.num_steps, what=f"windows of {grid.num_steps} frames")
        return grid

    def crops(self, video: VideoReader, numbers: Iterable[int]) -> Iterator[Tensor]:
        """The crops of frames of a plan, one after the other.

        Args:
            video: Of ``opened``; in another process or at another time than the plan's, if need be.
            numbers: Increasing, all or some of the plan's.

        Yields:
            [V, C, h, w] of each frame.

        Raises:
            VideoError: A frame cannot be decoded, or is too large.
        """
        numbers = iter(numbers)
        while some := list(islice(numbers, AT_A_TIME)):
            for _, crops, _ in self.reader.crops(video, some):
                yield crops[:, 0]

    def read(self, tell: Callable[[WindowPlan], object]) -> Iterator[GridFrame]:
        """All frames of the plan, each as soon as it is decoded; opening and each frame have the reader's time limit.

        Args:
            tell: Called with the plan before the first frame.

        Raises:
            VideoError: The video cannot be opened, or breaks off behind the last frame that came.
        """
        frames = self._opened_frames(tell)
        while (found := self.reader.within_time(self.record.path, lambda: next(frames, None))) is not None:
            yield found

    def _opened_frames(self, tell: Callable[[WindowPlan], object]) -> Generator[GridFrame]:
        with self.opened() as video:
            plan = self.plan(video)
            tell(plan)
            all_crops = self.crops(video, plan.numbers.tolist())
            for number, repeats, crops in zip(plan.numbers.tolist(), plan.repeats.tolist(), all_crops, strict=True):
                yield GridFrame(number, repeats, crops)
            plan.check_whole(self.record.path)
