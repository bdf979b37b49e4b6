"""The steps of a plan by Lightning's Trainer, in one process or several, and which checkpoint is kept."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.plan import TrainingPlan, TrainOptions
from uniformerv2.autotrain.processes import Seat
from uniformerv2.core.devices import best_device, existing_device
from uniformerv2.core.messages import UsageError
from uniformerv2.core.optional import require
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.epoch_metrics import EpochLoss
from uniformerv2.training.frozen import TokenClassifier
from uniformerv2.training.keep_budget import KeepBudget
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.progress import TrainProgress
from uniformerv2.training.resume import ExactResume, LastCheckpoint, WholeFileIO
from uniformerv2.training.stopping import StopCleanly

if TYPE_CHECKING:
    import lightning.pytorch as lightning
else:
    lightning = require("lightning.pytorch", extra="train")

__all__ = ["Fitted", "device_of", "fit", "make_trainer", "quiet_lightning"]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What the steps came to.

    Attributes:
        path: The checkpoint that is kept.
        words: Which it is, and why.
        epoch: Its epoch, from 1.
        score: Its ``plan.monitor``.
        num_epochs: Epochs that were trained.
        log: CSV.
    """

    path: Path
    words: str
    epoch: int
    score: float
    num_epochs: int
    log: Path


def fit(
    network: UniFormerV2,
    data: VideoDataModule,
    plan: TrainingPlan,
    *,
    callbacks: Sequence[lightning.Callback] = (),
    resume: bool = False,
    save_every: timedelta,
    seconds: float | None = None,
    seat: Seat | None = None,
) -> Fitted | None:
    """Train the network in place, choose a checkpoint and load it.

    Args:
        network: As it was chosen, or any of its kind where it goes on from ``last.ckpt``.
        data: The videos of the plan, ready to be read.
        plan: What to do.
        callbacks: For Lightning; of the first process.
        resume: Go on from ``last.ckpt``.
        save_every: At least so long between two checkpoints within an epoch.
        seconds: For the steps and their validation; None: as many as they take.
        seat: Which of several processes this one is.

    Returns:
        What is kept; None in all processes but the first.

    Raises:
        TrainingStoppedError: SIGINT or SIGTERM; ``last.ckpt`` has all that is needed to go on.
    """
    folder = RunFolder(Path(plan.out))
    classifier = _classifier(network, plan)
    stop = StopCleanly(folder.last)
    best = _keep_best(plan, folder)
    last = LastCheckpoint(folder.checkpoints, every=save_every, save_on_train_epoch_end=False)
    early = [] if plan.patience is None else [_EarlyStop(plan)]
    budget = [] if seconds is None else [KeepBudget(seconds, most=plan.most_epochs, say=_say_of(callbacks))]
    trainer = _trainer(plan, folder, [*callbacks, stop, ExactResume(), *budget, best, *early, last], seat)
    is_first = seat is None or seat.rank == 0
    with stop.listening(trainer) if is_first else nullcontext():
        trainer.fit(classifier, datamodule=data, ckpt_path=folder.last if resume else None, weights_only=True)
        score = _last_score(trainer, classifier, data, plan)
        if not is_first:
            return None
        highest = score if best.best_model_score is None else float(best.best_model_score)  # None: moved, at its end
        num_epochs = next((stop.num_epochs for stop in early if stop.is_over), trainer.max_epochs or plan.epochs)
        log = Path(str(trainer.loggers[0].log_dir)) / "metrics.csv"
        choice = _choose(score, highest, folder, num_epochs, plan, log=log)
        classifier.load_state_dict(torch.load(choice.path, weights_only=True, map_location="cpu")["state_dict"])
        return choice


def _say_of(callbacks: Sequence[lightning.Callback]) -> Callable[[str], None]:
    """Where a sentence goes: to the one that shows the progress, if there is one."""
    return next((one.say for one in callbacks if isinstance(one, TrainProgress)), lambda text: None)


