"""``uniformerv2 train``: from a folder or list of videos to a trained model, without configuration."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from uniformerv2.commands import train_plan
from uniformerv2.commands.options import UsageError
from uniformerv2.commands.progress import Progress
from uniformerv2.commands.tested_videos import read_classes
from uniformerv2.commands.train_cache import add_cache_arguments, check_cache_options, filled_data
from uniformerv2.commands.train_progress import TrainProgress
from uniformerv2.commands.train_report import forget_test, show_result, test_and_report
from uniformerv2.data.annotations import VideoRecord, check_files, read_records
from uniformerv2.data.check import VideoCheck, beyond_end, check_videos
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.plan import TrainingPlan
from uniformerv2.training.run import RunFolder, TrainingResult, train
from uniformerv2.training.splits import Splits, read_splits
from uniformerv2.training.start import is_image_vit
from uniformerv2.training.stopping import TrainingStoppedError, stopping_at_once

__all__ = ["add_arguments", "run"]

CHECKED: Final = 5000
"""More videos are not opened before training starts; ``uniformerv2 data check`` does it."""
SHOWN: Final = 5
LARGEST_SEED: Final = 2**32 - 1
"""Of NumPy's global generator, which Lightning seeds too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of class folders, list, CSV, folder of lists")
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where the relative paths of the list start")
    parser.add_argument("--classes", metavar="SPACE|FILE", help="names of the list's class numbers")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: runs/NAME_OF_DATA)")
    parser.add_argument("--preset", choices=("scene", "motion"), help="what tells the classes apart (default: scene)")
    parser.add_argument(
        "--backbone", metavar="NAME|FILE", help="timm's image ViT, a model of the zoo, or a checkpoint to start from"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of the image ViT (default: fetched)")
    parser.add_argument("--trainable", default="all", choices=("all", "armour"), help="armour: freeze the image ViT")
    parser.add_argument("--num-frames", type=int, metavar="T", help="frames of a clip")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the input")
    parser.add_argument(
        "--stages", type=int, metavar="N", help="global UniBlocks, on the last N blocks (default: by the videos)"
    )
    parser.add_argument("--dropout", type=float, metavar="P", help="of classifier and global UniBlocks, 0 to below 1")
    parser.add_argument("--batch-size", type=int, metavar="N", help="videos of a step (default: tried out)")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the videos")
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="of the image ViT; frozen: of the armour")
    parser.add_argument("--clips", type=int, metavar="K", help="clips of a video in the final test")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="crops of a clip in the final test")
    parser.add_argument("--augmentation", choices=("light", "strong"), help="crops and flips; or RandAugment with them")
    add_cache_arguments(parser)
    parser.add_argument(
        "--precision",
        default="auto",
        choices=tuple(train_plan.PRECISIONS),
        help="default: auto, bf16 where it is faster",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (default: 0)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read videos")
    parser.add_argument("--resume", action="store_true", help="go on where this command was stopped")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and do nothing")
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end; all else goes to stderr")


def run(options: argparse.Namespace) -> int:
    """Plan, train, test; 130 or 143 where a signal stopped it.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: There are no such data, the folder is taken, or options contradict each other.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    console = _console(options)
    out = options.out or Path("runs") / options.data.resolve().stem
    folder = RunFolder(out)
    _check_options(options, folder)
    splits, broken = _readable(_splits(options, folder), options)
    if options.resume and not folder.last.exists():
        console.print(f"{folder.path} holds no checkpoint yet: this training starts from its beginning.", markup=False)
    if options.resume and folder.last.exists():
        planned = train_plan.take_up(options, folder, splits)
        console.print(f"Going on from {folder.last}", markup=False)
    else:
        planned = train_plan.make(options, out, splits, broken)
    train_plan.show(console, planned)
    if not options.dry_run:
        return _carry_out(options, console, planned, splits)
    cost = asdict(planned.cost) if planned.cost else None
    _write_json(options, plan=planned.plan.to_dict(), estimate=cost, to_fetch=planned.to_fetch)
    return 0


def _carry_out(options: argparse.Namespace, console: Console, planned: train_plan.Planned, splits: Splits) -> int:
    """Train, test, report; the exit code."""
    plan, network = planned.plan, planned.network
    folder = RunFolder(Path(plan.out))
    is_new = planned.cost is not None
    if is_new:
        folder.prepare()
        folder.write(plan, network, asdict(train_plan.asked(options)))
        forget_test(folder)
    try:
        result = _train(network, splits, plan, resume=not is_new)
        words = [word for word in options.words if word != "--resume"]
        with stopping_at_once(
            "Stopped in the final test; the model is written, and so is what was scored. The same command with "
            "--resume goes on from there."
        ):
            summary, page = test_and_report(network, splits, plan, folder, words)
    except TrainingStoppedError as stopped:
        sys.stderr.write(f"{stopped}\n")
        return 128 + stopped.signal_number
    show_result(console, plan, splits, result, summary)
    console.print(f"Report: {page}", markup=False)
    paths = {name: str(getattr(result, name)) for name in ("model", "best", "last", "log")}
    tested = {f"test_{name}": estimate.value for name, estimate in summary.all_videos.items()}
    metrics = {plan.monitor: result.val_score, **tested}
    _write_json(options, metrics=metrics, chosen=result.chosen, scores=str(folder.scores), report=str(page), **paths)
    return 0


def _console(options: argparse.Namespace) -> Console:
    """As wide as needed where it is no terminal."""
    console = Console(stderr=options.json, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(stderr=options.json, highlight=False, soft_wrap=True, width=1000)


def _check_options(options: argparse.Namespace, folder: RunFolder) -> None:
    if not options.data.exists():
        raise UsageError(f"There is no file or folder {options.data}.")
    for name in ("num_frames", "image_size", "stages", "batch_size", "epochs", "learning_rate", "clips", "cache_views"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be above 0.")
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers is {options.workers}; it must be 0 or more.")
    if not 0 <= options.seed <= LARGEST_SEED:
        raise UsageError(f"--seed is {options.seed}; it must be from 0 to {LARGEST_SEED}.")
    if options.dropout is not None and not 0 <= options.dropout < 1:
        raise UsageError(f"--dropout is {options.dropout}; it must be 0 or more and below 1.")
    if options.root is not None and not options.root.is_dir():
        raise UsageError(f"There is no folder {options.root}; --root is where the relative paths of the list start.")
    check_cache_options(options)
    if options.weights is not None and not options.weights.is_file():
        raise UsageError(f"There is no file {options.weights}.")
    if options.backbone is not None:
        try:
            is_image_vit(options.backbone)
        except ValueError as error:
            raise UsageError(str(error)) from error
    _check_place(folder, options)


def _check_place(folder: RunFolder, options: argparse.Namespace) -> None:
    if folder.path.exists() and not folder.path.is_dir():
        raise UsageError(f"{folder.path} is a file; --out names a folder.")
    above = next(path for path in (folder.path, *folder.path.absolute().parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise UsageError(f"{folder.path} cannot be written, as {above} cannot; give another place with --out.")
    if folder.last.exists() and not (options.resume or options.dry_run):
        raise UsageError(
            f"{folder.path} holds a training already: add --resume to go on with it, or give another folder with --out."
        )
    if options.resume and not folder.record.exists():
        raise UsageError(
            f"{folder.path} holds no training to resume; leave --resume out, or give its folder with --out."
        )


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
    running = check_videos(splits.every, min_frames=1, num_workers=options.workers or None)
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


def _train(network: UniFormerV2, splits: Splits, plan: TrainingPlan, *, resume: bool) -> TrainingResult:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of Lightning's own making, not the user's
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message="Found .* in eval mode")  # a frozen image ViT is meant to be
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists")  # it is resumed
        warnings.filterwarnings("ignore", message="The dirpath has changed")  # --out was moved
        data = filled_data(network, splits, plan, resume=resume)
        return train(network, splits, plan, data=data, callbacks=[TrainProgress(plan.monitor)], resume=resume)


def _write_json(options: argparse.Namespace, **content: Any) -> None:
    if options.json:
        sys.stdout.write(json.dumps(content) + "\n")
