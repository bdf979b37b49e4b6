r"""From the scores of windows to segments: a curve for each class, smoothed, cut by two thresholds, and tidied.

::

    on     - - - - - /\ - - - - - - - - - /\ - - -    a segment of a class reaches ``on`` ...
    off    - - - - -/- \ - - /\ - - - - -/- \ - - -    ... and lasts while its score is at least ``off``;
           ________/    \___/  \_________/    \____
    found         [      ]              [      ]      the small hill in the middle is none

Letters of this file: W windows, G steps of the grid, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.inference.window_scores import WindowScores

__all__ = ["NOTHING", "Run", "find_runs", "score_curve", "smoothed"]

NOTHING: Final = -1
"""Class number of a stretch in which no class is sure."""
REACH: Final = 3.0
"""A bell curve is cut off so many standard deviations from its middle."""
LIKENESS: Final = 10.0
"""How much less windows count for each other that look less alike."""
ONLY_TIME: Final = 0.25
"""Without features, of the width of the smoothing."""


class Run(NamedTuple):
    """A stretch of steps with one label.

    Attributes:
        start: The first step.
        stop: One past the last.
        label: Class number.
        score: The mean score of the class there.
    """

    start: int
    stop: int
    label: int
    score: float


def score_curve(windows: WindowScores, *, smooth_seconds: float) -> NDArray[np.float32]:
    """The score of each class at each step of the grid [G, K].

    The scores of windows are smoothed; then a step takes the mean of the windows that cover it, of which one counts the
    more, the nearer its middle is.

    Args:
        windows: Of a video.
        smooth_seconds: See ``smoothed``; 0: not smoothed.
    """
    grid, scores = windows.grid, smoothed(windows, smooth_seconds)
    firsts = np.rint((windows.starts - grid.start_seconds) / grid.step_seconds).astype(int)
    num_steps = int(firsts[-1]) + grid.num_frames
    hat = 1.0 - np.abs(np.arange(grid.num_frames) + 0.5 - grid.num_frames / 2) / (grid.num_frames / 2 + 0.5)
    hat = hat.astype(np.float32)[:, None]
    curve = np.zeros((num_steps, scores.shape[1]), np.float32)
    weight = np.zeros((num_steps, 1), np.float32)
    for first, row in zip(firsts, scores, strict=True):
        curve[first : first + grid.num_frames] += hat * row
        weight[first : first + grid.num_frames] += hat
    return curve / weight


def smoothed(windows: WindowScores, smooth_seconds: float) -> NDArray[np.float32]:
    """The scores of windows, each the mean of those near in time that look alike [W, K].

    Two windows count for each other by a bell curve of their distance, ``smooth_seconds`` wide (twice its standard
    deviation), times ``exp(LIKENESS * (cosine of their features - 1))``: a cut between two scenes stays sharp, and
    within a scene the scores become calm. It is the bilateral filter of Tomasi and Manduchi, "Bilateral Filtering for
    Gray and Color Images", ICCV 1998, along the time. Where there are no features the time alone counts, over a quarter
    of the width.
    """
    middles, scores, features = (windows.starts + windows.ends) / 2, windows.scores, windows.features
    deviation = smooth_seconds / 2 * (1.0 if features is not None else ONLY_TIME)
    if not deviation:
        return scores
    unit = None if features is None else features / np.linalg.norm(features.astype(np.float32), axis=1, keepdims=True)
    total, weight = scores.copy(), np.ones((len(scores), 1), np.float32)
    reach = min(math.ceil(REACH * deviation / windows.grid.stride_seconds), len(scores) - 1)
    for shift in range(1, reach + 1):
        near = np.exp(-0.5 * ((middles[shift:] - middles[:-shift]) / deviation) ** 2)
        if unit is not None:
            near *= np.exp(LIKENESS * (np.einsum("wc,wc->w", unit[shift:], unit[:-shift]) - 1.0))
        each = near.astype(np.float32)[:, None]
        total[shift:] += each * scores[:-shift]
        total[:-shift] += each * scores[shift:]
        weight[shift:] += each
        weight[:-shift] += each
    return total / weight


def find_runs(
    curve: NDArray[np.float32], rules: SegmentRules, *, step_seconds: float, is_multi_label: bool
) -> list[Run]:
    """Cut the curves into segments.

    Args:
        curve: [G, K].
        rules: See there.
        step_seconds: Length of a step.
        is_multi_label: Several classes may be right at once, and their segments may overlap. Otherwise each step has
            the best of the classes that are on, or nothing.

    Returns:
        Runs by start; what lies between them is nothing.
    """
    is_on = np.stack([_held(curve[:, k], rules) for k in range(curve.shape[1])], axis=1)
    # of a video shorter than the shortest segment, the whole may be one
    least = min(math.ceil(rules.min_seconds / step_seconds - 1e-6), len(curve))
    gap = rules.merge_seconds / step_seconds
    if is_multi_label:
        found = [run for k in np.flatnonzero(is_on.any(axis=0)) for run in _of_class(curve, is_on, int(k), gap, least)]
        return sorted(found)
    labels = np.where(is_on.any(axis=1), np.where(is_on, curve, -1.0).argmax(axis=1), NOTHING)
    runs = _closed(_runs(labels), gap)
    runs = _without_short(runs, curve, least)
    return [Run(*run, _score(curve, *run)) for run in runs if run[2] != NOTHING]


def _held(scores: NDArray[np.float32], rules: SegmentRules) -> NDArray[np.bool_]:
    """Where the score is in a run of at least ``off`` that reaches ``on`` [G]."""
    held = np.zeros(len(scores), dtype=bool)
    for start, stop, is_high in _runs((scores >= rules.off).astype(int)):
        held[start:stop] = bool(is_high) and scores[start:stop].max() >= rules.on
    return held


def _runs(labels: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Runs of equal values: start, one past the end, value."""
    bounds = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
    return [(start, stop, int(labels[start])) for start, stop in pairwise(bounds)]


