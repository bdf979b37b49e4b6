"""What an ablation found: a row per variant with its interval, as a table and a plot, from plain hits and misses.

Intervals hold 95 %: a percentile bootstrap draws sources of videos and seeds together, both with replacement:
what other videos of the same kind and other seeds would give. Clips of one source, and both directions of a clip, are
never torn apart. With three seeds and a hundred videos the intervals are rough, and rather too narrow than too wide.

Letters: R resamples, S seeds of a variant, G sources, M validation samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.files import write_text
from uniformerv2.data.list_files import csv_text
from uniformerv2.evaluation.figure_style import BLUE, MUTED, RED, new_axes, save_figure
from uniformerv2.lab.benchmark.render import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Hits", "VariantRow", "draw_variants", "markdown", "tabulate", "write_results"]

NUM_RESAMPLES: Final = 10_000
PERCENTILES: Final = (2.5, 97.5)


Hits = Mapping[str, Sequence[Sequence[bool]]]
"""Name of a variant -> of each seed, whether each validation sample was a hit, [S, M]; none where every run failed."""


@dataclass(frozen=True, kw_only=True)
class VariantRow:
    """A line of the table; shares from 0 to 1, NaN where nothing is known.

    Attributes:
        name: The variant.
        num_seeds: Runs that ended well.
        top1: Mean over the seeds.
        spread: Standard deviation over the seeds; NaN where there is one.
        low: Where the interval of ``top1`` begins.
        high: Where it ends.
        difference: ``top1`` minus the control's.
        difference_low: Where the interval of ``difference`` begins.
        difference_high: Where it ends.
    """

    name: str
    num_seeds: int
    top1: float = math.nan
    spread: float = math.nan
    low: float = math.nan
    high: float = math.nan
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan


def tabulate(
    variants: Hits, *, sources: Sequence[str], control: str, num_resamples: int = NUM_RESAMPLES
) -> list[VariantRow]:
    """Means, spreads and intervals.

    Args:
        variants: All with the same samples.
        sources: The source of each sample: samples of one source are drawn together, [M].
        control: Name of the variant that the others are compared with.
        num_resamples: R.

    Raises:
        ValueError: A run has another number of samples than there are sources.
    """
    for name, seeds in variants.items():
        if wrong := [len(hits) for hits in seeds if len(hits) != len(sources)]:
            raise ValueError(f"'{name}' has {wrong[0]} samples, but there are {len(sources)}.")
    numbers = np.unique(np.asarray(sources), return_inverse=True)[1]
    sizes = np.bincount(numbers).astype(np.float64)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=num_resamples).astype(np.float64)
    known = {name: np.asarray(seeds, np.float64) for name, seeds in variants.items() if len(seeds)}
    resampled = {name: _resampled(hits, numbers, sizes, drawn, rng) for name, hits in known.items()}
    return [_row(name, known, resampled, control) for name in variants]


def markdown(rows: Sequence[VariantRow], *, control: str, chance: float) -> str:
    """The table in percent, and what its intervals are."""
    header = ("variant", "seeds", "top-1", "spread over seeds", "95 % interval", f"minus {control}", "95 % interval")
    cells = [
        (
            row.name,
            str(row.num_seeds) if row.num_seeds else "failed",
            _percent(row.top1),
            _percent(row.spread),
            _interval(row.low, row.high),
            _percent(row.difference, sign="+"),
            _interval(row.difference_low, row.difference_high, sign="+"),
        )
        for row in rows
    ]
    about = (
        f"Chance is {_percent(chance)} (the commonest class). Intervals: bootstrap over the sources of the validation "
        "videos and the seeds together."
    )
    return f"{TextTable(header, tuple(cells), 1).to_markdown()}\n\n{about}\n"


def draw_variants(rows: Sequence[VariantRow], hits: Hits, chance: float) -> Figure:
    """A line for each variant: the mean and its interval, a small ring for each seed; dashed where chance is."""
    figure, (axis,) = new_axes(6.4, 1.1 + 0.42 * len(rows))
    seeds = {name: [100 * float(np.mean(one)) for one in runs] for name, runs in hits.items()}
    for place, row in enumerate(rows):
        if not row.num_seeds:
            axis.text(100 * chance, place, " failed", va="center", color=RED)
            continue
        bounds = [[100 * (row.top1 - row.low)], [100 * (row.high - row.top1)]]
        axis.errorbar(100 * row.top1, place, xerr=bounds, fmt="o", color=BLUE, ms=6, elinewidth=1.6, capsize=3)
        axis.plot(seeds[row.name], [place] * row.num_seeds, "o", mfc="none", color=MUTED, ms=4, zorder=3)
    axis.axvline(100 * chance, color=MUTED, lw=1, ls=(0, (4, 3)))
    axis.set_yticks(range(len(rows)), [row.name for row in rows], parse_math=False)
    axis.set(xlabel="top-1, %, with 95 % interval; rings: seeds; dashed: chance", ylim=(len(rows) - 0.5, -0.5))
    axis.grid(visible=False, axis="y")
    return figure


def write_results(
    folder: Path,
    rows: Sequence[VariantRow],
    hits: Hits,
    *,
    title: str,
    about: str,
    control: str,
    chance: float,
) -> Path:
    """Write ``results.md``, ``results.csv``, ``results.png`` and ``results.svg``, each whole or not at all.

    Args:
        folder: Where to; made if it is not there.
        rows: From ``tabulate``.
        hits: What they come from.
        title: First line of the page.
        about: What was measured, a sentence.
        control: Name of the control.
        chance: 0 to 1.

    Returns:
        The Markdown file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = [["" if value != value else value for value in astuple(row)] for row in rows]
    table = csv_text([item.name for item in fields(VariantRow)], cells)
    save_figure(folder, "results", draw_variants, rows, hits, chance)
    found = markdown(rows, control=control, chance=chance)
    page = f"# {title}\n\n{about}\n\n{found}\n![top-1 of each variant](results.svg)\n"
    for suffix, text in (("csv", table), ("md", page)):
        write_text(folder / f"results.{suffix}", text)
    return folder / "results.md"


