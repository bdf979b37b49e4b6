"""How far a training is: a bar with loss, accuracy and the time left on a terminal, lines elsewhere. On stderr."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from uniformerv2.core.optional import require

if TYPE_CHECKING:
    import lightning.pytorch as lightning
else:
    lightning = require("lightning.pytorch", extra="train")

__all__ = ["TrainProgress", "duration"]


def duration(seconds: float) -> str:
    """In the largest unit that makes sense.

    >>> duration(42), duration(200), duration(9000)
    ('42 s', '3.3 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class TrainProgress(lightning.Callback):
    """Shows each epoch in a line, and what is between two of them.

    Args:
        monitor: Name of the accuracy.
        every_seconds: Between two lines where stderr is no terminal.
    """

    def __init__(self, monitor: str, *, every_seconds: float = 30.0) -> None:
        self.monitor = monitor
        self.every_seconds = every_seconds
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._losses: list[float] = []

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """The clock starts."""
        self._start = self._spoke = self._epoch_start = time.monotonic()
        self._before = trainer.global_step
        self._total = int(trainer.estimated_stepping_batches)
        if self._console.is_terminal:
            columns: tuple[Any, ...] = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
            )
            columns += (TextColumn("{task.fields[words]}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("train", total=self._total, completed=self._before, words="")
            self._bar.start()

    def on_train_epoch_start(self, *_: Any) -> None:
        """The epoch's own clock and mean."""
        self._epoch_start, self._losses = time.monotonic(), []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        """A step is done."""
        self._losses.append(float(outputs["loss"]))
        now = time.monotonic()
        words = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, loss {self._losses[-1]:.3f}"
        accuracy = trainer.callback_metrics.get(self.monitor)
        words += "" if accuracy is None else f", {self.monitor} {float(accuracy):.4f}"
        words += f", about {duration(self._left(trainer, now))} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, words=words)
        elif now - self._spoke >= self.every_seconds:
            self._spoke = now
            self._console.print(f"step {trainer.global_step} of {self._total}: {words}", markup=False)

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        """An epoch is done."""
        now = self._spoke = time.monotonic()
        measured = trainer.callback_metrics
        loss = f"loss {sum(self._losses) / len(self._losses):.3f}, " if self._losses else ""
        self._console.print(
            f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {loss}"
            f"val loss {float(measured['val_loss']):.3f}, {self.monitor} {float(measured[self.monitor]):.4f}, "
            f"{duration(now - self._epoch_start)}, about {duration(self._left(trainer, now))} left",
            markup=False,
        )

    def on_train_end(self, *_: Any) -> None:
        """The bar goes."""
        self._stop()

    def on_exception(self, *_: Any) -> None:
        """The bar goes."""
        self._stop()

    def on_test_start(self, trainer: Any, *_: Any) -> None:
        """The last part."""
        self._console.print("testing with many views ...", markup=False)

    def _left(self, trainer: Any, now: float) -> float:
        """Seconds; validation is in the mean over the steps."""
        done = max(1, trainer.global_step - self._before)
        return (self._total - trainer.global_step) * (now - self._start) / done

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
