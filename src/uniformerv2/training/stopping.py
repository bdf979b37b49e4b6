"""A training that is stopped: it leaves a checkpoint, and its message says how to continue."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import lightning.pytorch as lightning
from lightning.pytorch.utilities.exceptions import SIGTERMException

from uniformerv2.core.files import NO_ROOM, DiskFullError
from uniformerv2.data.loader import WorkerDiedError
from uniformerv2.training.resume import CheckpointWriteError, can_resume_from

__all__ = ["StopCleanly", "TrainingStoppedError", "stopping_at_once"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class TrainingStoppedError(RuntimeError):
    """A signal stopped the training; the checkpoint is written.

    Attributes:
        signal_number: Which signal.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class _SignalReceived(BaseException):
    """No ``Exception``: what runs when a signal comes must not take it for an error of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopCleanly(lightning.Callback):
    """Lets a signal end the training after the step it is in, with a checkpoint.

    A second signal ends it at once. A signal that comes during a validation, or in the step before it, waits for its
    end.

    Args:
        last: Checkpoint to write.
    """

    def __init__(self, last: Path) -> None:
        self.last = last
        self.signal_number = 0
        self._listens = False

    @contextmanager
    def listening(self, trainer: Any) -> Iterator[None]:
        """Take SIGINT and SIGTERM, which only the main thread can, and turn errors into ones that say what to do.

        Args:
            trainer: Has this callback.

        Raises:
            TrainingStoppedError: A signal came.
            CheckpointWriteError: The disk is full.
            WorkerDiedError: A process that reads videos has ended.
            SystemExit: Somebody else ended the training.
            KeyboardInterrupt: Likewise, outside the main thread.
        """
        self._listens = threading.current_thread() is threading.main_thread()
        before = [(number, signal.getsignal(number)) for number in SIGNALS]
        self._take_signals()
        try:
            yield
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # an exit is what Lightning makes of signals
            explained = self._explained(error, trainer)
            if explained is error:
                raise
            raise explained from error
        finally:
            if self._listens:
                for number, handler in before:
                    signal.signal(number, handler)
            self._listens = False

    def on_train_start(self, *_: Any) -> None:
        """Take the signals from Lightning, which ends a validation at once, without a checkpoint."""
        self._take_signals()

    def on_validation_start(self, *_: Any) -> None:
        """As ``on_train_start``."""
        self._take_signals()

    def on_test_start(self, *_: Any) -> None:
        """As ``on_train_start``."""
        self._take_signals()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Stop here.

        Raises:
            TrainingStoppedError: A signal came.
        """
        if self._is_asked(trainer) and can_resume_from(trainer):
            trainer.save_checkpoint(self.last)
            raise self._error(trainer)

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Stop here, after the validation and its checkpoint.

        Raises:
            TrainingStoppedError: A signal came.
        """
        if self._is_asked(trainer):
            raise self._error(trainer)

    def on_test_batch_end(self, trainer: Any, *_: Any) -> None:
        """Stop here; the test starts anew later.

        Raises:
            TrainingStoppedError: A signal came.
        """
        if self.signal_number:
            raise self._error(trainer)

    def _is_asked(self, trainer: Any) -> bool:
        """Whether a signal came to any of the processes, which all stop after the same step."""
        return bool(trainer.strategy.reduce_boolean_decision(self.signal_number > 0, all=False))

    def _take_signals(self) -> None:
        if self._listens:
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _explained(self, error: BaseException, trainer: Any) -> BaseException:
        if isinstance(error, TrainingStoppedError | CheckpointWriteError):
            return error
        number = signal.SIGTERM if isinstance(error, SIGTERMException) else self.signal_number
        if number:  # Lightning may see SIGTERM before this callback does
            where = f"in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            return TrainingStoppedError(f"Stopped {where}. {self._way_on}", signal_number=number)
        if isinstance(error, WorkerDiedError):
            return WorkerDiedError(f"{error} {self._way_on}")
        if isinstance(error, DiskFullError):
            return CheckpointWriteError(f"{error} {self._way_on}")
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return CheckpointWriteError(f"{error}. Make room on the disk. {self._way_on}")
        return error

    def _error(self, trainer: Any) -> TrainingStoppedError:
        where = f"after step {trainer.global_step} (epoch {trainer.current_epoch + 1} of {trainer.max_epochs})"
        message = f"Stopped {where}; {self.last} is written. The same command with --resume continues from there."
        return TrainingStoppedError(message, signal_number=self.signal_number)

    @property
    def _way_on(self) -> str:
        """What the user does next, a sentence."""
        if self.last.exists():
            return f"The same command with --resume continues from {self.last}."
        return "There is no checkpoint yet: the same command starts anew."

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number:
            raise KeyboardInterrupt
        self.signal_number = number
        again = "Ctrl-C" if number == signal.SIGINT else "signal"
        sys.stderr.write(
            f"\nStopping after this step. A second {again} stops at once and loses what the last checkpoint lacks.\n"
        )


@contextmanager
def stopping_at_once(message: str) -> Iterator[None]:
    """Let a signal end what is safe to end anywhere, as the final test is; only the main thread can.

    Args:
        message: Message of the error.

    Raises:
        TrainingStoppedError: SIGINT or SIGTERM came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _SignalReceived(number)

    before = [(number, signal.signal(number, stop)) for number in SIGNALS]
    try:
        yield
    except _SignalReceived as received:
        raise TrainingStoppedError(message, signal_number=received.number) from None
    finally:
        for number, handler in before:
            signal.signal(number, handler)