def make_trainer(
    folder: Path,
    *,
    epochs: int,
    precision: Any,
    device: torch.device,
    callbacks: Sequence[lightning.Callback],
    num_devices: int = 1,
    **options: Any,
) -> lightning.Trainer:
    """Lightning's Trainer as ``train`` and ``ablate`` use it.

    Args:
        folder: Where Lightning may write.
        epochs: Passes over the training videos.
        precision: Lightning's word.
        device: Where to train.
        callbacks: In their order; the mean loss of each epoch is logged in any case.
        num_devices: GPUs of this machine, or processes without one.
        **options: Further arguments of the Trainer: loggers, plugins, what is left out.
    """
    return lightning.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=num_devices if device.index is None else [device.index],
        strategy="ddp" if num_devices > 1 else "auto",
        sync_batchnorm=num_devices > 1 and device.type == "cuda",  # which PyTorch has for GPUs alone
        precision=precision,
        callbacks=[EpochLoss(), *callbacks],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's notes on what is meant to be so here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of Lightning's own making, not the user's
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message="Found .* in eval mode")  # a frozen backbone is meant to be
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists")  # it is resumed
        warnings.filterwarnings("ignore", message="The dirpath has changed")  # --out was moved
        yield


def device_of(plan: TrainOptions) -> torch.device:
    """Where training runs; of several GPUs the first.

    Raises:
        UsageError: There are not so many GPUs.
    """
    device = best_device() if plan.device == "auto" else existing_device(plan.device)
    if device.type == "cuda" and plan.devices > torch.cuda.device_count():
        raise UsageError(f"--devices {plan.devices} is more than the {torch.cuda.device_count()} GPUs of this machine.")
    return device


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


def _trainer(
    plan: TrainingPlan, folder: RunFolder, callbacks: Sequence[lightning.Callback], seat: Seat | None
) -> lightning.Trainer:
    loggers: Any = False  # of the other processes
    if seat is None or seat.rank == 0:
        csv = lightning.loggers.CSVLogger(folder.path, name="logs", flush_logs_every_n_steps=1)
        loggers = [csv, *_further_loggers(plan, folder)]
    return make_trainer(
        folder.path,
        epochs=plan.epochs,
        precision=plan.precision,
        device=device_of(plan),
        callbacks=callbacks,
        num_devices=plan.devices,
        logger=loggers,
        log_every_n_steps=min(10, plan.steps_per_epoch),
        plugins=[WholeFileIO(), *([] if seat is None else [seat])],
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


def _last_score(
    trainer: lightning.Trainer, classifier: VideoClassifier, data: VideoDataModule, plan: TrainingPlan
) -> float:
    """The score after the last epoch; measured anew where that epoch was over before the training was resumed."""
    if plan.monitor not in trainer.callback_metrics:
        trainer.validate(classifier, datamodule=data, verbose=False)
    return float(trainer.callback_metrics[plan.monitor])


def _choose(
    last: float, highest: float, folder: RunFolder, num_epochs: int, plan: TrainingPlan, *, log: Path
) -> Fitted:
    """The last epoch where it is as good as the best one, as it has learnt longest; else the best.

    Args:
        last: Score of the last epoch.
        highest: Score of the best epoch.
        folder: With both checkpoints.
        num_epochs: Trained; not those planned where the training ended early or a budget had time for more.
        plan: What was done.
        log: Its CSV file.
    """
    of = f"of {num_epochs} epochs" + (f" ({plan.epochs} planned)" if num_epochs != plan.epochs else "")
    path, words, epoch = folder.last, f"last {of}: none had a higher {plan.monitor}", num_epochs
    if num_epochs == 1:
        words = "the only epoch"
    elif last < highest:
        path = folder.best
        epoch = torch.load(path, weights_only=True, map_location="cpu")["epoch"] + 1
        words = f"best {of} by {plan.monitor}: epoch {epoch}"
    return Fitted(path=path, words=words, epoch=epoch, score=max(last, highest), num_epochs=num_epochs, log=log)
