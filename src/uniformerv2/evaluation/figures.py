"""The report's figures, drawn with matplotlib from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.optional import require
from uniformerv2.evaluation.breakdown import ConfidenceBin, DurationGroup, ViewCount
from uniformerv2.evaluation.curves import Curve
from uniformerv2.evaluation.figure_style import BLUE, GREEN, LINE, MUTED, RED, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "LABELLED",
    "PANELS",
    "draw_calibration",
    "draw_confusion",
    "draw_curves",
    "draw_durations",
    "draw_views",
    "seconds",
    "shorten",
]

LABELLED: Final = 30
"""Most classes of a confusion matrix whose cells have numbers and whose rows have names."""

SHORT: Final = 18
"""Most characters of names that a confusion matrix also has under its columns."""

LONG: Final = 52
"""Most characters at a row, with the number."""

DOT: Final = 6
"""Least width of a mistake in a large confusion matrix, in thousandths of the matrix."""

_CURVES: Final = {
    "train_loss": ("training", BLUE, "-"),
    "val_loss": ("validation", RED, "-"),
    "val_top1": ("top-1", BLUE, "-"),
    "val_top5": ("top-5", GREEN, "--"),
    "val_mean_ap": ("mean average precision", BLUE, "-"),
    "learning_rate": ("learning rate", MUTED, "-"),
}
PANELS: Final = {
    "loss": ("Loss", ("train_loss", "val_loss")),
    "validation": ("Validation", ("val_top1", "val_top5", "val_mean_ap")),
    "rate": ("Highest learning rate", ("learning_rate",)),
}
"""Figure -> its title, and the curves that it may have."""


def draw_curves(panel: str, curves: Mapping[str, Curve], kept_epoch: float | None) -> Figure:
    """Curves over the epochs, narrow enough to be read on a phone.

    Args:
        panel: A name of ``PANELS``.
        curves: From the training's log; at least one of the panel.
        kept_epoch: Epochs done when the model was kept, marked by a line; None: unknown.
    """
    title, known = PANELS[panel]
    names = [name for name in known if name in curves]
    figure, (axis,) = new_axes(3.6, 2.7)
    for name in names:
        epochs, values = curves[name]
        label, colour, dash = _CURVES[name]
        axis.plot(epochs, values, marker="o" if len(epochs) < 25 else "", ms=3, color=colour, ls=dash, label=label)
    if kept_epoch is not None:
        axis.axvline(kept_epoch, color=MUTED, lw=1.2, ls=(0, (4, 3)), label="kept")
    only = f" {_CURVES[names[0]][0]}" if panel == "validation" and len(names) == 1 else ""
    axis.set(title=title + only, xlabel="epochs")
    axis.set_xlim(left=0)
    axis.margins(x=0.02)
    axis.locator_params(axis="x", nbins=5, integer=True)
    if panel == "validation":
        _percent(axis.yaxis)
    if panel == "rate":
        axis.yaxis.set_major_formatter("{x:.2g}")
    if len(names) > 1 or kept_epoch is not None:
        axis.legend(handlelength=1.5)
    return figure


def draw_confusion(counts: NDArray[np.int64], names: Sequence[str], totals: NDArray[np.int64]) -> Figure:
    """A confusion matrix; with numbers and names where there are up to ``LABELLED`` classes.

    Long names stand at the rows alone, with numbers that the columns repeat: slanted, they would take more room than
    the matrix and be cut to what nobody knows again.

    Args:
        counts: [N, N] videos by true class (rows) and predicted class, in the order to draw.
        names: N.
        totals: [N] videos of each true class, also where not all columns are drawn.
    """
    is_labelled = len(names) <= LABELLED
    figure, (axis,) = new_axes(*_confusion_size(names) if is_labelled else (7.2, 6.2))
    share = counts / np.maximum(totals, 1)[:, None]
    extent = (-0.5, len(names) - 0.5, len(names) - 0.5, -0.5)
    shown = share if is_labelled else _enlarge_mistakes(share)
    image = axis.imshow(shown, cmap=_colours(), norm=_square_root(), interpolation="none", extent=extent)
    axis.grid(visible=False)
    axis.set(xlabel="predicted class", ylabel="true class")
    for spine in axis.spines.values():
        spine.set_visible(not is_labelled)
    axis.tick_params(length=0)
    if is_labelled:
        _name_classes(axis, names)
        edges = np.arange(len(names) + 1) - 0.5
        axis.vlines(edges, edges[0], edges[-1], color=LINE, lw=0.6)
        axis.hlines(edges, edges[0], edges[-1], color=LINE, lw=0.6)
        _write_counts(axis, counts, share)
    else:
        every = 50 if len(names) > 200 else 25
        marks = [0, *range(every - 1, len(names), every)]
        axis.set_xticks(marks, [str(mark + 1) for mark in marks])
        axis.set_yticks(marks, [str(mark + 1) for mark in marks])
    bar = figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02, ticks=[0, 0.05, 0.2, 0.5, 1])
    _percent(bar.ax.yaxis)
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    bar.set_label("part of the true class")
    return figure


def draw_calibration(bins: Sequence[ConfidenceBin], of: str) -> Figure:
    """Accuracy against confidence, and under it how many decisions there are of each confidence.

    Args:
        bins: Of equal width; empty ones are left out.
        of: What is counted, for instance "videos".
    """
    figure, (axis, below) = new_axes(4.8, 5, rows=2, ratios=(3.2, 1))
    filled = [part for part in bins if part.rate.total]
    middles = [(part.low + part.high) / 2 for part in filled]
    width = 0.86 * (bins[0].high - bins[0].low)
    accuracy = np.array([part.rate.value for part in filled])
    bounds = np.array([part.rate.interval for part in filled]).T
    axis.bar(middles, accuracy, width, color=BLUE, alpha=0.35, lw=0)
    axis.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)))
    confidence = [part.confidence for part in filled]
    axis.errorbar(
        confidence, accuracy, abs(bounds - accuracy), fmt="o", color=BLUE, ms=4.5, elinewidth=1.2, clip_on=False
    )
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="part that is right")
    counts = [part.rate.total for part in filled]
    below.bar(middles, counts, width, color=MUTED, lw=0)
    below.set(
        xlim=(0, 1), xlabel="confidence", ylabel=of, yscale="log" if max(counts) > 300 * min(counts) else "linear"
    )
    for each in (axis.xaxis, axis.yaxis, below.xaxis):
        _percent(each)
    axis.tick_params(labelbottom=False)
    return figure


def draw_views(counts: Sequence[ViewCount], measure: str) -> Figure:
    """The accuracy with so many views: the mean over choices of the views, and from the worst to the best choice."""
    figure, (axis,) = new_axes(4.6, 3)
    number = [count.num_views for count in counts]
    axis.fill_between(
        number, [count.lowest for count in counts], [count.highest for count in counts], color=BLUE, alpha=0.2, lw=0
    )
    axis.plot(number, [count.mean for count in counts], "o-", color=BLUE, ms=3.5)
    axis.set(xlabel="views of a video", ylabel=measure)
    axis.locator_params(axis="x", integer=True)
    _percent(axis.yaxis)
    return figure


def draw_durations(groups: Sequence[DurationGroup], measure: str) -> Figure:
    """The accuracy of videos by duration, with 95 % intervals."""
    figure, (axis,) = new_axes(4.6, 3)
    values = np.array([group.rate.value for group in groups])
    bounds = np.array([group.rate.interval for group in groups]).T
    places = range(len(groups))
    axis.errorbar(
        places, values, abs(bounds - values), fmt="o", color=BLUE, ms=5, elinewidth=1.6, capsize=3, clip_on=False
    )
    axis.set_xticks(places, [f"{seconds(group.from_seconds)}\u2013{seconds(group.to_seconds)}" for group in groups])
    axis.set(xlabel="duration, seconds", ylabel=measure, xlim=(-0.5, len(groups) - 0.5))
    axis.grid(visible=False, axis="x")
    _percent(axis.yaxis)
    return figure


def seconds(value: float) -> str:
    """Short, for a scale.

    >>> seconds(7.03), seconds(151.2)
    ('7', '151')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0")


