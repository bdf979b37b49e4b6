"""How far a training is, on stderr (a bar on a terminal, lines elsewhere)."""

from __future__ import annotations

import time
from collections import deque
from statistics import fmean, median
from typing import Any, Final

import lightning.pytorch as lightning
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from uniformerv2.core.console import EVERY_SECONDS, Ticker, WordsColumn, can_draw, make_console
from uniformerv2.core.messages import duration, time_left
from uniformerv2.evaluation.curves import FEWEST_EPOCHS, forecast
from uniformerv2.training.epoch_metrics import EpochLoss

__all__ = ["TimeLeft", "TrainProgress"]

RECENT_STEPS: Final = 20
"""Steps whose mean is taken for the next one: more than the processes that read, few enough to follow a machine."""
RECENT_EPOCHS: Final = 3
"""Epochs whose median is taken for the next one."""


class TimeLeft:
    """How long a training will take yet, from steps and epochs that ran steadily.

    ::

        epoch  |start| step | step | ... | validation | checkpoint | next epoch
                first   these: mean        the last one's

    The first step of an epoch starts what reads videos and is no measure for the others; an epoch is measured with it,
    and before two epochs were, with that of the second one, as the first warms up. Steps are averaged: where processes
    read videos, several steps follow each other at once and the next one waits for all of them.

    Attributes:
        count: Steps of this epoch that were seen.
    """

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=RECENT_STEPS)
        self._epochs: list[float] = []
        self._num_epochs = 0
        self._start = self._validation = self._checkpoint = 0.0
        self._epoch_start = self._mark = 0.0
        self._done: float | None = None
        self.count = 0

    def epoch_begins(self, now: float) -> None:
        """No step is done."""
        if self._done is not None:
            self._checkpoint, self._done = now - self._done, None
        self._epoch_start, self.count = now, 0

    def step_done(self, now: float) -> None:
        """Another one."""
        if self.count:
            self._steps.append(now - self._mark)
        elif self._num_epochs:
            self._start = now - self._epoch_start
        self._mark, self.count = now, self.count + 1

    def epoch_done(self, now: float, *, is_whole: bool) -> float:
        """After its validation; its seconds.

        Args:
            now: Seconds of a clock.
            is_whole: All of its steps were seen.
        """
        self._validation, self._done = now - self._mark, now
        self._num_epochs += 1
        seconds = now - self._epoch_start
        if is_whole:
            self._epochs.append(seconds)
        return seconds

    @property
    def seconds_per_epoch(self) -> float | None:
        """Its validation included; None where none was seen as a whole."""
        later = self._epochs[1:] or self._epochs  # the first one warms up
        return median(later[-RECENT_EPOCHS:]) if later else None

    def seconds(self, *, steps: int, epochs: int, steps_per_epoch: int) -> float | None:
        """What is left; None where nothing is known yet.

        Args:
            steps: Left of this epoch; 0 also where its validation is done.
            epochs: After this one.
            steps_per_epoch: Of each.
        """
        if not self._steps and not self._epochs:
            return None
        step = fmean(self._steps) if self._steps else median(self._epochs) / steps_per_epoch
        is_steady = len(self._epochs) > 1 or not self._steps  # what reads videos starts in the first epoch
        epoch = self.seconds_per_epoch if is_steady else None
        epoch = epoch or max(self._start, step) + (steps_per_epoch - 1) * step + self._validation
        this = steps * step + self._validation + self._checkpoint if steps else 0.0
        return this + epochs * (epoch + self._checkpoint)


