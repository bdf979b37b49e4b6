"""Carry out a ``TrainingPlan`` with Lightning's Trainer; stop cleanly on a signal, and go on from there."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.plan import AugmentationName, TrainingPlan, TrainOptions
from uniformerv2.core.console import Progress
from uniformerv2.core.devices import best_device, existing_device
from uniformerv2.core.optional import require
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.splits import Splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.epoch_metrics import EpochLoss
from uniformerv2.training.feature_key import FeatureSettings
from uniformerv2.training.frozen import CachedDataModule, TokenClassifier
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.resume import (
    SAVE_EVERY,
    ExactResume,
    LastCheckpoint,
    WholeFileIO,
)
from uniformerv2.training.stopping import StopCleanly
from uniformerv2.zoo.checkpoint import save_model
from uniformerv2.zoo.runs import fill

if TYPE_CHECKING:
    import lightning.pytorch as lightning
else:
    lightning = require("lightning.pytorch", extra="train")

__all__ = [
    *("TrainingResult", "augmentation_of", "data_module", "device_of", "make_trainer", "quiet_lightning"),
    "run_plan",
]

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


def make_trainer(
    folder: Path,
    *,
    epochs: int,
    precision: Any,
    device: torch.device,
    callbacks: Sequence[lightning.Callback],
    **options: Any,
) -> lightning.Trainer:
    """Lightning's Trainer as ``train`` and ``ablate`` use it.

    Args:
        folder: Where Lightning may write.
        epochs: Passes over the training videos.
        precision: Lightning's word.
        device: Where to train.
        callbacks: In their order; the mean loss of each epoch is logged in any case.
        **options: Further arguments of the Trainer: loggers, plugins, what is left out.
    """
    return lightning.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1 if device.index is None else [device.index],
        precision=precision,
        callbacks=[EpochLoss(), *callbacks],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def run_plan(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    *,
    callbacks: Sequence[lightning.Callback] = (),
    resume: bool = False,
    save_every: timedelta = SAVE_EVERY,
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
        progress: Show on stderr how far the cache of features is.

    Returns:
        Numbers and paths.

    Raises:
        FolderInUseError: Another process trains in this folder.
        OSError: The folder cannot be written, or the disk is full.
        WorkerDiedError: A process that reads videos has ended.
        TrainingStoppedError: SIGINT or SIGTERM; ``last.ckpt`` has all that is needed to go on.
    """
    folder = RunFolder(Path(plan.out))
    with folder.held(), quiet_lightning():
        folder.prepare()
        folder.check_room(network)
        lightning.seed_everything(plan.seed, verbose=False)
        data = data_module(network, splits, plan, resume=resume)
        if isinstance(data, CachedDataModule):
            with Progress("cache features", data.num_clips, is_quiet=not progress) as bar:
                data.fill_cache(network, on_clips=bar.advance)  # what is missing, or failed before
        classifier = _classifier(network, plan)
        stop = StopCleanly(folder.last)
        best = _keep_best(plan, folder)
        last = LastCheckpoint(folder.checkpoints, every=save_every, save_on_train_epoch_end=False)
        early = [] if plan.patience is None else [_EarlyStop(plan)]
        trainer = _trainer(plan, folder, [*callbacks, stop, ExactResume(), best, *early, last])
        with stop.listening(trainer):
            trainer.fit(classifier, datamodule=data, ckpt_path=folder.last if resume else None, weights_only=True)
            score = _last_score(trainer, classifier, data, plan)
            highest = (
                score if best.best_model_score is None else float(best.best_model_score)
            )  # None: moved, at its end
            num_epochs = next((stop.num_epochs for stop in early if stop.is_over), plan.epochs)
            choice = _choose(score, highest, folder, num_epochs, plan)
            classifier.load_state_dict(torch.load(choice.path, weights_only=True, map_location="cpu")["state_dict"])
        notes = {plan.monitor: choice.score, "checkpoint": choice.words, "epochs": num_epochs}
        network.info = replace(network.info, metrics=notes)
        save_model(network.cpu(), folder.model)
        return TrainingResult(
            val_score=choice.score,
            chosen=choice.words,
            epoch=choice.epoch,
            model=folder.model,
            best=folder.best,
            last=folder.last,
            log=Path(str(trainer.loggers[0].log_dir)) / "metrics.csv",
        )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's notes on what is meant to be so here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of Lightning's own making, not the user's
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message="Found .* in eval mode")  # a frozen backbone is meant to be
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists")  # it is resumed
        warnings.filterwarnings("ignore", message="The dirpath has changed")  # --out was moved
        yield


