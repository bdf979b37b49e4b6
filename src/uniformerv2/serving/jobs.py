"""Jobs: requests on their way through an engine, what is told of them, and what becomes of those that fail."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from uniformerv2.core.devices import is_out_of_memory
from uniformerv2.core.workers import Lost
from uniformerv2.serving.decoding import DecodeTask
from uniformerv2.serving.problems import ServiceError

__all__ = ["Job", "Observer", "failed", "lost"]


class Observer:
    """What is told of an engine's work, in whatever thread it happens; this one does nothing with it."""

    def stage(self, name: str, seconds: float) -> None:
        """A request spent so long in a stage: queue, decode, preprocess, compute."""

    def batch(self, num_videos: int) -> None:
        """So many videos were computed together."""

    def worker_lost(self, reason: str) -> None:
        """A worker process was ended ("timeout") or died ("crashed")."""


@dataclass(eq=False)
class Job:
    """One request on its way through the engine.

    Attributes:
        task: What a worker does first; None: nothing.
        model: Which computes.
        deadline: When nobody wants the answer any more, by ``monotonic``.
        begin: When it came.
        future: Of the answer.
    """

    task: DecodeTask | None
    model: str = ""
    deadline: float = float("inf")
    begin: float = field(default_factory=monotonic)
    future: Future[Any] = field(default_factory=Future)

    @property
    def is_dropped(self) -> bool:
        """Nobody waits for it any more."""
        return self.future.cancelled() or monotonic() > self.deadline

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


def failed(error: Exception) -> Exception:
    """What is told of an error while a network computes."""
    if is_out_of_memory(error):
        return ServiceError("no-memory", "There is not enough memory now: try again.", retry_after=5)
    return error
