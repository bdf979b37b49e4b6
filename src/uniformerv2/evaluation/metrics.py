"""What scores are worth: accuracy, average precision, calibration and loss, as pure functions of arrays.

Every function takes a ``weight`` per video, which says how often it counts, a whole number: of shape [M], or [R, M] for
R resamples of the videos at once, which give R values. That is all that a bootstrap needs.

Letters of this file: M videos, K classes, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.evaluation.scores import Evaluation

__all__ = [
    "Rate",
    "ScoreTable",
    "average_precision",
    "calibration_error",
    "confidence_bins",
    "cross_entropy",
    "hits",
    "mean_class_accuracy",
    "measure",
    "weighted_mean",
]

Floats = NDArray[np.floating[Any]]

NUM_BINS: Final = 15
"""Of the calibration error, as in Guo et al., "On Calibration of Modern Neural Networks" (2017)."""

SMALLEST: Final = float(np.finfo(np.float32).tiny)
"""A probability that underflowed is taken to be this: the loss stays finite."""

Z: Final = 1.959964
"""Of the normal distribution, for 95 %."""


@dataclass(frozen=True)
class Rate:
    """A part of a number of videos.

    Attributes:
        count: Videos.
        total: Of how many.
    """

    count: int
    total: int

    @property
    def value(self) -> float:
        """0 to 1; NaN of no videos."""
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, sensible for few videos too (E. B. Wilson, 1927); 0 to 1 of no videos.

        >>> Rate(10, 10).interval[0] > 0.7
        True
        """
        if not self.total:
            return 0.0, 1.0
        square = Z * Z / self.total
        middle = (self.value + square / 2) / (1 + square)
        half = Z / (1 + square) * math.sqrt(self.value * (1 - self.value) / self.total + square / (4 * self.total))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The labelled videos of a test, as arrays.

    Attributes:
        scores: Probabilities [M, K]; zeros where the video could not be read.
        target: Whether a video has a class, [M, K].
        readable: Whether a video could be read, [M].
        is_multi_label: A video may have several classes.
    """

    scores: NDArray[np.float32]
    target: NDArray[np.bool_]
    readable: NDArray[np.bool_]
    is_multi_label: bool

    @classmethod
    def of(cls, evaluation: Evaluation, *, one_view: bool = False, readable_only: bool = False) -> ScoreTable:
        """The labelled videos of an evaluation.

        Args:
            evaluation: Its unlabelled videos are left out.
            one_view: Take the scores of the middle view; readable videos without them raise a ``ValueError``.
            readable_only: Leave out what could not be read.

        Raises:
            ValueError: ``one_view`` without the scores of one view.
        """
        kept = [
            video
            for video in evaluation.videos
            if video.label is not None and (video.is_readable or not readable_only)  # () says: of no class
        ]
        target = np.zeros((len(kept), len(evaluation.class_names)), dtype=bool)
        scores = np.zeros(target.shape, dtype=np.float32)
        for row, video in enumerate(kept):
            target[row, list(video.labels)] = True
            if one_view and video.is_readable and video.one_view_scores is None:
                raise ValueError(f"The scores of one view of {video.path} were not kept.")
            chosen = video.one_view_scores if one_view else video.scores
            scores[row] = 0 if chosen is None else chosen
        readable = np.array([video.is_readable for video in kept], dtype=bool)
        return cls(scores=scores, target=target, readable=readable, is_multi_label=evaluation.is_multi_label)

    def __len__(self) -> int:
        return len(self.scores)


def measure(table: ScoreTable, weight: Floats | None = None) -> dict[str, NDArray[np.float64]]:
    """Every number that fits the labels.

    An unreadable video is a miss, or scores 0 for every class; loss and calibration error, which need probabilities,
    are of the videos that could be read.

    Args:
        table: Of M videos.
        weight: [M] or [R, M]; None: each video once.

    Returns:
        ``top1``, ``top5`` (where there are more classes), ``mean_class_accuracy``; or ``mean_ap`` of multi-label
        data; then ``loss`` and ``calibration_error``. Each [R], or without axes. Empty without videos.
    """
    if not len(table):
        return {}
    weight = np.ones(len(table)) if weight is None else weight
    seen, seen_weight = table.readable, weight[..., table.readable]
    found: dict[str, NDArray[np.float64]] = {}
    if table.is_multi_label:
        found["mean_ap"] = average_precision(table.scores, table.target, weight)
        confidence, correct = table.scores, table.target
    else:
        label = table.target.argmax(axis=1)
        top1 = hits(table.scores, label) & seen
        found["top1"] = weighted_mean(top1, weight)
        if table.scores.shape[1] > 5:
            found["top5"] = weighted_mean(hits(table.scores, label, k=5) & seen, weight)
        found["mean_class_accuracy"] = mean_class_accuracy(top1, table.target, weight)
        confidence, correct = table.scores.max(axis=1), top1
    if seen.any():
        loss = cross_entropy(table.scores[seen], table.target[seen], is_multi_label=table.is_multi_label)
        found["loss"] = weighted_mean(loss, seen_weight)
        found["calibration_error"] = calibration_error(confidence[seen], correct[seen], seen_weight)
    return found


def weighted_mean(values: NDArray[np.bool_] | Floats, weight: Floats) -> NDArray[np.float64]:
    """Values [M], weights [..., M] -> [...]; NaN where all weights are 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray((weight @ values.astype(np.float64)) / weight.sum(axis=-1))


