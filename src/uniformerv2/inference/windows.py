"""A long video, window by window: each frame is decoded once and, where that is exact, goes through the backbone once.

    scorer = WindowScorer(Predictor("models/demo"))
    found = scorer("match.mp4")
    found.scores                     # [W, num_classes]

Without local steps and with tubelets of one frame the blocks treat each frame alone: windows share its tokens, and
only the global blocks run once per window ("shared frames"). Other networks, and those that ONNX Runtime computes, take
each window whole ("whole windows"); then windows share what was decoded and cropped. The scores are the same. Memory
does not grow with the video: a ring holds the last T frames.

Letters of this file: W windows, T frames of a window, V crops of a frame, C channels, h x w of the network's input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.prediction import NOT_FINITE
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.window_frames import GridFrame, WindowFrames, WindowPlan
from uniformerv2.inference.window_grid import WindowGrid, window_lengths
from uniformerv2.inference.window_networks import NETWORKS, Way, WindowNetwork
from uniformerv2.inference.window_scores import Window, WindowScores, WindowTable
from uniformerv2.media.decoding import VideoError

__all__ = ["WindowFeed", "WindowRun", "WindowScorer"]

_Filled = tuple[int, list[tuple[int, Any]]]
"""First step of a window, and of each of its T frames the number and what the network keeps of it."""


class WindowScorer:
    """Scores the windows of long videos.

    Args:
        predictor: Network, preprocessing, device, precision. Each window is one clip, whatever its ``num_clips``;
            ``num_crops`` counts.
        window_seconds: Length of a window; None: see ``window_lengths``.
        stride_seconds: From window to window, rounded to a T-th of a window; None: a quarter of the window.
        fps: Frames per second of videos that have no times, such as folders of frames.
        way: "auto" shares frames where that is exact.

    Attributes:
        way: What is done.

    Raises:
        ValueError: A length that is not allowed, or frames are to be shared where that is not exact.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        fps: float | None = None,
        way: Way | Literal["auto"] = "auto",
    ) -> None:
        can_share = not predictor.is_exported and predictor.model.takes_frames_alone
        if way == "shared frames" and not can_share:
            raise ValueError(
                "Windows share frames only where the blocks treat each frame alone: not with local steps, tubelets of "
                "2 frames or an exported network. Take 'whole windows', or 'auto'."
            )
        if fps is not None and not fps > 0:
            raise ValueError(f"fps must be above 0, got {fps}.")
        self.predictor = predictor
        self._lengths: dict[str, float | None] = {"window_seconds": window_seconds, "stride_seconds": stride_seconds}
        self.lengths(fps or 25.0)
        self._fps = fps
        self.way: Way = way if way != "auto" else "shared frames" if can_share else "whole windows"

    def lengths(self, fps: float) -> tuple[float, float]:
        """Length and stride in seconds of the windows of a video of this rate; see ``window_lengths``."""
        return window_lengths(self.predictor.preprocessing, fps=fps, **self._lengths)

    def __call__(
        self, video: str | Path | VideoRecord, *, tell: Callable[[int, int], object] | None = None
    ) -> WindowScores:
        """Score all windows of a video, or of a segment of it.

        Args:
            video: A path, or a record with its segment.
            tell: Called after each window with how many are done, and of how many.

        Returns:
            The scores; of a video that breaks off, those up to the break.

        Raises:
            VideoError: Not one window can be read, or the frames have no times.
        """
        run, table = WindowRun(self, video), WindowTable()
        try:
            for window in run.windows():
                table.add(window, num_windows=run.plan.grid.num_windows)
                if tell is not None:
                    tell(table.count, run.plan.grid.num_windows)
        except VideoError as error:
            if not table.count or error.kind == "no score":
                raise
            return self.scores(run.record.path, run.plan, table, broken=error.reason)
        return self.scores(run.record.path, run.plan, table)

    def scores(self, video: str, plan: WindowPlan, table: WindowTable, *, broken: str | None = None) -> WindowScores:
        """All windows of a video, once they have come.

        Args:
            video: What to call it.
            plan: Of its windows.
            table: The windows; at least one.
            broken: Why there are no more of them; None where there are all.
        """
        return WindowScores(
            video=video,
            class_names=self.predictor.class_names,
            is_multi_label=self.predictor.is_multi_label,
            starts=table.bounds[: table.count, 0],
            ends=table.bounds[: table.count, 1],
            scores=table.scores[: table.count],
            features=None if table.features is None else table.features[: table.count],
            grid=plan.grid,
            fps=plan.fps,
            way=self.way,
            duration_seconds=plan.duration_seconds,
            broken=broken,
        )

    @property
    def has_own_length(self) -> bool:
        """The length of a window was given, and is the same for every video."""
        return self._lengths["window_seconds"] is not None

    def source(self, record: VideoRecord) -> WindowFrames:
        """What reads the frames of a video for its windows."""
        return WindowFrames(record=record, reader=self.predictor.reader, fps=self._fps, **self._lengths)

    def stream(self, video: str | Path | VideoRecord) -> Iterator[Window]:
        """The windows of a video one by one, each as soon as its last frame is computed.

        Args:
            video: A path, or a record with its segment.

        Returns:
            The windows. Where the video breaks off, the last whole window before the break and then a ``VideoError``.
        """
        return WindowRun(self, video).windows()


