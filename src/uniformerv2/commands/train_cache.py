"""``uniformerv2 train --cache-features``: its options, what the plan says of it, and the pass that fills the cache."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from uniformerv2.commands.options import UsageError
from uniformerv2.commands.progress import Progress
from uniformerv2.commands.train_progress import duration
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.frozen import CachedDataModule, free_bytes, missing_bytes
from uniformerv2.training.measure import Estimate
from uniformerv2.training.plan import TrainingPlan
from uniformerv2.training.run import RunFolder, data_module
from uniformerv2.training.splits import Splits

__all__ = ["add_cache_arguments", "check_cache_options", "filled_data", "on_disk", "plan_rows"]


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--cache-features", action="store_true", help="run the frozen image ViT once, and train from its tokens on disk"
    )
    parser.add_argument("--cache-views", type=int, metavar="N", help="augmented clips of each training video in it")
    parser.add_argument(
        "--cache-dtype", choices=("float16", "bfloat16", "float32"), help="of tokens (default: float16)"
    )
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where (default: features in the run's folder)")


def check_cache_options(options: argparse.Namespace) -> None:
    """Refuse what the options alone show to be impossible.

    Raises:
        UsageError: Options that need or exclude each other.
    """
    for name in ("cache_views", "cache_dtype", "cache_dir"):
        if getattr(options, name) is not None and not options.cache_features:
            raise UsageError(f"--{name.replace('_', '-')} is for --cache-features; add it, or leave both out.")
    if options.cache_features and options.trainable != "armour":
        raise UsageError(
            "--cache-features keeps the tokens of an image ViT that does not learn: add --trainable armour, or leave "
            "--cache-features out."
        )
    if options.cache_features and options.preset == "motion":
        raise UsageError(
            "--cache-features and --preset motion exclude each other: motion has local temporal steps, which learn "
            "inside the image ViT and change its tokens with every step. Take --preset scene, or leave "
            "--cache-features out."
        )
    if options.cache_dir is not None and options.cache_dir.exists() and not options.cache_dir.is_dir():
        raise UsageError(f"{options.cache_dir} is a file; --cache-dir names a folder.")


def on_disk(plan: TrainingPlan, network: UniFormerV2, splits: Splits) -> TrainingPlan:
    """The plan, without a cache where the disk has no room for it."""
    data = data_module(network, splits, plan)
    if not isinstance(data, CachedDataModule) or not (lacking := missing_bytes(data, network)):
        return plan
    told = (
        f"Features are not cached, every step starts from the videos: they take {_gib(data.num_bytes(network))}, and "
        f"the disk of {data.cache} has {_gib(free_bytes(data.cache))} free; with 1 GiB left for others it lacks "
        f"{_gib(lacking)}. Fewer --cache-views need less; --cache-dir names another disk."
    )
    return replace(plan, cache_views=0, warnings=(*plan.warnings, told))


def plan_rows(plan: TrainingPlan, cost: Estimate | None) -> list[tuple[str, str, str]]:
    """What is kept where, for the table of the plan."""
    if not plan.cache_views:
        return []
    where = plan.cache_dir or RunFolder(Path(plan.out)).features
    kept = f"{plan.cache_views} augmented clips a training video, 1 a validation video"
    rows = [("features", kept, "cache_views"), ("kept in", f"{where}, as {plan.cache_dtype}", "")]
    if cost:
        free = free_bytes(Path(where))
        words = f"{_gib(cost.cache_bytes)} of {_gib(free)} free; about {duration(cost.cache_seconds)} to compute"
        rows.append(("their size", words, "measured"))
    return rows


def filled_data(network: UniFormerV2, splits: Splits, plan: TrainingPlan, *, resume: bool) -> VideoDataModule:
    """The videos, and where features are cached all of them."""
    data = data_module(network, splits, plan, resume=resume)
    if isinstance(data, CachedDataModule):
        with Progress("cache features", data.num_clips) as progress:

            def advance(count: int) -> None:
                for _ in range(count):
                    progress.advance(is_bad=False)

            data.fill_cache(network, on_clips=advance)
    return data


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
