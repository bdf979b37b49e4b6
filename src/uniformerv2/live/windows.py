"""SlidingWindows: from the steps of a grid without a known end to windows, each as soon as its last frame is there.

Letters of this file: T frames of a window, V crops of a frame, C channels, H x W pixels of a picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uniformerv2.inference.prediction import NOT_FINITE
from uniformerv2.inference.window_grid import WindowGrid
from uniformerv2.inference.window_networks import NETWORKS, WindowNetwork
from uniformerv2.inference.windows import WindowScorer
from uniformerv2.live.steps import Item, Step, StretchEnd
from uniformerv2.media.live_stream import SourceError

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


@dataclass(frozen=True, eq=False)
class _Due:
    """A window whose frames are there: its first step, what the network keeps of them, and its last frame."""

    first: int
    frames: list[Any]
    last: Step
    end_seconds: float | None


class SlidingWindows:
    """Computes windows as steps come.

    Args:
        scorer: Network and preprocessing.
    """

    def __init__(self, scorer: WindowScorer) -> None:
        predictor = scorer.predictor
        self._predictor = predictor
        self._network: WindowNetwork = NETWORKS[scorer.way](predictor)
        self._at_once = max(1, predictor.views_per_batch // predictor.preprocessing.num_crops)
        self._ring: deque[Any] = deque(maxlen=predictor.preprocessing.num_frames)
        self._pictures: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self._grid: WindowGrid | None = None
        self._next = 0
        self._newest = -1
        self._told_until = 0.0
        self._last: Step | None = None

    def push(self, items: Sequence[Item]) -> Iterator[SeenWindow]:
        """The windows that are whole with these items.

        Raises:
            SourceError: The network says no finite number.
        """
        due: list[_Due] = []
        for _, group in groupby(items, key=lambda item: (id(item.grid), type(item))):
            same = list(group)
            due.extend(self._taken([item for item in same if isinstance(item, Step)]))
            due.extend(self._closed([item for item in same if isinstance(item, StretchEnd)]))
        for begin in range(0, len(due), self._at_once):
            yield from self._computed(due[begin : begin + self._at_once])

    def _taken(self, steps: list[Step]) -> Iterator[_Due]:
        kept = self._network.take(torch.stack([step.crops for step in steps])) if steps else ()
        for step, frame in zip(steps, kept, strict=True):
            if step.grid is not self._grid:
                self._grid, self._newest, self._told_until = step.grid, -1, step.grid.start_seconds
                self._ring.clear()
            elif step.first != self._next:  # what lies between was dropped
                self._ring.clear()
            if step.picture is not None:
                self._pictures.append((step.grid.time(step.first), step.picture))
            self._last, self._next = step, step.first + step.repeats
            for number in range(step.first, self._next):
                self._ring.append(frame)
                first = number + 1 - step.grid.num_frames
                is_whole = len(self._ring) == step.grid.num_frames
                if is_whole and (first % step.grid.stride_steps == 0 or number + 1 == step.grid.num_steps):
                    yield self._due(first, step, None)

    def _closed(self, ends: list[StretchEnd]) -> Iterator[_Due]:
        """The last window ends with the stretch, also where that is no whole stride after the one before."""
        for end in ends:
            if end.grid is not self._grid or self._last is None:
                continue
            first = self._next - end.grid.num_frames
            if len(self._ring) == end.grid.num_frames and first > self._newest:
                yield self._due(first, self._last, end.end_seconds)
            self._grid = self._last = None
            self._ring.clear()

    def _due(self, first: int, step: Step, end_seconds: float | None) -> _Due:
        self._newest = first
        return _Due(first, list(self._ring), step, end_seconds)

    def _computed(self, due: Sequence[_Due]) -> Iterator[SeenWindow]:
        logits, _ = self._network.compute([window.frames for window in due])
        if not logits.isfinite().all():
            raise SourceError(NOT_FINITE, is_final=True)
        is_multi_label = self._predictor.is_multi_label
        scores = (logits.sigmoid() if is_multi_label else logits.softmax(dim=-1)).mean(dim=1).numpy()
        for window, row in zip(due, scores, strict=True):
            grid = window.last.grid
            start, end = grid.bounds(window.first)
            is_last = window.end_seconds is not None or window.first + grid.num_frames >= grid.num_steps
            end = end if window.end_seconds is None else max(window.end_seconds, start)
            until = end if is_last else min((start + end + grid.stride_seconds) / 2, end)
            stretch = min(self._told_until, until), until
            self._told_until = until
            pictures = tuple(self._until(until))
            yield SeenWindow(start, end, row, stretch, window.last.arrived_at, window.last.wall_offset, pictures)

    def _until(self, seconds: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        while self._pictures and self._pictures[0][0] < seconds:
            yield self._pictures.popleft()
