"""A training from its options to a tested model: ``train``, and ``prepare`` for whoever wants to see the plan first.

outcome = train("videos", epochs=5, freeze_backbone=True)          prepared = prepare(TrainOptions(data="videos"))
outcome.model                                                      prepared.plan, prepared.cost
outcome = prepared.run()
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.autotrain.advice import more_epochs
from uniformerv2.autotrain.budget import fit_budget, seconds_after
from uniformerv2.autotrain.choose import DEFAULT_STARTS, make_plan
from uniformerv2.autotrain.contest import Contest, against_probe
from uniformerv2.autotrain.fitting import device_of
from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.measure import Estimate, estimate
from uniformerv2.autotrain.plan import TrainingPlan, TrainOptions
from uniformerv2.autotrain.probe import IN_WORDS
from uniformerv2.autotrain.probe_sizes import choose_size
from uniformerv2.autotrain.probing import FittedProbe, decide, probe_videos
from uniformerv2.autotrain.report import test_and_report
from uniformerv2.autotrain.run import TrainingResult, augmentation_of, run_plan
from uniformerv2.autotrain.start import check_backbone, fetch_start, weights_to_fetch
from uniformerv2.autotrain.videos import digest_of, read_videos, readable, with_cache, within_disk
from uniformerv2.core.console import Progress
from uniformerv2.core.messages import UsageError, seconds_of
from uniformerv2.data.splits import Splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.evaluation.curves import read_curves, still_falling
from uniformerv2.evaluation.summary import Summary
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.progress import TrainProgress
from uniformerv2.training.stopping import stopping_at_once
from uniformerv2.zoo.checkpoint import load_model, save_model

if TYPE_CHECKING:
    import lightning.pytorch as lightning

__all__ = ["Outcome", "Prepared", "prepare", "train"]

LEFT_TO_PROBE: Final = (
    "Before it trains, a probe decides the preset and whether the backbone learns; this dry run leaves it out."
)
STARTS_AT_PROBE: Final = "Training starts at the probe: the head reads its statistics beside the video token."
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
        contest: How the trained network compares with the probe; None where there was no probe, or nothing else.
    """

    summary: Summary
    scores: Path
    report: Path
    advice: str | None
    contest: Contest | None = None


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
        probe: Of the training videos; None where there is none, or a stopped run is resumed.
        seconds: That it took to prepare, of the budget.
        is_resumed: A stopped run goes on.
    """

    options: TrainOptions
    splits: Splits
    plan: TrainingPlan
    network: UniFormerV2
    cost: Estimate | None = None
    to_fetch: str | None = None
    probe: FittedProbe | None = None
    seconds: float = 0.0
    is_resumed: bool = False

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
        plan, network, splits = self.plan, self.network, self.splits
        folder = RunFolder(Path(plan.out))
        with folder.held():
            self.options.check()  # once more: a training may have ended here while this one was planned
            if not self.is_resumed:
                self._begin(folder)
            if plan.probe:
                return self._finish_probe(folder, command or (), progress=progress)
            shown = TrainProgress(plan.monitor)
            result = run_plan(
                network,
                splits,
                plan,
                callbacks=[*([shown] if progress else []), *callbacks],
                resume=self.is_resumed,
                seconds=self._seconds_to_train(),
                progress=progress,
            )
            with stopping_at_once(STOPPED_IN_TEST):
                contest = against_probe(network, splits, plan, folder, progress=progress)
                if contest is not None and contest.is_lost:
                    save_model(network.cpu(), folder.network)
                kept = network if contest is None else contest.result
                summary, page = test_and_report(
                    kept, splits, plan, folder, command or (), result, contest, progress=progress
                )
        return self._outcome(folder, result, summary, page, contest, shown.left.seconds_per_epoch)

    def _begin(self, folder: RunFolder) -> None:
        """Write what is known before the first step."""
        plan, network = self.plan, self.network
        folder.prepare(has_checkpoints=not plan.probe)
        folder.check_room(network)  # before features are cached
        folder.write(plan, network, self.options.request())
        folder.forget_test()
        if self.probe is not None and not plan.probe:  # which is the model itself
            save_model(self.probe.network, folder.probe)

    def _outcome(
        self,
        folder: RunFolder,
        result: TrainingResult,
        summary: Summary,
        page: Path,
        contest: Contest | None,
        seconds_per_epoch: float | None,
    ) -> Outcome:
        """What came out, and what the curves advise."""
        curves = read_curves(folder.logs)
        _, val_losses = curves.get("val_loss", ((), ()))
        return Outcome(
            **{name: getattr(result, name) for name in TrainingResult.__dataclass_fields__},
            summary=summary,
            scores=folder.scores,
            report=page,
            advice=more_epochs(
                self.plan,
                still_falling(curves),
                seconds_per_epoch=seconds_per_epoch,
                val_losses=val_losses,
            ),
            contest=contest,
        )

    def _seconds_to_train(self) -> float | None:
        """What the budget leaves for the training; None where there is none, all of it where a stopped run goes on."""
        if self.options.budget is None:
            return None
        after = seconds_after(self.plan, self.cost, self.options) if self.cost else 0.0
        return seconds_of(self.options.budget) - self.seconds - after

    def _finish_probe(self, folder: RunFolder, command: Sequence[str], *, progress: bool) -> Outcome:
        """Test the probe, and write it as the result; of a stopped one, which is written, go on with its test."""
        network, probed = self.network, self.plan.probed
        if self.probe is not None:
            network = self.probe.network
            save_model(network, folder.model)
        best = probed["best"]
        result = TrainingResult(
            val_score=probed["rows"][best]["score"]["value"],
            chosen=f"the probe of {IN_WORDS.get(best, best)}, by {probed['num_folds']}-fold cross-validation",
            epoch=None,
            model=folder.model,
            best=None,
            last=None,
            log=None,
        )
        with stopping_at_once(STOPPED_IN_TEST):
            summary, page = test_and_report(
                network, self.splits, self.plan, folder, command, result, None, progress=progress
            )
        return Outcome(
            **{name: getattr(result, name) for name in TrainingResult.__dataclass_fields__},
            summary=summary,
            scores=folder.scores,
            report=page,
            advice=None,
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
    begun = time.monotonic()
    options.check(dry_run=dry_run)
    if options.backbone is not None:
        check_backbone(options.backbone)
    folder = RunFolder(options.folder.path)
    is_probe = options.resume and folder.has_finished_probe
    is_resumed = options.resume and (folder.last.exists() or is_probe)
    if is_resumed and (changed := options.changes(folder.request())):
        raise UsageError(f"--resume goes on with the same command; changed: {', '.join(changed)}.")
    splits = read_videos(options, folder)
    if not (dry_run or is_resumed or options.backbone_weights):
        has_gpu = device_of(options).type == "cuda"
        fetch_start(options.model or options.backbone or DEFAULT_STARTS[options.preset or "scene", has_gpu])
    splits, told = readable(splits, options, progress=progress)
    if is_resumed:
        return _take_up(options, folder, splits)
    prepared = _planned(options, splits, begun=begun, dry_run=dry_run, progress=progress)
    if not (dry_run or options.probe is False):
        prepared = _probed(prepared, options, begun=begun, progress=progress)
    plan = prepared.plan
    if dry_run and options.probe is None and options.preset is None:
        plan = replace(plan, probed={"told": [LEFT_TO_PROBE]})
    plan = replace(plan, warnings=(*told, *plan.warnings), videos_digest=digest_of(options, splits))
    to_fetch = weights_to_fetch(plan.start, prepared.network, weights=plan.backbone_weights) if dry_run else None
    return replace(prepared, options=options, plan=plan, to_fetch=to_fetch, seconds=time.monotonic() - begun)


def _planned(
    options: TrainOptions,
    splits: Splits,
    *,
    begun: float,
    why: Mapping[str, str] | None = None,
    start_at: FittedProbe | None = None,
    dry_run: bool = False,
    progress: bool,
) -> Prepared:
    """Every choice, the network, and what it will cost; within what is left of the budget where there is one."""
    once = partial(_planned_once, splits=splits, start_at=start_at, dry_run=dry_run, progress=progress)
    prepared = once(options, why=why)
    if options.budget is None or options.probe:
        return prepared

    def replan(changed: TrainOptions) -> tuple[TrainingPlan, Estimate]:
        other = once(changed)
        assert other.cost is not None  # nothing is resumed
        return other.plan, other.cost

    assert prepared.cost is not None
    left = seconds_of(options.budget) - (time.monotonic() - begun)
    fitting = fit_budget(options, (prepared.plan, prepared.cost), replan, seconds=left)
    if fitting.options != options:
        prepared = once(fitting.options, why={**(why or {}), **fitting.why})
    warnings = (*prepared.plan.warnings, *([fitting.told] if fitting.told else []))
    plan = replace(prepared.plan, warnings=warnings, most_epochs=fitting.most_epochs)
    return replace(prepared, plan=plan)


def _planned_once(options: TrainOptions, splits: Splits, *, dry_run: bool, progress: bool, **found: Any) -> Prepared:
    device = device_of(options)
    with Progress("load the network", None, has_bar=False, is_quiet=not progress):  # a download has its own
        plan, network = make_plan(options, splits, device=device, fetch=not dry_run, **found)
    plan = within_disk(plan, network, splits)
    size = {"num_frames": plan.num_frames, "image_size": plan.image_size}
    preprocessing = Preprocessing.from_dict({**network.info.preprocessing, **size})
    is_rough = dry_run or bool(options.probe) or options.budget is not None  # several plans may be measured
    with Progress("measure a few steps", None, is_quiet=not progress):
        augmentation = augmentation_of(plan.augmentation, image_size=plan.image_size, flip=plan.flip)
        cost = estimate(network, plan, preprocessing, augmentation, splits.train, device=device, is_rough=is_rough)
    return Prepared(
        options=options, splits=splits, plan=plan, network=network, cost=with_cache(cost, plan, network, splits)
    )


def _probed(prepared: Prepared, options: TrainOptions, *, begun: float, progress: bool) -> Prepared:
    """With a probe of the training videos, and planned anew where it decides otherwise.

    Raises:
        UsageError: A probe alone was asked for, and there is nothing to fit it to.
    """
    splits, plan = prepared.splits, prepared.plan
    options = prepared.options if plan.cache_views else options  # where the budget has chosen the cheapest way
    cost = None if options.probe else prepared.cost
    network = prepared.network
    if network.config.num_local_steps and plan.model is None:  # a probe reads the image ViT as it is, frame by frame
        open_stages: dict[str, Any] = {"num_stages": None}
        plain = replace(options, preset="scene", **open_stages)
        _, network = make_plan(plain, splits, device=device_of(options))
    probe = probe_videos(plan, network, splits, cost, progress=progress)
    if probe is None:
        if options.probe:
            raise UsageError("There is nothing to probe: the training videos that can be read are of one class.")
        told = "No probe before this training, as it would take more than a tenth of its time (--no-probe: never)."
        return replace(prepared, plan=replace(plan, probed={"told": [told]}))
    if options.probe:
        found = {**probe.result.to_dict(), "told": [*probe.told]}
        return replace(prepared, plan=replace(plan, probed=found), probe=probe)

    def at_size(changed: dict[str, Any]) -> FittedProbe | None:
        other, larger = make_plan(replace(options, preset="scene", **changed), splits, device=device_of(options))
        return probe_videos(other, larger, splits, None, progress=progress)

    size = choose_size(probe, options, plan, network, at_size=at_size)
    asked, num_train = replace(options, **size.decided), len(splits.train)
    decision = decide(size.probe.result, asked, network=prepared.network, num_train=num_train)
    why, decided, probe = {**size.why, **decision.why}, decision.options, size.probe
    is_new = (decided.preset or "scene", bool(decided.freeze_backbone)) != (plan.preset, plan.freeze_backbone)
    if is_new or size.decided or (decision.starts_at_probe and plan.model is None):
        start_at = probe if decision.starts_at_probe else None
        prepared = _planned(decided, splits, begun=begun, why=why, start_at=start_at, progress=progress)
        plan = prepared.plan
    else:
        plan = replace(plan, why={**plan.why, **why})
    is_started = decision.starts_at_probe and plan.model is None and bool(prepared.network.config.statistics)
    start = (STARTS_AT_PROBE,) if is_started else ()
    found = {**probe.result.to_dict(), "told": [*probe.told, *size.told, *decision.told, *start]}
    return replace(prepared, plan=replace(plan, probed=found), probe=probe)


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
    digest = digest_of(options, splits)
    if plan.videos_digest not in {"", digest}:  # empty: it began before we kept it
        raise UsageError(
            f"--resume goes on with the same videos: their number is as it was, but not what they are called, their "
            f"order, or which of them have which class, segment or split. Put {options.data} back as it was, or train "
            "anew with another folder for --out."
        )
    num_workers = plan.num_workers if options.num_workers is None else options.num_workers
    plan = replace(plan, out=str(folder.path), device=options.device, num_workers=num_workers)
    if plan.probe:
        network = load_model(folder.model)
    return Prepared(options=options, splits=splits, plan=plan, network=network, is_resumed=True)
