"""``uniformerv2 train --cache-features``: what the plan says of it, and the pass that fills the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from uniformerv2.autotrain.measure import Estimate
from uniformerv2.autotrain.plan import TrainingPlan
from uniformerv2.autotrain.run import RunFolder, data_module
from uniformerv2.commands.progress import Progress, duration
from uniformerv2.core.files import free_bytes
from uniformerv2.data.splits import Splits
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.frozen import CachedDataModule, missing_bytes

__all__ = ["filled_data", "on_disk", "plan_rows"]


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