def shorten(name: str, length: int) -> str:
    """At most ``length`` characters, start and end of the name, and none that XML forbids.

    >>> shorten("passing American football (in game)", 20)
    'passing Am…(in game)'
    """
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    if len(name) <= length:
        return name
    start = length // 2
    return f"{name[:start]}…{name[start + 1 - length :]}"


def _percent(axis: Any) -> None:
    percent = require("matplotlib.ticker", extra="plot").FuncFormatter(lambda value, _: f"{100 * value:.3g} %")
    axis.set_major_formatter(percent)


def _square_root() -> Any:
    """Small parts are seen too."""
    return require("matplotlib.colors", extra="plot").PowerNorm(0.5, vmin=0, vmax=1)


def _colours() -> Any:
    """White where there is no video, and from the first one on a blue that is seen beside white."""
    blues = require("matplotlib", extra="plot").colormaps["Blues"]
    colours = require("matplotlib.colors", extra="plot")
    return colours.ListedColormap(["#ffffff", *blues(np.linspace(0.25, 1, 255))])


def _enlarge_mistakes(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K, K] -> [3 K, 3 K] with each mistake grown to about ``DOT`` of a thousand parts of the width."""
    num_classes = len(share)
    wrong = np.where(np.eye(num_classes, dtype=bool), 0, share)
    large = np.kron(wrong, np.ones((3, 3)))
    for _ in range(round(max(0.0, DOT * num_classes / 1000 - 1) * 3 / 2)):
        padded = np.pad(large, 1)
        near = [padded[row : row + len(large), column : column + len(large)] for row in range(3) for column in range(3)]
        large = np.max(near, axis=0)
    right = np.kron(np.diag(np.diag(share)), np.ones((3, 3)))
    return np.where(right > 0, right, large)


def _are_short(names: Sequence[str]) -> bool:
    return max(map(len, names)) <= SHORT


def _confusion_size(names: Sequence[str]) -> tuple[float, float]:
    """Inches of a matrix with names: cells, names, colour bar."""
    cells = max(1.6, 0.36 * len(names))
    longest = max(map(len, names))
    if _are_short(names):
        return cells + 0.075 * longest + 1.5, cells + 0.055 * longest + 0.6
    return cells + 0.075 * min(longest + 4, LONG) + 1.5, cells + 0.6


def _name_classes(axis: Axes, names: Sequence[str]) -> None:
    places = range(len(names))
    if _are_short(names):
        shown = [shorten(name, SHORT) for name in names]
        axis.set_xticks(places, shown, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    else:
        shown = [f"{shorten(name, LONG - 4)}\u2002{place + 1}" for place, name in enumerate(names)]
        axis.set_xticks(places, [str(place + 1) for place in places])
    axis.set_yticks(places, shown, parse_math=False)


def _write_counts(axis: Axes, counts: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "#ffffff" if share[row, column] > 0.4 else "#000000"
            axis.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8.5)
