"""Windows of a long video on one grid of times, so that windows that overlap see the same frames.

::

    frames    .   . . . .     .   . . . .   . .   . . .     the video's own, at whatever rate
    grid      |   |   |   |   |   |   |   |   |   |   |     evenly spread times; at each the frame on the screen
    windows   [ 0         ]                                 T = 4 frames
                      [ 1         ]                         a stride of two steps
                                  [ 2         ]
                                      [ 3         ]         the last one ends with the video

Letters: T frames of a window.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import ROUNDING_SECONDS

__all__ = ["SEGMENT_WINDOW_SECONDS", "WindowGrid", "frame_at", "window_lengths"]

SEGMENT_WINDOW_SECONDS: Final = 1.0
"""Default length of a window where clips are spread over whole videos, whose length in training nothing tells: the
shortest of 1, 1.5, 2 and 3 s found the borders of joined clips best (docs/long_videos.md)."""
STRIDES_PER_WINDOW: Final = 4
"""Default: a window starts a quarter of its length after the one before."""


@dataclass(frozen=True, kw_only=True)
class WindowGrid:
    """Windows over a stretch of time.

    Attributes:
        start_seconds: Where the first window starts.
        end_seconds: Where the last one ends.
        step_seconds: From one time of the grid to the next; T of these are a window.
        num_steps: Times of the grid, at least ``num_frames``.
        num_frames: T.
        stride_steps: From the start of one window to that of the next.
    """

    start_seconds: float
    end_seconds: float
    step_seconds: float
    num_steps: int
    num_frames: int
    stride_steps: int

    @classmethod
    def over(
        cls, start_seconds: float, end_seconds: float, *, num_frames: int, window_seconds: float, stride_seconds: float
    ) -> Self:
        """The windows of a stretch of time; one that is shorter than a window is a single, shorter window.

        Args:
            start_seconds: Where it starts.
            end_seconds: Where it ends.
            num_frames: T.
            window_seconds: Length of a window.
            stride_seconds: From window to window, rounded to the grid.

        >>> grid = WindowGrid.over(0.0, 5.0, num_frames=4, window_seconds=2.0, stride_seconds=1.0)
        >>> grid.num_windows, grid.step_seconds, grid.bounds(6)
        (4, 0.5, (3.0, 5.0))
        >>> WindowGrid.over(0.0, 1.0, num_frames=4, window_seconds=2.0, stride_seconds=1.0).step_seconds
        0.25
        """
        length = end_seconds - start_seconds
        step = min(window_seconds, length) / num_frames
        num_steps = max(num_frames, math.floor(length / step + 1e-6)) if step > 0 else num_frames
        stride = max(1, round(stride_seconds * num_frames / window_seconds))
        return cls(
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            step_seconds=step,
            num_steps=num_steps,
            num_frames=num_frames,
            stride_steps=stride,
        )

    @classmethod
    def without_end(cls, *, num_frames: int, window_seconds: float, stride_seconds: float) -> Self:
        """The windows of a video that comes as it happens: they go on for ever, and its first frame is at 0.

        Args:
            num_frames: T.
            window_seconds: Length of a window.
            stride_seconds: From window to window, rounded to the grid.

        >>> grid = WindowGrid.without_end(num_frames=4, window_seconds=2.0, stride_seconds=1.0)
        >>> grid.bounds(6), grid.end_seconds
        ((3.0, 5.0), inf)
        """
        grid = cls.over(
            0.0, window_seconds, num_frames=num_frames, window_seconds=window_seconds, stride_seconds=stride_seconds
        )
        return replace(grid, end_seconds=math.inf, num_steps=sys.maxsize)

    @property
    def num_windows(self) -> int:
        """How many there are."""
        return 1 + -(-(self.num_steps - self.num_frames) // self.stride_steps)

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.step_seconds * self.num_frames

    @property
    def stride_seconds(self) -> float:
        """From the start of one window to that of the next."""
        return self.step_seconds * self.stride_steps

    def time(self, step: int) -> float:
        """The middle of a step: the frame that is then on the screen stands for it."""
        return self.start_seconds + (step + 0.5) * self.step_seconds

    def bounds(self, first: int) -> tuple[float, float]:
        """Start and end in seconds of the window whose first step this is."""
        last = first + self.num_frames
        end = self.end_seconds if last >= self.num_steps else self.start_seconds + last * self.step_seconds
        return self.start_seconds + first * self.step_seconds, end


def frame_at(timestamps: Sequence[float], seconds: float) -> int:
    """The number of the frame on the screen.

    Args:
        timestamps: When each frame comes, increasing.
        seconds: When; before the first frame it is the first.

    >>> frame_at([0.0, 0.4, 0.8], 0.79), frame_at([0.0, 0.4, 0.8], 0.8), frame_at([0.0, 0.4], 9.0)
    (1, 2, 1)
    """
    return max(bisect_right(timestamps, seconds + ROUNDING_SECONDS) - 1, 0)


def window_lengths(
    preprocessing: Preprocessing, *, fps: float, window_seconds: float | None, stride_seconds: float | None
) -> tuple[float, float]:
    """Length and stride of the windows of a video, where they are not given.

    A window is as long as a clip was in training: with dense sampling T times ``frame_stride`` frames of the video,
    with segments, where a clip spans a whole video, ``SEGMENT_WINDOW_SECONDS``. The stride is a quarter of it.

    Args:
        preprocessing: Of the network.
        fps: Frames per second of the video.
        window_seconds: None: by this rule.
        stride_seconds: None: by this rule.

    Raises:
        ValueError: One is not above 0, or there would be gaps between windows.
    """
    if window_seconds is None:
        is_dense = preprocessing.sampling == "dense" and fps > 0
        num_frames = preprocessing.num_frames * preprocessing.frame_stride
        window_seconds = num_frames / fps if is_dense else SEGMENT_WINDOW_SECONDS
    if stride_seconds is None:
        stride_seconds = window_seconds / STRIDES_PER_WINDOW
    for name, value in (("window_seconds", window_seconds), ("stride_seconds", stride_seconds)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}.")
    if stride_seconds > window_seconds:
        raise ValueError(
            f"stride_seconds must be at most window_seconds ({window_seconds:g}), as what lies between two windows "
            f"would go unseen, got {stride_seconds:g}."
        )
    return window_seconds, stride_seconds
