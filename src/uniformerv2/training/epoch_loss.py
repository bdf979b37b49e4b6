"""``EpochLoss``: the training loss of an epoch as one number, for the console, the log and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniformerv2.core.optional import require

if TYPE_CHECKING:
    import lightning.pytorch as lightning
else:
    lightning = require("lightning.pytorch", extra="train")

__all__ = ["EpochLoss"]


class EpochLoss(lightning.Callback):
    """The mean of ``train_loss`` over the steps of an epoch, logged as ``train_loss_epoch`` after the last one.

    It travels with checkpoints, so that an epoch that was stopped has the mean of all its steps. Callbacks that read it
    come after it.

    Attributes:
        mean: Of the epoch so far; None before its first step.
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
