"""The videos of a training: read, looked at, and what of their features is cached already or finds no room."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.measure import Estimate
from uniformerv2.autotrain.plan import TrainingPlan, TrainOptions
from uniformerv2.autotrain.run import data_module
from uniformerv2.core.console import Progress
from uniformerv2.core.files import free_bytes
from uniformerv2.core.messages import UsageError
from uniformerv2.data.annotations import check_files, read_records
from uniformerv2.data.check import VideoCheck, check_videos
from uniformerv2.data.named_videos import read_classes
from uniformerv2.data.splits import Splits, read_splits, without_unreadable
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.frozen import CachedDataModule, missing_bytes

__all__ = ["digest_of", "read_videos", "readable", "with_cache", "within_disk"]

CHECKED: Final = 5000
"""More videos are not opened before training starts; ``uniformerv2 data check`` does it."""


def read_videos(options: TrainOptions, folder: RunFolder) -> Splits:
    """The videos of a folder or list, divided.

    Args:
        options: What the user decided.
        folder: The folder of a run that may be resumed.

    Raises:
        UsageError: A list that names no video that is there.
        ValueError: The videos cannot be trained on.
    """
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
                "class per line, relative paths start at its folder; --root names another one."
            ) from error
        raise


def readable(splits: Splits, options: TrainOptions, *, progress: bool) -> tuple[Splits, list[str]]:
    """Open every video, and leave out those that cannot be read and segments after their end; sentences about them."""
    paths = {record.path for record in splits.every if "://" not in record.path}
    if len(paths) > CHECKED:
        return splits, [f"{len(paths)} videos are too many to open each beforehand: see uniformerv2 data check."]
    checks: dict[str, VideoCheck] = {}
    running = check_videos(splits.every, min_frames=1, num_workers=options.num_workers or None, checksums=False)
    with closing(running), Progress("look at videos", len(paths), is_quiet=not progress) as bar:
        for check in running:
            bar.advance(is_bad=check.status != "ok")
            checks[check.path] = check
    return without_unreadable(splits, checks)


def digest_of(options: TrainOptions, splits: Splits) -> str:
    """The same wherever DATA lies."""
    data = Path(options.data)
    return splits.digest(options.root or (data if data.is_dir() else data.parent))


def with_cache(cost: Estimate, plan: TrainingPlan, network: UniFormerV2, splits: Splits) -> Estimate:
    """Without the time for features that an earlier training has cached."""
    data = data_module(network, splits, plan)
    if not (isinstance(data, CachedDataModule) and data.cache.is_dir() and any(data.cache.iterdir())):
        return cost
    there = cost.cache_bytes - sum(part.missing_bytes for part in data.open_cache(network))
    saved = cost.cache_seconds * there / max(1, cost.cache_bytes)
    left, total = cost.cache_seconds - saved, cost.total_seconds - saved
    return replace(cost, cached_bytes=there, cache_seconds=left, total_seconds=total)


def within_disk(plan: TrainingPlan, network: UniFormerV2, splits: Splits) -> TrainingPlan:
    """The plan, without a cache where the disk has no room for it."""
    data = data_module(network, splits, plan)
    if not isinstance(data, CachedDataModule) or not (lacking := missing_bytes(data, network)):
        return plan
    needed, free = data.num_bytes(network) / 2**30, free_bytes(data.cache) / 2**30
    told = (
        f"Features are not cached, every step starts from the videos: they take {needed:.2f} GiB, and the disk of "
        f"{data.cache} has {free:.2f} GiB free; with 1 GiB left for others it lacks {lacking / 2**30:.2f} GiB. Fewer "
        "--cache-views need less; --cache-dir names another disk."
    )
    return replace(plan, cache_views=0, warnings=(*plan.warnings, told))
