"""``--budget``: a plan that fits into a time, by what costs least accuracy first.

::

    fewer views in the final test  ->  fewer epochs  ->  a frozen backbone with cached features, of fewer views

What the user chose stays as it is. It is the upper end of the estimate that fits; while it trains,
``training.keep_budget`` watches the clock, and trains more epochs where there is time for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Final

from uniformerv2.autotrain.measure import Estimate
from uniformerv2.autotrain.plan import TrainingPlan, TrainOptions
from uniformerv2.core.messages import SLOWER, duration, seconds_of

__all__ = ["Fitting", "fit_budget", "seconds_after"]

Planned = tuple[TrainingPlan, Estimate]
FEWEST_EPOCHS: Final = 5
"""Fewer teach too little; see docs/lab/fine_tuning.md."""
PROBE_SHARE: Final = 0.1
"""The part of the budget that the probe before the training may take."""
REPORT_SECONDS: Final = 20.0
"""The interpreter's start, that of the processes that read for each test, the report and its figures."""
VIEWS: Final = (2, 1)
"""Augmented clips of a video in a cache, where the usual number takes too long."""
ENOUGH_EPOCHS: Final = 0.5
"""A share of the usual number, from cached features: before there are fewer, views, which take longer, are given up."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What fits into a budget.

    Attributes:
        options: Those of the user with what was changed.
        why: Name of a field of the plan -> why it was changed.
        most_epochs: As many as would be trained without a budget.
        told: A sentence where nothing fits; None otherwise.
    """

    options: TrainOptions
    why: Mapping[str, str]
    most_epochs: int
    told: str | None = None


def fit_budget(
    options: TrainOptions, first: Planned, replan: Callable[[TrainOptions], Planned], *, seconds: float
) -> Fitting:
    """Options whose plan fits into ``options.budget``.

    Args:
        options: The user's; what is None may be chosen.
        first: What they give without a budget.
        replan: From options to their plan and its cost.
        seconds: What is left of the budget.
    """
    assert options.budget is not None
    why = f"so that all fits into {options.budget}"
    fitting: list[tuple[float, Fitting]] = []
    tried: list[tuple[float, Fitting]] = []
    plan, cost = first
    for candidate in _candidates(options):
        if candidate.cache_views != options.cache_views:
            plan, cost = _with_views(candidate.cache_views or 1, plan, cost)
        elif candidate is not options:
            plan, cost = replan(candidate)
        left = _left(seconds, plan, cost, options)
        for changed, total in _shorter(candidate, plan, cost, left):
            found = Fitting(options=changed, why=_reasons(options, changed, why), most_epochs=plan.epochs)
            share = (changed.epochs or plan.epochs) / plan.epochs
            if total <= left and (share >= ENOUGH_EPOCHS or not plan.cache_views):
                return found
            if total <= left:
                fitting.append((share, found))
            tried.append((total, found))
    if fitting:
        return max(fitting, key=lambda one: one[0])[1]
    total, least = min(tried, key=lambda one: one[0])
    needed = seconds_of(options.budget) - seconds + _needed(total, plan, cost, options)
    told = (
        f"--budget {options.budget} is too short: the least that still trains takes up to {duration(ceil(needed))}. "
        "Fewer --epochs, a smaller --image-size or --probe take less."
    )
    return replace(least, told=told)


def _candidates(options: TrainOptions) -> Iterator[TrainOptions]:
    """As asked for; then frozen with cached features, where that is left open."""
    yield options
    if options.freeze_backbone is not False and options.preset != "motion":
        frozen = replace(options, preset="scene", freeze_backbone=True, cache_features=True)
        if frozen != options:
            yield frozen
        if options.cache_views is None:
            yield from (replace(frozen, cache_views=views) for views in VIEWS)


def _with_views(views: int, plan: TrainingPlan, cost: Estimate) -> Planned:
    """The same with fewer views in the cache: counted, as each measurement takes of the budget."""
    before, after = (
        number * plan.num_train + plan.num_val or number for number in (plan.cache_views, min(views, plan.cache_views))
    )
    saved = cost.cache_seconds * (1 - after / before)
    fewer = replace(plan, cache_views=min(views, plan.cache_views))
    return fewer, replace(
        cost,
        cache_bytes=cost.cache_bytes * after // before,
        cache_seconds=cost.cache_seconds - saved,
        total_seconds=cost.total_seconds - saved,
    )


def _left(seconds: float, plan: TrainingPlan, cost: Estimate, options: TrainOptions) -> float:
    """What an estimate may be whose upper end is to fit, without the probe, the comparison with it and the report."""
    if options.probe is False:
        return (seconds - REPORT_SECONDS) / SLOWER
    return ((1 - PROBE_SHARE) * seconds - REPORT_SECONDS) / SLOWER - _contest_seconds(plan, cost)


def _needed(total: float, plan: TrainingPlan, cost: Estimate, options: TrainOptions) -> float:
    """Seconds of which ``_left`` leaves so many for an estimate."""
    if options.probe is False:
        return SLOWER * total + REPORT_SECONDS
    return (SLOWER * (total + _contest_seconds(plan, cost)) + REPORT_SECONDS) / (1 - PROBE_SHARE)


def seconds_after(plan: TrainingPlan, cost: Estimate, options: TrainOptions) -> float:
    """What follows the last epoch, at most: the comparison with the probe, the final test, and the report.

    Args:
        plan: What will be done.
        cost: What it costs.
        options: The user's.
    """
    contest = 0.0 if options.probe is False else _contest_seconds(plan, cost)
    return SLOWER * (cost.test_seconds + contest) + REPORT_SECONDS


def _contest_seconds(plan: TrainingPlan, cost: Estimate) -> float:
    """Both networks score a view of each validation video."""
    return 2 * plan.num_val * cost.clip_seconds


def _shorter(
    options: TrainOptions, plan: TrainingPlan, cost: Estimate, seconds: float
) -> Iterator[tuple[TrainOptions, float]]:
    """The plan as it is, with one view in the final test, and with as many epochs as fit; each with its seconds."""
    yield options, cost.total_seconds
    views: dict[str, Any] = {name: 1 for name in ("num_clips", "num_crops") if getattr(options, name) is None}
    left = {"num_clips": plan.num_clips, "num_crops": plan.num_crops, **views}
    test = cost.test_seconds * left["num_clips"] * left["num_crops"] / (plan.num_clips * plan.num_crops)
    fixed = cost.total_seconds - plan.epochs * cost.epoch_seconds - cost.test_seconds + test
    fewer = replace(options, **views)
    yield fewer, fixed + plan.epochs * cost.epoch_seconds
    if options.epochs is None:
        fewest = min(FEWEST_EPOCHS, plan.epochs)
        epochs = min(plan.epochs, max(fewest, int((seconds - fixed) / max(cost.epoch_seconds, 1e-9))))
        yield replace(fewer, epochs=epochs), fixed + epochs * cost.epoch_seconds


def _reasons(before: TrainOptions, after: TrainOptions, why: str) -> dict[str, str]:
    names = ("num_clips", "num_crops", "epochs", "cache_views")
    return {name: why for name in names if getattr(before, name) != getattr(after, name)}
