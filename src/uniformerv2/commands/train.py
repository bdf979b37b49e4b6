"""``uniformerv2 train``: from a folder or list of videos to a trained model, without configuration."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.autotrain.plan import TrainingPlan, TrainOptions
from uniformerv2.commands.options import add_dry_run, add_json
from uniformerv2.core.files import free_bytes
from uniformerv2.core.messages import counted, duration, first_few, time_range, usage_errors
from uniformerv2.core.optional import check_installed
from uniformerv2.core.options import options_of
from uniformerv2.core.terminal import harmless
from uniformerv2.data.annotations.auto import detect_format
from uniformerv2.data.annotations.folder import folder_rows

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.autotrain.session import Outcome, Prepared

__all__ = ["add_arguments", "check", "run", "show"]

EXAMPLE: Final = "uniformerv2 train videos --out runs/mine --freeze-backbone --cache-features"
LOADS: Final = "uniformerv2.autotrain.session"
SHOWN: Final = 5
OF_A_PROBE: Final = frozenset({"classes", "videos", "start from", "frames", "image size", "final test", "precision"})
"""Rows of the plan that a probe alone has too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb: the fields of ``TrainOptions``."""
    for one in options_of(TrainOptions):
        if one.name == "data":
            parser.add_argument("data", metavar=one.metavar, help=one.about)
        elif one.kind is bool and one.default is None:
            parser.add_argument(one.flag, dest=one.name, action="store_true", default=None, help=one.about)
            no = one.flag.replace("--", "--no-", 1)
            parser.add_argument(no, dest=one.name, action="store_false", default=None, help=argparse.SUPPRESS)
        elif one.kind is bool:
            parser.add_argument(one.flag, dest=one.name, action="store_true", help=one.about)
        else:
            settings = {"type": one.kind, "choices": one.choices, "default": one.default, "help": one.about}
            metavar = one.metavar or ("NAME" if one.kind is str else None)
            parser.add_argument(one.flag, dest=one.name, metavar=metavar, **settings)
    add_dry_run(parser)
    add_json(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse what can be told in a moment; ``options.train`` becomes the ``TrainOptions``.

    Raises:
        UsageError: The words are wrong, the folder to write is taken, or a folder holds no videos in class folders.
        ModuleNotFoundError: A package that training needs is not installed.
    """
    options.train = TrainOptions(**{item.name: getattr(options, item.name) for item in fields(TrainOptions)})
    check_installed("lightning", "torchmetrics", *([] if options.train.probe is False else ["sklearn"]), extra="train")
    options.train.check(dry_run=options.dry_run)
    with usage_errors():  # before PyTorch is loaded
        if detect_format(options.train.data) == "folder":
            next(folder_rows(options.train.data))


def run(options: argparse.Namespace) -> int:
    """Plan, train, test; 130 or 143 where a signal stopped it.

    Raises:
        UsageError: There are no such data, the folder is taken, or options contradict each other.
    """
    from uniformerv2.autotrain.session import prepare
    from uniformerv2.core.console import make_console
    from uniformerv2.training.stopping import TrainingStoppedError

    console = make_console(stderr=options.json, width=1000)  # as wide as needed where it is no terminal
    asked, folder = options.train, options.train.folder
    is_resumed = options.resume and (folder.last.exists() or folder.has_finished_probe)
    is_open = asked.preset is None and asked.probe is False and not is_resumed
    if is_open and not options.json and sys.stdin.isatty() and sys.stdout.isatty():
        asked = replace(asked, preset=_ask_preset())
    prepared = prepare(asked, dry_run=options.dry_run)
    if is_resumed:
        console.print(f"Going on from {folder.last if folder.last.exists() else folder.model}", markup=False)
    elif options.resume:
        console.print(f"{folder.path} holds no checkpoint yet: this training starts from its beginning.", markup=False)
    show(console, prepared)
    if options.dry_run:
        cost = asdict(prepared.cost) if prepared.cost else None
        _write_json(options, plan=prepared.plan.to_dict(), estimate=cost, to_fetch=prepared.to_fetch)
        return 0
    try:
        outcome = prepared.run(command=["uniformerv2", *(word for word in options.words if word != "--resume")])
    except TrainingStoppedError as stopped:
        sys.stderr.write(f"{harmless(str(stopped))}\n")
        return 128 + stopped.signal_number
    _show_result(console, prepared, outcome)
    found = {name: getattr(outcome, name) for name in ("model", "best", "last", "log", "scores", "report")}
    paths = {name: None if path is None else str(path) for name, path in found.items()}
    tested = {f"test_{name}": estimate.value for name, estimate in outcome.summary.all_videos.items()}
    contest = outcome.contest
    both = {} if contest is None else {"val_network": contest.network, "val_probe": contest.probe}
    metrics = {prepared.plan.monitor: outcome.val_score, **both, **tested}
    _write_json(options, metrics=metrics, chosen=outcome.chosen, **paths)
    return 0


