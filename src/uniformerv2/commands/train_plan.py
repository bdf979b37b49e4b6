"""The plan of ``uniformerv2 train``: made from options or taken up from a stopped run; its cost; how it is shown."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.prompt import Prompt
from rich.table import Table

from uniformerv2.autotrain.choose import Asked, make_plan
from uniformerv2.autotrain.measure import Estimate, best_device, estimate
from uniformerv2.autotrain.plan import Preset, TrainingPlan
from uniformerv2.autotrain.run import RunFolder, augmentation_of
from uniformerv2.autotrain.start import weights_to_fetch
from uniformerv2.commands.arguments.train import PRECISIONS
from uniformerv2.commands.options import UsageError
from uniformerv2.commands.progress import Progress
from uniformerv2.commands.train_advice import cheaper_way
from uniformerv2.commands.train_cache import on_disk, plan_rows
from uniformerv2.data.splits import Splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.feature_key import NotCacheableError

__all__ = ["Planned", "asked", "make", "show", "take_up", "time_range"]

SHOWN: Final = 5
QUICKER: Final = 0.85
SLOWER: Final = 1.3
"""How far off an estimate usually is: other programs slow a training down more often than they quicken it."""
ROUND: Final = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Planned:
    """A plan, and the network before its first step.

    Attributes:
        plan: Every choice.
        network: With the weights that training starts from.
        cost: None where a stopped run goes on.
        to_fetch: Weights that are not on this machine, so that the network has random ones; only in a dry run.
    """

    plan: TrainingPlan
    network: UniFormerV2
    cost: Estimate | None = None
    to_fetch: str | None = None


def asked(options: argparse.Namespace) -> Asked:
    """What the options say, in the words of the plan."""
    return Asked(
        data=str(options.data.resolve()),
        root=str(options.root.resolve()) if options.root else None,
        classes=options.classes,
        preset=options.preset,
        backbone=options.backbone,
        weights=str(options.weights) if options.weights else None,
        freeze_backbone=options.freeze_backbone,
        num_frames=options.num_frames,
        image_size=options.image_size,
        num_stages=options.stages,
        dropout=options.dropout,
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


def make(options: argparse.Namespace, out: Path, splits: Splits, broken: list[str]) -> Planned:
    """A plan for a new run, and what it will cost.

    Args:
        options: Of ``uniformerv2 train``.
        out: Folder to write.
        splits: The videos.
        broken: What is to be told of videos that are left out.

    Raises:
        UsageError: Features cannot be cached.
    """
    if options.preset is None and not options.json and sys.stdin.isatty() and sys.stdout.isatty():
        options.preset = _ask_preset()
    device = best_device()
    try:
        with Progress("load the network", None, has_bar=False):  # a download has its own
            plan, network = make_plan(
                asked(options),
                splits,
                out=str(out),
                device=device,
                num_workers=options.workers,
                fetch=not options.dry_run,
            )
    except NotCacheableError as error:
        raise UsageError(str(error)) from error
    plan = on_disk(plan, network, splits)
    plan = replace(plan, warnings=(*broken, *plan.warnings), videos_digest=_digest(options, splits))
    size = {"num_frames": plan.num_frames, "image_size": plan.image_size}
    preprocessing = Preprocessing.from_dict({**network.info.preprocessing, **size})
    with Progress("measure a few steps", None):
        cost = estimate(
            network,
            plan,
            preprocessing,
            augmentation_of(plan),
            splits.train,
            device=device,
            is_rough=options.dry_run,
        )
    to_fetch = weights_to_fetch(plan.backbone, network, weights=plan.weights) if options.dry_run else None
    return Planned(plan, network, cost, to_fetch)


def _ask_preset() -> Preset:
    answer = Prompt.ask(
        "What tells the classes apart: what is seen (scene), or how it moves (motion)?",
        choices=["scene", "motion"],
        default="scene",
    )
    return "motion" if answer == "motion" else "scene"


def take_up(options: argparse.Namespace, folder: RunFolder, splits: Splits) -> Planned:
    """What a stopped run had planned.

    Args:
        options: Of ``uniformerv2 train --resume``.
        folder: Of the run.
        splits: The videos.

    Raises:
        UsageError: The command or the data are not the same.
    """
    plan, network, request = folder.read()
    before = asdict(Asked(**request))
    changed = [
        f"{_option(name)} ({_given(before.get(name))} before, now {_given(value)})"
        for name, value in asdict(asked(options)).items()
        if before.get(name) != value and not (name == "preset" and value is None)
    ]
    if changed:
        raise UsageError(f"--resume goes on with the same command; changed: {', '.join(changed)}.")
    if (plan.num_train, plan.num_val, plan.class_names) != (len(splits.train), len(splits.val), splits.class_names):
        raise UsageError(
            f"--resume goes on with the same videos: there were {plan.num_train} to train and {plan.num_val} to "
            f"validate, now there are {len(splits.train)} and {len(splits.val)}, or the classes have changed."
        )
    if plan.videos_digest and plan.videos_digest != _digest(options, splits):  # without one, it began before we kept it
        raise UsageError(
            f"--resume goes on with the same videos: their number is as it was, but not what they are called, their "
            f"order, or which of them have which class, segment or split. Put {options.data} back as it was, or train "
            "anew with another folder for --out."
        )
    return Planned(plan if options.workers is None else replace(plan, num_workers=options.workers), network)


def _digest(options: argparse.Namespace, splits: Splits) -> str:
    """The same wherever DATA lies."""
    return splits.digest(options.root or (options.data if options.data.is_dir() else options.data.parent))


def _option(field: str) -> str:
    named = {"num_stages": "--stages", "num_clips": "--clips", "num_crops": "--crops", "data": "DATA"}
    return named.get(field, f"--{field.replace('_', '-')}")


def _given(value: Any) -> str:
    return "not given" if value is None or value is False else str(value)


def show(console: Console, planned: Planned) -> None:
    """The plan as a table, each choice with its reason; then the warnings, and a cheaper way.

    Args:
        console: Where to.
        planned: What will be done.
    """
    plan = planned.plan
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", max_width=60)
    table.add_column(style="dim", overflow="fold")
    for name, value, reason in (
        *_choice_rows(planned),
        *plan_rows(plan, planned.cost),
        *_cost_rows(planned),
        ("written to", plan.out, ""),
    ):
        table.add_row(name, value, plan.why.get(reason, "measured on a few steps" if reason == "measured" else ""))
    console.print(table, markup=False)
    for warning in plan.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)
    if advice := cheaper_way(plan, planned.cost, time_range=time_range):
        console.print(advice, markup=False)


def _choice_rows(planned: Planned) -> list[tuple[str, str, str]]:
    """What, the choice, and the field whose reason it is."""
    plan = planned.plan
    names = ", ".join(plan.class_names[:SHOWN])
    more = f" and {len(plan.class_names) - SHOWN} more" if len(plan.class_names) > SHOWN else ""
    tested = f", {plan.num_test} test" if plan.num_test else ""
    weights = f", weights {Path(plan.weights).name}" if plan.weights else ""
    fetched = [("to be fetched", planned.to_fetch, "")] if planned.to_fetch else []
    return [
        ("classes", f"{len(plan.class_names)}: {names}{more}", ""),
        ("videos", f"{plan.num_train} train, {plan.num_val} val{tested}", "split"),
        ("preset", plan.preset, "preset"),
        ("start from", plan.backbone + weights, "backbone"),
        *fetched,
        ("frames", str(plan.num_frames), "num_frames"),
        ("image size", str(plan.image_size), "image_size"),
        ("stages", str(plan.num_stages), "num_stages"),
        ("dropout", f"{plan.dropout:g}", "dropout"),
        ("batch size", str(plan.batch_size), "batch_size"),
        ("learning rate", _rates(plan), "rates"),
        ("epochs", f"{plan.epochs} of {plan.steps_per_epoch} steps", "epochs"),
        ("augmentation", plan.augmentation + ("" if plan.flip else ", no flip"), "augmentation"),
        ("final test", f"{_count(plan.num_clips, 'clip')} x {_count(plan.num_crops, 'crop')}", "num_clips"),
        ("precision", plan.precision, "precision"),
    ]


def _rates(plan: TrainingPlan) -> str:
    rate, scale, decay = f"{plan.rates.learning_rate:.3g}", plan.rates.video_blocks_scale, plan.rates.layer_decay
    if plan.freeze_backbone:
        return f"{rate}, image ViT frozen"
    return f"{rate}, video blocks times {scale:g}" + (f", each lower block times {decay:g}" if decay < 1 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _cost_rows(planned: Planned) -> list[tuple[str, str, str]]:
    cost = planned.cost
    if cost is None:
        return []
    return [
        ("parameters", f"{cost.num_parameters / 1e6:.1f} M, {cost.num_trainable / 1e6:.1f} M of them learn", ""),
        ("memory", f"about {cost.memory_bytes / 2**30:.1f} GiB for the network", ""),
        ("time", f"about {time_range(cost.total_seconds)}, {cost.step_seconds:.2g} s a step", "measured"),
    ]


def time_range(seconds: float) -> str:
    """An estimate as far as it can be trusted, rounded outwards.

    >>> time_range(42), time_range(200), time_range(9000)
    ('30 to 60 s', '2.5 to 5 min', '2 to 4 h')
    """
    low, high = QUICKER * seconds, SLOWER * seconds
    size, unit = next(((size, unit) for size, unit in ((3600, "h"), (60, "min")) if high > 2 * size), (1, "s"))
    return f"{_rounded(low / size, up=False):g} to {_rounded(high / size, up=True):g} {unit}"


def _rounded(number: float, *, up: bool) -> float:
    """To the next round number."""
    number = max(number, 1e-3)
    power = 10.0 ** math.floor(math.log10(number))
    if up:
        return power * next(step for step in ROUND if step * power >= number)
    return power * max((step for step in ROUND if step * power <= number), default=1)
