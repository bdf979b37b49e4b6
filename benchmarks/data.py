"""How fast the loader is: clips per second against a bare decode loop, time to the first batch, memory of a worker.

    python benchmarks/data.py DATA [--prepared DATA] [--json FILE]

DATA is what ``uniformerv2.data.annotations.read_records`` reads. Three loops take turns, and the median of the rounds
is shown: *decode* opens a video, decodes its random frames and drops them; *crop* also crops and resizes them; *loader*
also stacks them and moves them to the training process, with a watch on the time of each. The processor time of a clip,
in all processes together, hardly depends on what else the machine does; the clips per second do. With ``decord``
installed its decode loop is measured too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from uniformerv2.data.annotations import VideoRecord, read_records
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.decoding import open_video
from uniformerv2.data.loader import VideoLoader, available_cores
from uniformerv2.data.transforms import Preprocessing

NUM_FRAMES = 8
PREPROCESSING = Preprocessing(num_frames=NUM_FRAMES)
CROP = TrainAugmentation(rand_augment=None)
DECODERS = ("pyav", "torchcodec")


def read(path: str, decoder: str, crop: bool, rng: np.random.Generator) -> None:
    """One turn of a bare loop."""
    if decoder == "decord":
        import decord

        reader = decord.VideoReader(path, num_threads=1)
        reader.get_batch(PREPROCESSING.indices(len(reader), rng=rng)[0]).asnumpy()
        return
    with open_video(path, decoder=decoder) as video:
        clip = video.frames(PREPROCESSING.indices(len(video), rng=rng)[0])
    if crop:
        CROP(clip, rng=rng)


def read_share(
    paths: list[str], decoder: str, crop: bool, barrier: Barrier, times: Queue[tuple[float, float, float]]
) -> None:
    """A bare loop in a process of its own: warm up, wait for the others, go."""
    torch.set_num_threads(1)
    for path in paths[:3]:
        read(path, decoder, crop, np.random.default_rng(0))
    barrier.wait()
    start, used = time.time(), time.process_time()
    for number, path in enumerate(paths):
        read(path, decoder, crop, np.random.default_rng((0, 1, number)))
    times.put((start, time.time(), time.process_time() - used))


def bare_loop(
    records: list[VideoRecord], decoder: str, num_processes: int, *, crop: bool = False
) -> tuple[float, float]:
    """Clips per second of a bare loop in so many processes, and processor seconds of a clip."""
    context = multiprocessing.get_context("spawn")
    barrier, times = context.Barrier(num_processes), context.Queue()
    paths = [record.path for record in records]
    processes = [
        context.Process(target=read_share, args=(paths[rank::num_processes], decoder, crop, barrier, times))
        for rank in range(num_processes)
    ]
    for process in processes:
        process.start()
    spans = [times.get() for _ in processes]
    for process in processes:
        process.join()
    starts, ends, used = zip(*spans, strict=True)
    return len(records) / (max(ends) - min(starts)), sum(used) / len(records)


@contextmanager
def loader_of(
    records: list[VideoRecord], decoder: str, num_workers: int, augmentation: TrainAugmentation = CROP
) -> Iterator[VideoLoader]:
    """A training loader with the defaults, closed at the end."""
    dataset = VideoDataset(records, PREPROCESSING, augmentation=augmentation, decoder=decoder)
    loader = VideoLoader(dataset, batch_size=8, num_workers=num_workers, drop_last=False)
    try:
        yield loader
    finally:
        loader.close()


def epoch_of(loader: VideoLoader) -> tuple[float, float]:
    """Clips per second of a whole epoch, and processor seconds of a clip."""
    start, used = time.perf_counter(), processor_seconds()
    count = sum(len(batch.index) for batch in loader)
    return count / (time.perf_counter() - start), (processor_seconds() - used) / count


def processor_seconds() -> float:
    """Of this process and the workers that are alive; of this one alone where there is no /proc."""
    used = time.process_time()
    for worker in multiprocessing.active_children():
        stat = Path(f"/proc/{worker.pid}/stat")
        if stat.exists():
            fields = stat.read_text().rpartition(")")[2].split()
            used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def measure_speed(records: list[VideoRecord], decoder: str, num_workers: int, rounds: int) -> dict[str, Any]:
    """The loader against the bare loop, in turns."""
    with loader_of(records, decoder, num_workers) as loader:
        start = time.perf_counter()
        batches = iter(loader)
        next(batches)
        first_batch_seconds = time.perf_counter() - start
        for _ in batches:
            pass
        turns: dict[str, list[tuple[float, float]]] = {"decode": [], "crop": [], "loader": []}
        for _ in range(rounds):
            turns["decode"].append(bare_loop(records, decoder, num_workers))
            turns["crop"].append(bare_loop(records, decoder, num_workers, crop=True))
            turns["loader"].append(epoch_of(loader))
    with loader_of(records, decoder, num_workers, TrainAugmentation()) as loader:
        next(iter(loader))
        recipe_rate, _ = epoch_of(loader)
    rates = {name: statistics.median(rate for rate, _ in values) for name, values in turns.items()}
    used = {name: statistics.median(seconds for _, seconds in values) for name, values in turns.items()}
    return {
        "decoder": decoder,
        "num_workers": num_workers,
        **{f"{name}_clips_per_second": round(rate, 1) for name, rate in rates.items()},
        **{f"{name}_processor_ms": round(1000 * seconds, 2) for name, seconds in used.items()},
        "rand_augment_clips_per_second": round(recipe_rate, 1),
        "first_batch_seconds": round(first_batch_seconds, 2),
    }


def measure_memory(records: list[VideoRecord], decoder: str, epochs: int) -> dict[str, Any]:
    """MiB of one worker that no other process shares, after each epoch."""
    used = []
    before = set(multiprocessing.active_children())
    with loader_of(records, decoder, 1) as loader:
        for _ in range(epochs):
            epoch_of(loader)
            (worker,) = set(multiprocessing.active_children()) - before
            lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
            used.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024)
    half = len(used) // 2
    growth = statistics.mean(used[half:]) / statistics.mean(used[:half]) - 1
    return {"decoder": decoder, "worker_mib": [round(value, 1) for value in used], "growth": round(growth, 4)}


def measure(data: str, args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Everything about one set of videos."""
    records = read_records(data)[: args.clips]
    decoders = [name for name in DECODERS if name == "pyav" or importlib.util.find_spec(name)]
    speed = []
    for decoder in decoders:
        for num_workers in args.workers:
            tell(f"{data}: {decoder}, {num_workers} workers")
            speed.append(measure_speed(records, decoder, num_workers, args.rounds))
    result: dict[str, Any] = {"data": data, "num_clips": len(records), "speed": speed}
    if importlib.util.find_spec("decord"):
        result["decord_clips_per_second"] = {
            str(num): round(bare_loop(records, "decord", num)[0], 1) for num in args.workers
        }
    if args.memory_epochs and Path("/proc/self/smaps_rollup").exists():
        tell(f"{data}: memory")
        result["memory"] = [measure_memory(records[:100], decoder, args.memory_epochs) for decoder in decoders]
    return result


