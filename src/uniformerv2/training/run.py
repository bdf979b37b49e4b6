"""Carry out a ``TrainingPlan`` with Lightning's Trainer; stop cleanly on a signal, and go on from there.

::

    OUT/run.json                    the plan, and the network before its first step, without weights
    OUT/checkpoints/best.ckpt       highest validation accuracy
    OUT/checkpoints/last.ckpt       last epoch, or last step where it was interrupted
    OUT/logs/version_0/metrics.csv  a new version for each time it is resumed
    OUT/tensorboard                 where TensorBoard is installed
    OUT/model                       the result
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from uniformerv2._require import require
from uniformerv2.checkpoint import save_model
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.config import CheckpointInfo, UniFormerV2Config
from uniformerv2.model.files import read_json, write_json
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.build import random_network
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.plan import TrainingPlan
from uniformerv2.training.splits import Splits
from uniformerv2.training.stopping import StopCleanly, TrainingStoppedError

if TYPE_CHECKING:
    import lightning.pytorch as lightning
else:
    lightning = require("lightning.pytorch", extra="train")

__all__ = ["RunFolder", "TrainingResult", "augmentation_of", "train"]

MAX_FAILED: Final = 0.1
"""Part of the training videos that may turn out unreadable; of few videos, one is more than the usual hundredth."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def record(self) -> Path:
        """The plan and the architecture."""
        return self.path / "run.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of ``best`` and ``last``."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Highest validation accuracy."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """Last epoch or step."""
        return self.checkpoints / "last.ckpt"

    @property
    def model(self) -> Path:
        """The folder of the result."""
        return self.path / "model"

    def write(self, plan: TrainingPlan, network: UniFormerV2, request: Mapping[str, Any]) -> None:
        """Note what will be done.

        Args:
            plan: All choices.
            network: Before its first step.
            request: What the user asked for.
        """
        content = {"plan": plan.to_dict(), "network": network.config.to_dict(), "info": asdict(network.info)}
        write_json(self.record, {**content, "request": dict(request)})

    def read(self) -> tuple[TrainingPlan, UniFormerV2, dict[str, Any]]:
        """The plan, the network with random weights, the request."""
        content = read_json(self.record)
        info = CheckpointInfo(**{**content["info"], "class_names": tuple(content["info"]["class_names"])})
        network = random_network(UniFormerV2Config.from_dict(content["network"]), info)
        plan = TrainingPlan.from_dict(content["plan"])
        if plan.trainable == "armour":
            network.freeze_image_vit()
        return plan, network, content["request"]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What came out.

    Attributes:
        metrics: Of the final test, with ``test_``, and of the validation after the chosen epoch, with ``val_``.
        chosen: Which checkpoint the result is, and why.
        model: Folder of the result.
        best: Checkpoint.
        last: Checkpoint.
        log: CSV.
    """

    metrics: Mapping[str, float]
    chosen: str
    model: Path
    best: Path
    last: Path
    log: Path


def augmentation_of(plan: TrainingPlan) -> TrainAugmentation:
    """RandAugment, crop and flip of the published recipes."""
    return TrainAugmentation(image_size=plan.image_size, flip=plan.flip)


def train(
    network: UniFormerV2,
    splits: Splits,
    plan: TrainingPlan,
    *,
    callbacks: Sequence[lightning.Callback] = (),
    resume: bool = False,
) -> TrainingResult:
    """Train, choose a checkpoint, test it with many views, write the model folder.

    Args:
        network: Trained in place.
        splits: The videos.
        plan: What to do.
        callbacks: For Lightning, for instance to show how far it is.
        resume: Go on from ``last.ckpt``.

    Returns:
        Numbers and paths.

    Raises:
        TrainingStoppedError: SIGINT or SIGTERM; ``last.ckpt`` has all that is needed to go on.
    """
    folder = RunFolder(Path(plan.out))
    lightning.seed_everything(plan.seed, verbose=False)
    classifier = VideoClassifier(
        network,
        optimization=plan.optimization,
        loss="binary_cross_entropy" if plan.is_multi_label else "cross_entropy",
        label_smoothing=plan.label_smoothing,
    )
    data = _data_module(network, splits, plan)
    stop = StopCleanly(folder.last)
    trainer, best = _trainer(plan, folder, [*callbacks, stop])
    with stop.listening():
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=folder.last if resume else None, weights_only=True)
        except Exception as error:
            if stop.signal_number and not isinstance(error, TrainingStoppedError):
                raise stop.error(trainer) from error
            raise
    choice = _choose(trainer, best, folder, plan)
    with stop.listening():
        (tested,) = trainer.test(classifier, datamodule=data, ckpt_path=choice.path, weights_only=True, verbose=False)
    metrics = {plan.monitor: choice.score, **{name: float(value) for name, value in tested.items()}}
    _save(network, plan, folder, metrics, choice.words)
    log = Path(str(trainer.loggers[0].log_dir)) / "metrics.csv"
    return TrainingResult(
        metrics=metrics, chosen=choice.words, model=folder.model, best=folder.best, last=folder.last, log=log
    )


