"""What follows a training: the test with many views, its scores, and a report of both."""

from __future__ import annotations

import copy
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from uniformerv2.autotrain.plan import TrainingPlan
from uniformerv2.autotrain.run import RunFolder, TrainingResult
from uniformerv2.commands.progress import Progress
from uniformerv2.commands.score_table import failures_unlogged, print_summary
from uniformerv2.commands.train_advice import more_epochs
from uniformerv2.data.splits import Splits
from uniformerv2.evaluation.curves import read_curves, still_falling
from uniformerv2.evaluation.journal import journal_folder
from uniformerv2.evaluation.report import write_report
from uniformerv2.evaluation.scores import Evaluation, views_in_words
from uniformerv2.evaluation.summary import Summary, summarize
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.scoring import VideoScorer
from uniformerv2.inference.strips import strips_of
from uniformerv2.inference.testing import TestRun
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import save_model

__all__ = ["forget_test", "show_result", "test_and_report"]


def forget_test(folder: RunFolder) -> None:
    """Remove the scores of an earlier training in this folder, which a new one could not go on with."""
    folder.scores.unlink(missing_ok=True)
    shutil.rmtree(journal_folder(folder.scores), ignore_errors=True)


def test_and_report(
    network: UniFormerV2, splits: Splits, plan: TrainingPlan, folder: RunFolder, words: Sequence[str]
) -> tuple[Summary, Path]:
    """Test a trained network with all views, note the numbers on its card, write its scores and the report.

    A test that was stopped goes on where it was.

    Args:
        network: As ``train`` leaves it.
        splits: The videos; without test videos the validation videos are tested on.
        plan: How it was trained, and the views of the test.
        folder: Of the run.
        words: The command that was typed.

    Returns:
        The numbers, and the page.
    """
    predictor = Predictor(copy.deepcopy(network).merge_linear(), num_clips=plan.num_clips, num_crops=plan.num_crops)
    scorer = VideoScorer(
        predictor, is_multi_label=plan.is_multi_label, keep_view_scores=True, num_workers=plan.num_workers
    )
    tested_on = f"{plan.num_test} test videos" if plan.num_test else f"the {plan.num_val} validation videos"
    info = {"checkpoint": str(folder.model), "data": f"{plan.data}: {tested_on}", "training": _training(plan)}
    run = TestRun(scorer, splits.test or splits.val, dump=folder.scores, info=info)
    with Progress("test", run.num_videos, done=run.num_done) as progress, failures_unlogged():
        for video in run.videos():
            progress.advance(is_bad=not video.is_readable)
    evaluation = run.finish()
    assert evaluation is not None  # the only process
    with Progress("write the report", None):
        return _write(network, splits, plan, folder, evaluation, words, tested_on)


def _write(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    folder: RunFolder,
    evaluation: Evaluation,
    words: Sequence[str],
    tested_on: str,
) -> tuple[Summary, Path]:
    """The card, the model with it, and the page."""
    summary = summarize(evaluation)
    tested = {f"test_{name}": round(estimate.value, 6) for name, estimate in summary.all_videos.items()}
    protocol = f"{views_in_words(plan.num_clips, plan.num_crops)} of {tested_on}"
    network.info = replace(network.info, metrics={**network.info.metrics, **tested, "test_protocol": protocol})
    save_model(network.cpu(), folder.model)
    page = write_report(
        evaluation,
        folder.report,
        strips=strips_of(record.path for record in splits.test or splits.val),
        curves=_logs(folder),
        commands=[shlex.join(["uniformerv2", *words])],
        title=f"Training on {Path(plan.data).name}",
        summary=summary,
    )
    return summary, page


def show_result(
    console: Console,
    plan: TrainingPlan,
    splits: Splits,
    result: TrainingResult,
    summary: Summary,
    *,
    seconds_per_epoch: float | None,
) -> None:
    """What was kept, its numbers, whether more epochs promise more, where it is and how it is used.

    Args:
        console: Where to.
        plan: What was done.
        splits: The videos.
        result: Of the training.
        summary: Of the test.
        seconds_per_epoch: None where no epoch was timed.
    """
    where = "test videos" if plan.num_test else "validation videos"
    views = views_in_words(plan.num_clips, plan.num_crops)
    console.print(f"\nKept: {result.chosen}; {plan.monitor} {result.val_score:.4f}.", markup=False)
    console.print(f"{plan.num_test or plan.num_val} {where}, {views} of each:", markup=False)
    print_summary(console, {"": summary})
    if not plan.num_test:
        console.print(
            "These videos chose the epoch too, so new videos may do a little worse.", style="dim", markup=False
        )
    falling = still_falling(read_curves(_logs(RunFolder(Path(plan.out)))))
    if advice := more_epochs(plan, falling, seconds_per_epoch=seconds_per_epoch):
        console.print(advice, markup=False)
    console.print(f"Model: {result.model}   log: {result.log}", markup=False)
    example = splits.val[0].path
    command = shlex.join(["uniformerv2", "predict", example, "--model", str(result.model)])
    console.print(f"Use it: {command}", markup=False)


def _training(plan: TrainingPlan) -> dict[str, str]:
    """The choices that a reader asks for first."""
    shown = ("preset", "backbone", "freeze_backbone", "num_frames", "image_size", "batch_size", "learning_rate")
    chosen = asdict(plan)
    rate, video_blocks_scale = plan.rates.learning_rate, plan.rates.video_blocks_scale
    chosen["learning_rate"] = f"{rate:.3g}"
    if not plan.freeze_backbone:
        chosen["learning_rate"] += f" (backbone), {rate * video_blocks_scale:.3g} (video blocks)"
    return {name: str(chosen[name]) for name in (*shown, "epochs", "augmentation", "precision", "seed", "num_train")}


def _logs(folder: RunFolder) -> list[Path]:
    """One for each time the training was started, in order."""
    return sorted(
        folder.path.glob("logs/version_*/metrics.csv"), key=lambda log: int(log.parent.name.removeprefix("version_"))
    )
