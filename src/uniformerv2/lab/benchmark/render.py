"""Reports as tables, ratios first: the same cells on a terminal and in Markdown; and as figures by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.core.files import write_whole
from uniformerv2.evaluation.figure_style import BLUE, GREEN, INK, MUTED, RED, figure_style, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["TABLES", "TextTable", "draw", "table_of"]

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


@dataclass(frozen=True)
class TextTable:
    """A table of words.

    Attributes:
        header: The title of each column.
        rows: A cell for each column.
        num_text_columns: How many columns at the left hold words; the others hold numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text_columns: int

    def to_markdown(self) -> str:
        """Lines of a Markdown table.

        >>> print(TextTable(("who", "s"), (("ours", "1.2"),), 1).to_markdown())
        | who | s |
        | --- | ---: |
        | ours | 1.2 |
        """
        numbers = len(self.header) - self.num_text_columns
        rule = ("---",) * self.num_text_columns + ("---:",) * numbers
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.header, rule, *self.rows))


def table_of(benchmark: str, rows: Sequence[Row]) -> TextTable:
    """The table of a benchmark; a column that would be empty in every row is left out.

    Args:
        benchmark: A key of ``TABLES``.
        rows: The rows of one report, or of several of the same benchmark.

    Raises:
        ValueError: There is no such benchmark.
    """
    if benchmark not in TABLES:
        raise ValueError(f"benchmark is {benchmark!r}; it must be one of {', '.join(TABLES)}.")
    columns = TABLES[benchmark]
    cells = [[write(row) for row in rows] for _, write in columns]
    kept = [index for index, column in enumerate(cells) if any(column)]
    return TextTable(
        header=tuple(columns[index][0] for index in kept),
        rows=tuple(zip(*(cells[index] for index in kept), strict=True)),
        num_text_columns=sum(columns[index][0] in _WORDS for index in kept),
    )


def _word(name: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(name, ""))


def _number(name: str, form: str, *, times: float = 1.0, unit: str = "") -> Callable[[Row], str]:
    def write(row: Row) -> str:
        value = row.get(name)
        return "" if value is None else f"{value * times:{form}}{unit}"

    return write


def _share(name: str) -> Callable[[Row], str]:
    return _number(name, ".0f", times=100, unit=" %")


def _spread(row: Row) -> str:
    """Median of the seconds, and from quartile to quartile."""
    median, low, high = (row.get(name) for name in ("seconds", "seconds_low", "seconds_high"))
    if median is None:
        return ""
    digits = 1 if median >= 10 else 3 if median >= 0.1 else 5
    if low is None or high is None:
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _clip(row: Row) -> str:
    return f"{row['num_frames']} x {row['image_size']}"


def _work(row: Row) -> str:
    """What a row of ``model`` did."""
    words = [row["pass"], row["precision"]]
    words += ["compiled"] if row["compiled"] else []
    words += ["checkpointed"] if row["checkpointing"] else []
    words += ["frozen backbone"] if row["pass"] == "step" and row["num_trainable"] < row["num_parameters"] else []
    return ", ".join([*words, f"batch {row['batch_size']}"])


_MEMORY: Final = ("peak memory, GiB", _number("peak_bytes", ".2f", times=2**-30))

