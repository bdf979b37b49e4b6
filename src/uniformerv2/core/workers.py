"""Work on files that may hang or crash the process that reads them, in worker processes.

    parent  --task-->  worker      one pipe each, one task at a time
            <-answer-              no answer in time: the worker is killed; pipe closed: the worker died
                                   either way the task gets a ``Lost`` and a fresh worker takes the next one

Why not ``concurrent.futures``: there one dead worker breaks the whole pool, and a hanging one cannot be stopped.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Final, Generic, Literal, TypeVar

from uniformerv2.core.limits import Limits, get_limits, set_limits

__all__ = [
    "NEEDS_GUARD",
    "SAFE_PATH",
    "Lost",
    "available_cores",
    "begin_worker",
    "end_with_parent",
    "nothing_from_here",
    "run_isolated",
    "worker_context",
]

SAFE_PATH: Final = "PYTHONSAFEPATH"


@contextmanager
def nothing_from_here() -> Iterator[None]:
    """Python processes that are started meanwhile import nothing because it lies in the current folder."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(SAFE_PATH, None)
        else:
            os.environ[SAFE_PATH] = before


Task = TypeVar("Task")
Answer = TypeVar("Answer")

_START_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.2
_READY: Final = "ready"
_SLOW_IMPORT: Final = "uniformerv2.media.decoding"
"""Brings torch and av. Imported once by the process that forks the workers, so that a new one costs milliseconds."""
NEEDS_GUARD: Final = (
    "A script that starts workers must be a file, with if __name__ == '__main__': around its own work; "
    "with num_workers=0 it needs neither."
)


@dataclass(frozen=True)
class Lost:
    """A task without an answer.

    Attributes:
        reason: ``"timeout"``: the worker was killed; ``"crashed"``: it died, or the function raised.
        detail: Seconds, signal, exit code or error.
    """

    reason: Literal["timeout", "crashed"]
    detail: str


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def worker_context(*, preload: str = _SLOW_IMPORT) -> BaseContext:
    """The source of workers: processes that never are a copy of this one, which may have threads and open decoders.

    They are forked from a server (where there is none, as on Windows, each is started anew), which is started here, if
    there is none yet, with SIGTERM blocked in it and in them. It imports nothing of the current folder, and of the
    user's script nothing either: a worker does, by the path of this process.

    A cluster, or ``kill`` with a group of processes, sends SIGTERM to all of them at once. What it means is decided in
    the main process, which may first finish what it is in and needs its workers for that.

    Args:
        preload: The module that the server imports, so that a worker costs milliseconds.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    with nothing_from_here():
        multiprocessing.resource_tracker.ensure_running()  # now, as starting it would unblock SIGTERM
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # it is inherited, and nothing is lost
        try:
            multiprocessing.forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def begin_worker(limits: Limits) -> None:
    """Make this process one that ends when its parent ends or kills it, and not by signals that go to both of them.

    Args:
        limits: Those of the parent, which may have been set after the server was started.
    """
    set_limits(**asdict(limits))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Make this process end at once when the one that started it does, however that ends.

    Without it a worker outlives a parent that is killed: its system parent is the forkserver, which lives as long as
    the worker does.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_isolated(
    function: Callable[[Task], Answer],
    tasks: Iterable[Task],
    *,
    num_workers: int,
    timeout_seconds: float,
    is_dropped: Callable[[Task], bool] | None = None,
) -> Iterator[tuple[Task, Answer | Lost]]:
    """Call ``function`` on each task in worker processes.

    Workers ignore Ctrl-C and SIGTERM; they end with this generator and with this process, however it ends.

    Args:
        function: A function of a module (or a ``partial`` of one): it is pickled, and so are its answers.
        tasks: Taken one by one, as workers come free.
        num_workers: Processes; never more are started than there are tasks.
        timeout_seconds: Time limit per task.
        is_dropped: Asked now and then whether nobody wants a task's answer any more; its worker is killed then.

    Yields:
        Each task with its answer, in the order in which they finish.

    Raises:
        ValueError: ``num_workers`` or ``timeout_seconds`` is not positive.
        ChildProcessError: A worker does not start.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}; it is at least 1.")
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds is {timeout_seconds}; it must be above 0.")
    waiting = iter(tasks)
    workers: list[_Worker[Task, Answer]] = []

    def start(task: Task) -> None:
        workers.append(_Worker(function, task, timeout_seconds))

    try:
        for _, task in zip(range(num_workers), waiting, strict=False):
            start(task)
        while workers:
            pause = min(worker.deadline for worker in workers) - time.monotonic()
            wait(
                [worker.pipe for worker in workers],
                max(0.0, pause if is_dropped is None else min(pause, _LOOK_SECONDS)),
            )
            for worker in list(workers):
                task = worker.task
                if worker.pipe.poll():  # asked now: the consumer may have taken its time since the wait
                    answer = worker.receive()
                elif time.monotonic() >= worker.deadline:
                    answer = worker.expire()
                elif is_dropped is not None and is_dropped(task):
                    answer = worker.drop()
                else:
                    continue
                if answer is _NOTHING:
                    continue
                yield task, answer
                following = next(waiting, _NOTHING)
                if worker.is_alive and following is not _NOTHING:
                    worker.send(following)
                    continue
                workers.remove(worker)
                worker.stop()
                if following is not _NOTHING:
                    start(following)
    finally:
        for worker in workers:
            worker.stop()


