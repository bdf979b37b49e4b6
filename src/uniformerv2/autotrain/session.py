"""A training from its options to a tested model: ``train``, and ``prepare`` for whoever wants to see the plan first.

outcome = train("videos", epochs=5, freeze_backbone=True)          prepared = prepare(TrainOptions(data="videos"))
outcome.model                                                      prepared.plan, prepared.cost
outcome = prepared.run()
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.autotrain.choose import make_plan
from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.measure import Estimate, estimate, more_epochs
from uniformerv2.autotrain.plan import TrainingPlan, TrainOptions
from uniformerv2.autotrain.run import TrainingResult, augmentation_of, data_module, device_of, run_plan
from uniformerv2.autotrain.start import check_backbone, weights_to_fetch
from uniformerv2.core.console import Progress
from uniformerv2.core.devices import processor_name
from uniformerv2.core.files import free_bytes
from uniformerv2.core.messages import UsageError
from uniformerv2.data.annotations import check_files, read_records
from uniformerv2.data.check import VideoCheck, check_videos
from uniformerv2.data.named_videos import read_classes
from uniformerv2.data.splits import Splits, read_splits, without_unreadable
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.evaluation.curves import read_curves, still_falling
from uniformerv2.evaluation.page import facts_of
from uniformerv2.evaluation.report import write_report
from uniformerv2.evaluation.scores import Evaluation, views_in_words
from uniformerv2.evaluation.summary import Summary, summarize
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.scoring import VideoScorer
from uniformerv2.inference.strips import strips_of
from uniformerv2.inference.testing import TestRun, failures_unlogged
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.frozen import CachedDataModule, missing_bytes
from uniformerv2.training.progress import TrainProgress
from uniformerv2.training.stopping import stopping_at_once
from uniformerv2.zoo.checkpoint import save_model

if TYPE_CHECKING:
    import lightning.pytorch as lightning

__all__ = ["Outcome", "Prepared", "prepare", "train"]

CHECKED: Final = 5000
"""More videos are not opened before training starts; ``uniformerv2 data check`` does it."""
CHOSE_TOO: Final = "These videos chose the epoch too, so new videos may do a little worse."
STOPPED_IN_TEST: Final = (
    "Stopped in the final test; the model is written, and so is what was scored. The same command with --resume goes "
    "on from there."
)


@dataclass(frozen=True, kw_only=True)
class Outcome(TrainingResult):
    """What came out of a training and its test.

    Attributes:
        summary: Numbers of the test.
        scores: Its dump.
        report: A page on both.
        advice: A sentence where more epochs promise more; None where they do not.
    """

    summary: Summary
    scores: Path
    report: Path
    advice: str | None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A plan, and the network before its first step.

    Attributes:
        options: What the user decided.
        splits: The videos.
        plan: Every choice.
        network: With the weights that training starts from.
        cost: None where a stopped run is resumed.
        to_fetch: Weights that are not on this machine, so that the network has random ones; only in a dry run.
    """

    options: TrainOptions
    splits: Splits
    plan: TrainingPlan
    network: UniFormerV2
    cost: Estimate | None = None
    to_fetch: str | None = None

    def run(
        self,
        *,
        callbacks: Sequence[lightning.Callback] = (),
        command: Sequence[str] | None = None,
        progress: bool = True,
    ) -> Outcome:
        """Train, test, write the report; what was stopped is continued.

        Args:
            callbacks: For Lightning.
            command: Words of the command that trains so again, for the report.
            progress: Show on stderr how far it is.

        Raises:
            FolderInUseError: Another process trains in this folder.
            OSError: The folder cannot be written, or the disk is full.
            TrainingStoppedError: SIGINT or SIGTERM; what is needed to resume is written.
        """
        plan, network, splits, is_new = self.plan, self.network, self.splits, self.cost is not None
        folder = RunFolder(Path(plan.out))
        with folder.held():
            self.options.check()  # once more: a training may have ended here while this one was planned
            if is_new:
                folder.prepare()
                folder.check_room(network)  # before features are cached
                folder.write(plan, network, self.options.request())
                folder.forget_test()
            shown = TrainProgress(plan.monitor)
            result = run_plan(
                network,
                splits,
                plan,
                callbacks=[*([shown] if progress else []), *callbacks],
                resume=not is_new,
                progress=progress,
            )
            with stopping_at_once(STOPPED_IN_TEST):
                summary, page = _test(network, splits, plan, folder, command or (), result, progress=progress)
        falling = still_falling(read_curves(folder.logs))
        return Outcome(
            **{name: getattr(result, name) for name in TrainingResult.__dataclass_fields__},
            summary=summary,
            scores=folder.scores,
            report=page,
            advice=more_epochs(plan, falling, seconds_per_epoch=shown.left.seconds_per_epoch),
        )


def train(
    data: str | Path, *, callbacks: Sequence[lightning.Callback] = (), progress: bool = True, **options: Any
) -> Outcome:
    """Train on a folder or list of videos, test the result and write a report: what ``uniformerv2 train`` does.

    Args:
        data: Folder of class folders, list, CSV, folder of lists.
        callbacks: For Lightning.
        progress: Show on stderr how far it is.
        **options: Fields of ``TrainOptions``; what is left out is chosen, with a reason in the plan.

    Raises:
        UsageError: There are no such data, the folder is taken, or options contradict each other.
        ValueError: The videos cannot be trained on.
        TrainingStoppedError: SIGINT or SIGTERM; ``resume=True`` continues.
    """
    prepared = prepare(TrainOptions(data=str(data), **options), progress=progress)
    return prepared.run(callbacks=callbacks, progress=progress)


