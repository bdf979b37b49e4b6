"""Reading videos: decoders on the same frames, and the loader against bare loops.

Decoders run in one thread each: ours, and each package as its own documentation uses it. For the loader three loops
take turns: *decode* opens a video, decodes its random frames and drops them; *crop* also crops and resizes them;
*loader* also stacks them and moves them to the training process, with a watch on the time of each. The processor time
of a clip, in all processes together, hardly depends on what else the machine does; the clips per second do.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from statistics import mean, median
from typing import Any, Final

import av
import numpy as np
import torch

from uniformerv2.core.optional import require
from uniformerv2.core.workers import end_with_parent
from uniformerv2.data.annotations import VideoRecord, read_records
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.lab.benchmark.machine import fresh_processes
from uniformerv2.media.decoding import Decoder, open_video
from uniformerv2.media.frame_sources import torchcodec_decoder

__all__ = ["READERS", "evenly_chosen", "measure_decoding", "measure_loading", "measure_worker_memory", "why_absent"]

Reader = Callable[[str, Sequence[int]], object]
Rows = list[dict[str, Any]]

PREPROCESSING: Final = Preprocessing(num_frames=8)
"""A clip, and the sparse case of decoders: 8 frames spread over the whole video."""
CROP: Final = TrainAugmentation(rand_augment=None)


def evenly_chosen(data: str | Path, count: int) -> list[VideoRecord]:
    """Videos that are evenly spread over a list, which is often in the order of the classes.

    Args:
        data: What ``read_records`` reads.
        count: How many; all of them where there are fewer.

    Raises:
        ValueError: There are no videos.
    """
    records = read_records(data)
    if not records:
        raise ValueError(f"There is no video in {data}.")
    count = min(count, len(records))
    return [records[index * len(records) // count] for index in range(count)]


def _ours(path: str, indices: Sequence[int], *, decoder: Decoder) -> object:
    with open_video(path, decoder=decoder) as video:
        return video.frames(indices)


def _torchcodec(path: str, indices: Sequence[int]) -> object:
    decoder = require("torchcodec.decoders", extra="torchcodec").VideoDecoder(path, num_ffmpeg_threads=1)
    return decoder.get_frames_at(list(indices)).data


def _decord(path: str, indices: Sequence[int]) -> object:
    return require("decord", extra="peers").VideoReader(path, num_threads=1).get_batch(list(indices)).asnumpy()


def _pyav(path: str, indices: Sequence[int]) -> object:
    """Decode from the first frame on, and keep the frames that are wanted."""
    wanted = set(indices)
    with av.open(path) as container:
        container.streams.video[0].thread_count = 1
        kept = []
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
            if number >= indices[-1]:
                break
    return np.stack(kept)


READERS: Final[dict[str, tuple[str, Reader]]] = {
    "open_video, PyAV": ("av", partial(_ours, decoder="pyav")),
    "open_video, torchcodec": ("torchcodec", partial(_ours, decoder="torchcodec")),
    "torchcodec": ("torchcodec", _torchcodec),
    "PyAV, frame after frame": ("av", _pyav),
    "decord": ("decord", _decord),
}
"""Name -> the package it needs, how it reads. The others are compared with the first."""


def why_absent(package: str) -> str | None:
    """Why a decoder cannot be measured; None where it can."""
    if not importlib.util.find_spec(package):
        return f"{package} is not installed"
    if package == "torchcodec":
        try:
            torchcodec_decoder()
        except ModuleNotFoundError as error:
            return str(error)
    return None


def measure_decoding(sets: dict[str, str | Path], *, num_clips: int, repeats: int) -> tuple[Rows, dict[str, str]]:
    """Read each video in turn by every reader: 8 spread frames, and all frames; opening included.

    Args:
        sets: Name -> what ``read_records`` reads.
        num_clips: Videos of each set.
        repeats: The fastest of so many readings is a video's time.

    Returns:
        A row per set, reader and number of frames, with the median over the videos; and which readers are absent.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what PyTorch does with the pixels is part of a reader's cost
    absent = {name: reason for name, (package, _) in READERS.items() if (reason := why_absent(package))}
    readers = {name: read for name, (_, read) in READERS.items() if name not in absent}
    rows: Rows = []
    for set_name, data in sets.items():
        paths = [record.path for record in evenly_chosen(data, num_clips)]
        for frames in (f"{PREPROCESSING.num_frames} spread", "all"):
            costs = _costs(paths, readers, is_sparse=frames != "all", repeats=repeats)
            first = next(iter(costs.values()))
            rows += [
                {
                    **{"videos": set_name, "reader": name, "frames": frames, "num_videos": len(paths)},
                    "processor_seconds": median(seconds),
                    "ratio_to_first": median(own / other for own, other in zip(seconds, first, strict=True)),
                }
                for name, seconds in costs.items()
            ]
    torch.set_num_threads(num_threads)
    return rows, absent


