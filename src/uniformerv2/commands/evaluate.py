"""``uniformerv2 evaluate``: the numbers of dumps, their ensemble, and what differs between two of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.localization import check_localization, measure_localization
from uniformerv2.commands.options import (
    add_bootstrap,
    add_json,
    add_test_outputs,
    check_at_least,
    check_exists,
    check_test_outputs,
)
from uniformerv2.core.messages import UsageError, usage_errors

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.evaluation.comparison import Change, Comparison
    from uniformerv2.evaluation.gallery import FrameStrips
    from uniformerv2.evaluation.scores import Evaluation
    from uniformerv2.evaluation.summary import Summary

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 evaluate a.parquet b.parquet --compare"
SHOWN: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("dumps", nargs="+", type=Path, metavar="DUMP", help="what uniformerv2 test --dump wrote")
    parser.add_argument(
        "--ensemble-weights", nargs="+", type=float, metavar="W", help="weights of the dumps in their ensemble"
    )
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="true segments, for what uniformerv2 timeline found in long videos"
    )
    parser.add_argument("--compare", action="store_true", help="two dumps: which videos changed, McNemar's test")
    add_test_outputs(parser)
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="the report may show videos below it")
    add_bootstrap(parser)
    add_json(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: A dump that is not there, or options that contradict each other.
    """
    if options.truth is not None:
        check_localization(options)
        return
    if options.compare and len(options.dumps) != 2:
        raise UsageError(f"--compare takes two dumps, got {len(options.dumps)}.")
    if options.compare and (options.ensemble_weights or options.dump):
        raise UsageError("--compare makes no ensemble: leave out --ensemble-weights and --dump.")
    if options.ensemble_weights and len(options.dumps) == 1:
        raise UsageError("--ensemble-weights are those of an ensemble: give two dumps or more, or leave them out.")
    if options.ensemble_weights and len(options.ensemble_weights) != len(options.dumps):
        raise UsageError(f"--ensemble-weights takes a number for each of the {len(options.dumps)} dumps.")
    check_at_least(0, options, "resamples", "seed")
    if options.root is not None and options.report is None:
        raise UsageError("--root says which videos a report may show: give --report FOLDER too.")
    if options.root is not None and not options.root.is_dir():
        raise UsageError(f"There is no folder {options.root}; --root is where the videos lie that a report may show.")
    for path in options.dumps:
        check_exists(path)
    if options.dump is not None and options.dump.exists():
        raise UsageError(f"{options.dump} is there already: give another --dump, or delete it.")
    check_test_outputs(options)


def run(options: argparse.Namespace) -> int:
    """Measure dumps; several of them also as an ensemble.

    Raises:
        UsageError: A dump that is not there or is none, dumps of different videos, options that contradict each other.
    """
    if options.truth is not None:
        return measure_localization(options)
    from uniformerv2.commands.score_table import as_json, list_failures, print_summary, unreadable
    from uniformerv2.core.console import make_console
    from uniformerv2.evaluation.comparison import align, compare, ensemble
    from uniformerv2.evaluation.dumps import read_dump, write_dump
    from uniformerv2.evaluation.summary import summarize

    console = make_console(stderr=options.json)
    with usage_errors():
        names = _names(options.dumps)
        parts = align([read_dump(path) for path in options.dumps], names)
        together = ensemble(parts, weights=options.ensemble_weights) if len(parts) > 1 else parts[0]
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
        page = _report(options, parts, names, together, list(summaries.values())[-1])
        console.print(f"Report: {page}", markup=False)
        content["report"] = str(page)
    if options.json:
        sys.stdout.write(json.dumps(as_json({**content, "unreadable": unreadable(together)})) + os.linesep)
    return 0


def _report(
    options: argparse.Namespace,
    parts: Sequence[Evaluation],
    names: Sequence[str],
    together: Evaluation,
    summary: Summary,
) -> Path:
    """The page of one dump, of two side by side, or of an ensemble."""
    from uniformerv2.commands.score_table import commands_of
    from uniformerv2.evaluation.page import facts_of
    from uniformerv2.evaluation.report import write_comparison, write_report

    newest = max(path.stat().st_mtime for path in options.dumps)
    known: dict[str, Any] = {"facts": facts_of(datetime.fromtimestamp(newest, UTC)), "strips": _strips(options.root)}
    if len(parts) == 2 and not options.ensemble_weights:
        bootstrap = {"num_resamples": options.resamples, "seed": options.seed}
        known |= {"names": names, "commands": commands_of(parts, options), **bootstrap}
        return write_comparison(parts[0], parts[1], options.report, **known)
    known["title"] = f"Test: {names[0]}" if len(names) == 1 else f"Ensemble of {', '.join(names)}"
    if len(parts) == 1 and (model := parts[0].info.get("checkpoint")):
        known["model"] = str(model)
    return write_report(together, options.report, summary=summary, commands=commands_of([together], options), **known)


def _strips(root: Path | None) -> FrameStrips | None:
    if root is None:
        return None
    from uniformerv2.inference.strips import strips_below  # brings torch, which dumps do without

    return strips_below(root)


def _names(paths: Sequence[Path]) -> list[str]:
    """As short as they tell the dumps apart."""
    short = [path.name for path in paths]
    if len(set(short)) == len(short):
        return short
    whole = [str(path) for path in paths]
    return whole if len(set(whole)) == len(whole) else [f"{path} [{number}]" for number, path in enumerate(whole, 1)]


def _show_comparison(console: Console, found: Comparison, names: Sequence[str]) -> None:
    from uniformerv2.evaluation.comparison import in_words

    first, second = names
    *sentences, verdict = in_words(found, names)
    console.print("\n" + "\n".join(sentences), markup=False)
    console.print(verdict, style="bold", markup=False)
    legend = f"(path: its class; the class that {first} gives -> the class that {second} gives)"
    _show_changes(console, f"Right in {second} only {legend}:", found.gained)
    _show_changes(console, f"Right in {first} only {legend}:", found.lost)


def _show_changes(console: Console, title: str, changes: Sequence[Change]) -> None:
    if not changes:
        return
    console.print(title, markup=False)
    for change in changes[:SHOWN]:
        console.print(f"  {change.path}: {change.label}; {change.before} -> {change.after}", markup=False)
    if len(changes) > SHOWN:
        console.print(f"  and {len(changes) - SHOWN} more: all of them are in --json.", markup=False)
