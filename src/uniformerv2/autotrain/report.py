"""The end of a training: the test of the result with all views, its card, and the report."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from uniformerv2.autotrain.contest import Contest
from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.plan import TrainingPlan
from uniformerv2.autotrain.probing import probe_in_words
from uniformerv2.autotrain.run import TrainingResult
from uniformerv2.core.console import Progress
from uniformerv2.core.devices import processor_name
from uniformerv2.core.messages import counted
from uniformerv2.data.splits import Splits
from uniformerv2.evaluation.page import facts_of
from uniformerv2.evaluation.report import write_report
from uniformerv2.evaluation.scores import Evaluation, views_in_words
from uniformerv2.evaluation.summary import Summary, summarize
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.scoring import VideoScorer
from uniformerv2.inference.strips import strips_of
from uniformerv2.inference.testing import TestRun, failures_unlogged
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import save_model

__all__ = ["test_and_report"]

CHOSE_TOO: Final = "These videos chose the epoch too, so new videos may do a little worse."


def test_and_report(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    folder: RunFolder,
    command: Sequence[str],
    result: TrainingResult,
    contest: Contest | None,
    *,
    progress: bool,
) -> tuple[Summary, Path]:
    """Test the result with all views, note the numbers on its card, write its scores and the report.

    Without test videos the validation videos are tested on. A test that was stopped goes on where it was.
    """
    predictor = Predictor(copy.deepcopy(network).merge_linear(), num_clips=plan.num_clips, num_crops=plan.num_crops)
    scorer = VideoScorer(
        predictor, is_multi_label=plan.is_multi_label, keep_view_scores=True, num_workers=plan.num_workers
    )
    tested_on = counted(plan.num_test, "test video")
    if not plan.num_test:
        tested_on = f"the {counted(plan.num_val, 'validation video')}"
    info = {"checkpoint": str(folder.model), "data": f"{plan.data}: {tested_on}", "training": _training(plan)}
    run = TestRun(scorer, splits.test or splits.val, dump=folder.scores, info=info)
    with Progress("test", run.num_videos, done=run.num_done, is_quiet=not progress) as bar, failures_unlogged():
        for video in run.videos():
            bar.advance(is_bad=not video.is_readable)
    evaluation = run.finish()
    assert evaluation is not None  # the only process
    with Progress("write the report", None, is_quiet=not progress):
        return _write(network, splits, plan, folder, evaluation, command, tested_on, result, contest)


def _write(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    folder: RunFolder,
    evaluation: Evaluation,
    command: Sequence[str],
    tested_on: str,
    result: TrainingResult,
    contest: Contest | None,
) -> tuple[Summary, Path]:
    """The card, the model with it, and the page."""
    summary = summarize(evaluation)
    tested = {f"test_{name}": round(estimate.value, 6) for name, estimate in summary.all_videos.items()}
    protocol = f"{views_in_words(plan.num_clips, plan.num_crops)} of {tested_on}"
    both = {} if contest is None else {"val_network": contest.network, "val_probe": contest.probe}
    network.info = replace(network.info, metrics={**network.info.metrics, **both, **tested, "test_protocol": protocol})
    save_model(network.cpu(), folder.model)
    page = write_report(
        evaluation,
        folder.report,
        strips=strips_of(record.path for record in splits.test or splits.val),
        curves=[] if plan.probe else folder.logs,
        commands=[shlex.join(command)] if command else [],
        title=f"{'Probe of' if plan.probe else 'Training on'} {Path(plan.data).name}",
        summary=summary,
        kept_epoch=result.epoch,
        facts={**facts_of(datetime.now(UTC), processor=processor_name()), "Tested on": tested_on},
        notes=_notes(plan, result, contest),
        model=str(folder.model),
    )
    return summary, page


def _notes(plan: TrainingPlan, result: TrainingResult, contest: Contest | None) -> list[str]:
    """How the result was chosen, and what the probe found."""
    probed = [*probe_in_words(plan.probed, with_scores=True), *plan.probed.get("told", ())]
    if plan.probe:
        return [f"Kept: {result.chosen}.", *probed]
    chose = "The validation videos chose the epoch; none of them is among these." if plan.num_test else CHOSE_TOO
    compared = [] if contest is None else contest.in_words()
    if contest is not None and contest.is_lost:
        return [*compared, f"The network: {result.chosen}; {plan.monitor} {result.val_score:.4f}.", *probed]
    return [f"Kept: {result.chosen}; {plan.monitor} {result.val_score:.4f}.", chose, *compared, *probed]


def _training(plan: TrainingPlan) -> dict[str, str]:
    """The choices that a reader asks for first."""
    if plan.probe:
        of_probe = ("num_frames", "image_size", "precision", "seed", "num_train")
        return {"backbone": plan.start, **{name: str(getattr(plan, name)) for name in of_probe}}
    shown = ("preset", "backbone", "freeze_backbone", "num_frames", "image_size", "batch_size", "learning_rate")
    chosen = {**asdict(plan), "backbone": plan.start}
    rate, video_blocks_scale = plan.rates.learning_rate, plan.rates.video_blocks_scale
    chosen["learning_rate"] = f"{rate:.3g}"
    if not plan.freeze_backbone:
        chosen["learning_rate"] += f" (backbone), {rate * video_blocks_scale:.3g} (video blocks)"
    return {
        name: str(chosen[name])
        for name in (*shown, "epochs", "augmentation", "label_smoothing", "precision", "seed", "num_train")
    }
