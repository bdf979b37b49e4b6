"""``uniformerv2 ablate``: a suite of variants, each trained with several seeds, as a table and a plot."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import add_dry_run, add_json, check_at_least, check_exists, refuse_input
from uniformerv2.core.messages import UsageError, duration, usage_errors
from uniformerv2.core.optional import check_installed, require
from uniformerv2.recipes import list_suites, suite_path

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.lab.ablation import Suite
    from uniformerv2.lab.ablation_grid import Grid, GridCost, Run, RunResult
    from uniformerv2.lab.ablation_table import VariantRow

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 ablate fusion --data videos --seeds 3 --dry-run"
LOADS: Final = "uniformerv2.lab.ablation_grid"
OF_BASE: Final = ("backbone", "backbone_weights", "freeze_backbone", "epochs", "num_frames", "image_size")
"""Options that are settings of every variant."""
PRETRAINED, RANDOM = "pretrained", "random"
"""Words for ``--backbone-weights`` that are no file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("suite", metavar="SUITE", help=f"{', '.join(list_suites())}, or a YAML file of your own")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DATA", help="folder or list of videos, as for train"
    )
    about = "what is learnt: the classes, or whether a clip runs forward or reversed"
    parser.add_argument("--task", default="classes", choices=("classes", "arrow_of_time"), help=about)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the folder to write (default: runs/ablations/SUITE)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="so many seeds, or these where several")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="run these variants")
    parser.add_argument("--control", metavar="VARIANT", help="compare the others with this one (default: the suite's)")
    base = parser.add_argument_group("base settings, for variants that do not say otherwise")
    base.add_argument("--backbone", metavar="NAME", help="timm's image ViT")
    about = "weights of the backbone: a file, random, pretrained (fetched)"
    base.add_argument("--backbone-weights", metavar="FILE", help=about)
    base.add_argument("--freeze-backbone", action=argparse.BooleanOptionalAction, help="only the video blocks learn")
    base.add_argument("--epochs", type=int, metavar="N", help="passes over the videos")
    base.add_argument("--num-frames", type=int, metavar="T", help="frames per clip")
    base.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the input")
    parser.add_argument("--max-videos", type=int, metavar="N", help="so many videos of each split, to try it out")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read videos (default: 0)")
    add_dry_run(parser)
    add_json(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: There is no such suite, no such data or weights, or a number is out of range.
    """
    check_installed("lightning", "torchmetrics", extra="train")
    check_exists(options.data)
    if options.out is not None:
        refuse_input(options.out, option="--out", inputs=(options.data,))
    check_at_least(1, options, "max_videos", "epochs", "num_frames", "image_size")
    check_at_least(0, options, "workers", "seeds")
    if options.backbone_weights not in {None, PRETRAINED, RANDOM} and not Path(options.backbone_weights).is_file():
        raise UsageError(
            f"There is no file {options.backbone_weights}; --backbone-weights also takes 'random' and 'pretrained'."
        )
    with usage_errors():
        suite_path(options.suite)


def run(options: argparse.Namespace) -> int:
    """Run what is not done yet, and write the table; 1 where a run failed or would, 143 where SIGTERM ended it.

    Raises:
        UsageError: There is no such suite, variant or data, or a setting is not allowed.
    """
    exceptions = require("lightning.pytorch.utilities.exceptions", extra="train")

    from uniformerv2.core.console import make_console
    from uniformerv2.lab.ablation_grid import Grid, grid_cost
    from uniformerv2.lab.ablation_table import markdown
    from uniformerv2.lab.ablation_task import read_task

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    console = make_console(stderr=options.json)
    suite = _suite(options)
    splits = read_task(options.data, options.task, limit=options.max_videos)
    out = options.out or Path("runs") / "ablations" / suite.name
    with usage_errors():
        grid = Grid(suite=suite, splits=splits, out=out, only=tuple(options.only), num_workers=options.workers)
    _show_suite(console, grid, options)
    if options.dry_run:
        cost = grid_cost(grid)
        _show_cost(console, cost)
        _write_json(options, suite=suite.name, runs=[asdict(one) for one in grid.runs], cost=asdict(cost))
        return 1 if cost.errors else 0
    try:
        results = _carry_out(grid)
    except exceptions.SIGTERMException:
        sys.stderr.write("Stopped; the same command goes on with the run that it was in.\n")
        return 128 + signal.SIGTERM
    rows, page = _write(grid, results, task=options.task)
    console.print()
    console.print(markdown(rows, control=suite.control, chance=_chance(grid)), markup=False)
    console.print(
        f"Written: {page}, with the numbers as results.csv and the plot as results.png and .svg", markup=False
    )
    failed = [result for result in results if result.error is not None]
    for result in failed:
        console.print(f"! {result.variant}, seed {result.seed} failed: {result.error}", style="red", markup=False)
    if failed:
        console.print(f"{len(failed)} of {len(results)} runs failed; the same command tries these again.")
    _write_json(options, suite=suite.name, table=[asdict(row) for row in rows], results=str(page), failed=len(failed))
    return 1 if failed else 0


def _suite(options: argparse.Namespace) -> Suite:
    from uniformerv2.lab.ablation import read_suite

    given = {name.removeprefix("backbone_"): getattr(options, name) for name in OF_BASE}
    with usage_errors():
        suite = read_suite(options.suite)
        suite = suite.with_base({name: value for name, value in given.items() if value is not None})
        seeds = suite.seeds if options.seeds is None else _seeds(options.seeds)
        return replace(suite, seeds=seeds, control=options.control or suite.control)


def _seeds(given: Sequence[int]) -> tuple[int, ...]:
    """A number of seeds, or the seeds.

    >>> _seeds([3]), _seeds([4, 7])
    ((0, 1, 2), (4, 7))
    """
    return tuple(range(given[0])) if len(given) == 1 else tuple(given)


def _carry_out(grid: Grid) -> list[RunResult]:
    """With a line on stderr for each run."""
    from uniformerv2.core.console import make_console

    console = make_console(stderr=True)
    runs = grid.runs
    left = sum(grid.done(one) is None for one in runs)
    if left < len(runs):
        console.print(f"{len(runs) - left} of {len(runs)} runs are done already.")
    results: list[RunResult] = []
    began: list[float] = []

    def announce(one: Run) -> None:
        began.append(time.monotonic())
        console.print(f"{one.variant}, seed {one.seed}: run {len(results) + 1} of {len(runs)} ...", markup=False)

    for result in grid.carry_out(on_start=announce, progress=True):
        results.append(result)
        words = result.error or f"top-1 {100 * result.top1:.1f} %"
        waits = [grid.done(one) is None for one in runs[len(results) :]]
        mean = (time.monotonic() - began[0]) / len(began) if began else 0.0
        after = f"; about {duration(sum(waits) * mean)} left" if any(waits) else ""
        told = f"{result.variant}, seed {result.seed}: {words}, {duration(result.seconds)}{after}"
        console.print(told, markup=False)
    return results


def _write(grid: Grid, results: Sequence[RunResult], *, task: str) -> tuple[list[VariantRow], Path]:
    from uniformerv2.lab.ablation_table import tabulate, write_results
    from uniformerv2.lab.ablation_task import source_of

    hits = {
        name: [one.measured.hits for one in results if one.variant == name and one.measured is not None]
        for name in grid.variants
    }
    sources = [source_of(record) for record in grid.splits.val]
    control = grid.suite.control
    rows = tabulate(hits, sources=sources, control=control)
    title = f"{grid.suite.name}: {grid.suite.asks}"
    counts = f"{len(grid.splits.train)} training and {len(grid.splits.val)} validation samples, task {task}."
    unreadable = max((one.measured.num_unreadable for one in results if one.measured is not None), default=0)
    counts += f" {unreadable} of the validation samples could not be read; they count as misses." if unreadable else ""
    page = write_results(grid.out, rows, hits, title=title, about=counts, control=control, chance=_chance(grid))
    return rows, page


def _chance(grid: Grid) -> float:
    """Of always saying the commonest class."""
    counts = Counter(record.label for record in grid.splits.val)
    return max(counts.values()) / len(grid.splits.val)


def _show_suite(console: Console, grid: Grid, options: argparse.Namespace) -> None:
    suite, splits = grid.suite, grid.splits
    console.print(f"{suite.name}: {suite.asks}", style="bold", markup=False)
    console.print(
        f"{len(grid.variants)} variants x {len(suite.seeds)} seeds, task {options.task}: {len(splits.train)} training "
        f"and {len(splits.val)} validation samples; chance is {100 * _chance(grid):.1f} %",
        markup=False,
    )


def _show_cost(console: Console, cost: GridCost) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("variant", "from", "a step", "a seed"):
        table.add_column(title, justify="left" if title in {"variant", "from"} else "right", no_wrap=True)
    for one in cost.variants:
        start = "cached tokens" if one.is_cached else "videos"
        table.add_row(one.variant, start, f"{one.step_seconds:.2f} s", duration(one.run_seconds))
    console.print(table)
    if cost.cache_bytes:
        size = f"{cost.cache_bytes / 2**30:.2f} GiB"
        console.print(f"Tokens of the frozen image ViT, computed once: {duration(cost.cache_seconds)}, {size}")
    console.print(f"What is left takes about {duration(cost.total_seconds)}, measured on a few steps")
    for name, error in cost.errors.items():
        console.print(f"! {name} will fail, and is not counted: {error}", style="red", markup=False)


def _write_json(options: argparse.Namespace, **content: Any) -> None:
    from uniformerv2.commands.score_table import as_json

    if options.json:
        sys.stdout.write(json.dumps(as_json(content)) + "\n")
