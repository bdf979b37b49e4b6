"""Which classes are taken for which: counts, an order that puts confused classes side by side, the worst pairs.

Letters of this file: M videos, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.limits import get_limits
from uniformerv2.evaluation.scores import Evaluation

__all__ = ["ConfusedPair", "classes_of_worst_pairs", "confusion_counts", "order_by_confusion", "worst_pairs"]


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


def confusion_counts(evaluation: Evaluation) -> NDArray[np.int64]:
    """[K, K] videos by true class (rows) and predicted class (columns); labelled and readable videos only."""
    num_classes = len(evaluation.class_names)
    size = 8 * num_classes**2
    get_limits().check("dump_bytes", size, what=f"a table of {num_classes} x {num_classes} classes ({size} bytes)")
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for video in evaluation.videos:
        if video.is_readable and isinstance(video.label, int) and video.label >= 0:
            counts[video.label, int(video.scores.argmax())] += 1
    return counts


def order_by_confusion(counts: NDArray[np.int64]) -> list[int]:
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


def worst_pairs(counts: NDArray[np.int64], *, limit: int = 20) -> list[ConfusedPair]:
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
