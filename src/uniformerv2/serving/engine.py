"""Engine: a bounded queue in front of predictors.

::

    predict()   -> jobs -> decode lanes -> ready -> compute thread -> future
    run()           ^      a worker each            one batch after the other, and a step of each longer work
    (event loop)    |__________ the next piece of a long video _________|

At most ``queue_size`` requests are anywhere between the first arrow and the last. Few decoded videos wait: a lane hands
one over before it takes the next. On a GPU the views of all videos that wait share batches; on a CPU each video is
computed alone, as more at once gain nothing there. A long video is read in pieces and computed in steps, between which
others have their turn. Whoever is late or gone is dropped before it costs anything more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Full, Queue, SimpleQueue
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import torch

from uniformerv2.core.files import in_words
from uniformerv2.core.messages import did_you_mean
from uniformerv2.core.workers import Lost, available_cores, worker_context
from uniformerv2.inference.prediction import Prediction
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.reading_ahead import FEW_CORES
from uniformerv2.media.decoding import VideoError
from uniformerv2.serving.computing import Computer, Ready
from uniformerv2.serving.decoding import PRELOAD, Decoded, UploadReader, ViewsTask, views_bytes
from uniformerv2.serving.jobs import Job, Observer, lost, too_late
from uniformerv2.serving.lanes import DecodeLane, Turns
from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.problems import ServiceError, problem_of
from uniformerv2.serving.works import Work

if TYPE_CHECKING:
    pass

__all__ = ["Engine"]

MOST_WORKERS: Final = 8
logger = logging.getLogger(__name__)


class Engine:
    """Predictors behind a bounded queue; ``start`` before the first request, ``close`` at the end.

    Args:
        predictors: By the name that a request calls them; the first is taken where it calls none.
        options: Limits of requests.
        observer: Is told what happens.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        *,
        options: ServeOptions | None = None,
        observer: Observer | None = None,
    ) -> None:
        if not predictors:
            raise ValueError("An engine needs a predictor, got none.")
        self.predictors = dict(predictors)
        self.options = options or ServeOptions()
        self.observer = observer or Observer()
        self.is_draining = False
        self.is_ready = False
        self._lock = Lock()
        self._num_jobs = 0
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        first = next(iter(self.predictors.values()))
        is_cpu, cores = first.device.type == "cpu", available_cores()
        self._turns = Turns() if is_cpu and cores <= FEW_CORES else None
        self.num_workers = self.options.num_workers or min(MOST_WORKERS, max(1, cores // 2 if is_cpu else cores))
        self._ready: Queue[Ready | None] = Queue(
            maxsize=max(predictor.views_per_batch for predictor in self.predictors.values())
        )
        seconds = self.options.decode_seconds
        self._lanes = [
            DecodeLane(self._jobs, self._decoded, timeout_seconds=seconds, turns=self._turns)
            for _ in range(self.num_workers)
        ]
        self._computer = Computer(
            self.predictors,
            self._ready,
            read=self._jobs.put,
            leave=self._leave,
            observer=self.observer,
            turns=self._turns,
        )

    @property
    def num_jobs(self) -> int:
        """Requests that wait, are decoded or computed."""
        return self._num_jobs

    def start(self) -> None:
        """Start the workers and warm the networks, so that the first request is not the slow one.

        Raises:
            ChildProcessError: No worker starts.
        """
        worker_context(preload=PRELOAD)
        for lane in self._lanes:
            lane.start()
        first = [Job(None) for _ in self._lanes]
        for job in first:
            self._enter(job)
        for predictor in self.predictors.values():
            self._warm(predictor)
        self._computer.start()
        for job in first:
            job.future.result()
        self.is_ready = True

    @staticmethod
    def _warm(predictor: Predictor) -> None:
        preprocessing = predictor.preprocessing
        frames = torch.zeros(preprocessing.num_frames, 3, *preprocessing.input_size, dtype=torch.uint8)
        views = preprocessing.resize_and_crop(frames, 1)
        for count in {1, predictor.views_per_batch}:
            predictor.logits(views[:1].repeat(count, 1, 1, 1, 1))

    def drain(self) -> None:
        """Take no more requests; those that are there go on."""
        self.is_draining = True

    def close(self) -> None:
        """End the threads, once they are done with what they are in."""
        self.drain()
        for _ in self._lanes:
            self._jobs.put(None)
        for lane in self._lanes:
            lane.join(self.options.decode_seconds)
        with suppress(Full):
            self._ready.put(None, timeout=self.options.request_seconds)
            self._computer.join(self.options.request_seconds)

    def check_room(self) -> None:
        """Refuse a request that there is no room for, before anything of it is read.

        Raises:
            ServiceError: The service is not ready, is about to stop, or its queue is full.
        """
        self.check_state()
        if self._num_jobs >= self.options.queue_size:
            raise self._full()

    def check_state(self) -> None:
        """Make sure that requests are taken.

        Raises:
            ServiceError: The service is not ready, or is about to stop.
        """
        if self.is_draining:
            raise ServiceError("draining", "The service is about to stop: ask another one.", retry_after=5)
        if not self.is_ready:
            raise ServiceError("not-ready", "The service has just been started: try again.", retry_after=2)

    def _full(self) -> ServiceError:
        seconds = min(60, max(1, round(self._computer.seconds_each * self._num_jobs)))
        detail = f"{self.options.queue_size} requests wait already: try again in {seconds} s."
        return ServiceError("queue-full", detail, retry_after=seconds)

    def predictor(self, model: str | None) -> tuple[str, Predictor]:
        """A predictor and its name.

        Raises:
            ServiceError: There is none of this name.
        """
        name = next(iter(self.predictors)) if model is None else model
        if name not in self.predictors:
            hint = did_you_mean(name, self.predictors) or f" There are: {', '.join(self.predictors)}."
            raise ServiceError("invalid-parameter", f"No model is called {name!r}.{hint}")
        return name, self.predictors[name]

    def reader(
        self, model: str | None, *, num_clips: int | None = None, num_crops: int | None = None
    ) -> tuple[str, UploadReader]:
        """The name of a model, and what reads an upload for it.

        Args:
            model: None: the first.
            num_clips: None: the model's own.
            num_crops: None: the model's own.

        Raises:
            ServiceError: There is no such model, or the views would take too much memory.
        """
        name, predictor = self.predictor(model)
        given = {"num_clips": num_clips, "num_crops": num_crops}
        try:
            wanted: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
            preprocessing = replace(predictor.preprocessing, **wanted)
        except ValueError as error:
            raise ServiceError("invalid-parameter", str(error)) from error
        options, views = self.options, preprocessing.num_clips * preprocessing.num_crops
        if views > options.max_views:
            raise ServiceError("request-too-large", f"{views} views were asked for, {options.max_views} are allowed.")
        if (needed := views_bytes(preprocessing)) > options.memory_bytes:
            allowed = in_words(options.memory_bytes)
            detail = f"{views} views take {in_words(needed)} of memory, and {allowed} are allowed: ask for fewer."
            raise ServiceError("request-too-large", detail)
        reader = predictor.reader
        return name, UploadReader(
            preprocessing=preprocessing,
            decoder=reader.decoder,
            timeout_seconds=options.decode_seconds + 3600,  # the worker is ended before
            max_seconds=options.max_video_seconds,
        )

    async def predict(self, path: Path, reader: UploadReader, *, model: str) -> Prediction:
        """Classify an upload.

        Args:
            path: The file.
            reader: Of ``reader``.
            model: Likewise.

        Raises:
            ServiceError: There is no room, the video cannot be read, or the answer takes too long.
        """
        task = ViewsTask(path=str(path), reader=reader, max_pixels=self.options.max_pixels)
        found: Prediction = await self._answer(Job(task, model), self.options.request_seconds)
        return found

    async def run(self, work: Work, *, seconds: float) -> Any:
        """The result of a work.

        Args:
            work: Which.
            seconds: The most that it may take.

        Raises:
            ServiceError: There is no room, the video cannot be read, or the answer takes too long.
        """
        return await self._answer(Job(work.task, work.model, work=work), seconds)

    async def _answer(self, job: Job, seconds: float) -> Any:
        self.check_room()
        job.deadline = monotonic() + seconds
        self._enter(job)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(job.future)
        except TimeoutError as error:
            raise ServiceError("too-slow", f"The answer was not there after {seconds:g} seconds.") from error

    def _enter(self, job: Job) -> None:
        with self._lock:
            self._num_jobs += 1
        self._jobs.put(job)

    def _leave(self, job: Job, result: Any) -> None:
        with self._lock:
            self._num_jobs -= not job.has_left
            job.has_left = True
        job.finish(result)

    def _decoded(self, job: Job, answer: Decoded | VideoError | Lost | None) -> None:
        """What a lane calls; waits while the network has enough to do."""
        if isinstance(answer, Decoded) and not job.is_dropped:
            self.observer.stage("decode", answer.decode_seconds)
            self.observer.stage("preprocess", answer.preprocess_seconds)
            self._ready.put((job, answer))
        elif isinstance(answer, Lost):
            self.observer.worker_lost("dropped" if job.is_dropped else answer.reason)
            self._leave(job, lost(answer, self.options.decode_seconds))
        elif isinstance(answer, VideoError):
            self._leave(job, problem_of(answer))
        else:
            self._leave(job, None if job.task is None else too_late())
