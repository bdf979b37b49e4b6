"""Several dumps of the same videos: their ensemble, and whether two of them really differ.

Letters of this file: D dumps, M videos, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.evaluation.breakdown import is_hit
from uniformerv2.evaluation.metrics import Rate
from uniformerv2.evaluation.scores import Evaluation, VideoScores
from uniformerv2.evaluation.summary import Estimate

__all__ = ["Change", "Comparison", "align", "compare", "ensemble", "in_words", "mcnemar", "paired_difference"]

SHOWN: Final = 5


@dataclass(frozen=True)
class Change:
    """A video that one of two dumps has right and the other has not.

    Attributes:
        path: As the first dump has it.
        label: Names of its classes.
        before: Class that the first dump gives; "unreadable" where it has none.
        after: Class that the second dump gives.
    """

    path: str
    label: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two dumps, video by video; right is what has the highest score on (one of) its class(es).

    Attributes:
        num_videos: With a label.
        both_right: Right in both.
        neither_right: Right in none.
        gained: Right in the second only.
        lost: Right in the first only.
        difference: Accuracy of the second minus that of the first, see ``paired_difference``.
        p_value: McNemar's exact test: how likely so uneven a change is, where neither is better.
    """

    num_videos: int
    both_right: int
    neither_right: int
    gained: tuple[Change, ...]
    lost: tuple[Change, ...]
    difference: Estimate
    p_value: float


