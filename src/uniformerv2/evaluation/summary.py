"""``summarize``: the headline numbers of a test with their intervals; ``differences``: those between two tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from uniformerv2.evaluation.metrics import Floats, Rate, ScoreTable, measure
from uniformerv2.evaluation.scores import Evaluation

__all__ = ["Estimate", "Summary", "differences", "summarize"]

CHUNK: Final = 5_000_000
"""Weights of resamples in memory at once."""

PERCENTILES: Final = (2.5, 97.5)

RATES: Final = {"top1", "top5", "mean_class_accuracy"}
"""Numbers that are a part of the videos: where that is all or none of them, every resample says the same."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval: what other videos of the same kind would give.

    Attributes:
        value: Of the videos as they are.
        low: Percentile 2.5 of the bootstrap; Wilson's bound where all videos or none are right.
        high: Percentile 97.5, likewise.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The headline numbers of a test; names are those of ``metrics.measure``.

    Attributes:
        num_videos: All of them.
        num_labelled: Those that the numbers are of.
        num_unreadable: Of all videos.
        num_views: Of a video.
        all_videos: What could not be read is a miss.
        readable: Without what could not be read; empty where everything could.
        one_view: Of the middle view, as ``all_videos``; empty where it was not kept.
    """

    num_videos: int
    num_labelled: int
    num_unreadable: int
    num_views: int
    all_videos: Mapping[str, Estimate]
    readable: Mapping[str, Estimate]
    one_view: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def summarize(evaluation: Evaluation, *, num_resamples: int = 1000, seed: int = 0) -> Summary:
    """Measure, with percentile bootstrap intervals over the videos (Efron, 1979), Wilson's (1927) at 0 and 1.

    Args:
        evaluation: The scores.
        num_resamples: 0 leaves the intervals out: they are NaN.
        seed: Decides the resamples; the same seed gives the same intervals.

    Returns:
        The numbers.

    Raises:
        ValueError: A negative number of resamples.
    """
    if num_resamples < 0:
        raise ValueError(f"num_resamples is {num_resamples}; it must be 0 or more.")
    every = ScoreTable.of(evaluation)
    unread = int((~evaluation.readable).sum())
    readable = ScoreTable.of(evaluation, readable_only=True) if unread else None
    has_one_view = all(video.one_view_scores is not None for video in evaluation.videos if video.is_readable)
    num_views = evaluation.num_clips * evaluation.num_crops
    one_view = ScoreTable.of(evaluation, one_view=True) if has_one_view and num_views > 1 else None
    tables = (every, readable, one_view)
    found = [{} if table is None else _estimate(table, num_resamples, seed) for table in tables]
    return Summary(
        num_videos=len(evaluation.videos),
        num_labelled=len(every),
        num_unreadable=unread,
        num_views=num_views,
        all_videos=found[0],
        readable=found[1],
        one_view=found[2],
    )


def differences(
    before: Evaluation, after: Evaluation, *, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """What the numbers of ``after`` are above those of ``before``; each resample draws the same videos for both.

    Args:
        before: As ``comparison.align`` gives it.
        after: As ``comparison.align`` gives it.
        num_resamples: 0 leaves the intervals out: they are NaN.
        seed: Decides the resamples.
    """
    old, new = (_resampled(ScoreTable.of(run), num_resamples, seed) for run in (before, after))
    return {
        name: Estimate(value - old[name][0], *_percentiles(drawn - old[name][1]))
        for name, (value, drawn) in new.items()
        if name in old
    }


def _estimate(table: ScoreTable, num_resamples: int, seed: int) -> dict[str, Estimate]:
    found = {}
    for name, (value, drawn) in _resampled(table, num_resamples, seed).items():
        low, high = _percentiles(drawn)
        if name in RATES and low == high == value:
            low, high = Rate(round(value * len(table)), len(table)).interval
        found[name] = Estimate(value, low, high)
    return found


def _resampled(table: ScoreTable, num_resamples: int, seed: int) -> dict[str, tuple[float, Floats]]:
    """Each number of the videos as they are, and of every resample; the same seed draws the same videos."""
    values = measure(table)
    drawn: dict[str, list[Any]] = {name: [] for name in values}
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(1, len(table)))
    for start in range(0, num_resamples if values else 0, rows):
        count = min(rows, num_resamples - start)
        weight = np.stack([_resample(len(table), rng) for _ in range(count)])
        for name, resampled in measure(table, weight).items():
            drawn[name].append(resampled)
    nothing = [np.array([np.nan])]
    return {name: (float(value), np.concatenate(drawn[name] or nothing)) for name, value in values.items()}


def _percentiles(drawn: Floats) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]  # a resample may have no readable video, or none of a class
    low, high = np.percentile(known, PERCENTILES) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def _resample(num_videos: int, rng: np.random.Generator) -> Floats:
    """How often each video is drawn, [M]."""
    return np.bincount(rng.integers(num_videos, size=num_videos), minlength=num_videos).astype(np.float64)
