"""What ``uniformerv2 data`` prints at its end: tables of what was checked, a summary of what was prepared."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from uniformerv2.core.console import make_console
from uniformerv2.data.check import CheckSummary, ClassSummary, VideoCheck
from uniformerv2.data.list_runs import Preparation
from uniformerv2.data.reencode import measure_sparse_decoding

__all__ = ["show_checks", "show_prepared"]

SHOWN: Final = 25


def show_checks(checks: Sequence[VideoCheck], summary: CheckSummary, options: argparse.Namespace) -> None:
    """Bad videos (all of them where they are few), classes, leaks, counts, advice.

    Args:
        checks: In the order of the list.
        summary: Of them.
        options: Of ``uniformerv2 data check``.
    """
    console = _console(options)
    shown = checks if len(checks) <= SHOWN else [check for check in checks if check.status != "ok"]
    if shown:
        console.print(_video_table(shown[:SHOWN], options.source))
    if len(shown) > SHOWN:
        where = options.manifest or "the file of --manifest"
        console.print(f"  and {len(shown) - SHOWN} more bad ones, all in {where}", markup=False)
    if any(each.name != "(no class)" for each in summary.classes):
        console.print(_class_table(summary.classes))
    for repeat in summary.leaks[:SHOWN]:
        where = " and ".join(repeat.splits)
        console.print(f"in {where}: {' = '.join(repeat.paths)}", style="red", markup=False)
    counts = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
    console.print(f"{len(checks)} videos: {counts}", style="bold", markup=False)
    for line in summary.suggestions:
        console.print(f"- {line}", markup=False)


def _video_table(checks: Sequence[VideoCheck], source: Path) -> Table:
    base = source if source.is_dir() else source.parent
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("status", no_wrap=True)
    table.add_column("video", overflow="fold")
    for name in ("frames", "fps", "seconds", "size", "codec", "GOP"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for check in checks:
        facts = [""] * 6
        if check.frames is not None:
            rate = f"{check.fps:.4g}" + ("" if check.constant_rate else " mean")
            size = f"{check.width}x{check.height}" + (f" turned {check.rotation}" if check.rotation else "")
            facts = [str(check.frames), rate, f"{check.duration_seconds:.2f}", size, check.codec, str(check.gop_length)]
        status = Text(check.status, style="green" if check.status == "ok" else "red")
        path = Path(check.path)
        shown = path.relative_to(base) if path.is_relative_to(base) else path
        table.add_row(status, Text(str(shown)), *facts, Text(check.detail))
    return table


def _class_table(classes: Sequence[ClassSummary]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("class", "videos", "bad", "hours", "median frames"):
        table.add_column(name, justify="left" if name == "class" else "right", no_wrap=True)
    shown = classes if len(classes) <= SHOWN else sorted(classes, key=lambda each: (-each.bad, each.videos))[:SHOWN]
    for each in shown:
        frames = "" if each.median_frames is None else f"{each.median_frames:.0f}"
        table.add_row(Text(each.name), str(each.videos), str(each.bad), f"{each.hours:.2f}", frames)
    if len(shown) < len(classes):
        table.caption = f"the {SHOWN} of {len(classes)} classes with the most bad videos, then the fewest videos"
    return table


def show_prepared(made: Preparation, options: argparse.Namespace) -> None:
    """Failures, sizes, how quick a clip is read now, and what was written.

    Args:
        made: What became of the list.
        options: Of ``uniformerv2 data prepare``.
    """
    console, prepared = _console(options), made.videos
    good = [each for each in prepared if each.status == "ok"]
    bad = [each for each in prepared if each.status != "ok"]
    for each in bad[:SHOWN]:
        console.print(f"{each.status}: {each.source}: {each.detail}", style="red", markup=False)
    if len(bad) > SHOWN:
        console.print(f"  and {len(bad) - SHOWN} more bad ones, all in {options.out / 'prepared.csv'}", markup=False)
    before = sum(each.source_bytes or 0 for each in good) / 2**20
    after = sum(each.output_bytes or 0 for each in good) / 2**20
    console.print(f"{len(good)} of {len(prepared)} videos prepared: {made.settings}", style="bold", markup=False)
    console.print(f"- {before:.1f} MiB before, {after:.1f} MiB now", markup=False)
    console.print(f"- {measure_sparse_decoding(good)}", markup=False)
    console.print(f"- written: {', '.join(map(str, made.written))}", markup=False)


def _console(options: argparse.Namespace) -> Console:
    console = make_console(stderr=options.json, width=200)
    console.soft_wrap = False  # the tables here are to be cut
    return console
