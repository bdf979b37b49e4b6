"""Computer: the thread of the networks: predictions in batches, longer works step by step, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from typing import Any, Final

from uniformerv2.data.clips import VideoSample
from uniformerv2.inference.predictor import Predictor
from uniformerv2.media.decoding import VideoError
from uniformerv2.serving.decoding import UPLOAD, Decoded, Views
from uniformerv2.serving.jobs import Job, Observer, failed, too_late
from uniformerv2.serving.lanes import Turns
from uniformerv2.serving.problems import ServiceError, problem_of
from uniformerv2.serving.works import Work

__all__ = ["Computer", "Ready"]

Ready = tuple[Job, Decoded]
END: Final = object()
GREEDY_SECONDS: Final = 1.0
"""How long the network waits for its turn while a video is decoded."""


class Computer(Thread):
    """Takes from a queue what workers have read, until it finds None there.

    Args:
        predictors: By the name of their model.
        ready: What workers have read.
        read: Called with a job of which a worker shall read more.
        leave: Called with a job that is done, and its result or error.
        observer: Is told of stages and batches.
        turns: Held while a network computes; None: nobody waits for it.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        ready: Queue[Ready | None],
        *,
        read: Callable[[Job], object],
        leave: Callable[[Job, Any], object],
        observer: Observer,
        turns: Turns | None,
    ) -> None:
        super().__init__(name="compute", daemon=True)
        self.seconds_each = 1.0
        self._predictors = predictors
        self._ready = ready
        self._read = read
        self._leave = leave
        self._observer = observer
        self._turns = turns
        self._held: Ready | None = None
        self._running: deque[Job] = deque()

    def run(self) -> None:
        """Until there is None in the queue."""
        while (found := self._next()) is not None:
            if found is not END:
                self._begin(found)
            if self._running:
                self._step(self._running.popleft())
        for job in self._running:
            self._leave(job, ServiceError("draining", "The service stops: ask another one.", retry_after=5))

    def _next(self) -> Any:
        """What is ready; ``END`` of it while there are steps to do, and None at the end of all."""
        held, self._held = self._held, None
        try:
            return held or self._ready.get(block=not self._running)
        except Empty:
            return END

    def _begin(self, first: Ready) -> None:
        """A batch of predictions, or a place among those that are computed in steps."""
        job, answer = first
        if job.work is not None:
            job.work.decode_seconds += answer.decode_seconds + answer.preprocess_seconds
            job.waiting.append(answer)
            if job not in self._running:
                self._running.append(job)
            return
        group = [first]
        if self._batch_of(job) > 1:
            self._take_more(group)
        waiting = [(job, answer.sample()) for job, answer in group if isinstance(answer, Views) and not job.is_dropped]
        for job, _ in group:
            if job.is_dropped:
                self._leave(job, too_late())
        if waiting:
            self._compute_group(self._predictors[job.model], waiting)

    def _step(self, job: Job) -> None:
        """A step of a longer work; afterwards it is the turn of another one."""
        work = job.work
        assert work is not None
        if job.is_dropped:
            self._leave(job, too_late())
            return
        try:
            with self._turn():
                begin = monotonic()
                is_done = self._advance(job, work)
                work.compute_seconds += monotonic() - begin
                result = work.result() if is_done else None
        except Exception as error:  # whatever it is, the next request is served
            self._leave(job, failed(error))
            return
        if is_done:
            self._observer.stage("compute", work.compute_seconds)
            self._note_seconds(work.compute_seconds)
            self._leave(job, result)
        elif job.steps is not None or job.waiting:
            self._running.append(job)

    def _advance(self, job: Job, work: Work) -> bool:
        """Go on with what is begun, or begin with what waits while a worker reads what follows; whether all is done."""
        if job.steps is None:
            if not work.compute_seconds:
                self._observer.stage("queue", monotonic() - job.begin)
            answer = job.waiting.popleft()
            job.task = work.following(answer)
            if job.task is not None:
                self._read(job)
            job.steps = work.compute(answer)
        if next(job.steps, END) is END:
            job.steps = None
        return job.steps is None and job.task is None

    def _note_seconds(self, seconds: float) -> None:
        self.seconds_each += 0.1 * (seconds - self.seconds_each)

    def _take_more(self, group: list[Ready]) -> None:
        """Those videos of the same model that wait for a prediction, up to one batch of views."""
        first, _ = group[0]
        while sum(len(views.pixels) for _, views in group if isinstance(views, Views)) < self._batch_of(first):
            try:
                following = self._ready.get_nowait()
            except Empty:
                return
            if following is None:
                self._ready.put(None)  # the lanes have ended: nobody else puts anything there
                return
            if following[0].model != first.model or following[0].work is not None:
                self._held = following
                return
            group.append(following)

    def _batch_of(self, job: Job) -> int:
        return self._predictors[job.model].views_per_batch

    def _compute_group(self, predictor: Predictor, group: list[tuple[Job, VideoSample]]) -> None:
        begin = monotonic()
        for job, _ in group:
            self._observer.stage("queue", begin - job.begin)
        self._observer.batch(len(group))
        try:
            with self._turn():
                results = list(predictor.of_samples((UPLOAD, sample) for _, sample in group))
        except Exception as error:  # whatever it is, the next request is served
            for job, _ in group:
                self._leave(job, failed(error))
            return
        seconds = monotonic() - begin
        self._note_seconds(seconds / len(group))
        for (job, _), result in zip(group, results, strict=True):
            self._observer.stage("compute", seconds / len(group))
            self._leave(job, problem_of(result) if isinstance(result, VideoError) else result)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Beside few cores: not while a video is decoded, but for one that takes long."""
        has_turn = self._turns is not None and self._turns.acquire(timeout=GREEDY_SECONDS)
        try:
            yield
        finally:
            if has_turn and self._turns is not None:
                self._turns.release()
