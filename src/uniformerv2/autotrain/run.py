"""Carry out a ``TrainingPlan`` with Lightning's Trainer; stop cleanly on a signal, and go on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.autotrain.fitting import device_of, fit, quiet_lightning
from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.plan import FEW_VIDEOS, AugmentationName, TrainingPlan
from uniformerv2.autotrain.processes import Seat, others_beside
from uniformerv2.autotrain.start import beside_probe
from uniformerv2.core.console import Progress
from uniformerv2.core.optional import require
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.splits import Splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.feature_key import FeatureSettings
from uniformerv2.training.frozen import CachedDataModule
from uniformerv2.training.resume import SAVE_EVERY, WholeFileIO
from uniformerv2.zoo.checkpoint import load_model, save_model
from uniformerv2.zoo.runs import fill

if TYPE_CHECKING:
    import lightning.pytorch as lightning
else:
    lightning = require("lightning.pytorch", extra="train")

__all__ = ["TrainingResult", "augmentation_of", "data_module", "run_plan"]

BESIDE_PROBE: Final = "then its head and the probe's, at which it had started, were averaged"
LIGHT_AREA: Final = (0.4, 1.0)
MAX_FAILED: Final = 0.1
"""Part of the training videos that may turn out unreadable; of few videos, one is more than the usual hundredth."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What came out.

    Attributes:
        val_score: ``plan.monitor`` after the chosen epoch, one view a video.
        chosen: Which checkpoint the result is, and why.
        epoch: Its epoch, from 1; None of a probe, which has no epochs. So have the following.
        model: Folder of the result.
        best: Checkpoint.
        last: Checkpoint.
        log: CSV.
    """

    val_score: float
    chosen: str
    epoch: int | None
    model: Path
    best: Path | None
    last: Path | None
    log: Path | None


def augmentation_of(name: AugmentationName, *, image_size: int | tuple[int, int], flip: float) -> TrainAugmentation:
    """The augmentation of the published recipes, or a lighter one; see ``AugmentationName``."""
    strong = TrainAugmentation(image_size=image_size, flip=flip)
    return strong if name == "strong" else replace(strong, rand_augment=None, area=LIGHT_AREA)


def run_plan(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    *,
    callbacks: Sequence[lightning.Callback] = (),
    resume: bool = False,
    save_every: timedelta = SAVE_EVERY,
    seconds: float | None = None,
    progress: bool = False,
) -> TrainingResult:
    """Train, choose a checkpoint, write the model folder.

    Args:
        network: Trained in place.
        splits: The videos.
        plan: What to do.
        callbacks: For Lightning, for instance to show how far it is.
        resume: Go on from ``last.ckpt``.
        save_every: At least so long between two checkpoints within an epoch.
        seconds: From now on, for all of it; fewer epochs are trained where they take longer. None: as long as it takes.
        progress: Show on stderr how far the cache of features is.

    Returns:
        Numbers and paths.

    Raises:
        FolderInUseError: Another process trains in this folder.
        OSError: The folder cannot be written, or the disk is full.
        WorkerDiedError: A process that reads videos has ended.
        TrainingStoppedError: SIGINT or SIGTERM; ``last.ckpt`` has all that is needed to go on.
    """
    folder, end = RunFolder(Path(plan.out)), time.monotonic() + (seconds or 0.0)
    with folder.held(), quiet_lightning():
        folder.prepare()
        folder.check_room(network)
        lightning.seed_everything(plan.seed, verbose=False)
        data = data_module(network, splits, plan, resume=resume)
        if isinstance(data, CachedDataModule):
            is_there = not any(part.missing_bytes for part in data.open_cache(network))
            with Progress("cache features", data.num_clips, is_quiet=is_there or not progress) as bar:
                data.fill_cache(network, on_clips=bar.advance)  # what is missing, or failed before
        left = None if seconds is None else end - time.monotonic()
        options: dict[str, Any] = {"resume": resume, "save_every": save_every, "seconds": left}
        with others_beside(_fit_beside, (network, splits, plan, options), plan.devices) as seat:
            choice = fit(network, data, plan, callbacks=callbacks, seat=seat, **options)
        assert choice is not None  # the first process
        is_few = plan.num_train < FEW_VIDEOS
        if is_few and plan.backbone is not None and network.statistics is not None and folder.has_probe:  # its start
            beside_probe(network, load_model(folder.probe))
            choice = replace(choice, words=f"{choice.words}; {BESIDE_PROBE}")
        notes = {plan.monitor: choice.score, "checkpoint": choice.words, "epochs": choice.num_epochs}
        network.info = replace(network.info, metrics=notes)
        save_model(network.cpu(), folder.model)
        return TrainingResult(
            val_score=choice.score,
            chosen=choice.words,
            epoch=choice.epoch,
            model=folder.model,
            best=folder.best,
            last=folder.last,
            log=choice.log,
        )


def _fit_beside(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    options: dict[str, Any],
    seat: Seat,
    ready: Callable[[], None],
) -> None:
    """What the processes beside the first one do."""
    with quiet_lightning():
        lightning.seed_everything(plan.seed + seat.rank, verbose=False)  # dropout draws others in each
        data = data_module(network, splits, plan, resume=options["resume"])
        if isinstance(data, CachedDataModule):
            data.fill_cache(network)  # the first process has
        ready()
        fit(network, data, plan, seat=seat, **options)


def data_module(network: UniFormerV2, splits: Splits, plan: TrainingPlan, *, resume: bool = False) -> VideoDataModule:
    """The videos of a plan; where it caches features, a ``CachedDataModule`` whose cache is yet to be filled.

    Args:
        network: Its preprocessing; where features are cached, its image ViT.
        splits: The videos.
        plan: What to do.
        resume: The image ViT is that of ``last.ckpt``, and is loaded into the network where features are cached.
    """
    own = Preprocessing.from_dict({**network.info.preprocessing, "image_size": plan.image_size})
    preprocessing = replace(own, num_frames=plan.num_frames, num_clips=plan.num_clips, num_crops=plan.num_crops)
    fields: dict[str, Any] = {
        "val": splits.val,
        "test": splits.test,
        "augmentation": augmentation_of(plan.augmentation, image_size=plan.image_size, flip=plan.flip),
        "batch_size": plan.batch_size // plan.devices,
        "eval_batch_size": max(1, plan.batch_size // plan.devices // 2),  # all views of a video lie in memory
        "num_workers": plan.num_workers,
        "multi_label": plan.is_multi_label,
        "classes": splits.class_names,
        "seed": plan.seed,
        "balanced": plan.balanced,
        "max_failed": MAX_FAILED,
    }
    if not plan.cache_views:
        return VideoDataModule(splits.train, preprocessing, **fields)
    folder = RunFolder(Path(plan.out))
    if resume:
        saved = WholeFileIO().load_checkpoint(folder.last)["state_dict"]
        fill(network, {name.removeprefix("network."): tensor for name, tensor in saved.items()}, folder.last)
    settings = FeatureSettings(
        num_views=plan.cache_views,
        storage=plan.cache_dtype,
        precision=plan.precision,
        device=device_of(plan),
    )
    cache = Path(plan.cache_dir) if plan.cache_dir else folder.features
    return CachedDataModule(splits.train, preprocessing, cache=cache, settings=settings, **fields)