def device_of(plan: TrainOptions) -> torch.device:
    """Where training runs."""
    return best_device() if plan.device == "auto" else existing_device(plan.device)


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
        "batch_size": plan.batch_size,
        "eval_batch_size": max(1, plan.batch_size // 2),  # all views of a video lie in memory
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


def _classifier(network: UniFormerV2, plan: TrainingPlan) -> VideoClassifier:
    kind = TokenClassifier if plan.cache_views else VideoClassifier
    return kind(
        network,
        optimization=plan.optimization,
        loss="binary_cross_entropy" if plan.is_multi_label else "cross_entropy",
        label_smoothing=plan.label_smoothing,
    )


class _BestCheckpoint(lightning.callbacks.ModelCheckpoint):
    """Keeps the best epoch; of equally good ones, which few validation videos often have, the latest."""

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: torch.Tensor | None = None) -> bool:
        """Whether this epoch is kept: also where it is as good as the one before, as it has learnt longer."""
        is_as_good = current is not None and self.best_model_score is not None and current == self.best_model_score
        return super().check_monitor_top_k(trainer, current) or bool(is_as_good)


class _EarlyStop(lightning.callbacks.EarlyStopping):
    """Ends a training whose score no longer rises; one that had ended so is not continued when it is resumed.

    Args:
        plan: With ``patience``.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        # after the validation, so that the checkpoint that follows it knows
        super().__init__(plan.monitor, patience=plan.patience, mode="max", check_on_train_epoch_end=False)

    @property
    def is_over(self) -> bool:
        """Whether it has ended the training, now or before it was resumed."""
        return self.wait_count >= self.patience

    @property
    def num_epochs(self) -> int:
        """Epochs that were trained."""
        return self.stopped_epoch + 1

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Where the checkpoint says that it was over."""
        trainer.should_stop = trainer.should_stop or self.is_over


def _keep_best(plan: TrainingPlan, folder: RunFolder) -> Any:
    return _BestCheckpoint(
        folder.checkpoints,
        filename="best",
        monitor=plan.monitor,
        mode="max",
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )


def _trainer(plan: TrainingPlan, folder: RunFolder, callbacks: Sequence[lightning.Callback]) -> lightning.Trainer:
    csv = lightning.loggers.CSVLogger(folder.path, name="logs", flush_logs_every_n_steps=1)
    return make_trainer(
        folder.path,
        epochs=plan.epochs,
        precision=plan.precision,
        device=device_of(plan),
        callbacks=callbacks,
        logger=[csv, *_further_loggers(plan, folder)],
        log_every_n_steps=min(10, plan.steps_per_epoch),
        plugins=[WholeFileIO()],
    )


def _further_loggers(plan: TrainingPlan, folder: RunFolder) -> list[Any]:
    """Where curves go beside the CSV file."""
    name = plan.log or ("tensorboard" if importlib.util.find_spec("tensorboard") else "none")
    loggers = lightning.loggers
    run = folder.path.resolve().name
    if name == "tensorboard":
        require("tensorboard", extra="train")
        return [loggers.TensorBoardLogger(folder.path, name="tensorboard", version="")]
    if name == "wandb":
        require("wandb", extra="wandb")
        return [loggers.WandbLogger(name=run, project="uniformerv2", save_dir=folder.path, config=plan.to_dict())]
    if name == "mlflow":
        require("mlflow", extra="mlflow")
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if server is None:  # mlflow prefers a data base, for which its client alone has no driver
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        logger = loggers.MLFlowLogger(
            "uniformerv2", run_name=run, tracking_uri=server, save_dir=str(folder.path / "mlruns")
        )
        logger.log_hyperparams(plan.to_dict())
        return [logger]
    return []


@dataclass(frozen=True)
class _Choice:
    """A checkpoint, why it, and its validation score."""

    path: Path
    words: str
    epoch: int
    score: float


def _last_score(
    trainer: lightning.Trainer, classifier: VideoClassifier, data: VideoDataModule, plan: TrainingPlan
) -> float:
    """The score after the last epoch; measured anew where that epoch was over before the training was resumed."""
    if plan.monitor not in trainer.callback_metrics:
        trainer.validate(classifier, datamodule=data, verbose=False)
    return float(trainer.callback_metrics[plan.monitor])


def _choose(last: float, highest: float, folder: RunFolder, num_epochs: int, plan: TrainingPlan) -> _Choice:
    """The last epoch where it is as good as the best one, as it has learnt longest; else the best.

    Args:
        last: Score of the last epoch.
        highest: Of the best.
        folder: With both checkpoints.
        num_epochs: Trained; fewer than planned where the training ended early.
        plan: What was done.
    """
    of = f"of {num_epochs} epochs" + (f" ({plan.epochs} planned)" if num_epochs < plan.epochs else "")
    if num_epochs == 1:
        return _Choice(folder.last, "the only epoch", 1, last)
    if last >= highest:
        return _Choice(folder.last, f"last {of}: none had a higher {plan.monitor}", num_epochs, highest)
    epoch = torch.load(folder.best, weights_only=True, map_location="cpu")["epoch"] + 1
    return _Choice(folder.best, f"best {of} by {plan.monitor}: epoch {epoch}", epoch, highest)
