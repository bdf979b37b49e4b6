"""Jobs: requests on their way through an engine, what is told of them, and what becomes of those that fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from uniformerv2.core.devices import is_out_of_memory
from uniformerv2.core.workers import Lost
from uniformerv2.media.decoding import VideoError
from uniformerv2.serving.decoding import Decoded, UploadTask
from uniformerv2.serving.problems import ServiceError, problem_of
from uniformerv2.serving.works import Work

__all__ = ["Job", "Observer", "failed", "lost", "too_late"]


class Observer:
    """What is told of an engine's work, in whatever thread it happens; this one does nothing with it."""

    def stage(self, name: str, seconds: float) -> None:
        """A request spent so long in a stage: queue, decode, preprocess, compute."""

    def batch(self, num_videos: int) -> None:
        """So many videos were computed together."""

    def worker_lost(self, reason: str) -> None:
        """A worker process was ended ("timeout", "dropped") or died ("crashed")."""


@dataclass(eq=False)
class Job:
    """One request on its way through the engine.

    Attributes:
        task: What a worker does next; None: nothing.
        model: Which computes.
        deadline: When nobody wants the answer any more, by ``monotonic``.
        work: What becomes of what workers read; None: a prediction.
        begin: When it came.
        future: Of the answer.
        waiting: What workers have read and the network has not begun with.
        steps: Of what the network is in.
        has_left: It is counted no more.
    """

    task: UploadTask | None
    model: str = ""
    deadline: float = float("inf")
    work: Work | None = None
    begin: float = field(default_factory=monotonic)
    future: Future[Any] = field(default_factory=Future)
    waiting: deque[Decoded] = field(default_factory=deque)
    steps: Iterator[None] | None = None
    has_left: bool = False

    @property
    def is_dropped(self) -> bool:
        """Nobody waits for it any more, or it has failed."""
        return self.future.done() or monotonic() > self.deadline

    def finish(self, result: Any) -> None:
        """Answer with a result or an error."""
        with suppress(InvalidStateError):  # the client left at this very moment
            if isinstance(result, BaseException):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)


def lost(answer: Lost, seconds: float) -> ServiceError:
    """What is told where a worker was lost over a video.

    Args:
        answer: How.
        seconds: The time that it had.
    """
    if answer.reason == "timeout":
        return ServiceError("slow-decoding", f"The video could not be read in {seconds:g} seconds.")
    return ServiceError("unreadable-video", "The decoder crashed on this video.")


def too_late() -> ServiceError:
    """What is told, if there is still anybody, where an answer was given up as its time was over."""
    return ServiceError("too-slow", "The answer was not there in time.")


def failed(error: Exception) -> Exception:
    """What is told of an error while a network computes."""
    if isinstance(error, VideoError):
        return problem_of(error)
    if is_out_of_memory(error):
        return ServiceError("no-memory", "There is not enough memory now: try again.", retry_after=5)
    return error