def show(result: dict[str, Any], console: Console) -> None:
    """A table."""
    loops = ("decode", "crop", "loader")
    table = Table(title=f"{result['data']}: {result['num_clips']} clips of {NUM_FRAMES} frames")
    for column in ("", *loops, "/decode", "/crop"):
        table.add_column(column, justify="right")
    for row in result["speed"]:
        rates = [row[f"{name}_clips_per_second"] for name in loops]
        costs = [row[f"{name}_processor_ms"] for name in loops]
        shares = [f"{rates[2] / rate:.0%}" for rate in rates[:2]]
        table.add_row(f"{row['decoder']}, {row['num_workers']} workers: clips/s", *map(str, rates), *shares)
        shares = [f"{cost / costs[2]:.0%}" for cost in costs[:2]]
        table.add_row("CPU ms per clip", *map(str, costs), *shares, end_section=True)
    console.print(table)
    for row in result["speed"]:
        console.print(
            f"{row['decoder']}, {row['num_workers']} workers: first batch after {row['first_batch_seconds']} s; "
            f"with RandAugment {row['rand_augment_clips_per_second']} clips/s"
        )
    if "decord_clips_per_second" in result:
        console.print(f"decord, bare loop: {result['decord_clips_per_second']}")
    for row in result.get("memory", []):
        values = row["worker_mib"]
        console.print(
            f"{row['decoder']}: memory of a worker {min(values)} to {max(values)} MiB in {len(values)} epochs, "
            f"second half {row['growth']:+.1%}"
        )


def main() -> None:
    """Read the arguments, measure, show, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder or list of videos")
    parser.add_argument("--prepared", help="the same videos after `uniformerv2 data prepare`")
    parser.add_argument("--clips", type=int, default=320, help="first so many records")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--memory-epochs", type=int, default=20, help="0: none")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    console = Console(stderr=True)
    results = [measure(data, args, console.log) for data in (args.data, args.prepared) if data]
    for result in results:
        show(result, Console())
    if args.json:
        machine = {"cores": available_cores(), "load_at_end": os.getloadavg()[0], "machine": platform.machine()}
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        written = {"command": sys.argv, "machine": machine, "versions": versions, "results": results}
        args.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
