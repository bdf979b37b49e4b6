"""``KeepBudget``: a training that ends in time, with a learning rate that has fallen to its end by then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import lightning.pytorch as lightning

from uniformerv2.training.progress import TimeLeft

__all__ = ["KeepBudget"]

LOOKS: Final = 4
"""Within the first epoch, at equal distances, the last of them at its end."""
FEWEST_STEPS: Final = 3
"""Before so many steps their time says little."""
SURELY: Final = 0.9
"""Of the epochs that are found to fit beyond those planned."""


class KeepBudget(lightning.Callback):
    """Counts the epochs that still fit after each epoch, and a few times within the first.

    ::

        planned   |   1   |   2   |   3   |   4   |   5   |        rate: .-'''--..__
        measured  |    1    |    2    |    3    |                        .-''-._
                       ^ 3 epochs fit from here on

    An epoch that has begun is finished. Fewer epochs are more again where the machine gets quicker. A training that is
    quicker than planned gets more of them, while it is in its first half: later its rate has fallen.

    Args:
        seconds: From now on, for the steps and their validation.
        most: Epochs, at most; never fewer than are planned.
        say: Told in a sentence when the number of epochs changes.
    """

    KEY: Final = "keep_budget"

    def __init__(self, seconds: float, *, most: int = 0, say: Callable[[str], None] = lambda text: None) -> None:
        self._end = time.monotonic() + seconds
        self._most = most
        self._say = say
        self._left = TimeLeft()
        self._planned = 0
        self._fitting: int | None = None  # of a checkpoint

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """With what is left, and where on its curve the rate is."""
        own = {"seconds": self._end - time.monotonic(), "epochs": trainer.max_epochs}
        checkpoint[self.KEY] = {**own, "schedule": pl_module.schedule.state_dict()}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on with it."""
        if (state := checkpoint.get(self.KEY)) is not None:
            self._end = time.monotonic() + float(state["seconds"])
            self._fitting = int(state["epochs"])
            pl_module.schedule.load_state_dict(state["schedule"])

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """As many epochs as were to be when the checkpoint was written."""
        self._planned = trainer.max_epochs
        if self._fitting is not None:
            trainer.fit_loop.max_epochs = self._fitting
        self._left.epoch_begins(time.monotonic())

    def on_train_epoch_start(self, *_: Any) -> None:
        """The epoch's own clock."""
        self._left.epoch_begins(time.monotonic())

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Look, where it is the first epoch, and a part of it is over."""
        self._left.step_done(time.monotonic())
        done, steps = batch_idx + 1, trainer.num_training_batches
        every = max(1, steps // LOOKS)
        if self._left.seconds_per_epoch is None and done % every == 0 and FEWEST_STEPS <= done < steps:
            self._look(trainer, pl_module, steps=steps - done)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Look, after each epoch."""
        if trainer.state.fn == "fit":
            self._left.epoch_done(time.monotonic(), is_whole=self._left.count == trainer.num_training_batches)
            self._look(trainer, pl_module, steps=0)

    def _look(self, trainer: Any, pl_module: Any, *, steps: int) -> None:
        """How many epochs fit, with this one.

        Args:
            trainer: Trainer of this training.
            pl_module: Whose schedule is to end with the last of them.
            steps: Left of this epoch.
        """
        this, before = trainer.current_epoch + 1, trainer.max_epochs
        fitting = this + self._more(trainer, most=max(self._planned, before) - this, steps=steps)
        if grows := steps == 0 and fitting == before and 2 * this <= before < self._most:
            more = SURELY * self._more(trainer, most=2 * self._most, steps=0)
            fitting = max(before, min(self._most, this + int(more)))
        fitting = trainer.strategy.broadcast(fitting)
        if fitting == before:
            return
        trainer.fit_loop.max_epochs = fitting
        total = fitting * trainer.num_training_batches
        if total > trainer.global_step:
            pl_module.schedule.end_at(total, now=trainer.global_step)
        ends = "ends with this epoch" if fitting == this else f"has {fitting} epochs"
        why = "As there is time for them" if grows else "To keep the budget"
        falls = " The learning rate falls to its end by then." if total > trainer.global_step else ""
        self._say(f"{why}, the training {ends}; {self._planned} were planned.{falls}")

    def _more(self, trainer: Any, *, most: int, steps: int) -> int:
        """Epochs after this one that fit."""

        def seconds(epochs: int) -> float:
            found = self._left.seconds(steps=steps, epochs=epochs, steps_per_epoch=trainer.num_training_batches)
            return 0.0 if found is None else found

        left, each = self._end - time.monotonic() - seconds(0), seconds(1) - seconds(0)
        return max(0, min(most, int(left / each))) if each > 0 else most
