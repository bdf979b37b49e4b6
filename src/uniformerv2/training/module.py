"""``VideoClassifier``: a network with its loss, optimiser and metrics, for Lightning's Trainer.

Letters of this file: B samples of a batch, V views, T frames, h x w pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from uniformerv2.data.augmentation import BatchMixing
from uniformerv2.data.dataset import VideoBatch, VideoDataset
from uniformerv2.data.labels import check_names, check_saved_names
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.epoch_metrics import metrics_for
from uniformerv2.training.optim import Optimization, SchedulePlace, parameter_groups, regroup
from uniformerv2.zoo.checkpoint import load_model
from uniformerv2.zoo.files import naming, read_checkpoint
from uniformerv2.zoo.runs import SAVED_NAMES, SAVED_NETWORK, SAVED_SETTINGS, is_of_training, network_of_training

__all__ = ["LossName", "NonFiniteLossError", "VideoClassifier"]

LossName = Literal["cross_entropy", "binary_cross_entropy"]

TRAINED_FROM = "trained from "
SHOWN = 5
"""Names of classes in a message."""

REMEDIES = (
    "What helps: a lower learning rate, full precision (32-true; train: fp32), gradient clipping (fit: "
    "--trainer.gradient_clip_val)."
)
GO_ON = (
    "fit continues from it with other options (--ckpt_path); train continues with its own, and takes others in a new "
    "folder (--out)."
)


class NonFiniteLossError(RuntimeError):
    """The loss of a training step is infinite or not a number; no weight was changed by it."""


class VideoClassifier(lightning.LightningModule):
    """Trains and tests a network.

    Pixels arrive as 0 to 255 and are normalised on the device: as a ``VideoDataModule`` says, which the network then
    takes over into ``info``, else as ``network.info.preprocessing`` says. Logged are ``train_loss`` (of the global
    batch), ``learning_rate``, and after ``val_`` and ``test_`` what ``epoch_metrics`` names.

    Args:
        network: Trained in place.
        optimization: Rates, decay, schedule.
        loss: "binary_cross_entropy" where a video has several classes; labels are multi-hot then.
        label_smoothing: Part of the target that is spread over all classes; 0 to 1.
        class_weights: One per class. Weighs the samples of a class; with several classes a video, its positives.
        mixing: Mixup or CutMix of the training batches.
        num_checkpointed: First so many blocks are recomputed in the backward pass: less memory, more time.
        compiled: Use ``torch.compile``.

    Raises:
        ValueError: An argument outside its range.
    """

    def __init__(
        self,
        network: UniFormerV2,
        *,
        optimization: Optimization | None = None,
        loss: LossName = "cross_entropy",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        mixing: BatchMixing | None = None,
        num_checkpointed: int = 0,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing lies in [0, 1), got {label_smoothing}.")
        if class_weights is not None and len(class_weights) != network.num_classes:
            raise ValueError(f"class_weights are one per class: {network.num_classes}, got {len(class_weights)}.")
        if not 0 <= num_checkpointed <= len(network.blocks):
            raise ValueError(f"num_checkpointed is 0 to the {len(network.blocks)} blocks, got {num_checkpointed}.")
        if mixing is not None and mixing.num_classes != network.num_classes:
            raise ValueError(f"mixing.num_classes is the network's {network.num_classes}, got {mixing.num_classes}.")
        self.network = network
        self.optimization = optimization or Optimization()
        self.loss: LossName = loss
        self.label_smoothing = label_smoothing
        self.mixing = mixing
        self.num_checkpointed = num_checkpointed
        self.class_weights: Tensor | None
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        size = {"num_frames": network.config.num_frames, "image_size": network.config.image_size}
        self.preprocessing = Preprocessing.from_dict({**size, **network.info.preprocessing})
        self.schedule = SchedulePlace(0)
        self.validated_step = -1
        self.val_metrics = metrics_for(loss)
        self.test_metrics = metrics_for(loss)
        network.set_grad_checkpointing(num_checkpointed > 0, num_blocks=num_checkpointed)
        network.train()
        if compiled:
            network.compile()

    def forward(self, video: Tensor) -> Tensor:
        """Pixels [B, T, 3, h, w], 0 to 255 -> logits [B, K] float32."""
        return self.logits(self.prepare(video))

    def prepare(self, video: Tensor) -> Tensor:
        """Pixels of a batch, 0 to 255 -> what ``mixing`` may mix, and ``logits`` takes."""
        return self.preprocessing.normalize(video)

    def logits(self, prepared: Tensor) -> Tensor:
        """From what ``prepare`` returns -> [B, K] float32."""
        return self.network(prepared).float()

    def setup(self, stage: str) -> None:
        """Take over what the data module knows: how it prepares pixels, and how the classes are called.

        Raises:
            ValueError: The data have more classes than the network, others, or another kind of labels than the loss.
        """
        if stage == "fit":  # numbers of the weights that training starts from are not those of its result
            source = self.network.info.source.removeprefix(TRAINED_FROM)
            self.network.info = replace(self.network.info, metrics={}, source=TRAINED_FROM + source)
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, VideoDataModule):
            return
        if data.num_classes > self.network.num_classes:
            raise ValueError(
                f"The data have {data.num_classes} classes, the network has {self.network.num_classes}: give the "
                "network num_classes of the data, or data.classes the label space of the network."
            )
        if data.multi_label != (self.loss == "binary_cross_entropy"):
            wanted = "binary_cross_entropy" if data.multi_label else "cross_entropy"
            raise ValueError(
                f"A video of these data has {'several classes' if data.multi_label else 'one class'}: "
                f"the loss is {wanted} then, got {self.loss}."
            )
        may_rename = stage == "fit" and data.num_classes == self.network.num_classes
        check_names(data.class_names, self.network.info.class_names, may_rename=may_rename)
        self.preprocessing = data.preprocessing
        names = data.class_names if data.num_classes == self.network.num_classes else self.network.info.class_names
        self.network.info = replace(
            self.network.info,
            preprocessing=data.preprocessing.to_dict(),
            class_names=tuple(names),
            is_multi_label=data.multi_label,
        )

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # what Lightning asks for besides is not needed
        cls, checkpoint_path: str | Path, map_location: Any = None, **arguments: Any
    ) -> Self:
        """A classifier from a ``.ckpt`` file alone, with its weights and settings.

        Args:
            checkpoint_path: What Lightning wrote in a training.
            map_location: Where it is moved to; the CPU where None.
            **arguments: Arguments of the class that replace the saved ones.

        Returns:
            The classifier, in eval mode.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no checkpoint of a training, or is damaged.
        """
        path = Path(checkpoint_path)
        content = read_checkpoint(path)
        if not is_of_training(content):
            raise ValueError(f"{path} is no checkpoint of a training; load_model reads it.")
        network = network_of_training(path, content, load=load_model)
        with naming(path):
            saved = dict(content.get(SAVED_SETTINGS, {}))
            for name, kind in (("optimization", Optimization), ("mixing", BatchMixing)):
                saved |= {name: kind(**saved[name])} if saved.get(name) else {}
            classifier = cls(network, **{**saved, **arguments}).eval()
        return classifier if map_location is None else classifier.to(map_location)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With what the network is and how its classes are called: their order may be another in data read again."""
        info = self.network.info
        checkpoint[SAVED_NAMES] = list(info.class_names)
        checkpoint[SAVED_NETWORK] = {"config": self.network.config.to_dict(), "info": asdict(info)}
        checkpoint[SAVED_SETTINGS] = {
            "optimization": asdict(self.optimization),
            "loss": self.loss,
            "label_smoothing": self.label_smoothing,
            "class_weights": None if self.class_weights is None else self.class_weights.tolist(),
            "mixing": None if self.mixing is None else asdict(self.mixing),
            "num_checkpointed": self.num_checkpointed,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """That the rows of the checkpoint's head are the classes of the data.

        Raises:
            ValueError: They are not.
        """
        try:
            data = getattr(self.trainer, "datamodule", None)
        except RuntimeError:  # it is loaded without a trainer
            return
        if isinstance(data, VideoDataModule):
            check_saved_names(checkpoint.get(SAVED_NAMES), data.class_names, are_sorted=data.sorts_names)

    def training_step(self, batch: VideoBatch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises:
            NonFiniteLossError: It is infinite or not a number, in any process.
        """
        video, label = self.prepare(batch.video), batch.label
        if self.mixing is not None:
            seed = torch.initial_seed()  # of seed_everything; it travels with the random states of a checkpoint
            rng = np.random.default_rng((seed, self.current_epoch, batch_idx, self.global_rank))
            video, label = self.mixing(video, label, rng=rng)
        loss = self.criterion(self.logits(video), label)
        mean = self._global_mean(loss)
        if not math.isfinite(mean):
            raise self._non_finite(loss, batch)
        self.log("train_loss", mean, prog_bar=True)
        self.log("learning_rate", self._highest_rate())
        return loss

    def criterion(self, logits: Tensor, label: Tensor) -> Tensor:
        """The training loss.

        Args:
            logits: [B, K].
            label: Class numbers [B], or soft or multi-hot targets [B, K].

        Returns:
            Mean over the batch.
        """
        if self.loss == "cross_entropy":
            return F.cross_entropy(logits, label, weight=self.class_weights, label_smoothing=self.label_smoothing)
        target = label * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.class_weights)

    def validation_step(self, batch: VideoBatch, batch_idx: int) -> None:
        """Scores of a batch go to the metrics."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: VideoBatch, batch_idx: int) -> None:
        """Scores of a batch go to the metrics."""
        self._evaluate(batch, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the pass."""
        self.validated_step = self.trainer.global_step
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the pass."""
        self._log_metrics("test", self.test_metrics)

    def log_scores(self, video: Tensor) -> Tensor:
        """Logarithms of the probabilities, their mean taken over the views.

        Args:
            video: Pixels 0 to 255, [B, V, T, 3, h, w], or [B, T, 3, h, w] of a single view.

        Returns:
            [B, K] float32.
        """
        views = video.unbind(1) if video.ndim == 6 else (video,)  # one after another: memory of one view
        to_log = F.logsigmoid if self.loss == "binary_cross_entropy" else _log_softmax
        per_view = torch.stack([to_log(self(view)) for view in views])
        return torch.logsumexp(per_view, dim=0) - math.log(len(views))

    def configure_optimizers(self) -> Any:
        """AdamW, and the schedule by steps.

        Raises:
            ValueError: The length of an epoch is not known.
        """
        num_steps, steps_per_epoch = self._steps()
        self.schedule.num_steps = num_steps
        groups = parameter_groups(self.network, self.optimization)
        optimizer = torch.optim.AdamW(groups, betas=self.optimization.betas)
        optimizer.register_load_state_dict_pre_hook(regroup)
        factor = self.optimization.batch_factor(self.global_batch_size)

        def relative_rate(step: int) -> float:
            rate = self.optimization.rate(self.schedule.at(step) / steps_per_epoch, num_steps / steps_per_epoch)
            return factor * rate / self.optimization.learning_rate

        scheduler = _Schedule(optimizer, relative_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def global_batch_size(self) -> int:
        """Videos of one optimiser step, over all processes and accumulated batches: of an epoch at most."""
        loader = self._train_loader
        batches = min(self.trainer.accumulate_grad_batches, self.trainer.num_training_batches)
        videos = min(loader.batch_size, len(loader.sampler)) if isinstance(loader.sampler, Sized) else loader.batch_size
        return int(videos * batches) * self.trainer.world_size

    @property
    def _train_loader(self) -> Any:
        self.trainer.fit_loop.setup_data()  # no work where it is done already
        return self.trainer.train_dataloader

    def _steps(self) -> tuple[int, int]:
        """Optimiser steps of the whole training, and of an epoch.

        Raises:
            ValueError: There is no end.
        """
        self.trainer.fit_loop.setup_data()  # with max_steps alone, Lightning would not know the batches yet
        num_steps = self.trainer.estimated_stepping_batches
        batches = self.trainer.num_training_batches
        if math.isinf(num_steps) or math.isinf(batches):
            raise ValueError("The schedule needs an end: set max_epochs, and limit_train_batches for endless data.")
        return int(num_steps), math.ceil(batches / self.trainer.accumulate_grad_batches)

    def _highest_rate(self) -> float:
        return max(group["lr"] for group in self.trainer.optimizers[0].param_groups)

    def _global_mean(self, loss: Tensor) -> float:
        """The mean over the global batch: all processes have equally many samples."""
        mean = loss.detach().clone()
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(mean)
        return mean.item() / self.trainer.world_size

    def _non_finite(self, loss: Tensor, batch: VideoBatch) -> NonFiniteLossError:
        where = f"step {self.global_step} (epoch {self.current_epoch + 1}, learning rate {self._highest_rate():.3g})"
        keepers = reversed(self.trainer.checkpoint_callbacks)  # the last of them saves last
        paths = [getattr(keeper, name, "") for keeper in keepers for name in ("last_model_path", "best_model_path")]
        last = next(filter(None, [*paths, self.trainer.ckpt_path]), None)  # the latter: what it went on from
        if math.isfinite(loss.item()):
            culprit = f"The batch of process {self.global_rank} is not the cause; another process names its files."
        else:
            files = "\n".join(f"  {name}" for name in self._names(batch))
            culprit = f"Files of the batch:\n{files}"
        way = "There is no checkpoint yet: start anew." if last is None else f"Last good checkpoint: {last}. {GO_ON}"
        return NonFiniteLossError(f"The loss is {loss.item()} at {where}. {culprit}\n{REMEDIES} {way}")

    def _names(self, batch: VideoBatch) -> list[str]:
        dataset, indices = self._train_loader.dataset, batch.index.tolist()
        if isinstance(dataset, VideoDataset):
            return [dataset.records[index].path for index in indices]
        return [f"record {index}" for index in indices]  # of a data set of one's own

    def _evaluate(self, batch: VideoBatch, metrics: Any) -> None:
        log_scores = self.log_scores(batch.video)
        metrics.update(index=batch.index, log_scores=log_scores, label=batch.label, readable=batch.readable)

    def _log_metrics(self, stage: str, metrics: Any) -> None:
        computed = {f"{stage}_{name}": value for name, value in metrics.compute().items()}
        self.log_dict(computed, prog_bar=True, sync_dist=True)  # equal everywhere; Lightning warns without it
        metrics.reset()


class _Schedule(torch.optim.lr_scheduler.LambdaLR):
    """From a checkpoint it takes the step alone: rates, decay and betas are those its optimiser was made with."""

    def __init__(self, optimizer: torch.optim.Optimizer, relative_rate: Callable[[int], float]) -> None:
        super().__init__(optimizer, relative_rate)
        self._own = [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in super().state_dict().items() if key != "_own"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """To be called when the optimiser is restored, as Lightning does."""
        super().load_state_dict({**state_dict, "base_lrs": self.base_lrs})
        for group, own, relative_rate in zip(self.optimizer.param_groups, self._own, self.lr_lambdas, strict=True):
            group.update(own, lr=own["initial_lr"] * relative_rate(self.last_epoch))


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(logits, dim=-1)