def _of_class(curve: NDArray[np.float32], is_on: NDArray[np.bool_], k: int, gap: float, least: int) -> Iterator[Run]:
    runs = _closed(_runs(np.where(is_on[:, k], k, NOTHING)), gap)
    for start, stop, label in runs:
        if label == k and stop - start >= least:
            yield Run(start, stop, k, _score(curve, start, stop, k))


def _closed(runs: list[tuple[int, int, int]], gap: float) -> list[tuple[int, int, int]]:
    """Without nothing that is shorter than ``gap`` between two runs of one class."""
    labels = [label for _, _, label in runs]
    for place in range(1, len(runs) - 1):
        start, stop, label = runs[place]
        if label == NOTHING and stop - start < gap and labels[place - 1] == labels[place + 1]:
            labels[place] = labels[place - 1]
    return _joined([(start, stop, label) for (start, stop, _), label in zip(runs, labels, strict=True)])


def _joined(runs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Neighbours of one label as one run."""
    found: list[tuple[int, int, int]] = []
    for start, stop, label in runs:
        if found and found[-1][2] == label:
            found[-1] = (found[-1][0], stop, label)
        else:
            found.append((start, stop, label))
    return found


def _without_short(
    runs: list[tuple[int, int, int]], curve: NDArray[np.float32], least: int
) -> list[tuple[int, int, int]]:
    """Give each run shorter than ``least``, the shortest first, to the neighbour whose class scores higher in it."""
    while True:
        short = [(stop - start, place) for place, (start, stop, label) in enumerate(runs) if label != NOTHING]
        length, place = min(short, default=(least, -1))
        if length >= least:
            return runs
        start, stop, _ = runs[place]
        beside = [runs[other][2] for other in (place - 1, place + 1) if 0 <= other < len(runs)]
        classes = [label for label in beside if label != NOTHING]
        heir = max(classes, key=lambda label: _score(curve, start, stop, label), default=NOTHING)
        runs = _joined([*runs[:place], (start, stop, heir), *runs[place + 1 :]])


def _score(curve: NDArray[np.float32], start: int, stop: int, label: int) -> float:
    return float(curve[start:stop, label].mean())
