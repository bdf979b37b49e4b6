"""``uniformerv2 train``: from a folder or list of videos to a trained model, without configuration."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.prompt import Prompt
from rich.table import Table

from uniformerv2.commands.options import UsageError
from uniformerv2.commands.progress import Progress
from uniformerv2.commands.train_cache import add_cache_arguments, check_cache_options, filled_data, on_disk, plan_rows
from uniformerv2.commands.train_progress import TrainProgress, duration
from uniformerv2.commands.train_report import forget_test, show_result, test_and_report
from uniformerv2.data.check import check_videos
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.choose import Asked, make_plan
from uniformerv2.training.feature_key import NotCacheableError
from uniformerv2.training.measure import Estimate, best_device, estimate
from uniformerv2.training.plan import Preset, TrainingPlan
from uniformerv2.training.run import RunFolder, TrainingResult, augmentation_of, train
from uniformerv2.training.splits import Splits, read_splits
from uniformerv2.training.stopping import TrainingStoppedError, stopping_at_once

__all__ = ["add_arguments", "run"]

CHECKED: Final = 5000
"""More videos are not opened before training starts; ``uniformerv2 data check`` does it."""
SHOWN: Final = 5
PRECISIONS: Final[Mapping[str, str | None]] = {"auto": None, "fp32": "32-true", "bf16": "bf16-mixed"}
"""Our words, and Lightning's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of class folders, list, CSV, folder of lists")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: runs/NAME_OF_DATA)")
    parser.add_argument("--preset", choices=("scene", "motion"), help="what tells the classes apart (default: scene)")
    parser.add_argument(
        "--backbone", metavar="NAME|FILE", help="timm's image ViT, a model of the zoo, or a checkpoint to start from"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of the image ViT (default: fetched)")
    parser.add_argument("--trainable", default="all", choices=("all", "armour"), help="armour: freeze the image ViT")
    parser.add_argument("--num-frames", type=int, metavar="T", help="frames of a clip")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the input")
    parser.add_argument("--batch-size", type=int, metavar="N", help="videos of a step (default: tried out)")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the videos")
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="of the image ViT; frozen: of the armour")
    parser.add_argument("--clips", type=int, metavar="K", help="clips of a video in the final test")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="crops of a clip in the final test")
    parser.add_argument("--augmentation", choices=("light", "strong"), help="crops and flips; or RandAugment with them")
    add_cache_arguments(parser)
    parser.add_argument(
        "--precision", default="auto", choices=tuple(PRECISIONS), help="default: auto, bf16 where it is faster"
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
    splits, broken = _readable(read_splits(options.data), options)
    if options.resume and folder.last.exists():
        plan, network = _planned(options, folder, splits)
        console.print(f"Going on from {folder.last}", markup=False)
        cost = None
    else:
        plan, network = _plan(options, out, splits, broken)
        cost = _estimate(network, plan, splits)
    _show_plan(console, plan, cost)
    if options.dry_run:
        _write_json(options, plan=plan.to_dict(), estimate=asdict(cost) if cost else None)
        return 0
    if cost:
        folder.write(plan, network, _request(options))
        forget_test(folder)
    try:
        result = _train(network, splits, plan, resume=cost is None)
        words = [word for word in options.words if word != "--resume"]
        with stopping_at_once("Stopped in the final test; the model is written, and so is what was scored."):
            summary, page = test_and_report(network, splits, plan, folder, words)
    except TrainingStoppedError as stopped:
        sys.stderr.write(f"{stopped} The same command with --resume goes on from there.\n")
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
    for name in ("num_frames", "image_size", "batch_size", "epochs", "learning_rate", "clips", "cache_views"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be above 0.")
    for name in ("workers", "seed"):
        value = getattr(options, name)
        if value is not None and value < 0:
            raise UsageError(f"--{name} is {value}; it must be 0 or more.")
    check_cache_options(options)
    if options.weights is not None and not options.weights.is_file():
        raise UsageError(f"There is no file {options.weights}.")
    if folder.path.exists() and not folder.path.is_dir():
        raise UsageError(f"{folder.path} is a file; --out names a folder.")
    if folder.last.exists() and not (options.resume or options.dry_run):
        raise UsageError(
            f"{folder.path} holds a training already: add --resume to go on with it, or give another folder with --out."
        )
    if options.resume and not folder.record.exists():
        raise UsageError(
            f"{folder.path} holds no training to resume; leave --resume out, or give its folder with --out."
        )


def _readable(splits: Splits, options: argparse.Namespace) -> tuple[Splits, list[str]]:
    """Open every video, and leave out those that cannot be read, told in a sentence.

    Raises:
        ValueError: What is left cannot be trained on.
    """
    paths = {record.path for record in splits.every if "://" not in record.path}
    if len(paths) > CHECKED:
        return splits, [f"{len(paths)} videos are too many to open each beforehand: see uniformerv2 data check."]
    bad: dict[str, str] = {}
    running = check_videos(splits.every, num_workers=options.workers or None)
    with closing(running), Progress("look at videos", len(paths)) as progress:
        for check in running:
            progress.advance(is_bad=check.status != "ok")
            if check.status != "ok":
                bad[check.path] = f"{check.path}: {check.detail or check.status}"
    if not bad:
        return splits, []
    if len(bad) == len(paths):
        raise ValueError(
            f"Not one of {len(paths)} videos can be read, for instance {next(iter(bad.values()))}. Relative paths of a "
            "list start at its folder."
        )
    told = f"{len(bad)} of {len(paths)} videos cannot be read and are left out: " + "; ".join(
        sorted(bad.values())[:SHOWN]
    )
    told += f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    try:
        return splits.without(set(bad)), [told]
    except ValueError as error:
        raise ValueError(f"{told}\n{error}") from error


def _request(options: argparse.Namespace) -> dict[str, Any]:
    return asdict(_asked(options))


def _asked(options: argparse.Namespace) -> Asked:
    return Asked(
        data=str(options.data.resolve()),
        preset=options.preset,
        backbone=options.backbone,
        weights=str(options.weights) if options.weights else None,
        trainable=options.trainable,
        num_frames=options.num_frames,
        image_size=options.image_size,
        batch_size=options.batch_size,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        num_clips=options.clips,
        num_crops=options.crops,
        seed=options.seed,
        augmentation=options.augmentation,
        precision=PRECISIONS[options.precision],
        cache_features=options.cache_features,
        cache_views=options.cache_views,
        cache_dtype=options.cache_dtype,
        cache_dir=str(options.cache_dir) if options.cache_dir else None,
    )


def _planned(options: argparse.Namespace, folder: RunFolder, splits: Splits) -> tuple[TrainingPlan, UniFormerV2]:
    """What the stopped run had planned.

    Raises:
        UsageError: The command or the data are not the same.
    """
    plan, network, before = folder.read()
    before = asdict(Asked(**before))
    changed = [
        f"{_option(name)} ({_given(before.get(name))} before, now {_given(value)})"
        for name, value in _request(options).items()
        if before.get(name) != value and not (name == "preset" and value is None)
    ]
    if changed:
        raise UsageError(f"--resume goes on with the same command; changed: {', '.join(changed)}.")
    if (plan.num_train, plan.num_val, plan.class_names) != (len(splits.train), len(splits.val), splits.class_names):
        raise UsageError(
            f"--resume goes on with the same videos: there were {plan.num_train} to train and {plan.num_val} to "
            f"validate, now there are {len(splits.train)} and {len(splits.val)}, or the classes have changed."
        )
    return plan if options.workers is None else replace(plan, num_workers=options.workers), network


def _option(field: str) -> str:
    return {"num_clips": "--clips", "num_crops": "--crops"}.get(field, f"--{field.replace('_', '-')}")


def _given(value: Any) -> str:
    return "not given" if value is None or value is False else str(value)


def _plan(
    options: argparse.Namespace, out: Path, splits: Splits, broken: list[str]
) -> tuple[TrainingPlan, UniFormerV2]:
    if options.preset is None and not options.json and sys.stdin.isatty() and sys.stdout.isatty():
        options.preset = _ask_preset()
    try:
        plan, network = make_plan(
            _asked(options),
            splits,
            out=str(out),
            device=best_device(),
            num_workers=options.workers,
        )
    except NotCacheableError as error:
        raise UsageError(str(error)) from error
    plan = on_disk(plan, network, splits)
    return replace(plan, warnings=(*broken, *plan.warnings)), network


def _ask_preset() -> Preset:
    answer = Prompt.ask(
        "What tells the classes apart: what is seen (scene), or how it moves (motion)?",
        choices=["scene", "motion"],
        default="scene",
    )
    return "motion" if answer == "motion" else "scene"


def _estimate(network: UniFormerV2, plan: TrainingPlan, splits: Splits) -> Estimate:
    size = {"num_frames": plan.num_frames, "image_size": plan.image_size}
    preprocessing = Preprocessing.from_dict({**network.info.preprocessing, **size})
    return estimate(network, plan, preprocessing, augmentation_of(plan), splits.train, device=best_device())


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


def _show_plan(console: Console, plan: TrainingPlan, cost: Estimate | None) -> None:
    names = ", ".join(plan.class_names[:SHOWN])
    more = f" and {len(plan.class_names) - SHOWN} more" if len(plan.class_names) > SHOWN else ""
    frozen = "image ViT frozen" if plan.trainable == "armour" else f"armour times {plan.armour_scale:g}"
    rows = [
        ("classes", f"{len(plan.class_names)}: {names}{more}", ""),
        (
            "videos",
            f"{plan.num_train} train, {plan.num_val} val" + f", {plan.num_test} test" * bool(plan.num_test),
            "split",
        ),
        ("preset", plan.preset, "preset"),
        ("start from", plan.backbone + (f", weights {Path(plan.weights).name}" if plan.weights else ""), "backbone"),
        ("frames", str(plan.num_frames), "num_frames"),
        ("image size", str(plan.image_size), "image_size"),
        ("batch size", str(plan.batch_size), "batch_size"),
        ("learning rate", f"{plan.learning_rate:.3g}, {frozen}", "learning_rate"),
        ("epochs", f"{plan.epochs} of {plan.steps_per_epoch} steps", "epochs"),
        ("augmentation", plan.augmentation + ("" if plan.flip else ", no flip"), "augmentation"),
        ("final test", f"{plan.num_clips} clips x {plan.num_crops} crops", "num_clips"),
        ("precision", plan.precision, "precision"),
        *plan_rows(plan, cost),
    ]
    if cost:
        rows += [
            ("parameters", f"{cost.num_parameters / 1e6:.1f} M, {cost.num_trainable / 1e6:.1f} M of them learn", ""),
            ("memory", f"about {cost.memory_bytes / 2**30:.2f} GiB for the network", ""),
            ("time", f"about {duration(cost.total_seconds)}, {cost.step_seconds:.2f} s a step", "measured"),
        ]
    rows.append(("written to", plan.out, ""))
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", max_width=60)
    table.add_column(style="dim", overflow="fold")
    for name, value, reason in rows:
        table.add_row(name, value, plan.why.get(reason, "measured on a few steps" if reason == "measured" else ""))
    console.print(table, markup=False)
    for warning in plan.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)


def _write_json(options: argparse.Namespace, **content: Any) -> None:
    if options.json:
        sys.stdout.write(json.dumps(content) + "\n")