_NOTHING: Final[Any] = object()


class _Worker(Generic[Task, Answer]):
    """One process with one task; the clock starts when the process says that it is ready."""

    def __init__(self, function: Callable[[Task], Answer], task: Task, timeout_seconds: float) -> None:
        context: Any = worker_context()
        self.pipe, theirs = context.Pipe()
        self.task = task
        self.is_alive = True
        self._is_ready = False
        self._timeout_seconds = timeout_seconds
        self.deadline = time.monotonic() + _START_SECONDS
        self._process = context.Process(target=_serve, args=(theirs, function, get_limits()), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, task: Task) -> None:
        """Give the process its next task."""
        self.task = task
        self.deadline = time.monotonic() + self._timeout_seconds
        with suppress(BrokenPipeError, ConnectionResetError):  # it died between two tasks: receive will tell
            self.pipe.send(task)

    def receive(self) -> Any:
        """The answer of the process; nothing where it is only ready for its first task.

        Raises:
            ChildProcessError: It died before it was ready.
        """
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.is_alive = False
            died = self._how_it_died()
            if not self._is_ready:
                raise ChildProcessError(f"A worker process does not start ({died}). {NEEDS_GUARD}") from None
            return Lost("crashed", died)
        if not self._is_ready:
            assert message == _READY
            self._is_ready = True
            self.send(self.task)
            return _NOTHING
        return message

    def expire(self) -> Lost:
        """Kill the process, its time is up.

        Raises:
            ChildProcessError: It never was ready.
        """
        self.is_alive = False
        self._process.kill()
        if not self._is_ready:
            raise ChildProcessError(f"A worker process did not start within {_START_SECONDS:.0f} seconds.")
        return Lost("timeout", f"not done in {self._timeout_seconds:g} seconds")

    def drop(self) -> Lost:
        """Kill the process, nobody waits for it."""
        self.is_alive = False
        self._process.kill()
        return Lost("timeout", "nobody wants the answer any more")

    def stop(self) -> None:
        """End the process. One that hangs in the kernel (a dead network disk) is left to it."""
        self._process.kill()
        self._process.join(timeout=5)
        self.pipe.close()

    def _how_it_died(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"the decoder's process died of {signal.Signals(-code).name}"
        return f"the decoder's process ended with code {code}"


def _serve(pipe: Connection, function: Callable[[Any], Any], limits: Limits) -> None:
    """The life of a worker: it ends when the parent closes the pipe, or dies."""
    begin_worker(limits)  # a function that hangs sees no closed pipe
    try:
        pipe.send(_READY)
        while True:
            task = pipe.recv()
            pipe.send(_call(function, task))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _call(function: Callable[[Any], Any], task: Any) -> Any:
    try:
        return function(task)
    except Exception as error:
        return Lost("crashed", f"{type(error).__name__}: {error}")
