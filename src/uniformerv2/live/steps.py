"""From frames as they come to the steps of a grid of times whose end is not known.

::

    frames    .   . . . .     .   . . . .   . .   . . .     at whatever rate; some may be missing
    grid      |   |   |   |   |   |   |   |   |   |   |     evenly spread times; at each the frame on the screen
                    ^ known as soon as the next frame comes

What is cut off (a source is taken up again, its clock jumps) is another stretch with a grid of its own: no window lies
across it.

Letters of this file: V crops of a frame, C channels, h x w of the network's input, H x W pixels of a picture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.window_grid import WindowGrid, frame_at
from uniformerv2.inference.windows import WindowScorer
from uniformerv2.media.decoding import ROUNDING_SECONDS, open_video
from uniformerv2.media.frame_pixels import FramePixels
from uniformerv2.media.live_source import LiveSource
from uniformerv2.media.live_stream import LiveStream, SourceError
from uniformerv2.media.video_error import VideoError, check_limit

__all__ = ["Item", "Step", "StepMaker", "StepReader", "StretchEnd"]

DEFAULT_FPS: Final = 25.0
"""Where a source does not tell its rate, and none is given."""
LONGEST_STILL: Final = 600.0
"""Seconds that a frame of a file may stay on the screen; after more the clock has jumped."""
AHEAD: Final = 64
"""Frames of a file that are asked for at once."""


@dataclass(frozen=True, eq=False)
class Step:
    """A frame, and the steps of the grid it stands for.

    Attributes:
        grid: Of its stretch; the same object for all steps of one.
        first: The first step.
        repeats: How many follow each other.
        crops: [V, C, h, w], 0 to 255.
        picture: uint8 RGB [H, W, C] for people; None where none was asked for.
        arrived_at: When the frame was read, by a clock that never goes back.
        wall_offset: What makes seconds of the stream seconds since 1970; None for a file.
    """

    grid: WindowGrid
    first: int
    repeats: int
    crops: Tensor
    picture: NDArray[np.uint8] | None
    arrived_at: float
    wall_offset: float | None
    num_frames: int = 1


@dataclass(frozen=True, eq=False)
class StretchEnd:
    """No step follows in this stretch.

    Attributes:
        grid: As it was.
        end_seconds: When its last frame ends.
    """

    grid: WindowGrid
    end_seconds: float
    num_frames: int = 0


Item = Step | StretchEnd


@dataclass(frozen=True, kw_only=True)
class StepMaker:
    """What a frame becomes.

    Attributes:
        scorer: Says how long windows are, and how frames are resized.
        fps: Frames per second of a source that does not tell; None: 25.
        picture_height: Of the pictures for people; None: none are made.
    """

    scorer: WindowScorer
    fps: float | None = None
    picture_height: int | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """The network's preprocessing."""
        return self.scorer.predictor.preprocessing

    def grid(self, start_seconds: float, fps: float) -> WindowGrid:
        """A grid from here on, without end."""
        window, stride = self.scorer.lengths(fps or self.fps or DEFAULT_FPS)
        num_frames = self.preprocessing.num_frames
        grid = WindowGrid.without_end(num_frames=num_frames, window_seconds=window, stride_seconds=stride)
        return replace(grid, start_seconds=start_seconds)

    def step(
        self, grid: WindowGrid, first: int, repeats: int, frame: Tensor, *, arrived_at: float, wall_offset: float | None
    ) -> Step:
        """A step of a frame uint8 RGB [1, C, H, W]."""
        crops = self.preprocessing.resize_and_crop(frame)[:, 0]
        picture = None if self.picture_height is None else _picture(frame, self.picture_height)
        return Step(grid, first, repeats, crops, picture, arrived_at, wall_offset)


def _picture(frame: Tensor, height: int) -> NDArray[np.uint8]:
    """Not higher than this, with even sides, as H.264 wants them."""
    height = min(height, frame.shape[-2])
    width = max(round(frame.shape[-1] * height / frame.shape[-2]), 2)
    size = max(height - height % 2, 2), width - width % 2
    small = interpolate(frame.float(), size, mode="bilinear", antialias=True)
    return small[0].round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


