"""Several processes for one task: those that ``torchrun`` or a cluster started, or those that we start here."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final

from uniformerv2.core.messages import UsageError
from uniformerv2.core.workers import end_with_parent, nothing_from_here

__all__ = ["Place", "ProcessGroup", "cleaning_up_at_sigterm", "own_place"]

STOP_SECONDS: Final = 10.0


@contextmanager
def cleaning_up_at_sigterm() -> Iterator[None]:
    """Let SIGTERM end a run as an exit does, with 143: workers are ended, and nothing of theirs is told as leaked."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Place:
    """Which of several processes this one is.

    Attributes:
        rank: Its number.
        world_size: Processes on all machines.
        local_rank: Its number on this machine.
        local_size: Processes on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1


def own_place(environment: Mapping[str, str] = os.environ) -> Place:
    """From the variables that ``torchrun`` sets: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE.

    Raises:
        UsageError: They are no numbers, or contradict each other.
    """
    names = {"rank": "RANK", "world_size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE"}
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Place()
    try:
        place = Place(**{field: int(environment[name]) for field, name in names.items() if name in environment})
    except ValueError as error:
        raise UsageError(f"RANK, WORLD_SIZE and the like must be numbers: {error}.") from error
    if not 0 <= place.rank < place.world_size:
        raise UsageError(f"RANK is {place.rank}; with WORLD_SIZE={place.world_size} it must be below it, from 0 on.")
    return place


class ProcessGroup:
    """Processes that run the same function; they end together, and with this one.

    Args:
        function: Of a module; takes the options, returns an exit code.
        options: Plain values.
        size: Processes.
    """

    def __init__(self, function: Callable[[argparse.Namespace], int], options: argparse.Namespace, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._words: Any = context.SimpleQueue()
        self._processes = [
            context.Process(target=_work, args=(function, options, Place(rank, size, rank, size), self._words))
            for rank in range(size)
        ]

    def join(self) -> int:
        """Run them to the end.

        Returns:
            The exit code of the first.

        Raises:
            UsageError: One of them was called wrongly.
            ChildProcessError: One of them failed.
        """
        with nothing_from_here():
            for process in self._processes:
                process.start()
        try:
            running = dict(enumerate(self._processes))
            while running:
                wait([process.sentinel for process in running.values()])
                for rank, process in list(running.items()):
                    if process.exitcode is not None:
                        self._check(rank, process.exitcode)
                        del running[rank]
            return int(self._processes[0].exitcode or 0)
        finally:
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                process.join(STOP_SECONDS)
                process.kill()

    def _check(self, rank: int, exit_code: int) -> None:
        """Pass on what a process says at its end.

        Raises:
            UsageError: It was called wrongly.
            ChildProcessError: It failed, or was killed.
        """
        if not self._words.empty():
            kind, words, where = self._words.get()
            raise kind(words) from ChildProcessError(f"in process {rank}:\n{where}")  # shown by --debug
        if exit_code and (rank or exit_code != 1):  # the first one ends with 1 where no video could be read
            raise ChildProcessError(f"process {rank} ended with exit code {exit_code}.")


def _work(function: Callable[[argparse.Namespace], int], options: argparse.Namespace, place: Place, words: Any) -> None:
    os.environ.update(RANK=str(place.rank), WORLD_SIZE=str(place.world_size))
    os.environ.update(LOCAL_RANK=str(place.local_rank), LOCAL_WORLD_SIZE=str(place.local_size))
    end_with_parent()
    try:
        code = function(options)
    except UsageError as error:
        words.put((UsageError, str(error), traceback.format_exc()))
        code = 2
    except (ValueError, OSError, ModuleNotFoundError) as error:
        words.put((ChildProcessError, str(error), traceback.format_exc()))
        code = 1
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # a defect: seen with its traceback
        traceback.print_exc()
        words.put((ChildProcessError, f"process {place.rank} failed: {type(error).__name__}", traceback.format_exc()))
        code = 1
    sys.exit(code)
