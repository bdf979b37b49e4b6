"""A training that a signal stops: after the step it is in, with a checkpoint, and without losing its workers."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from uniformerv2._require import require

if TYPE_CHECKING:
    import lightning.pytorch as lightning
else:
    lightning = require("lightning.pytorch", extra="train")

__all__ = ["StopCleanly", "TrainingStoppedError"]


class TrainingStoppedError(RuntimeError):
    """A signal stopped the training; the checkpoint is written.

    Attributes:
        signal_number: Which signal.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopCleanly(lightning.Callback):
    """Lets a signal end the training after the step it is in, with a checkpoint.

    A second signal ends it at once. Signals during a validation wait for its end.

    Args:
        last: Checkpoint to write.
    """

    def __init__(self, last: Path) -> None:
        self.last = last
        self.signal_number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM; only the main thread can."""
        if not _is_main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Stop here.

        Raises:
            TrainingStoppedError: A signal came.
        """
        if self.signal_number:
            raise self.error(trainer)

    def on_test_batch_end(self, trainer: Any, *_: Any) -> None:
        """Stop here; the test starts anew later.

        Raises:
            TrainingStoppedError: A signal came.
        """
        if self.signal_number:
            raise self.error(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep what is done: here, and where something fails because of the signal before the step is through."""
        if self.signal_number and trainer.state.fn == "fit" and not isinstance(exception, KeyboardInterrupt):
            trainer.save_checkpoint(self.last)

    def error(self, trainer: Any) -> TrainingStoppedError:
        """What to raise."""
        where = f"after step {trainer.global_step} (epoch {trainer.current_epoch + 1} of {trainer.max_epochs})"
        return TrainingStoppedError(f"Stopped {where}; {self.last} is written.", signal_number=self.signal_number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number:
            raise KeyboardInterrupt
        self.signal_number = number
        sys.stderr.write("\nStopping after this step; a second signal stops at once, and loses the epoch.\n")


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
