"""What is advised: a cheaper way before a training, with its price, and more epochs after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from uniformerv2.autotrain.measure import Estimate
from uniformerv2.autotrain.plan import TrainingPlan
from uniformerv2.autotrain.probing import in_percent
from uniformerv2.core.messages import duration, time_range
from uniformerv2.evaluation.curves import Falling, forecast

__all__ = ["cheaper_way", "more_epochs"]

WORTH_SECONDS: Final = 120.0
"""What takes less needs no advice."""
PRICE: Final = (
    "on six UCF101 classes it reached 91.7 instead of 94.3 % (three seeds), and 95.3 instead of 96.7 % (five folds); "
    "see docs/fine_tune.md"
)
"""As measured there and in docs/frozen_in_seconds.md."""


def cheaper_way(plan: TrainingPlan, cost: Estimate | None) -> str | None:
    """A sentence on the frozen, cached training, with its price; None where it would not be much cheaper.

    Args:
        plan: What will be done.
        cost: What it costs; None where a stopped run goes on.
    """
    if (
        plan.probe
        or cost is None
        or not cost.frozen_seconds
        or cost.total_seconds < max(WORTH_SECONDS, 2 * cost.frozen_seconds)
    ):
        return None
    takes = f"takes about {time_range(cost.frozen_seconds)}"
    if plan.freeze_backbone:
        return f"Cheaper: --cache-features {takes}, as the frozen backbone runs once and not in every epoch."
    return (
        f"Cheaper: --freeze-backbone --cache-features {takes}, as the backbone runs once and does not learn. The "
        f"price in accuracy: {PRICE}.{_of_these_videos(plan)}"
    )


def _of_these_videos(plan: TrainingPlan) -> str:
    """What a probe of frozen features reaches here: the frozen training seldom stays below it."""
    if not plan.probed.get("num_folds"):
        return ""
    score = plan.probed["rows"][plan.probed["best"]]["score"]
    what = "mean average precision" if plan.probed["measure"] == "mean_ap" else "of those held out right"
    return (
        f" Of these videos the probe of frozen features has {in_percent(score)} {what}: the frozen training seldom "
        f"stays below it, and a backbone that learns can add {100 * (1 - score['value']):.1f} points at most."
    )


def more_epochs(
    plan: TrainingPlan, falling: Falling | None, *, seconds_per_epoch: float | None, val_losses: Sequence[float] = ()
) -> str | None:
    """A sentence on a training whose loss was still falling when it ended; None where it was not.

    Args:
        plan: What was done.
        falling: From ``still_falling``.
        seconds_per_epoch: Validation included; None where no epoch was timed.
        val_losses: After each epoch.
    """
    if falling is None:
        return None
    epochs = 2 * (len(val_losses) or plan.epochs)
    costs = f" costs about {duration(epochs * seconds_per_epoch)}" if seconds_per_epoch else " may bring more"
    cached = ", with the same --cache-dir" if plan.cache_views and plan.cache_dir else ""
    cached = f" with --cache-dir {plan.out}/features" if plan.cache_views and not plan.cache_dir else cached
    return (
        f"The loss is still falling: {falling.last:.3f} in the last epoch, {falling.before:.3f} in epoch "
        f"{falling.epoch}. --epochs {epochs}{cached}{costs} (and another folder with --out)."
        f"{_what_they_bring(val_losses, epochs)}"
    )


def _what_they_bring(val_losses: Sequence[float], epochs: int) -> str:
    """Where the validation loss leads; nothing where its curve does not say."""
    ends = forecast(val_losses, epochs)
    if ends is None:
        return ""
    is_lower = ends.high < val_losses[-1]
    verdict = "lower than now" if is_lower else "which may be no lower than now"
    return f" By its curve the validation loss, now {val_losses[-1]:.3f}, would then be {ends}: {verdict}."
