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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice, repeat
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.prediction import NOT_FINITE
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.window_grid import WindowGrid, frame_at, window_lengths
from uniformerv2.inference.window_networks import NETWORKS, Way, WindowNetwork
from uniformerv2.media.decoding import VideoError, VideoReader, open_video
from uniformerv2.media.video_error import TRUNCATED, check_limit

__all__ = ["Window", "WindowRun", "WindowScorer", "WindowScores"]

Item = TypeVar("Item")
_Frame = tuple[int, int, Tensor]
"""Number of a frame, for how many steps of the grid it stands, its crops [V, C, h, w]."""
_Filled = tuple[int, list[tuple[int, Any]]]
"""First step of a window, and of each of its T frames the number and what the network keeps of it."""


@dataclass(frozen=True)
class Window:
    """What the network says of one window.

    Attributes:
        start_seconds: From the first frame of the video.
        end_seconds: Likewise.
        scores: Probabilities [num_classes], the mean over the crops.
        features: The normed features [C], the mean over the crops; None where the network gives only scores.
        frame_indices: The T frames of the video that were looked at.
    """

    start_seconds: float
    end_seconds: float
    scores: NDArray[np.float32]
    features: NDArray[np.float32] | None
    frame_indices: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WindowScores:
    """All windows of a video.

    Attributes:
        video: The path.
        class_names: In the order of the scores.
        is_multi_label: The scores are sigmoids: several classes may be right at once.
        starts: Seconds at which each window starts [W].
        ends: Seconds at which it ends [W].
        scores: Probabilities [W, num_classes].
        features: Normed features [W, C] in half precision; None where the network gives only scores.
        grid: How the windows lie.
        fps: Frames per second of the video.
        way: How they were computed.
        duration_seconds: Of the video, as its container says.
        broken: Why the video could not be read to the end; None where it could.
    """

    video: str
    class_names: tuple[str, ...]
    is_multi_label: bool
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    scores: NDArray[np.float32]
    features: NDArray[np.float16] | None
    grid: WindowGrid
    fps: float
    way: Way
    duration_seconds: float
    broken: str | None = None

    def __repr__(self) -> str:
        grid = self.grid
        return (
            f"<WindowScores of {self.video!r}: {len(self.scores)} windows of {grid.window_seconds:.2f} s every "
            f"{grid.stride_seconds:.2f} s, {len(self.class_names)} classes, {self.way}>"
        )


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
        self._lengths = {"window_seconds": window_seconds, "stride_seconds": stride_seconds}
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
        run = WindowRun(self, video)
        count, broken = 0, None
        try:
            for window in run.windows():
                if not count:  # in one piece: small arrays for each window would break up the memory
                    num_windows, features = run.grid.num_windows, window.features
                    table = np.empty((num_windows, 2 + len(window.scores)))
                    half = None if features is None else np.empty((num_windows, len(features)), np.float16)
                table[count] = window.start_seconds, window.end_seconds, *window.scores
                if half is not None and window.features is not None:
                    half[count] = window.features
                count += 1
                if tell is not None:
                    tell(count, run.grid.num_windows)
        except VideoError as error:
            if not count or error.kind == "no score":
                raise
            broken = error.reason
        return WindowScores(
            video=run.record.path,
            class_names=self.predictor.class_names,
            is_multi_label=self.predictor.is_multi_label,
            starts=table[:count, 0],
            ends=table[:count, 1],
            scores=table[:count, 2:].astype(np.float32),
            features=None if half is None else half[:count],
            grid=run.grid,
            fps=run.fps,
            way=self.way,
            duration_seconds=run.duration_seconds,
            broken=broken,
        )

    def stream(self, video: str | Path | VideoRecord) -> Iterator[Window]:
        """The windows of a video one by one, each as soon as its last frame is computed.

        Args:
            video: A path, or a record with its segment.

        Returns:
            The windows. Where the video breaks off, the last whole window before the break and then a ``VideoError``.
        """
        return WindowRun(self, video).windows()


