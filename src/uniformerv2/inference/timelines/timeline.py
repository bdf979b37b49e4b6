"""``find_actions``: what happens when in a long video, as a ``Timeline``.

timeline = find_actions("match.mp4", Predictor("models/demo"))
for segment in timeline.segments:
    print(segment.start_seconds, segment.end_seconds, segment.label, segment.score)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.messages import first_few
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.inference.timelines.segments import find_runs, score_curve
from uniformerv2.inference.window_scores import WindowScores
from uniformerv2.inference.windows import WindowScorer

__all__ = ["FORMAT", "Segment", "Timeline", "find_actions", "timeline_of"]

FORMAT: Final = "uniformerv2-timeline-1"
"""Stands in the JSON; another number means other fields."""
BEST: Final = 5
MOST_SHOWN: Final = 20
"""Classes whose scores a curve has: the best ones, and all of them."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a video in which a class is seen.

    Attributes:
        start_seconds: From the first frame.
        end_seconds: Likewise.
        label: Name of the class.
        index: Its number.
        score: The mean of its smoothed scores there, 0 to 1.
    """

    start_seconds: float
    end_seconds: float
    label: str
    index: int
    score: float


@dataclass(frozen=True)
class Timeline:
    """What happens when in one video.

    Attributes:
        video: The path.
        segments: By start. Of a network whose videos have one class each they do not overlap.
        nothing: Start and end in seconds of the stretches in which no class is sure.
        rules: How the segments were cut.
        windows: The scores they were cut from.
        curve: The smoothed score of each class at each step of the windows' grid [G, num_classes].
    """

    video: str
    segments: tuple[Segment, ...]
    nothing: tuple[tuple[float, float], ...]
    rules: SegmentRules
    windows: WindowScores
    curve: NDArray[np.float32]

    def __repr__(self) -> str:
        found = [
            f"{one.start_seconds:.1f}-{one.end_seconds:.1f} s {one.label} {one.score:.2f}" for one in self.segments
        ]
        return f"<Timeline of {self.video!r}: {first_few(found, shown=3) or 'nothing is sure'}>"

    @property
    def times(self) -> NDArray[np.float64]:
        """The middle of each step of ``curve`` in seconds [G]."""
        grid = self.windows.grid
        return np.array([grid.time(step) for step in range(len(self.curve))])

    def to_dict(self, *, windows: bool = False, curve: bool = False) -> dict[str, Any]:
        """Plain values, for JSON.

        Args:
            windows: Also the scores of every window and the names of all classes.
            curve: Also the scores of every window for some classes: those of the segments, and the five that score
                best in the mean; at most twenty.
        """
        scores = self.windows
        content: dict[str, Any] = {
            "format": FORMAT,
            "video": self.video,
            "duration_seconds": round(scores.duration_seconds, 3),
            "segments": [
                {**asdict(one), **_rounded(one.start_seconds, one.end_seconds), "score": round(one.score, 6)}
                for one in self.segments
            ],
            "nothing": [_rounded(*bounds) for bounds in self.nothing],
            "window_seconds": round(scores.grid.window_seconds, 3),
            "stride_seconds": round(scores.grid.stride_seconds, 3),
            "num_windows": len(scores.scores),
            "way": scores.way,
            "rules": asdict(self.rules),
            "is_multi_label": scores.is_multi_label,
            "broken": scores.broken,
        }
        if windows:
            content["class_names"] = list(scores.class_names)
            content["windows"] = [
                {**_rounded(start, end), "scores": [round(float(score), 6) for score in row]}
                for start, end, row in zip(scores.starts, scores.ends, scores.scores, strict=True)
            ]
        if curve:
            content["curve"] = {
                "start_seconds": [round(float(seconds), 3) for seconds in scores.starts],
                "end_seconds": [round(float(seconds), 3) for seconds in scores.ends],
                "classes": [
                    {
                        "label": scores.class_names[index],
                        "index": index,
                        "scores": [round(float(score), 6) for score in scores.scores[:, index]],
                    }
                    for index in self.shown_classes()
                ],
            }
        return content

    def shown_classes(self) -> tuple[int, ...]:
        """The classes that a picture of all windows shows: those of the segments, longest first, and the best five."""
        seconds: dict[int, float] = {}
        for one in self.segments:
            seconds[one.index] = seconds.get(one.index, 0.0) + one.end_seconds - one.start_seconds
        found = sorted(seconds, key=lambda index: -seconds[index])
        best = np.argsort(-self.windows.scores.mean(axis=0), kind="stable")[:BEST].tolist()
        return tuple(dict.fromkeys([*found[: MOST_SHOWN - BEST], *best]))

    def to_json(self, *, windows: bool = False) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(windows=windows), ensure_ascii=False, allow_nan=False)


def find_actions(
    video: str | Path | VideoRecord,
    predictor: Predictor | WindowScorer,
    *,
    rules: SegmentRules | None = None,
    tell: Callable[[int, int], object] | None = None,
) -> Timeline:
    """Find what happens when in a video.

    Args:
        video: A path, or a record with its segment.
        predictor: Network and preprocessing; a ``WindowScorer`` where windows of another length are wanted.
        rules: How segments are cut; None: the defaults.
        tell: Called after each window with how many are done, and of how many.

    Returns:
        The timeline; of a video that breaks off, up to the break (``timeline.windows.broken`` says why).

    Raises:
        VideoError: The video cannot be read, or its frames have no times.
    """
    scorer = predictor if isinstance(predictor, WindowScorer) else WindowScorer(predictor)
    return timeline_of(scorer(video, tell=tell), rules or SegmentRules())


def timeline_of(windows: WindowScores, rules: SegmentRules) -> Timeline:
    """Cut segments from scores that are there.

    Args:
        windows: Of a video.
        rules: How segments are cut.
    """
    curve = score_curve(windows, smooth_seconds=rules.smooth_seconds)
    runs = find_runs(curve, rules, step_seconds=windows.grid.step_seconds, is_multi_label=windows.is_multi_label)
    end = float(windows.ends[-1])

    def seconds(step: int) -> float:
        return end if step == len(curve) else windows.grid.start_seconds + step * windows.grid.step_seconds

    names = windows.class_names
    segments = [Segment(seconds(one.start), seconds(one.stop), names[one.label], one.label, one.score) for one in runs]
    nothing = _between(segments, windows.grid.start_seconds, end)
    return Timeline(windows.video, tuple(segments), tuple(nothing), rules, windows, curve)


def _between(segments: Iterable[Segment], start: float, end: float) -> Iterator[tuple[float, float]]:
    """What no segment covers."""
    free_from = start
    for segment in segments:
        if segment.start_seconds > free_from:
            yield free_from, segment.start_seconds
        free_from = max(free_from, segment.end_seconds)
    if end > free_from:
        yield free_from, end


def _rounded(start: float, end: float) -> dict[str, float]:
    return {"start_seconds": round(float(start), 3), "end_seconds": round(float(end), 3)}