class WindowFeed:
    """The computing half: frames of a grid go in one by one, windows come out as soon as their last frame is there.

    ::

        feed = WindowFeed(scorer, grid, video="camera")
        for frame in frames:                  # from a file, from worker processes, or from a camera
            for window in feed.take(frame):
                ...
        for window in feed.end():             # the last one ends with the frames, wherever they end
            ...

    It asks the grid where windows lie and never when the video ends: see ``WindowGrid.without_end``.

    Args:
        scorer: Says what computes, and how.
        grid: Of the windows.
        video: What errors call it.
        frames_at_once: Frames that go through the backbone together; None: those of a batch of windows, which a video
            that comes as it happens would wait for.
    """

    def __init__(
        self, scorer: WindowScorer, grid: WindowGrid, *, video: str, frames_at_once: int | None = None
    ) -> None:
        self.grid = grid
        self._video = video
        self._is_multi_label = scorer.predictor.is_multi_label
        self._network: WindowNetwork = NETWORKS[scorer.way](scorer.predictor)
        self._at_once = max(1, scorer.predictor.views_per_batch // scorer.predictor.preprocessing.num_crops)
        self._frames_at_once = frames_at_once or grid.num_frames * self._at_once
        self._waiting: list[GridFrame] = []
        self._ring: deque[tuple[int, Any]] = deque(maxlen=grid.num_frames)
        self._filled: list[_Filled] = []
        self._num_steps, self._last = 0, -1

    def take(self, frame: GridFrame) -> Iterator[Window]:
        """The next frame of the grid.

        Yields:
            Windows that are whole now; take them all before the next frame.

        Raises:
            VideoError: The scores are no numbers.
        """
        self._waiting.append(frame)
        if len(self._waiting) >= self._frames_at_once:
            yield from self._through_backbone()

    def now(self) -> Iterator[Window]:
        """What is whole with the frames so far, without waiting for others to compute with them.

        Yields:
            Windows.

        Raises:
            VideoError: The scores are no numbers.
        """
        yield from self._through_backbone()
        yield from self._computed(least=1)

    def end(self) -> Iterator[Window]:
        """There are no more frames: what is left, and a last window that ends where they do.

        Yields:
            The windows; none where there were not the frames of one.

        Raises:
            VideoError: The scores are no numbers.
        """
        yield from self._through_backbone()
        first = self._num_steps - self.grid.num_frames
        if first > self._last >= 0:
            self._filled.append((first, list(self._ring)))
        yield from self._computed(least=1)

    def _through_backbone(self) -> Iterator[Window]:
        """What the network keeps of the frames that wait, into the ring; and the windows that they fill."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        kept = self._network.take(torch.stack([frame.crops for frame in waiting]))
        for (number, repeats, _), frame in zip(waiting, kept, strict=True):
            for _ in range(repeats):
                self._step((number, frame))
                yield from self._computed(least=self._at_once)

    def _step(self, frame: tuple[int, Any]) -> None:
        self._ring.append(frame)
        self._num_steps += 1
        first = self._num_steps - self.grid.num_frames
        if first >= 0 and (first % self.grid.stride_steps == 0 or self._num_steps == self.grid.num_steps):
            self._last = first
            self._filled.append((first, list(self._ring)))

    def _computed(self, *, least: int) -> Iterator[Window]:
        """The windows that are filled, where there are at least so many.

        Raises:
            VideoError: The scores are no numbers.
        """
        if len(self._filled) < least:
            return
        windows, self._filled = self._filled, []
        logits, features = self._network.compute([[frame for _, frame in frames] for _, frames in windows])
        if not logits.isfinite().all():
            raise VideoError(self._video, "no score", NOT_FINITE)
        scores = (logits.sigmoid() if self._is_multi_label else logits.softmax(dim=-1)).mean(dim=1).numpy()
        means = None if features is None else features.mean(dim=1).numpy()
        for place, (first, frames) in enumerate(windows):
            start, end = self.grid.bounds(first)
            indices = tuple(number for number, _ in frames)
            yield Window(start, end, scores[place], None if means is None else means[place], indices)


class WindowRun:
    """One video on its way through the network.

    ``plan`` is there once the first window is.

    Args:
        scorer: What computes.
        video: A path, or a record with its segment.
    """

    def __init__(self, scorer: WindowScorer, video: str | Path | VideoRecord) -> None:
        self.scorer = scorer
        self.record = video if isinstance(video, VideoRecord) else VideoRecord(str(video))
        self.plan: WindowPlan
        self._broken: VideoError | None = None

    def windows(self) -> Iterator[Window]:
        """Read, compute, and give each window in turn.

        Raises:
            VideoError: The video cannot be read, or breaks off; or the scores are no numbers.
        """
        feed: WindowFeed | None = None
        for frame in self._frames_up_to_break():
            feed = feed or WindowFeed(self.scorer, self.plan.grid, video=self.record.path)
            yield from feed.take(frame)
        if feed is not None:
            yield from feed.end()
        if self._broken is not None:
            raise self._broken

    def _frames_up_to_break(self) -> Iterator[GridFrame]:
        try:
            yield from self.scorer.source(self.record).read(partial(setattr, self, "plan"))
        except VideoError as error:
            self._broken = error
