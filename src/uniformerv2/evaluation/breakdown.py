"""Results broken down: by class, by pair of classes (confusion), by confidence, by number of views, by duration.

As in the headline numbers, a video that could not be read is a miss; by confidence and by duration it is left out, as
it has neither. With several labels a video is right where its highest score is one of them.

Letters of this file: M videos, V views, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.limits import get_limits
from uniformerv2.evaluation.metrics import NUM_BINS, Rate, ScoreTable, average_precision, confidence_bins, hits
from uniformerv2.evaluation.scores import Evaluation, VideoScores

__all__ = [
    "ClassResult",
    "ConfidenceBin",
    "ConfusedPair",
    "Counts",
    "DurationGroup",
    "ViewCount",
    "by_class",
    "by_confidence",
    "by_duration",
    "by_num_views",
    "classes_of_worst_pairs",
    "confusion_counts",
    "is_hit",
    "order_by_confusion",
    "worst_pairs",
]

Counts = NDArray[np.int64]
"""[K, K] videos by true class (rows) and predicted class (columns)."""

ORDERS: Final = 16
"""Random orders of the views: the accuracy with n of them is the mean over the first n of each order."""

GROUP: Final = 15
"""Fewest videos of a group of durations."""


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """What came out for one class.

    Attributes:
        index: Class number.
        top1: Of its videos; of several labels: the highest score is this class.
        top5: Of its videos.
        precision: Of the videos that are taken for it, those that are of it.
        average_precision: 0 to 1; NaN where the class does not occur, or a video has one label.
    """

    index: int
    top1: Rate
    top5: Rate
    precision: Rate
    average_precision: float


@dataclass(frozen=True)
class ConfidenceBin:
    """Decisions of similar confidence.

    Attributes:
        low: Lower edge.
        high: Upper edge.
        confidence: Their mean; NaN where there are none.
        rate: How many are right. A decision is a video; with several labels it is a video and a class.
    """

    low: float
    high: float
    confidence: float
    rate: Rate


@dataclass(frozen=True)
class ViewCount:
    """The accuracy with so many views, over several choices of the views.

    Attributes:
        num_views: Views of a video.
        mean: 0 to 1, over the choices.
        lowest: Of a choice.
        highest: Of a choice.
    """

    num_views: int
    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class DurationGroup:
    """Videos of similar duration.

    Attributes:
        from_seconds: The shortest.
        to_seconds: The longest.
        rate: How many are right.
    """

    from_seconds: float
    to_seconds: float
    rate: Rate


@dataclass(frozen=True)
class ConfusedPair:
    """One class taken for another.

    Attributes:
        true: Class number.
        predicted: Class number.
        count: Videos of ``true`` taken for ``predicted``.
        total: Videos of ``true`` that could be read.
        reverse: Videos of ``predicted`` taken for ``true``.
    """

    true: int
    predicted: int
    count: int
    total: int
    reverse: int


def is_hit(video: VideoScores) -> bool:
    """Whether the video could be read and its highest score is (one of) its label(s)."""
    return video.is_readable and int(video.scores.argmax()) in video.labels


def _rated(evaluation: Evaluation) -> list[VideoScores]:
    """The videos that could be read and have a label."""
    return [video for video in evaluation.videos if video.is_readable and video.labels]


def by_class(evaluation: Evaluation) -> list[ClassResult]:
    """Each class, in head order."""
    table = ScoreTable.of(evaluation)
    best = np.where(table.readable, table.scores.argmax(axis=1), -1) if len(table) else np.empty(0, dtype=int)
    results = []
    for index in range(len(evaluation.class_names)):
        own = table.target[:, index]
        total, right = int(own.sum()), int((best[own] == index).sum())
        near = hits(table.scores[own], np.full(total, index), k=5) & table.readable[own]
        column = slice(index, index + 1)
        precision = math.nan
        if evaluation.is_multi_label and total:
            ones = np.ones(len(table))
            precision = float(average_precision(table.scores[:, column], table.target[:, column], ones))
        results.append(
            ClassResult(
                index=index,
                top1=Rate(right, total),
                top5=Rate(int(near.sum()), total),
                precision=Rate(right, int((best == index).sum())),
                average_precision=precision,
            )
        )
    return results


def by_confidence(evaluation: Evaluation) -> list[ConfidenceBin]:
    """The bins of the calibration error, also the empty ones; no bins where nothing could be read."""
    table = ScoreTable.of(evaluation, readable_only=True)
    if not len(table):
        return []
    if evaluation.is_multi_label:
        confidence, right = table.scores.ravel(), table.target.ravel()
    else:
        confidence, right = table.scores.max(axis=1), hits(table.scores, table.target.argmax(axis=1))
    edges, place = confidence_bins(confidence)
    count = np.bincount(place, minlength=NUM_BINS)
    num_right = np.bincount(place, weights=right, minlength=NUM_BINS)
    total = np.bincount(place, weights=confidence, minlength=NUM_BINS)
    return [
        ConfidenceBin(
            float(edges[index]),
            float(edges[index + 1]),
            float(total[index] / count[index]) if count[index] else math.nan,
            Rate(int(num_right[index]), int(count[index])),
        )
        for index in range(NUM_BINS)
    ]


def by_num_views(evaluation: Evaluation) -> list[ViewCount]:
    """The accuracy with 1, 2, ... V views; empty where there is one view, or a video's view scores were not kept.

    Which views are taken is drawn ``ORDERS`` times, alike for all videos. Their probabilities are averaged: where the
    test averaged logits, which were not kept, it is empty too.
    """
    if evaluation.info.get("fingerprint", {}).get("average") == "logits":
        return []
    num_views = evaluation.num_clips * evaluation.num_crops
    videos = _rated(evaluation)
    kept = [video.view_scores for video in videos if video.view_scores is not None]
    if num_views < 2 or not kept or len(kept) < len(videos) or any(len(views) != num_views for views in kept):
        return []
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(num_views) for _ in range(ORDERS)])
    right = np.zeros(orders.shape)
    for video, views in zip(videos, kept, strict=True):
        is_label = np.isin(np.arange(views.shape[1]), video.labels)
        sums = np.zeros((ORDERS, views.shape[1]), np.float32)
        for place, taken in enumerate(orders.T):
            sums += views[taken]
            right[:, place] += is_label[sums.argmax(axis=-1)]
    accuracy = right / sum(bool(video.labels) for video in evaluation.videos)
    return [
        ViewCount(index + 1, float(column.mean()), float(column.min()), float(column.max()))
        for index, column in enumerate(accuracy.T)
    ]


def by_duration(evaluation: Evaluation, *, max_groups: int = 5) -> list[DurationGroup]:
    """Groups of about equally many videos, shortest first; empty where durations are unknown, or all about equal.

    Args:
        evaluation: The scores.
        max_groups: There are fewer where a group would have under ``GROUP`` videos.
    """
    timed = [(video.duration_seconds, is_hit(video)) for video in _rated(evaluation) if video.duration_seconds]
    timed.sort()
    num_groups = min(max_groups, len(timed) // GROUP)
    if num_groups < 2 or timed[-1][0] < 1.2 * timed[0][0]:
        return []
    return [_group(part) for part in np.array_split(np.array(timed), num_groups)]


def _group(part: NDArray[np.float64]) -> DurationGroup:
    return DurationGroup(float(part[0, 0]), float(part[-1, 0]), Rate(int(part[:, 1].sum()), len(part)))


def confusion_counts(evaluation: Evaluation) -> Counts:
    """[K, K] videos by true class (rows) and predicted class (columns); labelled and readable videos only."""
    num_classes = len(evaluation.class_names)
    size = 8 * num_classes**2
    get_limits().check("dump_bytes", size, what=f"a table of {num_classes} x {num_classes} classes ({size} bytes)")
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for video in evaluation.videos:
        if video.is_readable and isinstance(video.label, int):
            counts[video.label, int(video.scores.argmax())] += 1
    return counts


def order_by_confusion(counts: Counts) -> list[int]:
    """An order of the classes in which those that are confused with each other are neighbours.

    Average-linkage clustering of the mutual confusion rates: the two most confused groups are joined until none are
    confused at all, each time turned so that their most confused ends meet. Larger groups come first; classes that are
    confused with no other keep their order at the end.

    Args:
        counts: [K, K].

    Returns:
        Class numbers, each once.
    """
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mutual = rates + rates.T
    np.fill_diagonal(mutual, 0)
    groups = [[index] for index in range(len(counts))]
    sizes = np.ones(len(counts))
    links = mutual.copy()  # sums over the members of two groups
    while True:
        mean = links / (sizes[:, None] * sizes[None])
        first, second = divmod(int(mean.argmax()), len(counts)) if len(counts) else (0, 0)
        if not len(counts) or mean[first, second] <= 0:
            break
        groups[first] = _joined(groups[first], groups[second], mutual)
        groups[second] = []
        sizes[first] += sizes[second]
        links[first] += links[second]
        links[:, first] += links[:, second]
        links[second] = links[:, second] = links[first, first] = 0
    return [index for group in sorted(groups, key=len, reverse=True) for index in group]


def worst_pairs(counts: Counts, *, limit: int = 20) -> list[ConfusedPair]:
    """The pairs with the most videos, of equal ones those with the larger part of their class; only what occurs."""
    totals = counts.sum(axis=1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    rates = wrong[rows, columns] / totals[rows]
    best = np.lexsort((columns, rows, -rates, -wrong[rows, columns]))[:limit]
    return [
        ConfusedPair(
            true=int(row),
            predicted=int(column),
            count=int(counts[row, column]),
            total=int(totals[row]),
            reverse=int(counts[column, row]),
        )
        for row, column in zip(rows[best], columns[best], strict=True)
    ]


def classes_of_worst_pairs(pairs: Sequence[ConfusedPair], order: list[int], *, limit: int = 12) -> list[int]:
    """Up to ``limit`` classes of the worst pairs, in ``order``."""
    chosen: set[int] = set()
    for pair in pairs:
        wider = chosen | {pair.true, pair.predicted}
        if len(wider) <= limit:
            chosen = wider
    return [index for index in order if index in chosen]


def _joined(first: list[int], second: list[int], mutual: NDArray[np.float64]) -> list[int]:
    turns = [(left, right) for left in (first, first[::-1]) for right in (second, second[::-1])]
    left, right = max(turns, key=lambda turn: mutual[turn[0][-1], turn[1][0]])
    return left + right