def _resampled(
    hits: NDArray[np.float64],
    numbers: NDArray[np.intp],
    sizes: NDArray[np.float64],
    drawn: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Top-1 of each resample, [R]: hits [S, M], sources [M] and how often each was drawn, [R, G]."""
    per_source = np.stack([np.bincount(numbers, weights=one, minlength=len(sizes)) for one in hits])
    per_seed = drawn @ per_source.T / (drawn @ sizes)[:, None]
    seeds = rng.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), size=len(drawn))
    return np.asarray((per_seed * seeds).sum(axis=1) / len(hits))


def _row(
    name: str, known: dict[str, NDArray[np.float64]], resampled: dict[str, NDArray[np.float64]], control: str
) -> VariantRow:
    if name not in known:
        return VariantRow(name=name, num_seeds=0)
    num_seeds, mean, per_seed = len(known[name]), float(known[name].mean()), known[name].mean(axis=1)
    low, high = np.percentile(resampled[name], PERCENTILES)
    found: dict[str, float] = {
        "top1": mean,
        "spread": float(np.std(per_seed, ddof=1)) if num_seeds > 1 else math.nan,
        "low": float(low),
        "high": float(high),
    }
    if control in known and name != control:
        lowest, highest = np.percentile(resampled[name] - resampled[control], PERCENTILES)
        found |= {"difference": mean - float(known[control].mean())}
        found |= {"difference_low": float(lowest), "difference_high": float(highest)}
    return VariantRow(name=name, num_seeds=num_seeds, **found)


def _percent(value: float, *, sign: str = "") -> str:
    return "" if math.isnan(value) else f"{100 * value:{sign}.1f} %"


def _interval(low: float, high: float, *, sign: str = "") -> str:
    return "" if math.isnan(low) else f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"
