"""``uniformerv2 evaluate``: the numbers of dumps, their ensemble, and what differs between two of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from uniformerv2.commands.options import UsageError
from uniformerv2.commands.score_table import (
    as_json,
    check_report_option,
    list_failures,
    print_report,
    print_summary,
    table_console,
    unreadable,
)
from uniformerv2.evaluation.comparison import Change, Comparison, align, compare, ensemble
from uniformerv2.evaluation.dumps import check_dump_path, read_dump, write_dump
from uniformerv2.evaluation.summary import summarize

__all__ = ["add_arguments", "run"]

SHOWN: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("dumps", nargs="+", type=Path, metavar="DUMP", help="what uniformerv2 test --dump wrote")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="of the dumps in their ensemble")
    parser.add_argument("--compare", action="store_true", help="of two dumps: which videos changed, McNemar's test")
    parser.add_argument("--dump", type=Path, metavar="FILE", help="write the scores of the ensemble, or another format")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write a page of figures and examples there")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap; 0: no intervals")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap")
    parser.add_argument("--json", action="store_true", help="one line of JSON; all else goes to stderr")


def run(options: argparse.Namespace) -> int:
    """Measure dumps; several of them also as an ensemble.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: A dump that is not there or is none, dumps of different videos, options that contradict each other.
    """
    _check(options)
    console = table_console(stderr=options.json)
    try:
        names = _names(options.dumps)
        parts = align([read_dump(path) for path in options.dumps], names)
        together = ensemble(parts, weights=options.weights) if len(parts) > 1 else parts[0]
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    shown = dict(zip(names, parts, strict=True))
    if len(parts) > 1 and not options.compare:
        shown["ensemble"] = together
    summaries = {
        name: summarize(part, num_resamples=options.resamples, seed=options.seed) for name, part in shown.items()
    }
    console.print(f"{len(parts[0].videos)} videos, {len(parts[0].class_names)} classes\n", markup=False)
    print_summary(console, summaries)
    list_failures(console, together)
    content: dict[str, Any] = {"metrics": {name: summary.to_dict() for name, summary in summaries.items()}}
    if options.compare:
        comparison = compare(*parts)
        _show_comparison(console, comparison, names)
        content["comparison"] = asdict(comparison)
    if options.dump is not None:
        write_dump(options.dump, together)
        console.print(f"Scores: {options.dump}", markup=False)
    if options.report is not None:
        title = f"Test: {names[0]}" if len(names) == 1 else f"Ensemble of {', '.join(names)}"
        page = print_report(console, options, together, list(summaries.values())[-1], title=title)
        content["report"] = str(page)
    if options.json:
        sys.stdout.write(json.dumps(as_json({**content, "unreadable": unreadable(together)})) + os.linesep)
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.compare and len(options.dumps) != 2:
        raise UsageError(f"--compare takes two dumps, got {len(options.dumps)}.")
    if options.compare and (options.weights or options.dump or options.report):
        raise UsageError("--compare makes no ensemble: leave out --weights, --dump and --report.")
    if options.weights and len(options.dumps) == 1:
        raise UsageError("--weights are those of an ensemble: give two dumps or more, or leave them out.")
    if options.weights and len(options.weights) != len(options.dumps):
        raise UsageError(f"--weights takes a number for each of the {len(options.dumps)} dumps.")
    for name in ("resamples", "seed"):
        if getattr(options, name) < 0:
            raise UsageError(f"--{name} is {getattr(options, name)}; it must be 0 or more.")
    if options.dump is not None:
        if options.dump in options.dumps or options.dump.exists():
            raise UsageError(f"{options.dump} is there already: give another --dump, or delete it.")
        try:
            check_dump_path(options.dump)
        except ValueError as error:
            raise UsageError(str(error)) from error
    check_report_option(options.report)


def _names(paths: Sequence[Path]) -> list[str]:
    """As short as they tell the dumps apart."""
    short = [path.name for path in paths]
    if len(set(short)) == len(short):
        return short
    whole = [str(path) for path in paths]
    return whole if len(set(whole)) == len(whole) else [f"{path} [{number}]" for number, path in enumerate(whole, 1)]


def _show_comparison(console: Console, found: Comparison, names: Sequence[str]) -> None:
    first, second = names
    total = found.num_videos
    console.print(
        f"\nOf {total} videos both have {found.both_right} right, neither {found.neither_right}; {second} alone "
        f"{len(found.gained)}, {first} alone {len(found.lost)}.",
        markup=False,
    )
    verdict = "more than chance would give (p < 0.05)" if found.p_value < 0.05 else "no more than chance may give"
    console.print(f"McNemar's exact test: p = {found.p_value:.3g}, {verdict}.", style="bold", markup=False)
    _show_changes(console, f"Right in {second} only:", found.gained)
    _show_changes(console, f"Right in {first} only:", found.lost)


def _show_changes(console: Console, title: str, changes: Sequence[Change]) -> None:
    if not changes:
        return
    console.print(title, markup=False)
    for change in changes[:SHOWN]:
        console.print(f"  {change.path}: {change.label}; {change.before} -> {change.after}", markup=False)
    if len(changes) > SHOWN:
        console.print(f"  and {len(changes) - SHOWN} more: all of them are in --json.", markup=False)
