"""Metrics of one pass over a validation or test set, exact whatever the number of processes.

Samplers give every process equally many videos and repeat some for it; here each video counts once. A video that could
not be read counts as failed in ``*_top1`` and is left out of ``*_top1_readable``.

Letters of this file: B videos of a batch, K classes, M videos of the whole set.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import torch
import torchmetrics
from torch import Tensor
from torch.nn import functional as F

__all__ = ["EpochLoss", "MultiLabelMetrics", "SingleLabelMetrics"]


class _VideoMetrics(torchmetrics.Metric):
    """Columns with one row per video, gathered from all processes."""

    full_state_update = False
    columns: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        for column in ("index", *self.columns):
            self.add_state(column, default=[], dist_reduce_fx="cat")

    def _append(self, **rows: Tensor) -> None:
        for column, row in rows.items():
            getattr(self, column).append(row)

    def _table(self) -> dict[str, Tensor]:
        """Each column [M, ...], a video that came twice once."""
        columns = ("index", *self.columns)
        table = {column: torchmetrics.utilities.dim_zero_cat(getattr(self, column)) for column in columns}
        index = table["index"]
        order = torch.argsort(index, stable=True)
        first = torch.ones_like(index, dtype=torch.bool)
        first[1:] = index[order][1:] != index[order][:-1]
        return {column: rows[order[first]] for column, rows in table.items()}


class SingleLabelMetrics(_VideoMetrics):
    """Top-1, top-5 and cross-entropy where a video has one class.

    ``compute`` gives ``top1``, ``top5`` (both 0 to 1, of all labelled videos), ``top1_readable`` and ``loss`` (of
    those that could be read).
    """

    columns = ("readable", "loss", "top1", "top5")

    def update(self, *, index: Tensor, log_scores: Tensor, label: Tensor, readable: Tensor) -> None:
        """Add a batch.

        Args:
            index: Number of each video, [B].
            log_scores: Logarithms of the probabilities, [B, K] float32.
            label: Class numbers, [B]; videos with -1 are left out.
            readable: Whether the video could be read, [B].
        """
        known = label >= 0
        index, log_scores, label, readable = index[known], log_scores[known], label[known], readable[known]
        ranked = log_scores.topk(min(5, log_scores.shape[1])).indices
        hits = (ranked == label[:, None]) & readable[:, None]
        loss = F.nll_loss(log_scores, label, reduction="none")
        self._append(index=index, readable=readable, loss=loss, top1=hits[:, 0], top5=hits.any(dim=1))

    def compute(self) -> dict[str, Tensor]:
        """See the class."""
        table = self._table()
        readable = table["readable"]
        return {
            "top1": table["top1"].float().mean(),
            "top5": table["top5"].float().mean(),
            "top1_readable": table["top1"][readable].float().mean(),
            "loss": table["loss"][readable].mean(),
        }


class MultiLabelMetrics(_VideoMetrics):
    """Mean average precision over the classes, and binary cross-entropy, where a video has several classes.

    ``compute`` gives ``mean_ap`` (0 to 1, over classes that occur, NaN where none does; an unreadable video scores 0
    for every class) and ``loss`` (of the videos that could be read).
    """

    columns = ("readable", "scores", "target")

    def update(self, *, index: Tensor, log_scores: Tensor, label: Tensor, readable: Tensor) -> None:
        """Add a batch.

        Args:
            index: Number of each video, [B].
            log_scores: Logarithms of the probabilities, [B, K] float32.
            label: Multi-hot, [B, K].
            readable: Whether the video could be read, [B].
        """
        scores = log_scores.exp().clamp(max=1) * readable[:, None]
        self._append(index=index, readable=readable, scores=scores, target=label.long())

    def compute(self) -> dict[str, Tensor]:
        """See the class."""
        table = self._table()
        scores, target, readable = table["scores"], table["target"], table["readable"]
        average_precision = torchmetrics.functional.classification.binary_average_precision
        occurring = target.any(dim=0).nonzero().flatten().tolist()
        precisions = [float(average_precision(scores[:, number], target[:, number])) for number in occurring]
        loss = F.binary_cross_entropy(scores[readable], target[readable].float())
        return {"mean_ap": scores.new_tensor(precisions).mean(), "loss": loss}


def metrics_for(loss: str) -> Any:
    """The metrics that belong to a loss of ``VideoClassifier``."""
    return MultiLabelMetrics() if loss == "binary_cross_entropy" else SingleLabelMetrics()


class EpochLoss(lightning.Callback):
    """The mean of ``train_loss`` over the steps of an epoch, logged as ``train_loss_epoch`` after the last one.

    It travels with checkpoints, so that an epoch that was stopped has the mean of all its steps. Callbacks that read it
    come after it.

    Attributes:
        mean: Mean loss of the epoch so far; None before its first step.
    """

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    @property
    def mean(self) -> float | None:
        """See the class."""
        return self._total / self._count if self._count else None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add a batch."""
        if batch_idx == 0:
            self._total, self._count = 0.0, 0
        self._total += float(trainer.callback_metrics["train_loss"])
        self._count += 1
        if trainer.is_last_batch:
            for logger in trainer.loggers:
                values = {"train_loss_epoch": self.mean, "epoch": trainer.current_epoch}
                logger.log_metrics(values, step=trainer.global_step - 1)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"total": self._total, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the epoch of a checkpoint."""
        self._total, self._count = state_dict["total"], state_dict["count"]
