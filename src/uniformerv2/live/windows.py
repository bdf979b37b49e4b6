"""SlidingWindows: from the steps of a source to windows, each as soon as its last frame is there.

Letters of this file: T frames of a window, H x W pixels of a picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from uniformerv2.inference.window_frames import GridFrame
from uniformerv2.inference.window_grid import WindowGrid
from uniformerv2.inference.window_scores import Window
from uniformerv2.inference.windows import WindowFeed, WindowScorer
from uniformerv2.live.steps import Item, Step, StretchEnd

__all__ = ["SeenWindow", "SlidingWindows"]


@dataclass(frozen=True, eq=False)
class SeenWindow:
    """What the network says of a window of a source that is watched.

    Attributes:
        start_seconds: From the first frame that was watched.
        end_seconds: Likewise.
        scores: Probabilities [num_classes], the mean over the crops.
        stretch: Start and end in seconds of what this window speaks for: from halfway to the window before it, to
            halfway to the next one.
        arrived_at: When its last frame was read, by a clock that never goes back.
        wall_offset: What makes these seconds seconds since 1970; None for a file.
        pictures: Seconds and uint8 RGB [H, W, C] of the frames of the stretch, where pictures were asked for.
    """

    start_seconds: float
    end_seconds: float
    scores: NDArray[np.float32]
    stretch: tuple[float, float]
    arrived_at: float
    wall_offset: float | None
    pictures: tuple[tuple[float, NDArray[np.uint8]], ...]


class SlidingWindows:
    """Computes windows as steps come.

    Args:
        scorer: Network and preprocessing.
        name: What errors call the source.
    """

    def __init__(self, scorer: WindowScorer, *, name: str) -> None:
        self._scorer, self._name = scorer, name
        self._grid: WindowGrid | None = None
        self._feed: WindowFeed | None = None
        self._next = self._number = 0
        self._arrivals: deque[tuple[int, float, float | None]] = deque()
        self._pictures: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self._told_until = 0.0

    def push(self, items: Sequence[Item]) -> Iterator[SeenWindow]:
        """The windows that are whole with these items.

        Raises:
            VideoError: The network says no finite number.
        """
        for item in items:
            if isinstance(item, StretchEnd):
                yield from self._end(item)
            else:
                yield from self._take(item)
        if self._feed is not None:
            yield from self._seen(self._feed.now())

    def _take(self, step: Step) -> Iterator[SeenWindow]:
        if step.grid is not self._grid or step.first != self._next:  # cut off, or what lies between was dropped
            if self._feed is not None:
                yield from self._seen(self._feed.now())
            self._begin(step)
        assert self._feed is not None
        self._next = step.first + step.repeats
        self._number += 1
        self._arrivals.append((self._number, step.arrived_at, step.wall_offset))
        if step.picture is not None:
            self._pictures.append((step.grid.time(step.first), step.picture))
        yield from self._seen(self._feed.take(GridFrame(self._number, step.repeats, step.crops)))

    def _begin(self, step: Step) -> None:
        """Windows on a grid from this step on."""
        grid = self._grid = step.grid
        start = grid.start_seconds + step.first * grid.step_seconds
        rest = replace(grid, start_seconds=start, num_steps=grid.num_steps - step.first)
        self._feed = WindowFeed(self._scorer, rest, video=self._name)
        self._told_until = max(self._told_until, start)

    def _end(self, end: StretchEnd) -> Iterator[SeenWindow]:
        """The last window ends with the stretch, also where that is no whole stride after the one before."""
        if self._feed is not None and end.grid is self._grid:
            windows = list(self._feed.end())
            yield from self._seen(windows[:-1])
            for last in windows[-1:]:
                bounded = replace(last, end_seconds=max(end.end_seconds, last.start_seconds))
                yield from self._seen([bounded], is_end=True)
        self._grid = self._feed = None

    def _seen(self, windows: Iterable[Window], *, is_end: bool = False) -> Iterator[SeenWindow]:
        for window in windows:
            start, end = window.start_seconds, window.end_seconds
            assert self._grid is not None
            is_last = is_end or end >= self._grid.end_seconds
            until = end if is_last else min((start + end + self._grid.stride_seconds) / 2, end)
            stretch = min(self._told_until, until), until
            self._told_until = until
            while self._arrivals[0][0] < window.frame_indices[-1]:
                self._arrivals.popleft()
            _, arrived_at, wall_offset = self._arrivals[0]
            pictures = tuple(self._until(until))
            yield SeenWindow(start, end, window.scores, stretch, arrived_at, wall_offset, pictures)

    def _until(self, seconds: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        while self._pictures and self._pictures[0][0] < seconds:
            yield self._pictures.popleft()