TABLES: Final[dict[str, tuple[Column, ...]]] = {
    "model": (
        ("network", _word("model")),
        ("clip", _clip),
        ("pass", _work),
        ("speed, first = 1", _number("speed_to_first", ".2f")),
        ("time / its products", _number("over_products", ".2f")),
        ("of the GEMM ceiling", _share("share_of_ceiling")),
        ("clips/s", _number("clips_per_second", ".3g")),
        ("seconds (quartiles)", _spread),
        ("GMACs a clip", _number("gmacs", ".3g")),
        ("TFLOP/s", _number("teraflops", ".3f")),
        ("ceiling, TFLOP/s", _number("ceiling_teraflops", ".3f")),
        _MEMORY,
    ),
    "growth": (
        ("what grows", _word("sweep")),
        ("pass", _word("pass")),
        ("to", _word("value")),
        ("linear law", _number("linear", ".2f")),
        ("time", _number("time_ratio", ".2f")),
        ("memory", _number("memory_ratio", ".2f")),
        ("tokens", _word("tokens")),
        ("GMACs", _number("gmacs", ".1f")),
        ("seconds (quartiles)", _spread),
        _MEMORY,
    ),
    "decode": (
        ("videos", _word("videos")),
        ("frames", _word("frames")),
        ("reader", _word("reader")),
        ("time, first = 1", _number("ratio_to_first", ".2f")),
        ("processor ms a video", _number("processor_seconds", ".1f", times=1000)),
    ),
    "data": (
        ("videos", _word("videos")),
        ("decoder", _word("decoder")),
        ("workers", _word("num_workers")),
        ("loader / decode", _share("of_decode")),
        ("loader / crop", _share("of_crop")),
        ("CPU time, decode / loader", _share("processor_of_decode")),
        ("decode, clips/s", _number("decode_clips_per_second", ".0f")),
        ("crop, clips/s", _number("crop_clips_per_second", ".0f")),
        ("loader, clips/s", _number("loader_clips_per_second", ".0f")),
        ("with RandAugment", _number("rand_augment_clips_per_second", ".0f")),
        ("first batch, s", _number("first_batch_seconds", ".2f")),
    ),
    "pipeline": (
        ("way", _word("way")),
        ("network", _word("model")),
        ("of the slower part", _share("of_slower_part")),
        ("faster than no overlap", _number("of_no_overlap", ".2f")),
        ("whole, videos/s", _number("clips_per_second", ".2f")),
        ("decode alone", _number("decode_clips_per_second", ".2f")),
        ("model alone", _number("model_clips_per_second", ".2f")),
    ),
    "windows": (
        ("network", _word("model")),
        ("stride, frames", _word("stride")),
        ("T / stride", _number("law", ".0f")),
        ("faster, network alone", _number("ratio", ".2f")),
        ("of T / stride", _share("of_law")),
        ("faster, with decoding", _number("ratio_decoded", ".2f")),
        ("seconds (quartiles)", _spread),
    ),
    "flops": (
        ("part", _word("part")),
        ("share", _number("share", ".1f", times=100, unit=" %")),
        ("GMACs a clip", _number("gmacs", ".3f")),
    ),
    "engines": (
        ("engine", _word("engine")),
        ("precision", _word("precision")),
        ("busy processes", _word("company")),
        ("speed, first = 1", _number("speed_to_first", ".2f")),
        ("processor, first = 1", _number("processor_to_first", ".2f")),
        ("seconds", _number("seconds", ".3f")),
        ("processor seconds", _number("processor_seconds", ".3f")),
        ("of the GEMM ceiling", _share("share_of_ceiling")),
        ("auto", lambda row: "yes" if row["is_auto"] else ""),
    ),
    "startup": (("what", _word("what")), ("seconds (quartiles)", _spread)),
}
"""Benchmark -> its columns; those of words stand at the left."""
_WORDS: Final = frozenset(
    (
        "engine",
        "precision",
        "network",
        "clip",
        "pass",
        "what grows",
        "videos",
        "frames",
        "reader",
        "decoder",
        "way",
        "part",
        "what",
    )
)
"""Titles of columns that hold words; the others hold numbers."""

_CURVES: Final = {"frames": "frames", "size": "side of a frame, pixels", "stages": "fusion stages"}
_BARS: Final = {
    "model": (
        *("share_of_ceiling", "part of the GEMM ceiling of the same run"),
        *("model", "num_frames", "image_size", "pass", "precision"),
    ),
    "decode": ("processor_seconds", "processor seconds a video", "reader", "frames", "videos"),
    "data": ("loader_clips_per_second", "clips a second", "videos", "decoder", "num_workers"),
    "pipeline": ("of_slower_part", "part of what the slower part alone reaches", "way", "model"),
    "windows": ("ratio", "times faster than whole windows", "model", "stride"),
    "flops": ("gmacs", "billion multiply-adds a clip", "part"),
    "engines": ("seconds", "seconds a clip", "engine", "precision", "company"),
    "startup": ("seconds", "seconds", "what"),
}
"""Benchmark -> what its bars show, in words, and what names a bar."""


def draw(benchmark: str, rows: Sequence[Row], path: Path, *, source: str = "") -> None:
    """Draw the figure of a benchmark.

    Args:
        benchmark: A name that has a table.
        rows: The rows of a report.
        path: The file to write, of one of ``FIGURE_SUFFIXES``; whole or not at all.
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
    key, label, *named_by = _BARS[benchmark]
    names = [", ".join(str(row[name]) for name in named_by if name in row) for row in rows]
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