def hits(scores: Floats, label: NDArray[np.int64], *, k: int = 1) -> NDArray[np.bool_]:
    """Whether the label is among the ``k`` highest scores; of equal scores the first class comes first.

    Args:
        scores: [M, K].
        label: [M].
        k: From 1 on.

    >>> hits(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1]), k=2)
    array([ True,  True])
    """
    own = np.take_along_axis(scores, label[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < label[:, None]
    before = (scores > own) | ((scores == own) & earlier)
    return np.asarray(before.sum(axis=1) < k)


def mean_class_accuracy(hit: NDArray[np.bool_], target: NDArray[np.bool_], weight: Floats) -> NDArray[np.float64]:
    """The mean over the classes that occur of the part of their videos that is right.

    Args:
        hit: [M].
        target: One class each, [M, K].
        weight: [..., M].
    """
    label = target.argmax(axis=1)
    order = np.argsort(label, kind="stable")
    first = np.flatnonzero(np.diff(label[order], prepend=-1))  # of the videos of each class
    sorted_weight = weight[..., order]
    right = np.add.reduceat(sorted_weight * hit[order], first, axis=-1)
    total = np.add.reduceat(sorted_weight, first, axis=-1)
    occurs = total > 0
    rate = np.divide(right, total, out=np.zeros_like(right), where=occurs)
    with np.errstate(invalid="ignore"):
        return np.asarray(rate.sum(axis=-1) / occurs.sum(axis=-1))


def calibration_error(
    confidence: Floats, correct: NDArray[np.bool_], weight: Floats, *, num_bins: int = NUM_BINS
) -> NDArray[np.float64]:
    """Expected calibration error: confidence against the part that is right, in bins of equal width; 0 to 1.

    Args:
        confidence: Probabilities [M], or of several decisions about each video [M, K].
        correct: As ``confidence``.
        weight: [..., M].
        num_bins: From 0 to 1; an edge belongs to the bin above it.
    """
    several = confidence.reshape(len(confidence), -1)
    _, place = confidence_bins(several, num_bins)
    cells = (np.arange(len(several))[:, None] * num_bins + place).ravel()
    apart = correct.reshape(several.shape).astype(np.float64) - several
    gap = np.bincount(cells, apart.ravel(), minlength=len(several) * num_bins).reshape(-1, num_bins)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(weight @ gap).sum(axis=-1) / (weight.sum(axis=-1) * several.shape[1]))


def confidence_bins(confidence: Floats, num_bins: int = NUM_BINS) -> tuple[Floats, NDArray[np.int64]]:
    """The edges of bins of equal width from 0 to 1, and in which bin each probability is."""
    edges = np.linspace(0, 1, num_bins + 1, dtype=confidence.dtype)
    return edges, np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, num_bins - 1)


def cross_entropy(scores: Floats, target: NDArray[np.bool_], *, is_multi_label: bool) -> NDArray[np.float64]:
    """The loss of each video [M]: -log p of its class; of several, the mean of the binary losses of all classes."""
    exact = scores.astype(np.float64)
    if not is_multi_label:
        return -np.log(np.maximum(exact[target], SMALLEST))
    # float32 knows no number nearer to 1 than this: the logarithm of what is left of 1 stays finite
    left = np.maximum(1 - exact, 2.0**-24)
    return np.asarray(-np.where(target, np.log(np.maximum(exact, SMALLEST)), np.log(left)).mean(axis=1))


def average_precision(scores: Floats, target: NDArray[np.bool_], weight: Floats) -> NDArray[np.float64]:
    """Mean over the classes that occur of the average precision, the area under steps of precision over recall.

    Args:
        scores: [M, K]; equal scores are taken together.
        target: [M, K].
        weight: [..., M].
    """
    counts = np.ascontiguousarray(np.atleast_2d(weight).T, dtype=np.float32)  # whole numbers: their sums are exact
    columns = [_class_average_precision(scores[:, k], target[:, k], counts) for k in np.flatnonzero(target.any(axis=0))]
    values = np.stack([*columns, np.full(counts.shape[1], np.nan)])
    occurs = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(occurs, values, 0).sum(axis=0) / occurs.sum(axis=0)).reshape(weight.shape[:-1])


def _class_average_precision(
    scores: Floats, target: NDArray[np.bool_], counts: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[M], [M] with a hit, [M, R] -> [R]; NaN where no video of the class counts.

    Precision is needed only where recall rises: videos are summed up from one such place to the next.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, is_hit = scores[order], target[order]
    rises = np.unique(np.searchsorted(-ordered, -ordered[is_hit], side="right"))  # ends of groups of equal scores
    starts = np.concatenate([[0], rises[:-1]])
    shown = counts[order[: rises[-1]]]
    seen = np.add.reduceat(shown, starts, axis=0).cumsum(axis=0, dtype=np.float64)
    hit_starts = np.searchsorted(np.flatnonzero(is_hit), starts)
    new = np.add.reduceat(shown[is_hit[: rises[-1]]], hit_starts, axis=0).astype(np.float64)
    found = new.cumsum(axis=0)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((precision * new).sum(axis=0) / found[-1])