class WindowRun:
    """One video on its way through the network.

    ``grid``, ``fps`` and ``duration_seconds`` are there once the first window is.

    Args:
        scorer: What computes.
        video: A path, or a record with its segment.
    """

    def __init__(self, scorer: WindowScorer, video: str | Path | VideoRecord) -> None:
        self.scorer = scorer
        self.record = video if isinstance(video, VideoRecord) else VideoRecord(str(video))
        self.predictor = scorer.predictor
        self.reader = scorer.predictor.reader
        preprocessing = scorer.predictor.preprocessing
        self.num_frames = preprocessing.num_frames
        self.at_once = max(1, scorer.predictor.views_per_batch // preprocessing.num_crops)
        self.grid: WindowGrid
        self.fps = self.duration_seconds = 0.0
        self.broken: VideoError | None = None

    def windows(self) -> Iterator[Window]:
        """Read, compute, and give each window in turn.

        Raises:
            VideoError: The video cannot be read, or breaks off; or the scores are no numbers.
        """
        network: WindowNetwork = NETWORKS[self.scorer.way](self.predictor)
        for windows in _batches(self._filled(network), self.at_once):
            yield from self._computed(network, windows)
        if self.broken is not None:
            raise self.broken

    def _filled(self, network: WindowNetwork) -> Iterator[_Filled]:
        """The first step and the frames of each window, as soon as the last of them is there."""
        ring: deque[tuple[int, Any]] = deque(maxlen=self.num_frames)
        num_steps, last = 0, -1
        for num_steps, frame in enumerate(self._steps(network), start=1):
            ring.append(frame)
            first = num_steps - self.num_frames
            if first >= 0 and (first % self.grid.stride_steps == 0 or num_steps == self.grid.num_steps):
                last = first
                yield first, list(ring)
        if num_steps - self.num_frames > last >= 0:  # the video breaks off: the last window ends where the frames do
            yield num_steps - self.num_frames, list(ring)

    def _steps(self, network: WindowNetwork) -> Iterator[tuple[int, Any]]:
        """For each step of the grid the number of its frame and what the network keeps of it."""
        frames = self._frames()
        while some := self._up_to_break(frames, self.num_frames * self.at_once):
            kept = network.take(torch.stack([crops for _, _, crops in some]))
            for (number, repeats, _), frame in zip(some, kept, strict=True):
                yield from repeat((number, frame), repeats)

    def _up_to_break(self, frames: Iterator[_Frame], count: int) -> list[_Frame]:
        found: list[_Frame] = []
        try:
            found.extend(islice(frames, count))
        except VideoError as error:
            self.broken = error
        return found

    def _computed(self, network: WindowNetwork, windows: Sequence[_Filled]) -> Iterator[Window]:
        logits, features = network.compute([[frame for _, frame in frames] for _, frames in windows])
        if not logits.isfinite().all():
            raise VideoError(self.record.path, "no score", NOT_FINITE)
        scores = (logits.sigmoid() if self.predictor.is_multi_label else logits.softmax(dim=-1)).mean(dim=1).numpy()
        means = None if features is None else features.mean(dim=1).numpy()
        for place, (first, frames) in enumerate(windows):
            start, end = self.grid.bounds(first)
            indices = tuple(number for number, _ in frames)
            yield Window(start, end, scores[place], None if means is None else means[place], indices)

    def _frames(self) -> Iterator[_Frame]:
        """Each frame of the grid once: its number, for how many steps it stands, and its crops [V, C, h, w].

        The time limit of a video holds for opening it and for each frame.
        """
        steps = self._opened_frames()
        while (found := self.reader.within_time(self.record.path, lambda: next(steps, None))) is not None:
            yield found
        with suppress(ValueError):  # where the time was up, another thread is still in it
            steps.close()

    def _opened_frames(self) -> Generator[_Frame]:
        with open_video(self.record.path, decoder=self.reader.decoder, allow_truncated=True) as reader:
            times = self._times(reader)
            first, stop = reader.segment_frames(*self.record.segment)
            self.grid = self._plan(reader, times, first, stop)
            numbers = (
                min(max(frame_at(times, self.grid.time(k)), first), stop - 1) for k in range(self.grid.num_steps)
            )
            for some in _batches(((number, len(list(same))) for number, same in groupby(numbers)), 64):
                crops = self.reader.crops(reader, [number for number, _ in some])
                for (number, repeats), (_, pixels, _) in zip(some, crops, strict=True):
                    yield number, repeats, pixels[:, 0]
            if missing := reader.info.missing_bytes:
                raise VideoError(reader.path, "truncated", TRUNCATED.format(missing))

    def _times(self, reader: VideoReader) -> Sequence[float]:
        self.fps = reader.fps or self.scorer._fps or 0.0
        if not self.fps:
            detail = "its frames have no times, so that windows of seconds cannot be found: give fps (--fps)"
            raise VideoError(reader.path, "unsupported", detail)
        self.duration_seconds = reader.info.duration_seconds or len(reader) / self.fps
        return reader.timestamps or [number / self.fps for number in range(len(reader))]

    def _plan(self, reader: VideoReader, times: Sequence[float], first: int, stop: int) -> WindowGrid:
        record = self.record
        start = times[first] if record.start_seconds is None else record.start_seconds
        end = times[stop] if stop < len(times) else self.duration_seconds
        end = end if record.end_seconds is None else min(record.end_seconds, self.duration_seconds)
        lengths = self.scorer.lengths(self.fps)
        grid = WindowGrid.over(
            start,
            max(end, start + 1e-3),
            num_frames=self.num_frames,
            window_seconds=lengths[0],
            stride_seconds=lengths[1],
        )
        check_limit(reader.path, "packets_per_file", grid.num_steps, what=f"windows of {grid.num_steps} frames")
        return grid


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    items = iter(items)
    while some := list(islice(items, size)):
        yield some
