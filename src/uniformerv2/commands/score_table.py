"""What ``uniformerv2 test`` and ``evaluate`` show alike: the numbers as a table for people, and failures."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from uniformerv2.core.messages import counted
from uniformerv2.evaluation.scores import Evaluation
from uniformerv2.evaluation.summary import Estimate, Summary

__all__ = ["as_json", "commands_of", "list_failures", "print_summary", "unreadable"]

TITLES: Final = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean class accuracy",
    "mean_ap": "mAP",
    "loss": "loss",
    "calibration_error": "calibration error",
}
IN_PERCENT: Final = frozenset({"top1", "top5", "mean_class_accuracy", "mean_ap", "calibration_error"})
SHOWN: Final = 10


def print_summary(console: Console, summaries: Mapping[str, Summary]) -> None:
    """A row a number, a column for the views, for one view, and for the readable videos where some are not.

    Args:
        console: Where to.
        summaries: By title; the title is not shown where there is only one.
    """
    columns: list[tuple[str, Mapping[str, Estimate]]] = []
    for title, summary in summaries.items():
        front = f"{title}: " if len(summaries) > 1 else ""
        views = "1 view" if summary.num_views == 1 else f"{summary.num_views} views"
        columns.append((front + views, summary.all_videos))
        if summary.readable:
            columns.append((f"{front}{views}, readable only", summary.readable))
        if summary.one_view:
            columns.append((f"{front}1 view", summary.one_view))
    if not any(found for _, found in columns):
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for name, title in TITLES.items():
        cells = [_cell(name, found[name]) if name in found else "" for _, found in columns]
        if any(cells):
            table.add_row(title, *cells)
    console.print(table)
    if any(not math.isnan(found.low) for _, column in columns for found in column.values()):
        console.print("In brackets: 95 % intervals, bootstrap over the videos (at 0 and 100 %: Wilson).", style="dim")


def commands_of(evaluations: Sequence[Evaluation], options: argparse.Namespace) -> list[str]:
    """The commands that give these scores again, and the one that was typed."""
    tested = [] if options.words[0] == "test" else [evaluation.info.get("command") for evaluation in evaluations]
    return [*(str(command) for command in tested if command), shlex.join(["uniformerv2", *options.words])]


def list_failures(console: Console, evaluation: Evaluation) -> None:
    """Say how many videos could not be read, and name some; nothing where all could."""
    failed = unreadable(evaluation)
    if not failed:
        return
    console.print(
        f"! {len(failed)} of {counted(len(evaluation.videos), 'video')} could not be read; they count as misses, "
        "and not at all in loss and calibration error.",
        style="yellow",
        markup=False,
    )
    for item in failed[:SHOWN]:
        console.print(f"  {item['path']}: {item['error']}", markup=False)
    if len(failed) > SHOWN:
        console.print(f"  and {len(failed) - SHOWN} more: all of them are in the dump and in --json.", markup=False)


def unreadable(evaluation: Evaluation) -> list[dict[str, str]]:
    """Path and error of each video that could not be read."""
    return [{"path": video.path, "error": video.error} for video in evaluation.videos if video.error]


def as_json(value: Any) -> Any:
    """Plain values without NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(name: str, found: Estimate) -> str:
    scale, digits, unit = (100, 2, " %") if name in IN_PERCENT else (1, 4, "")
    value = f"{found.value * scale:.{digits}f}{unit}"
    if math.isnan(found.low):
        return value
    shorter = max(1, digits - 1)
    return f"{value} ({found.low * scale:.{shorter}f} to {found.high * scale:.{shorter}f})"
