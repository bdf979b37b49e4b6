"""What tells the classes apart: logistic regressions on statistics of frozen tokens, compared by cross-validation.

    result = Probe()(clips)          # ``ClipStatistics``: see ``autotrain.clip_statistics``
    result["motion"].score           # accuracy of videos that were held out, with its interval
    result.best.name                 # appearance, motion, order or all

Clips of one source are never on both sides of a fold. The strength of the regularisation for the clips of a fold is
chosen by the held-out clips of the others. Intervals resample sources, not clips.

Letters of this file: M clips, S statistics, C channels, K classes, R resamples.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from uniformerv2.autotrain.linear import Floats, LinearHead, Mask, fit_heads
from uniformerv2.evaluation.breakdown import ConfusedPair, worst_pairs
from uniformerv2.evaluation.metrics import Rate, ScoreTable, cross_entropy, measure
from uniformerv2.evaluation.summary import Estimate
from uniformerv2.model.config import StatisticName
from uniformerv2.model.statistics import KINDS

__all__ = ["ClipStatistics", "Probe", "ProbeResult", "ProbeRow", "RowName", "folds_of", "paired"]

RowName = Literal["appearance", "motion", "order", "all"]

ROWS: Final[Mapping[RowName, tuple[StatisticName, ...]]] = {
    "appearance": KINDS["appearance"],
    "motion": KINDS["motion"],
    "order": KINDS["order"],
    "all": tuple(name for names in KINDS.values() for name in names),
}
IN_WORDS: Final[Mapping[str, str]] = {"all": "all statistics together"}
"""What a row is called in a sentence, where its name is too short for one."""
STRENGTHS: Final = (0.3, 3.0, 30.0, 300.0)
DEFAULT_STRENGTH: Final = 1
"""Its place, where too few sources leave nothing to choose by."""
PERCENTILES: Final = (2.5, 97.5)
SHOWN_PAIRS: Final = 5


@dataclass(frozen=True, kw_only=True)
class ClipStatistics:
    """What a frozen network says of clips.

    Attributes:
        values: [M, S, C].
        names: The statistics.
        target: Whether a clip has a class, [M, K].
        sources: What each clip was cut from; clips of one source are never on both sides of a fold.
        class_names: In head order.
        is_multi_label: A clip may have several classes.

    Raises:
        ValueError: Their numbers differ.
    """

    values: Floats
    names: tuple[StatisticName, ...]
    target: Mask
    sources: tuple[str, ...]
    class_names: tuple[str, ...]
    is_multi_label: bool = False

    def __post_init__(self) -> None:
        expected = (len(self.sources), len(self.names), len(self.class_names))
        found = (len(self.values), self.values.shape[1], self.target.shape[1])
        if found != expected or len(self.target) != len(self.values):
            raise ValueError(
                f"The statistics are {self.values.shape}, the target {self.target.shape}, for {expected[0]} sources, "
                f"{expected[1]} names and {expected[2]} classes: give a source and a row of classes for each clip."
            )

    def __len__(self) -> int:
        return len(self.values)

    def features(self, names: Sequence[StatisticName]) -> Floats:
        """Some of the statistics side by side, [M, S' * C]."""
        places = [self.names.index(name) for name in names]
        return np.asarray(self.values[:, places].reshape(len(self), -1), dtype=np.float64)

    def part(self, chosen: NDArray[Any]) -> ClipStatistics:
        """Some of the clips, by number or as a mask."""
        sources = tuple(np.asarray(self.sources, dtype=object)[chosen])
        return replace(self, values=self.values[chosen], target=self.target[chosen], sources=sources)


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """How well one kind of statistics tells the classes apart.

    Attributes:
        name: appearance, motion, order or all.
        score: ``ProbeResult.measure`` of held-out clips, and its 95 % interval over sources.
        above_appearance: How much more that is than appearance alone, on the same clips.
        head: Fitted to all clips.
        right: Which held-out clips it has right, [M].
    """

    name: RowName
    score: Estimate
    above_appearance: Estimate
    head: LinearHead = field(repr=False)

    @property
    def in_words(self) -> str:
        """Its statistics, for a sentence."""
        return IN_WORDS.get(self.name, self.name)

    right: Mask = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What tells the classes apart.

    Attributes:
        rows: In the order of ``ROWS``.
        best: The row of the highest score, of equal ones the last.
        measure: "top1" (accuracy), or "mean_ap" of multi-label clips.
        chance: Score of an answer that does not look: the most frequent class, or the mean share of the classes.
        confusion: Pairs of classes that the best row still confuses, most videos first.
        class_names: In head order.
        sources: The source of each clip.
        num_folds: 0 where no class has two sources: then the scores are of the clips that were fitted, and say little.
    """

    rows: tuple[ProbeRow, ...]
    measure: Literal["top1", "mean_ap"]
    chance: float
    confusion: tuple[ConfusedPair, ...]
    class_names: tuple[str, ...]
    sources: tuple[str, ...] = field(repr=False)
    num_folds: int

    def __getitem__(self, name: RowName) -> ProbeRow:
        return next(row for row in self.rows if row.name == name)

    @property
    def num_clips(self) -> int:
        """Clips that could be read."""
        return len(self.sources)

    @property
    def num_sources(self) -> int:
        """What they were cut from."""
        return len(set(self.sources))

    @property
    def best(self) -> ProbeRow:
        """See the class."""
        return max(reversed(self.rows), key=lambda row: row.score.value)

    @property
    def is_held_out(self) -> bool:
        """Whether the scores are of clips that were not fitted."""
        return self.num_folds > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = {
            row.name: {"score": asdict(row.score), "above_appearance": asdict(row.above_appearance)}
            for row in self.rows
        }
        pairs = [
            {**asdict(pair), "true": self.class_names[pair.true], "predicted": self.class_names[pair.predicted]}
            for pair in self.confusion
        ]
        counts = {name: getattr(self, name) for name in ("chance", "num_clips", "num_sources", "num_folds")}
        return {"measure": self.measure, "rows": rows, "best": self.best.name, "confusion": pairs, **counts}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Compares kinds of statistics by grouped cross-validation.

    Attributes:
        rows: Which kinds.
        strengths: Strengths of the regularisation to choose from, rising: as scikit-learn's C for features of length 1.
        num_folds: At most; fewer where a class has fewer sources.
        num_resamples: For the intervals.
        seed: Decides the resamples.
    """

    rows: tuple[RowName, ...] = tuple(ROWS)
    strengths: tuple[float, ...] = STRENGTHS
    num_folds: int = 5
    num_resamples: int = 1000
    seed: int = 0

    def __call__(self, clips: ClipStatistics) -> ProbeResult:
        """Fit and compare.

        Args:
            clips: Of two classes or more.

        Raises:
            ValueError: All clips are of one class.
        """
        if len(clips) == 0 or (not clips.is_multi_label and clips.target.any(axis=0).sum() < 2):
            raise ValueError(f"A probe needs clips of two classes, got {len(clips)} clips of one.")
        fold = folds_of(clips, self.num_folds)
        fitted = {name: self._fit(clips, ROWS[name], fold) for name in self.rows}
        tables = {name: _table(scores, clips) for name, (scores, _) in fitted.items()}
        drawn = {name: self._drawn(table, clips.sources) for name, table in tables.items()}
        base = drawn["appearance" if "appearance" in drawn else self.rows[0]]
        rows = tuple(
            ProbeRow(
                name=name,
                score=_score(*drawn[name], num_sources=len(set(clips.sources))),
                above_appearance=_estimate(drawn[name][0] - base[0], drawn[name][1] - base[1]),
                head=fitted[name][1],
                right=_right(tables[name]),
            )
            for name in self.rows
        )
        result = ProbeResult(
            rows=rows,
            measure="mean_ap" if clips.is_multi_label else "top1",
            chance=_chance(clips),
            confusion=(),
            class_names=clips.class_names,
            sources=clips.sources,
            num_folds=int(fold.max(initial=-1)) + 1,
        )
        return replace(result, confusion=_confusion(tables[result.best.name]))

    def _fit(self, clips: ClipStatistics, names: Sequence[StatisticName], fold: NDArray[np.int64]) -> Any:
        """Probabilities of held-out clips [M, K], and the head of all clips."""
        features = clips.features(names)
        heads = fit_heads(features, clips.target, strengths=self.strengths, is_multi_label=clips.is_multi_label)
        numbers = range(int(fold.max(initial=-1)) + 1)
        if not numbers:
            head = heads[min(DEFAULT_STRENGTH, len(heads) - 1)]
            return head.probabilities(features), head
        scores = np.zeros((len(heads), *clips.target.shape))
        for number in numbers:
            own = fold == number
            fits = fit_heads(
                features[~own], clips.target[~own], strengths=self.strengths, is_multi_label=clips.is_multi_label
            )
            scores[:, own] = [head.probabilities(features[own]) for head in fits]
        loss = np.stack(
            [cross_entropy(one, clips.target, is_multi_label=clips.is_multi_label) for one in scores.astype(np.float32)]
        )
        found = np.zeros(clips.target.shape)
        for number in numbers:
            own = fold == number
            others = ~own if len(numbers) > 1 else own
            found[own] = scores[int(loss[:, others].mean(axis=1).argmin()), own]
        return found, heads[int(loss.mean(axis=1).argmin())]

    def _drawn(self, table: ScoreTable, sources: Sequence[str]) -> tuple[float, Floats]:
        """The measure of the clips as they are, and of every resample of the sources [R]."""
        name = "mean_ap" if table.is_multi_label else "top1"
        place, drawn = _resampled(sources, self.num_resamples, self.seed)
        return float(measure(table)[name]), np.asarray(measure(table, drawn[:, place])[name])


def paired(before: ProbeResult, after: ProbeResult, *, num_resamples: int = 1000, seed: int = 0) -> Estimate:
    """How much more often the best row of a probe is right than that of another, with a 95 % interval over sources.

    Args:
        before: The other probe.
        after: The probe; of the same clips.
        num_resamples: For the interval.
        seed: Decides the resamples.
    """
    change = after.best.right.astype(np.float64) - before.best.right
    place, weight = _resampled(before.sources, num_resamples, seed)
    drawn = weight[:, place] @ change / weight[:, place].sum(axis=1)
    return _estimate(float(change.mean()), drawn)


def _resampled(sources: Sequence[str], num_resamples: int, seed: int) -> tuple[NDArray[np.int64], Floats]:
    """The number of the source of each clip [M], and how often each source is drawn [R, sources]."""
    _, place = np.unique(np.asarray(sources, dtype=object).astype(str), return_inverse=True)
    count = int(place.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=num_resamples)
    return place, drawn.astype(np.float64)


def folds_of(clips: ClipStatistics, most: int) -> NDArray[np.int64]:
    """The fold of each clip [M]; all -1: no folds.

    The sources of each class are spread evenly. Where each clip is a source of its own, neighbours by name are in one
    fold: files that are numbered one after the other often come from one recording, though their names do not say so. A
    class of one source is held out whole in one fold, and cannot be recognised there: which is true of it.

    Args:
        clips: Their sources and classes.
        most: Folds at most.
    """
    classes: dict[str, set[int]] = defaultdict(set)
    for source, row in zip(clips.sources, clips.target, strict=True):
        classes[source].update(np.flatnonzero(row).tolist())
    counts = Counter(label for labels in classes.values() for label in labels)
    num_folds = min(most, max(counts.values(), default=1))
    if num_folds < 2 or sum(count > 1 for count in counts.values()) < 2:
        return np.full(len(clips), -1)
    fold_of: dict[str, int] = {}
    for label in (*sorted(counts, key=lambda label: (counts[label], label)), None):  # None: of no class
        own = sorted((name for name in classes if name not in fold_of and _has(classes[name], label)), key=_natural)
        blocks = len(classes) == len(clips)
        fold_of |= {name: rank * num_folds // len(own) if blocks else rank % num_folds for rank, name in enumerate(own)}
    return np.array([fold_of[source] for source in clips.sources])


def _has(labels: set[int], label: int | None) -> bool:
    return label in labels or label is None


def _natural(name: str) -> list[tuple[int, str]]:
    """As people sort: clip_9 before clip_10.

    >>> sorted(["clip_10", "clip_9"], key=_natural)
    ['clip_9', 'clip_10']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _table(scores: Floats, clips: ClipStatistics) -> ScoreTable:
    return ScoreTable(
        scores=scores.astype(np.float32),
        target=clips.target,
        readable=np.ones(len(clips), dtype=bool),
        is_multi_label=clips.is_multi_label,
    )


def _estimate(value: float, drawn: Floats) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, PERCENTILES) if len(known) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high))


def _score(value: float, drawn: Floats, *, num_sources: int) -> Estimate:
    """With Wilson's interval where all or nothing is right, of which every resample says the same."""
    if value in {0.0, 1.0}:
        return Estimate(value, *Rate(round(value * num_sources), num_sources).interval)
    return _estimate(value, drawn)


def _chance(clips: ClipStatistics) -> float:
    share = clips.target.mean(axis=0)
    return float(share[share > 0].mean() if clips.is_multi_label else share.max())


def _right(table: ScoreTable) -> Mask:
    """Whether the highest score is of (one of) the classes of a clip, [M]."""
    return np.take_along_axis(table.target, table.scores.argmax(axis=1)[:, None], axis=1)[:, 0]


def _confusion(table: ScoreTable) -> tuple[ConfusedPair, ...]:
    if table.is_multi_label:
        return ()
    counts = np.zeros((table.target.shape[1],) * 2, dtype=np.int64)
    np.add.at(counts, (table.target.argmax(axis=1), table.scores.argmax(axis=1)), 1)
    return tuple(worst_pairs(counts, limit=SHOWN_PAIRS))