class StepReader:
    """Reads a source once, from its opening to its end or break, as steps.

    Args:
        source: What is read.
        maker: What a frame becomes.
        is_cancelled: Asked between frames.
        open_seconds: See ``LiveStream``.
        read_seconds: Likewise.
        begun_at: When the first frame of the source came, in an earlier connection; None: this one's is the first.

    Attributes:
        last_frame_at: When the last frame came; None before the first.
        first_frame_at: When the first frame of the source came.
        has_end: The source says of itself that it ends.
    """

    def __init__(
        self,
        source: LiveSource,
        maker: StepMaker,
        *,
        is_cancelled: Callable[[], bool],
        open_seconds: float = 10.0,
        read_seconds: float = 10.0,
        begun_at: float | None = None,
    ) -> None:
        self._source, self._maker, self._is_cancelled = source, maker, is_cancelled
        self._seconds = {"open_seconds": open_seconds, "read_seconds": read_seconds}
        self.first_frame_at = begun_at
        self.last_frame_at: float | None = None
        self.has_end = source.kind == "file"

    def items(self) -> Iterator[Item]:
        """The steps, and the ends of stretches.

        Raises:
            SourceError: The source cannot be opened or breaks off.
        """
        try:
            yield from self._of_file() if self._source.kind == "file" else self._of_stream()
        except VideoError as error:
            raise SourceError(error.reason, is_final=True) from error

    def _of_file(self) -> Iterator[Item]:
        """A file tells where it ends, and when each frame is shown: its grid is that of ``timeline``.

        Raises:
            VideoError: The file cannot be read.
        """
        with open_video(self._source.address, decoder=self._maker.scorer.predictor.reader.decoder) as video:
            fps = video.fps or self._maker.fps or 0.0
            if not fps:
                detail = "its frames have no times, so that windows of seconds cannot be found: give fps (--fps)"
                raise VideoError(video.path, "unsupported", detail)
            times = video.timestamps or [number / fps for number in range(len(video))]
            end = video.info.duration_seconds or len(video) / fps
            window, stride = self._maker.scorer.lengths(fps)
            num_frames = self._maker.preprocessing.num_frames
            grid = WindowGrid.over(0.0, end, num_frames=num_frames, window_seconds=window, stride_seconds=stride)
            check_limit(video.path, "packets_per_file", grid.num_steps, what=f"windows of {grid.num_steps} frames")
            numbers = [
                (number, len(list(same)))
                for number, same in groupby(frame_at(times, grid.time(k)) for k in range(grid.num_steps))
            ]
            first = 0
            for begin in range(0, len(numbers), AHEAD):
                some = numbers[begin : begin + AHEAD]
                for (_, repeats), (_, frame) in zip(some, video.stream([number for number, _ in some]), strict=True):
                    now = self._came()
                    yield self._maker.step(grid, first, repeats, frame, arrived_at=now, wall_offset=None)
                    first += repeats
                    if self._is_cancelled():
                        return
            yield StretchEnd(grid, grid.end_seconds)

    def _came(self) -> float:
        now = self.last_frame_at = time.monotonic()
        if self.first_frame_at is None:
            self.first_frame_at = now
        return now

    def _of_stream(self) -> Iterator[Item]:
        with LiveStream(self._source, is_cancelled=self._is_cancelled, **self._seconds) as stream:
            self.has_end = stream.has_end
            is_live = self._source.is_live and not stream.has_end
            sampler = _Sampler(self._maker, stream.fps, is_live=is_live, path=Path(self._source.shown))
            for seconds, frame in stream.frames():
                now = self._came()
                assert self.first_frame_at is not None
                yield from sampler.push(seconds, frame, now=now, elapsed=now - self.first_frame_at)
            yield from sampler.end()


class _Sampler:
    """Which frame stands for each step of a grid without end; keeps one frame, until the next one comes."""

    def __init__(self, maker: StepMaker, fps: float, *, is_live: bool, path: Path) -> None:
        self._maker, self._fps, self._is_live, self._path = maker, fps, is_live, path
        self._frame_seconds = 1 / (fps or maker.fps or DEFAULT_FPS)
        self._pixels: FramePixels | None = None
        self._size = (0, 0)
        self._grid: WindowGrid | None = None
        self._next = 0
        self._before: tuple[VideoFrame, float, float] | None = None
        self._clock = 0.0
        self._shift = 0.0

    def push(self, seconds: float | None, frame: VideoFrame, *, now: float, elapsed: float) -> Iterator[Item]:
        """The next frame: what is known now of the frame before it.

        Args:
            seconds: By the source's own clock; None where it tells none.
            frame: As decoded.
            now: When it came.
            elapsed: Seconds since the first frame of the source came.
        """
        if self._grid is None or self._before is None:
            self._clock = elapsed if self._is_live else 0.0
            self._begin(seconds)
        else:
            last = self._clock
            clock = last + self._frame_seconds if seconds is None else seconds + self._shift
            if -self._frame_seconds < clock - last <= 0:
                return  # the same time twice: the first stays
            if 0 < clock - last <= (self._longest_gap if self._is_live else LONGEST_STILL):
                yield from self._known(clock)
                self._clock = clock
            else:
                yield from self._cut(last)
                self._clock = max(last + self._frame_seconds, elapsed if self._is_live else 0.0)
                self._begin(seconds)
        self._before = frame, now, time.time() - self._clock

    def end(self) -> Iterator[Item]:
        """The source has ended: the last frame stands for what is left of its window."""
        if self._grid is not None and self._before is not None:
            yield from self._cut(self._clock)

    @property
    def _longest_gap(self) -> float:
        assert self._grid is not None
        return max(1.0, self._grid.window_seconds)

    def _begin(self, seconds: float | None) -> None:
        self._grid, self._next = self._maker.grid(self._clock, self._fps), 0
        self._shift = 0.0 if seconds is None else self._clock - seconds

    def _known(self, until: float) -> Iterator[Item]:
        """The frame before stands for the steps whose middle is before ``until``."""
        assert self._grid is not None
        count = math.ceil((until - ROUNDING_SECONDS - self._grid.time(self._next)) / self._grid.step_seconds)
        if count > 0:
            yield self._made(count)

    def _cut(self, last: float) -> Iterator[Item]:
        assert self._grid is not None
        end = last + self._frame_seconds
        length = end - self._grid.start_seconds
        num_steps = max(self._grid.num_frames, math.floor(length / self._grid.step_seconds + 1e-6))
        if num_steps > self._next:
            yield self._made(num_steps - self._next)
        yield StretchEnd(self._grid, end)

    def _made(self, count: int) -> Step:
        assert self._grid is not None
        assert self._before is not None
        frame, arrived_at, wall_offset = self._before
        if self._pixels is None or self._size != (frame.width, frame.height):
            self._pixels, self._size = FramePixels(frame, path=self._path), (frame.width, frame.height)
        pixels = torch.from_numpy(np.ascontiguousarray(self._pixels(frame)))[None].permute(0, 3, 1, 2)
        first, self._next = self._next, self._next + count
        return self._maker.step(self._grid, first, count, pixels, arrived_at=arrived_at, wall_offset=wall_offset)
