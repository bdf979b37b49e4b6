"""Uploads are decoded in worker processes: a file that crashes or hangs its decoder costs that process alone.

Letters: V views, T frames, h x w of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import torch
import torchvision.transforms.v2  # noqa: F401  # seconds, once: workers are forked from a process that has it
from numpy.typing import NDArray

from uniformerv2.core.limits import get_limits, set_limits
from uniformerv2.core.workers import Lost, run_isolated
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader, FileOf, VideoSample
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import VideoError, VideoReader

__all__ = ["PRELOAD", "DecodeLane", "DecodeTask", "Turns", "UploadReader", "decode_upload", "views_bytes"]

Result = TypeVar("Result")
PRELOAD: Final = __name__
"""What the process that forks workers imports."""


@dataclass(frozen=True, kw_only=True)
class UploadReader(ClipReader):
    """Reads an upload: a ``ClipReader`` that refuses long videos once they are open.

    Attributes:
        max_seconds: The longest that is read.
    """

    max_seconds: float

    def visit(
        self, record: VideoRecord, read: Callable[[VideoReader, int, int], Result], *, file: FileOf | None = None
    ) -> Result:
        """See ``ClipReader``."""

        def checked(reader: VideoReader, start: int, stop: int) -> Result:
            self.check_duration(reader)
            return read(reader, start, stop)

        return super().visit(record, checked, file=file)

    def check_duration(self, reader: VideoReader) -> None:
        """Refuse a long video.

        Raises:
            VideoError: It is longer than ``max_seconds``.
        """
        seconds = reader.info.duration_seconds
        if seconds > self.max_seconds:
            detail = f"it lasts {seconds:.1f} seconds, and at most {self.max_seconds:g} are read"
            raise VideoError(reader.path, "too large", detail)


@dataclass(frozen=True)
class DecodeTask:
    """One upload for a worker: where it lies, how it becomes views, and how large its frames may be."""

    path: str
    reader: UploadReader
    max_pixels: int


@dataclass(frozen=True)
class Views:
    """What a worker sends back: a ``VideoSample`` without tensors, which would travel by shared memory."""

    pixels: NDArray[Any]
    frame_indices: tuple[tuple[int, ...], ...]
    duration_seconds: float | None
    decode_seconds: float
    preprocess_seconds: float

    def sample(self) -> VideoSample:
        """For the network."""
        return VideoSample(
            torch.from_numpy(self.pixels),
            torch.tensor(-1),
            0,
            duration_seconds=self.duration_seconds,
            frame_indices=self.frame_indices,
            decode_seconds=self.decode_seconds,
            preprocess_seconds=self.preprocess_seconds,
        )


def decode_upload(task: DecodeTask | None) -> Views | VideoError | None:
    """What a worker does; nothing for None, which makes it start."""
    if task is None:
        return None
    try:
        with set_limits(pixels_per_frame=min(task.max_pixels, get_limits().pixels_per_frame)):
            found = task.reader.read(task.path)
    except VideoError as error:
        return error
    return Views(
        found.video.numpy(),
        found.frame_indices,
        found.duration_seconds,
        found.decode_seconds,
        found.preprocess_seconds,
    )


def views_bytes(preprocessing: Preprocessing) -> int:
    """Memory that the views of a video take, before anything is decoded: V T 3 h w values, twice while they travel.

    >>> views_bytes(Preprocessing(num_frames=8, image_size=224, num_clips=4, num_crops=3)) / 2**20
    110.25
    """
    height, width = preprocessing.input_size
    size = np.dtype(np.float32 if preprocessing.resize == "bilinear_float" else np.uint8).itemsize
    views = preprocessing.num_clips * preprocessing.num_crops
    return 2 * views * preprocessing.num_frames * 3 * height * width * size


class Turns(Protocol):
    """Who may use the cores: on a machine with few of them decoding and computing take turns."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:
        """Wait for the turn."""

    def release(self) -> None:
        """Give it up."""


class Job(Protocol):
    """What a lane takes from its queue."""

    @property
    def task(self) -> DecodeTask | None:
        """What is to be decoded."""

    @property
    def is_dropped(self) -> bool:
        """Nobody waits for it any more."""


AnyJob = TypeVar("AnyJob", bound=Job)


class DecodeLane(Thread):
    """A thread with one worker process, which takes jobs from a queue until it finds None there.

    A worker that crashes is replaced, and the job is tried once more: the first may have been ended by the system, for
    want of memory, or by an operator.

    Args:
        jobs: Shared by the lanes.
        done: Called with each job and what came of it; ``Lost`` where its worker was.
        timeout_seconds: The most that a job may take; its worker is ended then.
        turns: Held while the worker decodes; None: nobody waits for it.
    """

    def __init__(
        self,
        jobs: SimpleQueue[Any],
        done: Callable[[Any, Views | VideoError | Lost | None], None],
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
        lane = run_isolated(decode_upload, self._tasks(), num_workers=1, timeout_seconds=self._timeout_seconds)
        for _, answer in lane:
            self._give_turn()
            is_crash = isinstance(answer, Lost) and answer.reason == "crashed"
            if is_crash and not self._again:
                self._again = True
                continue
            self._again = False
            job, self._job = self._job, None
            self._done(job, answer)

    def _tasks(self) -> Iterator[DecodeTask | None]:
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