def _data_module(network: UniFormerV2, splits: Splits, plan: TrainingPlan) -> VideoDataModule:
    own = Preprocessing.from_dict({**network.info.preprocessing, "image_size": plan.image_size})
    preprocessing = replace(own, num_frames=plan.num_frames, num_clips=plan.num_clips, num_crops=plan.num_crops)
    return VideoDataModule(
        splits.train,
        preprocessing,
        val=splits.val,
        test=splits.test,
        augmentation=augmentation_of(plan),
        batch_size=plan.batch_size,
        eval_batch_size=max(1, plan.batch_size // 2),  # all views of a video lie in memory
        num_workers=plan.num_workers,
        multi_label=plan.is_multi_label,
        classes=splits.class_names,
        seed=plan.seed,
        max_failed=MAX_FAILED,
    )


def _trainer(
    plan: TrainingPlan, folder: RunFolder, callbacks: Sequence[lightning.Callback]
) -> tuple[lightning.Trainer, Any]:
    """The Trainer, and the callback that keeps the best checkpoint."""
    keep = lightning.callbacks.ModelCheckpoint
    where: dict[str, Any] = {
        "dirpath": folder.checkpoints,
        "enable_version_counter": False,
        "save_on_train_epoch_end": False,
    }
    best = keep(filename="best", monitor=plan.monitor, mode="max", **where)
    loggers: list[Any] = [lightning.loggers.CSVLogger(folder.path, name="logs")]
    if importlib.util.find_spec("tensorboard"):
        loggers.append(lightning.loggers.TensorBoardLogger(folder.path, name="tensorboard", version=""))
    precision: Any = plan.precision
    trainer = lightning.Trainer(
        default_root_dir=folder.path,
        max_epochs=plan.epochs,
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision=precision,
        logger=loggers,
        log_every_n_steps=min(10, plan.steps_per_epoch),
        callbacks=[*callbacks, best, keep(filename="last", **where)],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return trainer, best


@dataclass(frozen=True)
class _Choice:
    """A checkpoint, why it, and its validation score."""

    path: Path
    words: str
    score: float


def _choose(trainer: lightning.Trainer, best: Any, folder: RunFolder, plan: TrainingPlan) -> _Choice:
    """The last epoch where it is as good as the best one, as it has learnt longest; else the best."""
    highest = float(best.best_model_score)
    last = trainer.callback_metrics.get(plan.monitor)  # None where training had ended before it was resumed
    if last is not None and float(last) >= highest:
        return _Choice(folder.last, f"last of {plan.epochs} epochs: none had a higher {plan.monitor}", highest)
    epoch = torch.load(folder.best, weights_only=True, map_location="cpu")["epoch"] + 1
    return _Choice(folder.best, f"best of {plan.epochs} epochs by {plan.monitor}: epoch {epoch}", highest)


def _save(
    network: UniFormerV2, plan: TrainingPlan, folder: RunFolder, metrics: Mapping[str, float], chosen: str
) -> None:
    tested_on = f"{plan.num_test} test videos" if plan.num_test else f"the {plan.num_val} validation videos"
    views = f"{plan.num_clips} clips x {plan.num_crops} crops"
    notes = {"checkpoint": chosen, "test_protocol": f"{views} of {tested_on}", "epochs": plan.epochs}
    network.info = replace(network.info, metrics={**metrics, **notes})
    save_model(network.cpu(), folder.model)
