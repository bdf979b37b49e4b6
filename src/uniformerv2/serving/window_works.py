"""Works on all windows of an upload: a timeline, or a feature for each window.

Letters of this file: W windows, G steps of their grid, K classes, C channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.files import in_words
from uniformerv2.inference.features.vectors import (
    Features,
    dense_features,
    is_on_stride,
)
from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.inference.timelines.timeline import Timeline, timeline_of
from uniformerv2.inference.window_frames import WindowPlan
from uniformerv2.inference.window_scores import Window, WindowTable
from uniformerv2.inference.windows import WindowFeed, WindowScorer
from uniformerv2.media.decoding import VideoError
from uniformerv2.serving.decoding import UPLOAD, FramesTask, Piece, UploadTask
from uniformerv2.serving.problems import ServiceError, problem_of
from uniformerv2.serving.works import Work

__all__ = ["DenseWork", "TimelineWork"]

JSON_BYTES: Final = 60
"""Of a number on its way to a client: as an object, and as text."""


class _WindowsWork(Work):
    """All windows of an upload.

    Args:
        task: Reads the first frames.
        model: Name of the one that computes.
        scorer: Computes.
        most_bytes: That the request may take.
    """

    def __init__(self, task: FramesTask, model: str, *, scorer: WindowScorer, most_bytes: int) -> None:
        super().__init__(task, model)
        self.scorer = scorer
        self.broken: str | None = None
        self.plan: WindowPlan
        self._frames_task = task
        self._most_bytes = most_bytes
        self._feed: WindowFeed
        self._num_read = self._num_computed = 0

    def following(self, answer: Piece) -> UploadTask | None:
        """See ``Work``.

        Raises:
            ServiceError: The windows would take too much memory.
        """
        if answer.plan is not None:
            self.plan = answer.plan
            self._check_room()
            self._feed = WindowFeed(self.scorer, self.plan.grid, video=self._frames_task.path)
        self._num_read += len(answer.crops)
        task = self._frames_task
        numbers = self.plan.numbers[self._num_read : self._num_read + task.size].tolist()
        if answer.broken is not None or not numbers:
            return None
        return FramesTask(
            path=task.path,
            reader=task.reader,
            max_pixels=task.max_pixels,
            source=task.source,
            size=task.size,
            numbers=tuple(numbers),
        )

    def compute(self, answer: Piece) -> Iterator[None]:
        """See ``Work``.

        Raises:
            VideoError: Not one window can be read, or the scores are no numbers.
        """
        for frame in answer.frames(self.plan, self._num_computed):
            self._num_computed += 1
            for window in self._feed.take(frame):
                self.add(window)
                yield
        if answer.broken is None and self._num_computed < len(self.plan.numbers):
            return
        for window in self._feed.end():
            self.add(window)
            yield
        try:
            if answer.broken is not None:
                raise answer.broken
            self.plan.check_whole(self._frames_task.path)
        except VideoError as error:
            if not self.num_windows:
                raise
            self.broken = problem_of(error).detail.rstrip(".")

    def _check_room(self) -> None:
        needed = self.bytes_needed()
        if needed > self._most_bytes:
            detail = (
                f"{self.plan.grid.num_windows} windows of it take {in_words(needed)} of memory, and "
                f"{in_words(self._most_bytes)} are allowed: ask for a longer stride, or send a shorter video."
            )
            raise ServiceError("request-too-large", detail)

    @property
    @abstractmethod
    def num_windows(self) -> int:
        """Those that have come."""

    @abstractmethod
    def bytes_needed(self) -> int:
        """Memory that all windows of the plan take."""

    @abstractmethod
    def add(self, window: Window) -> None:
        """Keep a window."""


class TimelineWork(_WindowsWork):
    """What happens when in an upload.

    Args:
        task: Reads the first frames.
        model: Name of the one that computes.
        scorer: Computes.
        most_bytes: That the request may take.
        rules: How segments are cut.
    """

    def __init__(
        self, task: FramesTask, model: str, *, scorer: WindowScorer, most_bytes: int, rules: SegmentRules
    ) -> None:
        super().__init__(task, model, scorer=scorer, most_bytes=most_bytes)
        self._rules = rules
        self._table = WindowTable()

    @property
    def num_windows(self) -> int:
        """See the class above."""
        return self._table.count

    def bytes_needed(self) -> int:
        """Three arrays of four bytes [W, K], three of them and two of one byte [G, K], and the features [W, C]."""
        grid, predictor = self.plan.grid, self.scorer.predictor
        dim = 0 if predictor.is_exported else predictor.model.num_features
        return len(predictor.class_names) * (12 * grid.num_windows + 14 * grid.num_steps) + 2 * dim * grid.num_windows

    def add(self, window: Window) -> None:
        """See the class above."""
        self._table.add(window, num_windows=self.plan.grid.num_windows)

    def result(self) -> Timeline:
        """See ``Work``."""
        return timeline_of(self.scorer.scores(UPLOAD, self.plan, self._table, broken=self.broken), self._rules)


class DenseWork(_WindowsWork):
    """A feature for each window of an upload.

    Args:
        task: Reads the first frames.
        model: Name of the one that computes.
        scorer: Computes.
        most_bytes: That the request may take.
        is_json: The features are sent as text.
    """

    def __init__(self, task: FramesTask, model: str, *, scorer: WindowScorer, most_bytes: int, is_json: bool) -> None:
        super().__init__(task, model, scorer=scorer, most_bytes=most_bytes)
        self._is_json = is_json
        self._vectors: NDArray[np.float32]
        self._count = self._number = 0

    @property
    def num_windows(self) -> int:
        """See the class above."""
        return self._count

    def bytes_needed(self) -> int:
        """Numbers [W, C] of four bytes, twice when they are sent; or as text."""
        each = JSON_BYTES if self._is_json else 8
        return self.plan.grid.num_windows * self.scorer.predictor.model.num_features * each

    def add(self, window: Window) -> None:
        """See the class above."""
        assert window.features is not None  # an exported network was refused
        if not self._number:
            self._vectors = np.empty((self.plan.grid.num_windows, len(window.features)), np.float32)
        if is_on_stride(self.plan.grid, self._number, window):
            self._vectors[self._count] = window.features
            self._count += 1
        self._number += 1

    def result(self) -> Features:
        """See ``Work``."""
        vectors, broken = self._vectors[: self._count], self.broken
        return dense_features(self.scorer, self.plan, vectors, video=UPLOAD, model=self.model, broken=broken)
