"""``uniformerv2 train``: from a folder or list of videos to a trained model, without configuration."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from uniformerv2.autotrain.plan import TrainingPlan
from uniformerv2.autotrain.run import RunFolder, TrainingResult, train
from uniformerv2.autotrain.start import is_image_vit
from uniformerv2.commands import train_plan
from uniformerv2.commands.arguments.train import check_place
from uniformerv2.commands.console import make_console
from uniformerv2.commands.options import UsageError
from uniformerv2.commands.progress import Progress
from uniformerv2.commands.tested_videos import read_classes
from uniformerv2.commands.train_cache import filled_data
from uniformerv2.commands.train_progress import TrainProgress
from uniformerv2.commands.train_report import forget_test, show_result, test_and_report
from uniformerv2.core.terminal import harmless
from uniformerv2.data.annotations import VideoRecord, check_files, read_records
from uniformerv2.data.check import VideoCheck, beyond_end, check_videos
from uniformerv2.data.splits import Splits, read_splits
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.stopping import TrainingStoppedError, stopping_at_once

__all__ = ["run"]

CHECKED: Final = 5000
"""More videos are not opened before training starts; ``uniformerv2 data check`` does it."""
SHOWN: Final = 5


def run(options: argparse.Namespace) -> int:
    """Plan, train, test; 130 or 143 where a signal stopped it.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: There are no such data, the folder is taken, or options contradict each other.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    console = _console(options)
    folder = RunFolder(options.out)
    if options.backbone is not None:
        _check_backbone(options.backbone)
    splits, broken = _readable(_splits(options, folder), options)
    if options.resume and not folder.last.exists():
        console.print(f"{folder.path} holds no checkpoint yet: this training starts from its beginning.", markup=False)
    if options.resume and folder.last.exists():
        planned = train_plan.take_up(options, folder, splits)
        console.print(f"Going on from {folder.last}", markup=False)
    else:
        planned = train_plan.make(options, options.out, splits, broken)
    train_plan.show(console, planned)
    if not options.dry_run:
        return _carry_out(options, console, planned, splits)
    cost = asdict(planned.cost) if planned.cost else None
    _write_json(options, plan=planned.plan.to_dict(), estimate=cost, to_fetch=planned.to_fetch)
    return 0


def _carry_out(options: argparse.Namespace, console: Console, planned: train_plan.Planned, splits: Splits) -> int:
    """Train, test, report; the exit code."""
    folder = RunFolder(Path(planned.plan.out))
    with folder.held():
        check_place(options)  # once more: a training may have ended here while this one was planned
        return _train_and_test(options, console, planned, splits, folder)


def _train_and_test(
    options: argparse.Namespace, console: Console, planned: train_plan.Planned, splits: Splits, folder: RunFolder
) -> int:
    plan, network = planned.plan, planned.network
    is_new = planned.cost is not None
    if is_new:
        folder.prepare()
        folder.check_room(network)  # before features are cached
        folder.write(plan, network, asdict(train_plan.asked(options)))
        forget_test(folder)
    try:
        shown = TrainProgress(plan.monitor)
        result = _train(network, splits, plan, shown, resume=not is_new)
        words = [word for word in options.words if word != "--resume"]
        with stopping_at_once(
            "Stopped in the final test; the model is written, and so is what was scored. The same command with "
            "--resume goes on from there."
        ):
            summary, page = test_and_report(network, splits, plan, folder, words)
    except TrainingStoppedError as stopped:
        sys.stderr.write(f"{harmless(str(stopped))}\n")
        return 128 + stopped.signal_number
    seconds = shown.left.seconds_per_epoch
    show_result(console, plan, splits, result, summary, seconds_per_epoch=seconds)
    console.print(f"Report: {page}", markup=False)
    paths = {name: str(getattr(result, name)) for name in ("model", "best", "last", "log")}
    tested = {f"test_{name}": estimate.value for name, estimate in summary.all_videos.items()}
    metrics = {plan.monitor: result.val_score, **tested}
    _write_json(options, metrics=metrics, chosen=result.chosen, scores=str(folder.scores), report=str(page), **paths)
    return 0


