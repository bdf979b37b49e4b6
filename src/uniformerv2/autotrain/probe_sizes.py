"""Whether larger pictures or more frames tell the classes better apart: the probe again, on the same clips.

Each is tried where the user left it open, the network is armed anew, and the probe's time allows it. It is taken where
it is better with the whole interval of the paired difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from uniformerv2.autotrain.plan import TrainingPlan, TrainOptions
from uniformerv2.autotrain.probe import paired
from uniformerv2.autotrain.probing import FittedProbe, in_percent
from uniformerv2.evaluation.summary import Estimate
from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["SizeChoice", "choose_size"]

LARGER: Final = 1.5
"""Side of the larger picture, divided by the usual one."""


@dataclass(frozen=True, kw_only=True)
class SizeChoice:
    """What came of the comparison.

    Attributes:
        probe: At the size that is taken.
        decided: Fields of the options: none, or the one that is larger.
        why: Name of a field of the plan -> why.
        told: What else was tried, in sentences.
    """

    probe: FittedProbe
    decided: dict[str, Any]
    why: dict[str, str]
    told: tuple[str, ...]


def choose_size(
    probe: FittedProbe,
    options: TrainOptions,
    plan: TrainingPlan,
    network: UniFormerV2,
    *,
    at_size: Callable[[dict[str, Any]], FittedProbe | None],
) -> SizeChoice:
    """Compare with what the time allows.

    Args:
        probe: At the usual size.
        options: The user's.
        plan: What they give.
        network: Of the plan.
        at_size: From changed options to the probe of the same clips.
    """
    num_left = probe.num_left
    tried: list[tuple[Estimate, dict[str, Any], FittedProbe]] = []
    for changed, clips_each in _larger(options, plan, network):
        needed = probe.result.num_clips * clips_each
        if needed > num_left or probe.result.measure != "top1" or not probe.result.is_held_out:
            continue
        num_left -= int(needed)
        other = at_size(changed)
        if other is not None and other.result.sources == probe.result.sources:
            tried.append((paired(probe.result, other.result), changed, other))
    better = [one for one in tried if one[0].low > 0]
    taken = max(better, key=lambda one: one[0].value, default=None)
    told = tuple(
        _told(found, changed, other) for found, changed, other in tried if taken is None or changed != taken[1]
    )
    if taken is None:
        return SizeChoice(probe=probe, decided={}, why={}, told=told)
    found, decided, other = taken
    why = (
        f"the probe gains {in_percent(asdict(found), is_difference=True)} points over the usual {_usual(plan, decided)}"
    )
    return SizeChoice(
        probe=replace(other, told=probe.told), decided=decided, why=dict.fromkeys(decided, why), told=told
    )


def _larger(options: TrainOptions, plan: TrainingPlan, network: UniFormerV2) -> list[tuple[dict[str, Any], float]]:
    """Changed options, and how many clips of the usual size one of these costs."""
    found: list[tuple[dict[str, Any], float]] = []
    if plan.model is not None:
        return found
    if options.image_size is None:
        patch = network.config.patch_size
        side = round(LARGER * plan.image_size / patch) * patch
        found.append(({"image_size": side}, (side / plan.image_size) ** 2))
    if options.num_frames is None:
        found.append(({"num_frames": 2 * plan.num_frames}, 2.0))
    return found


def _usual(plan: TrainingPlan, changed: dict[str, Any]) -> str:
    return ", ".join(f"{getattr(plan, name)}" for name in changed)


def _told(found: Estimate, changed: dict[str, Any], other: FittedProbe) -> str:
    words = {"image_size": "Pictures of {} pixels", "num_frames": "{} frames"}
    what = ", ".join(words[name].format(value) for name, value in changed.items())
    gained = in_percent(asdict(found), is_difference=True)
    return f"{what} were tried too: {gained} points for {other.result.best.in_words}, which may be chance."
