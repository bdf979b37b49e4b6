"""Reports as tables, ratios first: the same cells on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["TABLES", "TextTable", "table_of"]

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
    "flops": (
        ("part", _word("part")),
        ("share", _number("share", ".1f", times=100, unit=" %")),
        ("GMACs a clip", _number("gmacs", ".3f")),
    ),
    "startup": (("what", _word("what")), ("seconds (quartiles)", _spread)),
}
"""Benchmark -> its columns; those of words stand at the left."""
_WORDS: Final = frozenset(
    ("network", "clip", "pass", "what grows", "videos", "frames", "reader", "decoder", "way", "part", "what")
)
"""Titles of columns that hold words; the others hold numbers."""
