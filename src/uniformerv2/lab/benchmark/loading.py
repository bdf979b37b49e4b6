"""How fast the loader is: clips per second against bare loops, time to the first batch, memory of a worker.

Three loops take turns: *decode* opens a video, decodes its random frames and drops them; *crop* also crops and resizes
them; *loader* also stacks them and moves them to the training process, with a watch on the time of each. The processor
time of a clip, in all processes together, hardly depends on what else the machine does; the clips per second do.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from statistics import mean, median
from typing import Any, Final

import numpy as np
import torch

from uniformerv2.core.workers import end_with_parent
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.lab.benchmark.clock import fresh_processes
from uniformerv2.lab.benchmark.decoders import evenly_chosen, why_absent
from uniformerv2.media.decoding import Decoder, open_video

__all__ = ["measure_loading", "measure_worker_memory"]

PREPROCESSING: Final = Preprocessing(num_frames=8)
CROP: Final = TrainAugmentation(rand_augment=None)


def measure_loading(
    sets: dict[str, str | Path], *, num_clips: int, num_workers: Sequence[int], repeats: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The loader against the bare loops, with every decoder that is installed.

    Args:
        sets: Name -> what ``read_records`` reads.
        num_clips: Videos of each set.
        num_workers: Processes; a row each.
        repeats: Rounds.

    Returns:
        A row a set, decoder and number of workers; and which decoders are absent.
    """
    decoders: list[Decoder] = ["pyav"]
    absent = {}
    if reason := why_absent("torchcodec"):
        absent["torchcodec"] = reason
    else:
        decoders.append("torchcodec")
    rows = []
    for name, data in sets.items():
        records = evenly_chosen(data, num_clips)
        for decoder in decoders:
            rows += [
                {"videos": name, **_measure_one(records, decoder, workers, repeats=repeats)} for workers in num_workers
            ]
    return rows, absent


def measure_worker_memory(data: str | Path, *, num_clips: int, num_epochs: int) -> dict[str, Any]:
    """What one worker alone holds after each epoch, in bytes; Linux only."""
    records = evenly_chosen(data, num_clips)
    used = []
    before = set(multiprocessing.active_children())
    with _loader_of(records, "pyav", 1) as loader:
        for _ in range(num_epochs):
            _epoch_of(loader)
            (worker,) = set(multiprocessing.active_children()) - before
            lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
            used.append(1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_")))
    half = len(used) // 2
    return {"num_clips": len(records), "worker_bytes": used, "growth": mean(used[half:]) / mean(used[:half]) - 1}


def _measure_one(records: list[VideoRecord], decoder: Decoder, num_workers: int, *, repeats: int) -> dict[str, Any]:
    turns: dict[str, list[tuple[float, float]]] = {"decode": [], "crop": [], "loader": []}
    with _loader_of(records, decoder, num_workers) as loader:
        start = time.perf_counter()
        batches = iter(loader)
        next(batches)
        first_batch_seconds = time.perf_counter() - start
        for _ in batches:
            pass
        for _ in range(repeats):
            turns["decode"].append(_bare_loop(records, decoder, num_workers, crop=False))
            turns["crop"].append(_bare_loop(records, decoder, num_workers, crop=True))
            turns["loader"].append(_epoch_of(loader))
    with _loader_of(records, decoder, num_workers, TrainAugmentation()) as loader:
        next(iter(loader))
        recipe_rate, _ = _epoch_of(loader)
    rates = {name: median(rate for rate, _ in values) for name, values in turns.items()}
    used = {name: median(seconds for _, seconds in values) for name, values in turns.items()}
    return {
        "decoder": decoder,
        "num_workers": num_workers,
        "num_clips": len(records),
        "of_decode": rates["loader"] / rates["decode"],
        "of_crop": rates["loader"] / rates["crop"],
        "processor_of_decode": used["decode"] / used["loader"],
        **{f"{name}_clips_per_second": rate for name, rate in rates.items()},
        **{f"{name}_processor_seconds": seconds for name, seconds in used.items()},
        "rand_augment_clips_per_second": recipe_rate,
        "first_batch_seconds": first_batch_seconds,
    }


@contextmanager
def _loader_of(
    records: list[VideoRecord], decoder: Decoder, num_workers: int, augmentation: TrainAugmentation = CROP
) -> Iterator[VideoLoader]:
    """A training loader with the defaults, closed at the end."""
    dataset = VideoDataset(records, PREPROCESSING, augmentation=augmentation, decoder=decoder)
    loader = VideoLoader(dataset, batch_size=min(8, len(records)), num_workers=num_workers, drop_last=False)
    try:
        yield loader
    finally:
        loader.close()


def _epoch_of(loader: VideoLoader) -> tuple[float, float]:
    """Clips per second of a whole epoch, and processor seconds of a clip."""
    start, used = time.perf_counter(), _processor_seconds()
    count = sum(len(batch.index) for batch in loader)
    return count / (time.perf_counter() - start), (_processor_seconds() - used) / count


def _processor_seconds() -> float:
    """Of this process and the workers that are alive; of this one alone where there is no /proc."""
    used = time.process_time()
    for worker in multiprocessing.active_children():
        stat = Path(f"/proc/{worker.pid}/stat")
        if stat.exists():
            fields = stat.read_text().rpartition(")")[2].split()
            used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def _bare_loop(records: list[VideoRecord], decoder: Decoder, num_processes: int, *, crop: bool) -> tuple[float, float]:
    """Clips per second in so many processes, and processor seconds of a clip."""
    context = fresh_processes()
    barrier, times = context.Barrier(num_processes), context.Queue()
    paths = [record.path for record in records]
    processes = [
        context.Process(target=_read_share, args=(paths[rank::num_processes], decoder, crop, barrier, times))
        for rank in range(num_processes)
    ]
    for process in processes:
        process.start()
    spans = [times.get() for _ in processes]
    for process in processes:
        process.join()
    starts, ends, used = zip(*spans, strict=True)
    return len(records) / (max(ends) - min(starts)), sum(used) / len(records)


def _read_share(
    paths: list[str], decoder: Decoder, crop: bool, barrier: Barrier, times: Queue[tuple[float, float, float]]
) -> None:
    """A bare loop in a process of its own: warm up, wait for the others, go."""
    end_with_parent()
    torch.set_num_threads(1)
    for path in paths[:3]:
        _read(path, decoder, crop, np.random.default_rng(0))
    barrier.wait()
    start, used = time.time(), time.process_time()
    for number, path in enumerate(paths):
        _read(path, decoder, crop, np.random.default_rng((0, 1, number)))
    times.put((start, time.time(), time.process_time() - used))


def _read(path: str, decoder: Decoder, crop: bool, rng: np.random.Generator) -> None:
    with open_video(path, decoder=decoder) as video:
        clip = video.frames(PREPROCESSING.indices(len(video), rng=rng)[0])
    if crop:
        CROP(clip, rng=rng)