def align(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[Evaluation]:
    """The same videos in the same order, the classes in the order of the first.

    Videos are matched by their ids, where these are unique in every dump; else by their paths; else by their number in
    the list, where the paths agree.

    Args:
        evaluations: At least one.
        names: What messages call them.

    Returns:
        As many evaluations, of the videos of the first.

    Raises:
        ValueError: Videos or classes that not all of them have, or labels that differ; the message names some.
    """
    first = evaluations[0]
    key = _key(evaluations)
    order = [key(video) for video in first.videos]
    aligned = [first]
    for evaluation, name in zip(evaluations[1:], names[1:], strict=True):
        own = {key(video): video for video in evaluation.videos}
        _check_same(order, list(own), names[0], name)
        columns = _columns(first, evaluation, names[0], name)
        videos = [_reordered(own[wanted], columns, first.videos[row]) for row, wanted in enumerate(order)]
        for before, video in zip(first.videos, videos, strict=True):
            if set(before.labels) != set(video.labels):
                raise ValueError(
                    f"{before.path} has the label {before.label} in {names[0]} and {video.label} in {name}: these are "
                    "tests of different lists."
                )
        aligned.append(replace(evaluation, videos=tuple(videos), class_names=first.class_names))
    return aligned


def ensemble(evaluations: Sequence[Evaluation], *, weights: Sequence[float] | None = None) -> Evaluation:
    """The weighted mean of the probabilities.

    Args:
        evaluations: As ``align`` gives them.
        weights: One for each, none below 0; None: all alike.

    Returns:
        Scores of all videos; one that a dump could not read is unreadable, as the ensemble has no say on it.

    Raises:
        ValueError: Weights of another number, or none above 0.
    """
    chosen = np.ones(len(evaluations)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(chosen) != len(evaluations):
        raise ValueError(f"There are {len(evaluations)} dumps and {len(chosen)} weights; give one for each.")
    if not np.isfinite(chosen).all() or (chosen < 0).any() or not chosen.sum() > 0:
        raise ValueError(f"weights are {chosen.tolist()}; none may be below 0, and one must be above.")
    share = chosen / chosen.sum()
    videos = []
    for group in zip(*(evaluation.videos for evaluation in evaluations), strict=True):
        error = next((video.error for video in group if video.error), "")
        mean = np.tensordot(share, np.stack([video.scores for video in group]).astype(np.float64), axes=1)
        scores = (mean * (not error)).astype(np.float32)
        videos.append(replace(group[0], scores=scores, view_scores=None, one_view_scores=None, error=error))
    num_views = sum(item.num_clips * item.num_crops for item in evaluations)
    info = {"ensemble": [dict(evaluation.info) for evaluation in evaluations], "weights": share.tolist()}
    return replace(evaluations[0], videos=tuple(videos), num_clips=num_views, num_crops=1, info=info)


def compare(before: Evaluation, after: Evaluation) -> Comparison:
    """Which videos change, and whether that can be chance.

    Args:
        before: As ``align`` gives it.
        after: As ``align`` gives it.
    """
    gained: list[Change] = []
    lost: list[Change] = []
    both = neither = 0
    for old, new in zip(before.videos, after.videos, strict=True):
        labels = old.labels
        if not labels:
            continue
        was, now = is_hit(old), is_hit(new)
        both += was and now
        neither += not was and not now
        if was != now:
            named = "; ".join(before.class_names[label] for label in labels)
            change = Change(old.path, named, _best(before, old), _best(before, new))
            (gained if now else lost).append(change)
    return Comparison(
        num_videos=both + neither + len(gained) + len(lost),
        both_right=both,
        neither_right=neither,
        gained=tuple(gained),
        lost=tuple(lost),
        difference=paired_difference(both=both, gained=len(gained), lost=len(lost), neither=neither),
        p_value=mcnemar(len(gained), len(lost)),
    )


def in_words(found: Comparison, names: Sequence[str]) -> list[str]:
    """A comparison in sentences: how many videos each has right, the difference, and whether it can be chance.

    Args:
        found: The comparison.
        names: What the two dumps are called.
    """
    first, second = names
    value, low, high = (100 * each for each in astuple(found.difference))
    verdict = (
        "chance alone would seldom give such a difference (p < 0.05)"
        if found.p_value < 0.05
        else "such a difference may well be chance"
    )
    return [
        f"Of {found.num_videos} videos, {found.both_right} are recognised by both, {found.neither_right} by neither, "
        f"{len(found.gained)} by {second} alone and {len(found.lost)} by {first} alone.",
        f"The accuracy of {second} minus that of {first} is {value:+.2f} points "
        f"(95 % interval {low:+.1f} to {high:+.1f}).",
        f"McNemar's exact test gives p = {found.p_value:.3g}: {verdict}.",
    ]


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided exact test (McNemar, 1947): both kinds of change equally likely, a binomial of 1/2.

    >>> mcnemar(8, 2), mcnemar(0, 0)
    (0.109375, 1.0)
    """
    total, fewer = gained + lost, min(gained, lost)
    ways, sum_of_ways = 1, 1
    for taken in range(1, fewer + 1):
        ways = ways * (total - taken + 1) // taken
        sum_of_ways += ways
    return min(1.0, 2 * sum_of_ways / 2**total)


def paired_difference(*, both: int, gained: int, lost: int, neither: int) -> Estimate:
    """How much more often the second of two is right on the same videos, and the 95 % interval of it.

    Method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998): Wilson's intervals of both, joined by their correlation.

    Args:
        both: Videos that both have right.
        gained: The second alone.
        lost: The first alone.
        neither: Neither.

    Returns:
        -1 to 1; NaN of no videos.

    >>> found = paired_difference(both=36, gained=12, lost=2, neither=0)
    >>> f"{found.value:.2f}, {found.low:.4f} to {found.high:.4f}"
    '0.20, 0.0569 to 0.3404'
    """
    total = both + gained + lost + neither
    if not total:
        return Estimate(math.nan, math.nan, math.nan)
    first, second = Rate(both + lost, total), Rate(both + gained, total)
    (first_low, first_high), (second_low, second_high) = first.interval, second.interval
    agreement = both * neither - gained * lost
    joint = min(agreement, 0) or max(agreement - total / 2, 0)  # corrected for continuity
    spread = first.count * (total - first.count) * second.count * (total - second.count)
    phi = joint / math.sqrt(spread) if spread else 0.0

    def distance(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    value = second.value - first.value
    low = value - distance(second.value - second_low, first_high - first.value)
    return Estimate(value, low, value + distance(second_high - second.value, first.value - first_low))


def _key(evaluations: Sequence[Evaluation]) -> Callable[[VideoScores], Any]:
    keys: tuple[Callable[[VideoScores], Any], ...] = (lambda video: video.id, lambda video: video.path)
    for key in keys:
        if all(len({key(video) for video in item.videos}) == len(item.videos) for item in evaluations):
            return key
    return lambda video: (video.index, video.path)


def _check_same(wanted: Sequence[Any], own: Sequence[Any], first: str, second: str) -> None:
    problems = []
    for lacking, missing in ((second, set(wanted) - set(own)), (first, set(own) - set(wanted))):
        if missing:
            some = ", ".join(map(str, sorted(missing, key=str)[:SHOWN])) + (" ..." if len(missing) > SHOWN else "")
            problems.append(f"{lacking} lacks {len(missing)} videos: {some}")
    if problems:
        raise ValueError(f"{first} and {second} are not of the same videos. " + ". ".join(problems) + ".")


def _columns(first: Evaluation, other: Evaluation, first_name: str, name: str) -> NDArray[np.int64] | None:
    """Where the classes of ``first`` are in ``other``; None where they are at the same places.

    Raises:
        ValueError: They do not have the same classes.
    """
    if first.class_names == other.class_names:
        return None
    places: Mapping[str, int] = {called: place for place, called in enumerate(other.class_names)}
    missing = [called for called in first.class_names if called not in places]
    if missing or len(other.class_names) != len(first.class_names):
        some = ", ".join(map(repr, missing[:SHOWN])) or "none"
        raise ValueError(
            f"{first_name} has {len(first.class_names)} classes and {name} {len(other.class_names)}; of the first are "
            f"not in the second: {some}."
        )
    return np.array([places[called] for called in first.class_names])


def _reordered(video: VideoScores, columns: NDArray[np.int64] | None, like: VideoScores) -> VideoScores:
    """With the number of ``like``, and the classes at their places in the first dump."""
    if columns is None:
        return replace(video, index=like.index)
    to_first = {int(place): number for number, place in enumerate(columns)}
    labels = tuple(to_first[label] for label in video.labels)
    one, views = video.one_view_scores, video.view_scores
    return replace(
        video,
        index=like.index,
        label=labels if isinstance(video.label, tuple) else labels[0] if labels else None,
        scores=video.scores[columns],
        one_view_scores=None if one is None else one[columns],
        view_scores=None if views is None else views[:, columns],
    )


def _best(evaluation: Evaluation, video: VideoScores) -> str:
    return evaluation.class_names[int(video.scores.argmax())] if video.is_readable else "unreadable"