def prepare(options: TrainOptions, *, dry_run: bool = False, progress: bool = True) -> Prepared:
    """Look at the videos, make every choice (or take it from a run that is resumed), and measure what it will cost.

    Args:
        options: What the user decided.
        dry_run: Nothing will be trained: nothing is fetched, and little is measured.
        progress: Show on stderr how far it is.

    Raises:
        UsageError: There are no such data, the folder is taken, or options contradict each other.
        ValueError: The videos cannot be trained on, or weights cannot be had.
    """
    options.check(dry_run=dry_run)
    if options.backbone is not None:
        check_backbone(options.backbone)
    folder = RunFolder(options.folder.path)
    is_resumed = options.resume and folder.last.exists()
    if is_resumed and (changed := options.changes(folder.request())):
        raise UsageError(f"--resume goes on with the same command; changed: {', '.join(changed)}.")
    splits, told = _readable(_read(options, folder), options, progress=progress)
    if is_resumed:
        return _take_up(options, folder, splits)
    device = device_of(options)
    with Progress("load the network", None, has_bar=False, is_quiet=not progress):  # a download has its own
        plan, network = make_plan(options, splits, device=device, fetch=not dry_run)
    plan = _on_disk(plan, network, splits)
    plan = replace(plan, warnings=(*told, *plan.warnings), videos_digest=_digest(options, splits))
    size = {"num_frames": plan.num_frames, "image_size": plan.image_size}
    preprocessing = Preprocessing.from_dict({**network.info.preprocessing, **size})
    with Progress("measure a few steps", None, is_quiet=not progress):
        augmentation = augmentation_of(plan.augmentation, image_size=plan.image_size, flip=plan.flip)
        cost = estimate(network, plan, preprocessing, augmentation, splits.train, device=device, is_rough=dry_run)
    to_fetch = weights_to_fetch(plan.start, network, weights=plan.backbone_weights) if dry_run else None
    return Prepared(options=options, splits=splits, plan=plan, network=network, cost=cost, to_fetch=to_fetch)


def _read(options: TrainOptions, folder: RunFolder) -> Splits:
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


def _readable(splits: Splits, options: TrainOptions, *, progress: bool) -> tuple[Splits, list[str]]:
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


def _take_up(options: TrainOptions, folder: RunFolder, splits: Splits) -> Prepared:
    """What a stopped run had planned.

    Raises:
        UsageError: The data are not the same.
    """
    plan, network = folder.read()
    if (plan.num_train, plan.num_val, plan.class_names) != (len(splits.train), len(splits.val), splits.class_names):
        raise UsageError(
            f"--resume goes on with the same videos: there were {plan.num_train} to train and {plan.num_val} to "
            f"validate, now there are {len(splits.train)} and {len(splits.val)}, or the classes have changed."
        )
    if plan.videos_digest and plan.videos_digest != _digest(options, splits):  # without one, it began before we kept it
        raise UsageError(
            f"--resume goes on with the same videos: their number is as it was, but not what they are called, their "
            f"order, or which of them have which class, segment or split. Put {options.data} back as it was, or train "
            "anew with another folder for --out."
        )
    num_workers = plan.num_workers if options.num_workers is None else options.num_workers
    plan = replace(plan, out=str(folder.path), device=options.device, num_workers=num_workers)
    return Prepared(options=options, splits=splits, plan=plan, network=network)


def _digest(options: TrainOptions, splits: Splits) -> str:
    """The same wherever DATA lies."""
    data = Path(options.data)
    return splits.digest(options.root or (data if data.is_dir() else data.parent))


def _on_disk(plan: TrainingPlan, network: UniFormerV2, splits: Splits) -> TrainingPlan:
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


def _test(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    folder: RunFolder,
    command: Sequence[str],
    result: TrainingResult,
    *,
    progress: bool,
) -> tuple[Summary, Path]:
    """Test the trained network with all views, note the numbers on its card, write its scores and the report.

    Without test videos the validation videos are tested on. A test that was stopped goes on where it was.
    """
    predictor = Predictor(copy.deepcopy(network).merge_linear(), num_clips=plan.num_clips, num_crops=plan.num_crops)
    scorer = VideoScorer(
        predictor, is_multi_label=plan.is_multi_label, keep_view_scores=True, num_workers=plan.num_workers
    )
    tested_on = f"{plan.num_test} test videos" if plan.num_test else f"the {plan.num_val} validation videos"
    info = {"checkpoint": str(folder.model), "data": f"{plan.data}: {tested_on}", "training": _training(plan)}
    run = TestRun(scorer, splits.test or splits.val, dump=folder.scores, info=info)
    with Progress("test", run.num_videos, done=run.num_done, is_quiet=not progress) as bar, failures_unlogged():
        for video in run.videos():
            bar.advance(is_bad=not video.is_readable)
    evaluation = run.finish()
    assert evaluation is not None  # the only process
    with Progress("write the report", None, is_quiet=not progress):
        return _write(network, splits, plan, folder, evaluation, command, tested_on, result)


def _write(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    folder: RunFolder,
    evaluation: Evaluation,
    command: Sequence[str],
    tested_on: str,
    result: TrainingResult,
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
        curves=folder.logs,
        commands=[shlex.join(command)] if command else [],
        title=f"Training on {Path(plan.data).name}",
        summary=summary,
        kept_epoch=result.epoch,
        facts={**facts_of(datetime.now(UTC), processor=processor_name()), "Tested on": tested_on},
        notes=[
            f"Kept: {result.chosen}; {plan.monitor} {result.val_score:.4f}.",
            "The validation videos chose the epoch; none of them is among these." if plan.num_test else CHOSE_TOO,
        ],
        model=str(folder.model),
    )
    return summary, page


def _training(plan: TrainingPlan) -> dict[str, str]:
    """The choices that a reader asks for first."""
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
