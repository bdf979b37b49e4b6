"""``VideoLoader``: batches from worker processes, resumable in the middle of an epoch, with failures counted.

    loader = VideoLoader(dataset, batch_size=8, num_workers=4)
    for batch in loader:  # epoch 0; the next pass is epoch 1
        ...

Workers start as processes of their own (forkserver, or spawn where there is none), never as a copy of this one, whose
decoder and CUDA state would not survive it: a script needs ``if __name__ == "__main__":`` around what uses them. Each
worker decodes and transforms with one thread.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import math
import shutil
import signal
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from uniformerv2.core.limits import Limits, get_limits
from uniformerv2.core.messages import first_few
from uniformerv2.core.workers import NEEDS_GUARD, available_cores, begin_worker, worker_context
from uniformerv2.data.clips import TooManyFailuresError, VideoFailure
from uniformerv2.data.dataset import VideoBatch, VideoDataset, collate
from uniformerv2.data.epoch_sampler import EpochSampler

__all__ = ["EpochReport", "VideoLoader", "WorkerDiedError"]

logger = logging.getLogger(__name__)

WATCH_FACTOR: Final = 10
"""A worker that gives nothing for so many times the time of one video is beyond the help of its own watch."""


class WorkerDiedError(RuntimeError):
    """A worker process has ended, though nobody told it to."""


@dataclass(frozen=True)
class EpochReport:
    """How an epoch went.

    Attributes:
        epoch: Its number.
        num_samples: Samples given so far.
        num_failed: How many of them could not be read: replaced in training, scored as failed in testing.
        failures: Each file that could not be read, once.
    """

    epoch: int
    num_samples: int
    num_failed: int
    failures: tuple[VideoFailure, ...]

    def __str__(self) -> str:
        """The count and the first ten files; people count epochs from 1."""
        head = f"epoch {self.epoch + 1}: {self.num_failed} of {self.num_samples} samples could not be read"
        return "\n  ".join([head, first_few(self.failures, separator="\n  ")] if self.failures else [head])


class VideoLoader:
    """Batches of a dataset, epoch after epoch.

    Each pass is the next epoch, unless ``set_epoch`` says another. ``state_dict`` is the position after the last batch
    that was given; a loader that loads it goes on with exactly the next one, whatever the number of workers. At the end
    of an epoch the videos that could not be read are logged; see ``report``.

    Args:
        dataset: A ``VideoDataset``; a ``ShardDataset`` is one.
        batch_size: Samples of a batch; with repeats a batch has so many times more clips.
        num_workers: Processes; None is one per available core, up to 8. 0 works in this process.
        weights: How often each record is drawn in training; see ``balanced_weights``.
        drop_last: Leave out a last batch that is not full; None: in training, where there is at least one full one.
        max_failed: Which part of an epoch's samples may be unreadable in training.
        rank: Number of this process, where several work together.
        world_size: Processes. The first records are repeated to give all of them equally many: in testing, count a
            record once, by its ``index``.
        pin_memory: None: where there is a CUDA device.
        prefetch_batches: Batches that each worker prepares ahead.

    Raises:
        ValueError: An argument outside what is allowed.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        *,
        batch_size: int,
        num_workers: int | None = None,
        weights: Sequence[float] | None = None,
        drop_last: bool | None = None,
        max_failed: float = 0.01,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool | None = None,
        prefetch_batches: int = 2,
    ) -> None:
        if not 0 <= max_failed <= 1:
            raise ValueError(f"max_failed is {max_failed}; it must be a part, from 0 to 1")
        self.is_training = dataset.reader.augmentation is not None
        if weights is not None and not self.is_training:
            raise ValueError("weights are for training; testing gives each record once")
        if batch_size < 1 or prefetch_batches < 1:
            raise ValueError(
                f"batch_size and prefetch_batches are {batch_size}, {prefetch_batches}; at least 1 is needed"
            )
        num_workers = min(available_cores(), 8) if num_workers is None else num_workers
        if drop_last is None:
            drop_last = self.is_training and batch_size * world_size <= len(dataset)
        self.dataset = dataset
        self.sampler = EpochSampler(
            len(dataset),
            shuffle=self.is_training,
            weights=weights,
            seed=dataset.reader.seed,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        self.batch_sampler = None  # Lightning asks for it; it tells ``sampler`` the epoch
        self.max_failed = max_failed
        self.batch_size = batch_size
        self.num_workers = num_workers
        self._length = len(self.sampler) // batch_size if drop_last else -(-len(self.sampler) // batch_size)
        self._loader = _WatchedLoader(
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            drop_last=drop_last,
            sampler=self.sampler,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            persistent_workers=num_workers > 0,
            prefetch_factor=prefetch_batches if num_workers else None,
            timeout=WATCH_FACTOR * dataset.reader.seconds_per_video if num_workers else 0,
            generator=torch.Generator(),  # of the workers' seeds, which nothing uses: torch's own stays as it is
        )
        self._epoch: int | None = None  # of the pass that has begun
        self._num_batches = 0
        self._num_samples = 0
        self._num_failed = 0
        self._failures: dict[str, VideoFailure] = {}
        self._resumes = False

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        return self._length

    def __iter__(self) -> Iterator[VideoBatch]:
        self._begin()
        try:
            for batch in self._loader:
                self._count(batch)
                if self._num_batches == len(self) and self._failures:  # a trainer does not ask for the end
                    logger.warning("%s", self.report)
                yield batch
        except Exception as error:
            self.close()  # left to the garbage collector, workers wait for five seconds
            if isinstance(error, RuntimeError) and "</torch_" in str(error):  # PyTorch's names of shared memory
                raise WorkerDiedError(_shared_memory_advice()) from error
            raise

    def __repr__(self) -> str:
        """The data set, and what a batch is."""
        how = f"batch_size={self.batch_size}, num_workers={self.num_workers}"
        return f"VideoLoader({self.dataset!r}, {how}, {len(self)} batches)"

    def close(self) -> None:
        """End the workers now; the next pass starts new ones. Closing twice is harmless."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()

    @property
    def report(self) -> EpochReport:
        """How the epoch that began last went so far."""
        return EpochReport(self._epoch or 0, self._num_samples, self._num_failed, tuple(self._failures.values()))

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch, from its beginning."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch, in plain values."""
        return {
            "epoch": self.sampler.epoch if self._epoch is None else self._epoch,
            "num_batches": self._num_batches,
            "num_samples": self._num_samples,
            "num_failed": self._num_failed,
            "failures": [dataclasses.asdict(failure) for failure in self._failures.values()],
            **self._fixed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there at the next pass.

        Args:
            state: What ``state_dict`` gave.

        Raises:
            ValueError: It was saved with another batch size, seed or number of processes.
        """
        for name, value in self._fixed.items():
            if state[name] != value:
                raise ValueError(f"The loader was saved with {name}={state[name]}, now it is {value}; make them equal")
        is_complete = state["num_batches"] >= len(self)
        self.sampler.set_epoch(state["epoch"] + is_complete)
        self._resumes = not is_complete
        self._epoch, self._num_batches = self.sampler.epoch, 0
        if self._resumes:
            self._num_batches = state["num_batches"]
            self._num_samples, self._num_failed = state["num_samples"], state["num_failed"]
            self._failures = {failure["path"]: VideoFailure(**failure) for failure in state["failures"]}
        else:
            self._epoch = None

    @property
    def _fixed(self) -> dict[str, Any]:
        """What must be the same where a state is loaded."""
        return {"batch_size": self.batch_size, "seed": self.dataset.reader.seed, "world_size": self.sampler.world_size}

    def _begin(self) -> None:
        if self._resumes and self.sampler.epoch == self._epoch:
            self.sampler.start_at(self._num_batches * self.batch_size)
        else:
            if self.sampler.epoch == self._epoch:
                self.sampler.set_epoch(self._epoch + 1)
            self._num_batches = self._num_samples = self._num_failed = 0
            self._failures = {}
        self._epoch, self._resumes = self.sampler.epoch, False

    def _count(self, batch: VideoBatch) -> None:
        self._num_batches += 1
        self._num_samples += len(batch.index) // self.dataset.reader.repeats
        for failure in batch.failures:
            self._failures.setdefault(failure.path, failure)
            self._num_failed += failure.attempt == 0
        allowed = self.max_failed * len(self.sampler) if self.is_training else len(self.sampler)
        if self._num_failed > allowed or (self._num_batches == len(self) and self._num_failed == self._num_samples):
            limit = f"\nmax_failed={self.max_failed:g} allows {int(allowed)}" if self.is_training else ""
            raise TooManyFailuresError(f"{self.report}{limit}")


class _WatchedLoader(DataLoader[Any]):
    """Sees within seconds that a worker is dead, which PyTorch's does only where there is no time limit.

    The names with an underscore that this and the next class use are PyTorch's own; a test names those that are gone.
    """

    def _get_iterator(self) -> Any:
        if not self.num_workers:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        self.multiprocessing_context = worker_context(preload="uniformerv2.data.loader")
        self.worker_init_fn = partial(_begin_worker, limits=get_limits())
        try:
            return _WatchedIterator(self)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise WorkerDiedError(_shared_memory_advice()) from error
            raise WorkerDiedError(f"A process that reads videos does not start ({error}). {NEEDS_GUARD}") from error


class _WatchedIterator(_MultiProcessingDataLoaderIter):
    def __init__(self, loader: _WatchedLoader) -> None:
        super().__init__(loader)
        weakref.finalize(self, _kill, self._workers)  # they do not hear the SIGTERM that PyTorch would send
        self._has_answered = False

    def _get_data(self) -> Any:
        deadline = time.monotonic() + self._timeout if self._timeout else math.inf
        while time.monotonic() < deadline:
            try:
                is_there, data = self._try_get_data()
            except (RuntimeError, OSError, EOFError) as error:  # it is dead, or what it had sent is gone with it
                raise WorkerDiedError(self._why_one_is_gone(error)) from error
            if is_there:
                self._has_answered = True
                return data
        raise TimeoutError(f"No batch came for {self._timeout:g} seconds; 'uniformerv2 data check' finds such videos")

    def _why_one_is_gone(self, error: Exception) -> str:
        codes = [worker.exitcode for worker in self._workers if worker.exitcode is not None]
        if -getattr(signal, "SIGBUS", 0) in codes:
            return _shared_memory_advice()
        if not self._has_answered and any(code > 0 for code in codes):
            return f"A process that reads videos ended as it began, for the reason that it wrote above. {NEEDS_GUARD}"
        return (
            f"A process that reads videos is gone ({error}). Most often the memory was full and the system "
            "ended it: take fewer of them (num_workers, --workers), or a smaller batch."
        )


def _shared_memory_advice() -> str:
    shared = Path("/dev/shm")
    size = f", which has {shutil.disk_usage(shared).total / 2**20:,.0f} MB," if shared.is_dir() else ""
    return (
        f"The shared memory (/dev/shm){size} is too small for the batches of the processes that read videos: make it "
        "larger (docker run --shm-size=8g), or take none of them (num_workers=0, --workers 0)."
    )


def _begin_worker(worker: int, limits: Limits) -> None:
    begin_worker(limits)  # PyTorch's own watch looks at the system's parent, which is the forkserver


def _kill(workers: Sequence[BaseProcess]) -> None:
    """At the latest at the end of this process."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()