class TrainProgress(lightning.Callback):
    """Shows each epoch in a line, and what is between two of them.

    Args:
        monitor: Name of the accuracy.
        every_seconds: Between two lines at first, where stderr is no terminal.

    Attributes:
        left: Its clock.
    """

    def __init__(self, monitor: str, *, every_seconds: float = EVERY_SECONDS) -> None:
        self.monitor = monitor
        self._console = make_console(stderr=True)
        self._bar: Progress | None = None
        self._ticker = Ticker(lambda: f"{self._place}{self._now()}", every_seconds=every_seconds)
        self._place, self._words = "", "training starts ..."
        self._val_losses: list[float] = []
        self._end: float | None = None
        self.left = TimeLeft()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Something is to be seen from now on."""
        if stage != "fit":
            return
        if not can_draw(self._console):
            self._ticker.start()
            return
        columns: tuple[Any, ...] = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        columns += (WordsColumn(self._now), TimeElapsedColumn())
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("train", total=None)
        self._bar.start()

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """How many steps there are is known; an epoch that was stopped in the middle goes on without a start."""
        self._total = int(trainer.estimated_stepping_batches)
        self.left.epoch_begins(time.monotonic())
        self._show(trainer)
        if self._bar is not None:
            self._bar.update(self._task, total=self._total, completed=trainer.global_step)

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        """The epoch's own clock."""
        self.left.epoch_begins(time.monotonic())
        self._total = int(trainer.estimated_stepping_batches)  # fewer where there is no time for all
        if self._bar is not None:
            self._bar.update(self._task, total=self._total)
        self._show(trainer)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """A step is done."""
        self.left.step_done(time.monotonic())
        accuracy = trainer.callback_metrics.get(self.monitor)
        measured = [] if accuracy is None else [f"{self.monitor} {float(accuracy):.4f}"]
        left = self._time_left(trainer, steps=trainer.num_training_batches - batch_idx - 1)
        self._show(trainer, *self._loss(trainer), *measured, left=left)

    def on_validation_start(self, trainer: Any, *_: Any) -> None:
        """A pass over the validation videos."""
        if trainer.state.fn == "fit":
            self._show(trainer, *self._loss(trainer), "validating ...")

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        """An epoch is done."""
        if trainer.state.fn != "fit":
            return
        is_whole = self.left.count == trainer.num_training_batches
        seconds = self.left.epoch_done(time.monotonic(), is_whole=is_whole)
        measured = trainer.callback_metrics
        self._ticker.said()
        words = [
            *self._loss(trainer),
            f"val loss {float(measured['val_loss']):.3f}",
            f"{self.monitor} {float(measured[self.monitor]):.4f}",
            duration(seconds),
        ]
        if left := self._time_left(trainer, steps=0):
            words.append(time_left(left))
        self._console.print(f"{self._epoch(trainer)}: {', '.join(words)}", markup=False)
        self._say_where_it_leads(trainer)

    def _say_where_it_leads(self, trainer: Any) -> None:
        """In the middle of the training, where all epochs so far were seen."""
        self._val_losses.append(float(trainer.callback_metrics["val_loss"]))
        done = trainer.current_epoch + 1
        if done != len(self._val_losses) or done != max(FEWEST_EPOCHS, -(-trainer.max_epochs // 2)):
            return
        ends = forecast(self._val_losses, trainer.max_epochs) if done < trainer.max_epochs else None
        if ends is not None:
            self.say(f"By its curve the validation loss will be {ends} after {ends.epochs} epochs.")

    def say(self, text: str) -> None:
        """A sentence between the lines."""
        self._ticker.said()
        self._console.print(text, markup=False)

    def on_train_end(self, *_: Any) -> None:
        """The bar goes."""
        self._stop()

    def on_exception(self, *_: Any) -> None:
        """The bar goes."""
        self._stop()

    def _epoch(self, trainer: Any) -> str:
        return f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"

    def _loss(self, trainer: Any) -> list[str]:
        """The mean of the epoch, the number of the log and of the report."""
        means = [callback.mean for callback in trainer.callbacks if isinstance(callback, EpochLoss)]
        return [f"loss {mean:.3f}" for mean in means if mean is not None]

    def _time_left(self, trainer: Any, *, steps: int) -> float | None:
        epochs = trainer.max_epochs - trainer.current_epoch - 1
        return self.left.seconds(steps=steps, epochs=epochs, steps_per_epoch=trainer.num_training_batches)

    def _show(self, trainer: Any, *parts: str, left: float | None = None) -> None:
        """Keep what is to be said, and when the end is expected."""
        self._place = f"step {trainer.global_step} of {self._total}: "
        self._words = ", ".join((self._epoch(trainer), *parts))
        self._end = None if left is None else time.monotonic() + left
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)

    def _now(self) -> str:
        """The words, with a time that shrinks while a step takes long, and that is left out once it has passed."""
        end = self._end
        left = 0.0 if end is None else end - time.monotonic()
        return f"{self._words}, {time_left(left)}" if left > 0 else self._words

    def _stop(self) -> None:
        self._ticker.stop()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
