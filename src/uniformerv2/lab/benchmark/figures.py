"""Figures of benchmarks, drawn with matplotlib from rows; shapes tell curves apart too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.core.files import write_whole
from uniformerv2.evaluation.figure_style import BLUE, GREEN, INK, MUTED, RED, figure_style, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

Row = Mapping[str, Any]

_CURVES: Final = {"frames": "frames", "size": "side of a frame, pixels", "stages": "fusion stages"}
_BARS: Final = {
    "model": ("share_of_ceiling", "part of the GEMM ceiling of the same run"),
    "decode": ("processor_seconds", "processor seconds a video"),
    "data": ("loader_clips_per_second", "clips a second"),
    "pipeline": ("of_slower_part", "part of what the slower part alone reaches"),
    "flops": ("gmacs", "billion multiply-adds a clip"),
    "startup": ("seconds", "seconds"),
}
_NAMES: Final = {
    "model": ("model", "num_frames", "image_size", "pass", "precision"),
    "decode": ("reader", "frames", "videos"),
    "data": ("videos", "decoder", "num_workers"),
    "pipeline": ("way", "model"),
    "flops": ("part",),
    "startup": ("what",),
}


def draw(benchmark: str, rows: Sequence[Row], path: Path, *, source: str = "") -> None:
    """Draw the figure of a benchmark.

    Args:
        benchmark: A name that has a table.
        rows: Of a report.
        path: The file to write, of one of ``choices.FIGURE_SUFFIXES``; whole or not at all.
        source: Written into a PNG's metadata: what the figure was made from.
    """
    with figure_style():
        figure = _draw_growth(rows) if benchmark == "growth" else _draw_bars(benchmark, rows)
        metadata = {"Source": source} if path.suffix == ".png" and source else None
        kind = path.suffix.removeprefix(".")
        write_whole(path, lambda temporary: figure.savefig(temporary, format=kind, metadata=metadata))


def _draw_growth(rows: Sequence[Row]) -> Figure:
    """Time above, memory below, a column for each thing that grows: in units of the smallest, beside the law."""
    sweeps = [name for name in _CURVES if any(row["sweep"] == name for row in rows)]
    figure, axes = new_axes(3.1 * len(sweeps), 5.2, rows=2, columns=len(sweeps))
    for column, name in enumerate(sweeps):
        for line, (key, title) in enumerate((("time_ratio", "Time"), ("memory_ratio", "Memory"))):
            axis = axes[line * len(sweeps) + column]
            _draw_curves(axis, [row for row in rows if row["sweep"] == name], key)
            axis.set_title(f"{title}, smallest = 1" if column == 0 else "")
            axis.set_xlabel(_CURVES[name] if line else "")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return figure


def _draw_curves(axis: Axes, rows: Sequence[Row], key: str) -> None:
    passes = list(dict.fromkeys((row["pass"], row["precision"]) for row in rows))
    for index, (kind, precision) in enumerate(passes):
        own = [row for row in rows if (row["pass"], row["precision"]) == (kind, precision)]
        values = [row["value"] for row in own]
        if not index:
            law = [row["linear"] for row in own]
            axis.plot(values, law, color=MUTED, ls=(0, (4, 3)), lw=1.2, label="linear law")
        colour, mark = ((BLUE, "o"), (RED, "s"), (GREEN, "^"))[index % 3]
        name = {"forward": "forward", "step": "training step"}[kind]
        label = f"{name}, {precision}"
        axis.plot(values, [row[key] for row in own], color=colour, marker=mark, ms=5, label=label, clip_on=False)
    axis.set_ylim(bottom=0)
    axis.set_xticks(values, [str(value) for value in values], fontsize=8)


def _draw_bars(benchmark: str, rows: Sequence[Row]) -> Figure:
    """A bar a row, the first at the top, with its number; quartiles as a line where the bar is a time."""
    key, label = _BARS[benchmark]
    names = [", ".join(str(row[name]) for name in _NAMES[benchmark] if name in row) for row in rows]
    values = [row[key] for row in rows]
    figure, (axis,) = new_axes(7.2, 0.9 + 0.3 * len(rows))
    places = range(len(rows))
    axis.barh(places, values, height=0.66, color=BLUE)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlabel(label)
    axis.set_xlim(0, 1.16 * max(values))
    for place, value, row in zip(places, values, rows, strict=True):
        reach = row.get("seconds_high", value) if key == "seconds" else value
        if key == "seconds" and "seconds_low" in row:
            axis.plot([row["seconds_low"], reach], [place, place], color=INK, lw=1.4)
        axis.annotate(
            f"{value:.3g}", (max(value, reach), place), xytext=(4, 0), textcoords="offset points", va="center"
        )
    return figure