def _ask_preset() -> Any:
    from rich.prompt import Prompt

    question = "What tells the classes apart: what is seen (scene), or how it moves (motion)?"
    return Prompt.ask(question, choices=["scene", "motion"], default="scene")


def show(console: Console, prepared: Prepared) -> None:
    """The plan as a table, each choice with its reason; then the warnings, and a cheaper way.

    Args:
        console: Where to.
        prepared: What will be done.
    """
    from rich.table import Table

    from uniformerv2.autotrain.advice import cheaper_way

    plan = prepared.plan
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", max_width=60)
    table.add_column(style="dim", overflow="fold")
    chosen = _choice_rows(prepared)
    rows = [*chosen, *_cache_rows(prepared), *_cost_rows(prepared)]
    if plan.probe:
        rows = [row for row in chosen if row[0] in OF_A_PROBE]
        rows += [row for row in _cost_rows(prepared) if row[0] == "time"]
    for row in (*rows, ("written to", plan.out, "")):
        table.add_row(*row)
    console.print(table, markup=False)
    show_probe(console, plan)
    for warning in plan.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)
    if not plan.probe and (advice := cheaper_way(plan, prepared.cost)):
        console.print(advice, markup=False)


def show_probe(console: Console, plan: TrainingPlan) -> None:
    """What tells the classes apart, as a table; then what is still confused, and what was decided.

    Args:
        console: Where to.
        plan: What it was found for.
    """
    from rich.table import Table

    from uniformerv2.autotrain.probing import in_percent, probe_in_words

    probed = plan.probed
    if "rows" in probed:
        table = Table(box=None, padding=(0, 1), title="What tells the classes apart", title_justify="left")
        for heading in ("", *(["mean AP"] if plan.is_multi_label else ["accuracy"]), "above appearance"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, row in probed["rows"].items():
            above = "" if name == "appearance" else in_percent(row["above_appearance"], is_difference=True)
            mark = "bold" if name == probed["best"] else ""
            table.add_row(name, in_percent(row["score"]), above, style=mark)
        table.add_row("without looking", f"{100 * probed['chance']:.1f} %", "", style="dim")
        console.print(table, markup=False)
    for sentence in (*probe_in_words(probed), *probed.get("told", ())):
        console.print(sentence, markup=False)


def _choice_rows(prepared: Prepared) -> list[tuple[str, str, str]]:
    """What, the choice, and its reason: the fields of ``TrainOptions`` that have a row, after the videos."""
    plan = prepared.plan
    tested = f", {plan.num_test} test" if plan.num_test else ""
    words = {
        "learning_rate": _rates(plan),
        "epochs": f"{plan.epochs} of {counted(plan.steps_per_epoch, 'step')}",
        "augmentation": plan.augmentation + ("" if plan.flip else ", no flip"),
        "num_clips": f"{counted(plan.num_clips, 'clip')} x {counted(plan.num_crops, 'crop')}",
        "dropout": f"{plan.dropout:g}",
        "balanced": "equally often" if plan.balanced else "",
    }
    weights = f", weights {Path(plan.backbone_weights).name}" if plan.backbone_weights else ""
    rows = [
        ("classes", f"{len(plan.class_names)}: {first_few(plan.class_names, shown=SHOWN)}", ""),
        ("videos", f"{plan.num_train} train, {plan.num_val} val{tested}", plan.why.get("split", "")),
    ]
    for item in fields(TrainOptions):
        if title := item.metadata["row"]:
            value = words.get(item.name, str(getattr(plan, item.name)))
            rows += [(title, value, plan.why.get(item.name, ""))] if value else []
        if title == "dropout":
            rows.append(("label smoothing", f"{plan.label_smoothing:g}", "as published"))
        if title == "preset":
            rows.append(("start from", plan.start + weights, plan.why.get("start", "")))
            rows += [("to be fetched", prepared.to_fetch, "")] if prepared.to_fetch else []
    return rows


def _rates(plan: TrainingPlan) -> str:
    rate, scale, decay = f"{plan.rates.learning_rate:.3g}", plan.rates.video_blocks_scale, plan.rates.layer_decay
    if plan.freeze_backbone:
        return f"{rate}, backbone frozen"
    return f"{rate}, video blocks times {scale:g}" + (f", each lower block times {decay:g}" if decay < 1 else "")


def _cache_rows(prepared: Prepared) -> list[tuple[str, str, str]]:
    """What is kept where."""
    plan, cost = prepared.plan, prepared.cost
    if not plan.cache_views:
        return []
    where = plan.cache_dir or prepared.options.folder.features
    kept = f"{plan.cache_views} augmented clips a training video, 1 a validation video"
    rows = [("features", kept, plan.why.get("cache_views", "")), ("kept in", f"{where}, as {plan.cache_dtype}", "")]
    if cost:
        size, free = f"{cost.cache_bytes / 2**30:.2f} GiB", f"{free_bytes(Path(where)) / 2**30:.2f} GiB"
        words = f"{size} of {free} free; about {duration(cost.cache_seconds)} to compute"
        if cost.cached_bytes:
            rest = cost.cache_bytes - cost.cached_bytes
            left = f"the rest about {duration(cost.cache_seconds)} to compute" if rest else "nothing is left to compute"
            words = f"{size}; {100 * cost.cached_bytes // cost.cache_bytes} % of it is there already, {left}"
        rows.append(("their size", words, "measured on a few steps"))
    return rows


def _cost_rows(prepared: Prepared) -> list[tuple[str, str, str]]:
    cost = prepared.cost
    if cost is None:
        return []
    each = f"{cost.clip_seconds:.2g} s a clip" if prepared.plan.probe else f"{cost.step_seconds:.2g} s a step"
    time = f"about {time_range(cost.total_seconds)}, {each}"
    return [
        ("parameters", f"{cost.num_parameters / 1e6:.1f} M, {cost.num_trainable / 1e6:.1f} M of them learn", ""),
        ("memory", f"about {cost.memory_bytes / 2**30:.1f} GiB for the network", ""),
        ("time", time, "measured on a few clips" if prepared.plan.probe else "measured on a few steps"),
    ]


def _show_result(console: Console, prepared: Prepared, outcome: Outcome) -> None:
    """What was kept, its numbers, whether more epochs promise more, where it is and how it is used."""
    from uniformerv2.commands.score_table import print_summary
    from uniformerv2.evaluation.scores import views_in_words

    plan = prepared.plan
    where = counted(plan.num_test or plan.num_val, "test video" if plan.num_test else "validation video")
    views = views_in_words(plan.num_clips, plan.num_crops)
    scored = f"score {outcome.val_score:.4f}" if plan.probe else f"{plan.monitor} {outcome.val_score:.4f}"
    is_lost = outcome.contest is not None and outcome.contest.is_lost
    console.print(f"\n{'The network' if is_lost else 'Kept'}: {outcome.chosen}; {scored}.", markup=False)
    for sentence in outcome.contest.in_words() if outcome.contest else ():
        console.print(sentence, markup=False)
    console.print(f"{where}, {views} of each:", markup=False)
    print_summary(console, {"": outcome.summary})
    if not (plan.num_test or plan.probe or is_lost):
        console.print(
            "These videos chose the epoch too, so new videos may do a little worse.", style="dim", markup=False
        )
    if outcome.advice:
        console.print(outcome.advice, markup=False)
    log = f"   log: {outcome.log}" if outcome.log else ""
    console.print(f"Model: {outcome.model}{log}", markup=False)
    command = shlex.join(["uniformerv2", "predict", prepared.splits.val[0].path, "--model", str(outcome.model)])
    console.print(f"Use it: {command}", markup=False)
    console.print(f"Report: {outcome.report}", markup=False)


def _write_json(options: argparse.Namespace, **content: Any) -> None:
    if options.json:
        sys.stdout.write(json.dumps(content) + "\n")