def _console(options: argparse.Namespace) -> Console:
    """As wide as needed where it is no terminal."""
    return make_console(stderr=options.json, width=1000)


def _check_backbone(name: str) -> None:
    try:
        is_image_vit(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _splits(options: argparse.Namespace, folder: RunFolder) -> Splits:
    classes = None if options.classes is None else read_classes(options.classes)
    if classes is None and options.resume and folder.last.exists():
        classes = folder.numbered_classes()
    try:
        return read_splits(options.data, root=options.root, classes=classes)
    except ValueError:
        records = read_records(options.data, root=options.root, classes=classes)
        try:
            check_files(records)  # a text that is no list has classes too, of one word each
        except FileNotFoundError as error:
            raise UsageError(
                f"{options.data} names no video that is there, for instance {records[0].path}. A list has a path and a "
                "class a line, relative paths start at its folder; --root names another one."
            ) from error
        raise


def _readable(splits: Splits, options: argparse.Namespace) -> tuple[Splits, list[str]]:
    """Open every video, and leave out those that cannot be read and segments after their end, each told in a sentence.

    Raises:
        ValueError: What is left cannot be trained on.
    """
    paths = {record.path for record in splits.every if "://" not in record.path}
    if len(paths) > CHECKED:
        return splits, [f"{len(paths)} videos are too many to open each beforehand: see uniformerv2 data check."]
    checks: dict[str, VideoCheck] = {}
    running = check_videos(splits.every, min_frames=1, num_workers=options.workers or None, checksums=False)
    with closing(running), Progress("look at videos", len(paths)) as progress:
        for check in running:
            progress.advance(is_bad=check.status != "ok")
            checks[check.path] = check
    bad, late = _left_out(splits, checks)
    if bad and len(bad) == len(paths):
        raise ValueError(
            f"Not one of {len(paths)} videos can be read, for instance {next(iter(bad.values()))}. Relative paths of a "
            "list start at its folder; --root names another one."
        )
    told = [f"{len(bad)} of {len(paths)} videos cannot be read and are left out: {_some(bad.values())}"] if bad else []
    if late:
        short = {record.path for record in late}
        told.append(
            f"{len(short)} of {len(paths)} videos are too short for their segment, so {len(late)} of "
            f"{len(splits.every)} segments are left out: {_some(late.values())}"
        )
    if not told:
        return splits, []
    try:
        return splits.without([*late, *(record for record in splits.every if record.path in bad)]), told
    except ValueError as error:
        raise ValueError("\n".join((*told, str(error)))) from error


def _left_out(splits: Splits, checks: Mapping[str, VideoCheck]) -> tuple[dict[str, str], dict[VideoRecord, str]]:
    """Videos that cannot be read, and segments after the end of their video, each with its reason."""
    late = {
        record: f"{record.path}: {why}"
        for record in splits.every
        if (found := checks.get(record.path)) and found.status == "too short" and (why := beyond_end(found, record))
    }
    short = {record.path for record in late}
    wrong = {path: check for path, check in checks.items() if check.status != "ok" and path not in short}
    return {path: f"{path}: {check.detail or check.status}" for path, check in wrong.items()}, late


def _some(details: Iterable[str]) -> str:
    every = sorted(details)
    return "; ".join(every[:SHOWN]) + (f"; and {len(every) - SHOWN} more" if len(every) > SHOWN else "")


def _train(
    network: UniFormerV2, splits: Splits, plan: TrainingPlan, shown: TrainProgress, *, resume: bool
) -> TrainingResult:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of Lightning's own making, not the user's
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message="Found .* in eval mode")  # a frozen image ViT is meant to be
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists")  # it is resumed
        warnings.filterwarnings("ignore", message="The dirpath has changed")  # --out was moved
        data = filled_data(network, splits, plan, resume=resume)
        return train(network, splits, plan, data=data, callbacks=[shown], resume=resume)


def _write_json(options: argparse.Namespace, **content: Any) -> None:
    if options.json:
        sys.stdout.write(json.dumps(content) + "\n")