def _costs(
    paths: Sequence[str], readers: dict[str, Reader], *, is_sparse: bool, repeats: int
) -> dict[str, list[float]]:
    """Processor seconds of each video by each reader."""
    costs: dict[str, list[float]] = {name: [] for name in readers}
    for position, path in enumerate([paths[0], *paths]):  # the first once more, to import and warm up
        with open_video(path) as video:
            length = len(video)
        indices = sorted(set(PREPROCESSING.indices(length)[0])) if is_sparse else range(length)
        for name, read in readers.items():
            seconds = []
            for _ in range(repeats):
                start = time.process_time()
                read(path, indices)
                seconds.append(time.process_time() - start)
            if position:
                costs[name].append(min(seconds))
    return costs


def measure_loading(
    sets: dict[str, str | Path], *, num_clips: int, num_workers: Sequence[int], repeats: int
) -> tuple[Rows, dict[str, str]]:
    """Measure the loader against the bare loops, with every decoder that is installed.

    Args:
        sets: Name -> what ``read_records`` reads.
        num_clips: Videos of each set.
        num_workers: Numbers of processes.
        repeats: Rounds.

    Returns:
        A row per set, decoder and number of workers; and which decoders are absent.
    """
    reason = why_absent("torchcodec")
    decoders: list[Decoder] = ["pyav"] if reason else ["pyav", "torchcodec"]
    rows = []
    for name, data in sets.items():
        records = evenly_chosen(data, num_clips)
        for decoder in decoders:
            rows += [
                {"videos": name, **_measure_one(records, decoder, workers, repeats=repeats)} for workers in num_workers
            ]
    return rows, {"torchcodec": reason} if reason else {}


def measure_worker_memory(data: str | Path, *, num_clips: int, num_epochs: int) -> dict[str, Any]:
    """Measure what one worker alone holds after each epoch, in bytes; Linux only."""
    records = evenly_chosen(data, num_clips)
    used = []
    before = set(multiprocessing.active_children())
    with closing(_loader(records, "pyav", 1)) as loader:
        for _ in range(num_epochs):
            _epoch_of(loader)
            (worker,) = set(multiprocessing.active_children()) - before
            lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
            used.append(1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_")))
    half = len(used) // 2
    return {"num_clips": len(records), "worker_bytes": used, "growth": mean(used[half:]) / mean(used[:half]) - 1}


def _measure_one(records: list[VideoRecord], decoder: Decoder, num_workers: int, *, repeats: int) -> dict[str, Any]:
    with closing(_loader(records, decoder, num_workers)) as loader:
        start = time.perf_counter()
        batches = iter(loader)
        next(batches)
        first_batch_seconds = time.perf_counter() - start
        for _ in batches:
            pass
        loops = {
            "decode": partial(_bare_loop, records, decoder, num_workers, crop=False),
            "crop": partial(_bare_loop, records, decoder, num_workers, crop=True),
            "loader": partial(_epoch_of, loader),
        }
        turns = [{name: loop() for name, loop in loops.items()} for _ in range(repeats)]
    with closing(_loader(records, decoder, num_workers, TrainAugmentation())) as loader:
        next(iter(loader))
        recipe_rate, _ = _epoch_of(loader)
    rates = {name: median(turn[name][0] for turn in turns) for name in loops}
    used = {name: median(turn[name][1] for turn in turns) for name in loops}
    return {
        **{"decoder": decoder, "num_workers": num_workers, "num_clips": len(records)},
        "of_decode": rates["loader"] / rates["decode"],
        "of_crop": rates["loader"] / rates["crop"],
        "processor_of_decode": used["decode"] / used["loader"],
        **{f"{name}_clips_per_second": rate for name, rate in rates.items()},
        **{f"{name}_processor_seconds": seconds for name, seconds in used.items()},
        "rand_augment_clips_per_second": recipe_rate,
        "first_batch_seconds": first_batch_seconds,
    }


def _loader(
    records: list[VideoRecord], decoder: Decoder, num_workers: int, augmentation: TrainAugmentation = CROP
) -> VideoLoader:
    dataset = VideoDataset(records, PREPROCESSING, augmentation=augmentation, decoder=decoder)
    return VideoLoader(dataset, batch_size=min(8, len(records)), num_workers=num_workers, drop_last=False)


def _epoch_of(loader: VideoLoader) -> tuple[float, float]:
    """Clips per second of a whole epoch, and processor seconds per clip."""
    start, used = time.perf_counter(), _processor_seconds()
    count = sum(len(batch.index) for batch in loader)
    return count / (time.perf_counter() - start), (_processor_seconds() - used) / count


def _processor_seconds() -> float:
    """This process and the workers that are alive; this one alone where there is no /proc."""
    used = time.process_time()
    for worker in multiprocessing.active_children():
        stat = Path(f"/proc/{worker.pid}/stat")
        if stat.exists():
            fields = stat.read_text().rpartition(")")[2].split()
            used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def _bare_loop(records: list[VideoRecord], decoder: Decoder, num_processes: int, *, crop: bool) -> tuple[float, float]:
    """Clips per second in several processes, and processor seconds per clip."""
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
