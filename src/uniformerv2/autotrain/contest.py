"""The trained network and the probe on the same validation videos: the better one is the result."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.plan import TrainingPlan
from uniformerv2.core.console import Progress
from uniformerv2.data.splits import Splits
from uniformerv2.evaluation.comparison import compare
from uniformerv2.evaluation.metrics import ScoreTable, measure
from uniformerv2.evaluation.scores import Evaluation
from uniformerv2.evaluation.summary import Estimate, differences
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.scoring import VideoScorer
from uniformerv2.inference.testing import TestRun, failures_unlogged
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import load_model

__all__ = ["Contest", "against_probe"]

TRY: Final = (
    "What to try: more epochs (--epochs), another --learning-rate, the other --preset, or more videos; docs/probe.md "
    "says what each is good for."
)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """How the trained network compares with the probe.

    Attributes:
        network: Its accuracy, or mean average precision, on one view of each validation video.
        probe: That of the probe.
        difference: Network minus probe, paired, with its 95 % interval.
        num_videos: Validation videos.
        result: The better one; the network where both are alike.
        other: The folder of the other one.
    """

    network: float
    probe: float
    difference: Estimate
    num_videos: int
    result: UniFormerV2
    other: Path

    @property
    def is_lost(self) -> bool:
        """Whether the probe is the result."""
        return self.network < self.probe

    def in_words(self) -> list[str]:
        """Both numbers, which one is kept, and where the other is."""
        value, low, high = (100 * each for each in (self.difference.value, self.difference.low, self.difference.high))
        kept = "probe" if self.is_lost else "trained network"
        sentences = [
            f"On one view of each validation video ({self.num_videos}) the trained network reaches "
            f"{100 * self.network:.2f} % and the probe {100 * self.probe:.2f} %: a difference of {value:+.1f} points "
            f"(95 % interval {low:+.1f} to {high:+.1f}).",
            f"The result is the {kept}; the other one is kept in {self.other}.",
        ]
        return [*sentences, TRY] if self.is_lost else sentences


def against_probe(
    network: UniFormerV2, splits: Splits, plan: TrainingPlan, folder: RunFolder, *, progress: bool
) -> Contest | None:
    """Compare the trained network with the probe of the same training.

    A comparison that was stopped goes on where it was.

    Args:
        network: As it was chosen.
        splits: The videos.
        plan: What was done.
        folder: Where the probe is.
        progress: Show on stderr how far it is.

    Returns:
        None where the training had no probe.
    """
    if not folder.has_probe:
        return None
    probe = load_model(folder.probe)
    names = (("the network", network, folder.val_scores), ("the probe", probe, folder.probe_scores))
    after, before = (_scores(what, model, splits, plan, path, progress=progress) for what, model, path in names)
    several = plan.is_multi_label
    found = differences(before, after)["mean_ap"] if several else compare(before, after).difference
    value = {what: _value(scores) for what, scores in (("network", after), ("probe", before))}
    is_lost = value["network"] < value["probe"]
    return Contest(
        **value,
        difference=found,
        num_videos=len(splits.val),
        result=probe if is_lost else network,
        other=folder.network if is_lost else folder.probe,
    )


def _scores(
    what: str, model: UniFormerV2, splits: Splits, plan: TrainingPlan, dump: Path, *, progress: bool
) -> Evaluation:
    """The scores of one view of each validation video."""
    predictor = Predictor(copy.deepcopy(model).merge_linear(), num_clips=1, num_crops=1)
    scorer = VideoScorer(predictor, is_multi_label=plan.is_multi_label, num_workers=plan.num_workers)
    run = TestRun(scorer, splits.val, dump=dump)
    bar = Progress(f"validate {what}", run.num_videos, done=run.num_done, is_quiet=not progress)
    with bar, failures_unlogged():
        for video in run.videos():
            bar.advance(is_bad=not video.is_readable)
    evaluation = run.finish()
    assert evaluation is not None  # the only process
    return evaluation


def _value(evaluation: Evaluation) -> float:
    found = measure(ScoreTable.of(evaluation))
    return float(found["mean_ap" if evaluation.is_multi_label else "top1"])
