"""Lanes: threads that each have a worker process decode one upload after the other, and turns for the cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Condition, Event, Thread
from typing import Any, Protocol

from uniformerv2.core.workers import Lost, run_isolated
from uniformerv2.media.decoding import VideoError
from uniformerv2.serving.decoding import Decoded, UploadTask, decode_upload

__all__ = ["DecodeLane", "Turns"]


class Turns:
    """Who may use the cores: on a machine with few of them decoding and computing take turns, first come, first served.

    A plain lock would often go back to the thread that has just let it go.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: deque[object] = deque()
        self._is_taken = False

    def acquire(self, *, timeout: float) -> bool:
        """Wait for the turn, at most so many seconds; whether it came."""
        me = object()
        with self._changed:
            self._waiting.append(me)
            is_mine = self._changed.wait_for(lambda: not self._is_taken and self._waiting[0] is me, timeout)
            self._waiting.remove(me)
            self._is_taken |= is_mine
            self._changed.notify_all()
            return is_mine

    def release(self) -> None:
        """Give it up."""
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()


class Job(Protocol):
    """What a lane takes from its queue."""

    @property
    def task(self) -> UploadTask | None:
        """What is to be decoded."""

    @property
    def is_dropped(self) -> bool:
        """Nobody waits for it any more."""


class DecodeLane(Thread):
    """A thread with one worker process, which takes jobs from a queue until it finds None there.

    A worker that crashes is replaced, and the job is tried once more: the first may have been ended by the system, for
    want of memory, or by an operator. A worker whose job was dropped is ended as soon as another job waits.

    Args:
        jobs: Shared by the lanes.
        done: Called with each job and what came of it; ``Lost`` where its worker was.
        timeout_seconds: The most that a job may take; its worker is ended then.
        turns: Held while the worker decodes; None: nobody waits for it.
    """

    def __init__(
        self,
        jobs: SimpleQueue[Any],
        done: Callable[[Any, Decoded | VideoError | Lost | None], None],
        *,
        timeout_seconds: float,
        turns: Turns | None = None,
    ) -> None:
        super().__init__(name="decode lane", daemon=True)
        self._jobs = jobs
        self._done = done
        self._timeout_seconds = timeout_seconds
        self._turns = turns
        self._has_turn = False
        self._job: Any = None
        self._again = False
        self._end = Event()

    def run(self) -> None:
        """Until there is None in the queue."""
        while not self._end.is_set():
            try:
                self._run()
            except ChildProcessError as error:  # no worker starts
                self._give_turn()
                self._again = False
                if self._job is not None:
                    job, self._job = self._job, None
                    self._done(job, Lost("crashed", str(error)))
                self._end.wait(1.0)

    def _run(self) -> None:
        lane = run_isolated(
            decode_upload,
            self._tasks(),
            num_workers=1,
            timeout_seconds=self._timeout_seconds,
            is_dropped=self._is_in_the_way,
        )
        for _, answer in lane:
            self._give_turn()
            is_crash = isinstance(answer, Lost) and answer.reason == "crashed"
            if is_crash and not self._again:
                self._again = True
                continue
            self._again = False
            job, self._job = self._job, None
            self._done(job, answer)

    def _is_in_the_way(self, _task: UploadTask | None) -> bool:
        """Nobody waits for what the worker does, and others wait for the worker."""
        return self._job is not None and self._job.is_dropped and not self._jobs.empty()

    def _tasks(self) -> Iterator[UploadTask | None]:
        while True:
            if not self._again:
                self._job = self._jobs.get()
            if self._job is None:
                self._end.set()
                return
            if self._job.is_dropped:
                job, self._job, self._again = self._job, None, False
                self._done(job, None)
                continue
            self._take_turn()
            yield self._job.task

    def _take_turn(self) -> None:
        if self._turns is not None:
            self._has_turn = self._turns.acquire(timeout=self._timeout_seconds)

    def _give_turn(self) -> None:
        if self._turns is not None and self._has_turn:
            self._turns.release()
            self._has_turn = False
