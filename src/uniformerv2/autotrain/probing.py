"""The probe of a training: on which clips it runs, what is decided by it, and the network that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch

from uniformerv2.autotrain.fitting import device_of
from uniformerv2.autotrain.measure import MOST_CLIPS, Estimate
from uniformerv2.autotrain.plan import FEW_VIDEOS, TrainingPlan, TrainOptions
from uniformerv2.autotrain.probe import IN_WORDS, ROWS, ClipStatistics, Probe, ProbeResult, ProbeRow
from uniformerv2.autotrain.probe_features import cached_statistics, clip_statistics, spread_evenly
from uniformerv2.autotrain.run import data_module
from uniformerv2.core.console import Progress
from uniformerv2.core.messages import counted, duration
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.splits import Splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.frozen import CachedDataModule
from uniformerv2.zoo.runs import random_network

__all__ = [
    *("Decision", "FittedProbe", "can_start_at", "decide", "in_percent", "probe_in_words", "probe_network"),
    *("probe_videos", "start_at_probe"),
]

SHARE: Final = 0.1
"""Of the estimated time of the training, what the probe before it may take."""
CLIPS_PER_CLASS: Final = 4
"""Fewer say nothing."""
NOT_HELD_OUT: Final = "No class has two sources, so nothing could be held out: these numbers say nothing of new videos."
FROZEN_AT_PROBE: Final = (
    "What moves tells the classes apart. The backbone stays frozen, as with few videos it soon loses what the probe "
    "reads of it where it learns; --no-freeze-backbone lets it learn."
)
ENOUGH: Final = 0.95
"""A frozen backbone is enough where at least this part is right of videos that were held out, as the interval says."""


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A probe of the training videos.

    Attributes:
        result: What tells the classes apart.
        network: The best row as a network: the frozen backbone, statistics of its tokens, a linear head.
        told: On which clips, where not on all; in sentences.
        num_left: For how many more clips there would have been time.
    """

    result: ProbeResult
    network: UniFormerV2
    told: tuple[str, ...] = ()
    num_left: int = 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the probe decides.

    Attributes:
        options: The user's, with what was left open.
        why: Name of a field of the plan -> why it has its value.
        told: What is not in the plan's table; in sentences.
        starts_at_probe: An image ViT that is armed anew starts at the probe, see ``start_at_probe``.
    """

    options: TrainOptions
    why: Mapping[str, str]
    told: tuple[str, ...]
    starts_at_probe: bool = False


def probe_videos(
    plan: TrainingPlan, network: UniFormerV2, splits: Splits, cost: Estimate | None, *, progress: bool
) -> FittedProbe | None:
    """Fit a probe to the training videos, or as many of them as its time allows.

    Where features are cached and there is no time for more, the probe reads the first augmented view of each training
    video in that cache, which training reads too.

    Args:
        plan: What will be done.
        network: Before its first step.
        splits: The videos.
        cost: What the plan costs; None: the probe may take as long as it needs.
        progress: Show on stderr how far it is.

    Returns:
        None where there is no time for as many clips as say something.
    """
    data = data_module(network, splits, plan)
    fitting = int(SHARE * cost.total_seconds / max(cost.clip_seconds, 1e-6)) if cost is not None else MOST_CLIPS
    is_cached = isinstance(data, CachedDataModule) and fitting < min(len(splits.train), MOST_CLIPS)
    most = MOST_CLIPS if is_cached else min(MOST_CLIPS, fitting)
    records = spread_evenly(splits.train, most)
    if len(records) < min(len(splits.train), CLIPS_PER_CLASS * len(splits.class_names)):
        return None
    if is_cached:
        assert isinstance(data, CachedDataModule)
        clips = _from_cache(data, network, records, splits, progress=progress)
    else:
        clips = _from_videos(plan, network, records, splits, progress=progress)
    if not plan.is_multi_label and clips.target.any(axis=0).sum() < 2:
        return None
    with Progress("compare what tells the classes apart", None, is_quiet=not progress):
        result = Probe(seed=plan.seed)(clips)
        best = probe_network(network, result.best, splits.class_names)
    told: tuple[str, ...] = ()
    if len(records) < len(splits.train):
        limit = f"more than a tenth of the training's {duration(cost.total_seconds)}" if cost else "more than it gains"
        seen = f"{len(records)} of {counted(len(splits.train), 'training video')}"
        told = (f"The probe saw {seen}; all would take {limit}.",)
    num_left = max(0, fitting - len(records)) if cost is not None and len(records) == len(splits.train) else 0
    return FittedProbe(result=result, network=best, told=told, num_left=num_left)


def _from_cache(
    data: CachedDataModule, network: UniFormerV2, records: Sequence[VideoRecord], splits: Splits, *, progress: bool
) -> ClipStatistics:
    with Progress("cache features", len(splits.train), is_quiet=not progress) as bar:
        data.open_cache(network)
        data.fill_cache(network, only_first_view=True, on_clips=bar.advance)
    return cached_statistics(data, network, records, class_names=splits.class_names)


def _from_videos(
    plan: TrainingPlan, network: UniFormerV2, records: Sequence[VideoRecord], splits: Splits, *, progress: bool
) -> ClipStatistics:
    with Progress("probe videos", len(records), is_quiet=not progress) as bar:
        return clip_statistics(
            network,
            records,
            class_names=splits.class_names,
            is_multi_label=plan.is_multi_label,
            device=device_of(plan),
            is_bfloat16=plan.precision.startswith("bf16"),
            num_workers=plan.num_workers,
            on_clips=bar.advance,
        )


def probe_network(network: UniFormerV2, row: ProbeRow, class_names: Sequence[str]) -> UniFormerV2:
    """The backbone of a network with statistics of its last tokens and a linear head, in our format.

    Args:
        network: Left as it is; its embedding and blocks are copied.
        row: Which statistics, and the head.
        class_names: In head order.
    """
    last = network.config.depth - 1
    config = replace(
        network.config,
        fusion="statistics",
        fusion_stages=(last,),
        statistics=ROWS[row.name],
        global_dropout=(0.0,),
        classifier_dropout=0.0,
        use_gate=False,
        num_classes=len(class_names),
    )
    size = {"num_frames": network.config.num_frames, "image_size": network.config.image_size}
    info = replace(
        network.info,
        preprocessing=Preprocessing.from_dict({**size, **network.info.preprocessing}).to_dict(),
        class_names=tuple(class_names),
        is_multi_label=row.head.is_multi_label,
        metrics={},
        source=f"probe of {network.info.source}",
    )
    made = random_network(config, info)
    own = made.state_dict()
    state = {name: value for name, value in network.state_dict().items() if name.startswith(("embedding.", "blocks."))}
    head = {
        "norm.weight": row.head.scale,
        "norm.bias": -row.head.mean * row.head.scale,
        "head.weight": row.head.weight,
        "head.bias": row.head.bias,
    }
    state |= {name: torch.as_tensor(value).to(own[name].dtype) for name, value in head.items()}
    made.load_state_dict(state)
    return made.eval()


def can_start_at(probe: FittedProbe, network: UniFormerV2) -> bool:
    """Whether a probe read the image ViT that a network arms, in clips of the same size."""
    own, read = network.config, probe.network.config
    size = own.backbone, own.image_size, own.num_frames
    return own.backbone is not None and size == (read.backbone, read.image_size, read.num_frames)


def start_at_probe(network: UniFormerV2, probe: FittedProbe) -> UniFormerV2:
    """A network that says before its first step what the probe says.

    Its head reads the probe's best statistics beside the video token, with the probe's weights and zeros for the video
    token. The probe reads frames, so that tubelets are of one frame.

    Args:
        network: Armed anew, left as it is; see ``can_start_at``.
        probe: Of its image ViT.
    """
    config = replace(network.config, statistics=probe.network.config.statistics, tubelet_size=1, tubelet_kernel_size=1)
    made = random_network(config, network.info)
    read, state = probe.network.state_dict(), network.state_dict()
    state |= {name: value for name, value in read.items() if name.startswith("embedding.")}
    state |= {f"norm.statistics.{name}": read[f"norm.{name}"] for name in ("weight", "bias")}
    of_video_token = torch.zeros(config.num_classes, config.dim)
    state |= {"head.weight": torch.cat([of_video_token, read["head.weight"]], dim=1), "head.bias": read["head.bias"]}
    made.load_state_dict(state)
    return made.eval()


def decide(result: ProbeResult, options: TrainOptions, *, network: UniFormerV2, num_train: int = 0) -> Decision:
    """What the user left open, decided by the numbers of the probe.

    Args:
        result: The probe's.
        options: The user's.
        network: Of the plan, which tells whether its features could be cached.
        num_train: Training videos; of many the backbone learns in any case.
    """
    decided: dict[str, Any] = {}
    why: dict[str, str] = {}
    told: list[str] = []
    if not result.is_held_out:
        return Decision(options=options, why={}, told=("The probe has too few sources to decide anything.",))
    moving = max((result["motion"], result["order"]), key=lambda row: row.score.value)
    is_moving = moving.above_appearance.low > 0
    rows = dict.fromkeys((result["appearance"].name, moving.name, result.best.name))
    numbers = ", ".join(f"{name} {in_percent(asdict(result[name].score))}" for name in rows)
    best = result.best
    is_known = best.score.low > result.chance
    starts = is_known and (best.name in {"motion", "order"} or (is_moving and best.name == "all"))
    keeps_frames = starts and num_train < FEW_VIDEOS and options.model is None and network.config.backbone is not None
    if options.preset is None and keeps_frames:
        decided["preset"] = "scene"
        why["preset"] = f"frames alone, as the probe reads them: {numbers}"
        if options.freeze_backbone is None:
            decided |= {"freeze_backbone": True, "cache_features": True}
            told.append(FROZEN_AT_PROBE)
    elif options.preset is None and is_moving and options.cache_features:
        told.append(
            f"What moves tells the classes apart better than what is seen ({numbers}), but the preset is scene, as "
            "--cache-features excludes motion."
        )
    elif options.preset is None:
        decided["preset"] = "motion" if is_moving else "scene"
        why["preset"] = f"the probe, of videos held out: {numbers}"
    is_enough = result.measure == "top1" and best.score.low >= ENOUGH
    is_scene = decided.get("preset", options.preset) == "scene" and not network.config.num_local_steps
    if options.freeze_backbone is None and not decided.get("freeze_backbone") and is_enough and is_scene:
        decided |= {"freeze_backbone": True, "cache_features": True}
        told.append(
            f"The backbone stays frozen, as that is enough: the probe has {in_percent(asdict(best.score))} of the "
            "held-out videos right. --no-freeze-backbone lets it learn."
        )
    return Decision(options=replace(options, **decided), why=why, told=tuple(told), starts_at_probe=starts)


def probe_in_words(probed: Mapping[str, Any], *, with_scores: bool = False) -> list[str]:
    """What a probe found, in sentences.

    Args:
        probed: ``ProbeResult.to_dict``; empty without a probe.
        with_scores: Also the score of each row, for where there is no table.
    """
    if "rows" not in probed:
        return []
    what = "mean average precision" if probed["measure"] == "mean_ap" else "accuracy"
    sources = f"{counted(probed['num_clips'], 'clip')} of {counted(probed['num_sources'], 'source')}"
    held_out = f"held out in {probed['num_folds']} folds" if probed["num_folds"] else "to which it was fitted"
    found = (
        f"The probe: {what} of logistic regression on statistics of the frozen backbone's tokens, of {sources}, "
        f"{held_out}"
    )
    if with_scores:
        scores = ", ".join(f"{name} {in_percent(row['score'])}" for name, row in probed["rows"].items())
        found += f": {scores}; without looking {100 * probed['chance']:.1f} %"
    pairs = [f"{pair['true']} taken for {pair['predicted']} ({pair['count']})" for pair in probed["confusion"]]
    best = IN_WORDS.get(probed["best"], probed["best"])
    confused = [f"What the probe of {best} still confuses: {', '.join(pairs)}."] if pairs else []
    return [f"{found}.", *([] if probed["num_folds"] else [NOT_HELD_OUT]), *confused]


def in_percent(score: Mapping[str, float], *, is_difference: bool = False) -> str:
    """A score with its interval.

    >>> in_percent({"value": 0.7, "low": 0.61, "high": 0.794})
    '70.0 % (61 to 79)'
    >>> in_percent({"value": 0.071, "low": -0.02, "high": 0.1}, is_difference=True)
    '+7.1 (-2 to +10)'
    """
    value, low, high = (100 * score[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.0f} to {high:+.0f})" if is_difference else f"{value:.1f} % ({low:.0f} to {high:.0f})"
