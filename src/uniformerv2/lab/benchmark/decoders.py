"""Decoders on the same videos and frames, one thread each: ours, and each package as its own documentation uses it."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import av
import numpy as np
import torch

from uniformerv2.core.optional import require
from uniformerv2.data.annotations import VideoRecord, read_records
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import open_video
from uniformerv2.media.frame_sources import torchcodec_decoder

__all__ = ["READERS", "SPARSE", "evenly_chosen", "measure_decoding", "why_absent"]


def evenly_chosen(data: str | Path, count: int) -> list[VideoRecord]:
    """So many videos, evenly spread over a list, which is often in the order of the classes.

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


Reader = Callable[[str, Sequence[int]], object]

SPARSE: Final = 8
"""Frames of the sparse case, spread over the whole video."""


def _ours(path: str, indices: Sequence[int]) -> object:
    with open_video(path) as video:
        return video.frames(indices)


def _ours_by_torchcodec(path: str, indices: Sequence[int]) -> object:
    with open_video(path, decoder="torchcodec") as video:
        return video.frames(indices)


def _torchcodec(path: str, indices: Sequence[int]) -> object:
    decoder = require("torchcodec.decoders", extra="torchcodec").VideoDecoder(path, num_ffmpeg_threads=1)
    return decoder.get_frames_at(list(indices)).data


def _decord(path: str, indices: Sequence[int]) -> object:
    return require("decord", extra="peers").VideoReader(path, num_threads=1).get_batch(list(indices)).asnumpy()


def _pyav(path: str, indices: Sequence[int]) -> object:
    """From the first frame on, keeping those that are wanted."""
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
    "open_video, PyAV": ("av", _ours),
    "open_video, torchcodec": ("torchcodec", _ours_by_torchcodec),
    "torchcodec": ("torchcodec", _torchcodec),
    "PyAV, frame after frame": ("av", _pyav),
    "decord": ("decord", _decord),
}
"""Name -> the package it needs, how it reads. The first is what the others are compared with."""


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


def measure_decoding(
    sets: dict[str, str | Path], *, num_clips: int, repeats: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Each video in turn by every reader: 8 spread frames, and all frames; opening included.

    Args:
        sets: Name -> what ``read_records`` reads. Videos of different sets are compared in order, so that the second
            set is the first one prepared.
        num_clips: Videos of each set.
        repeats: The fastest of so many is a video's time.

    Returns:
        A row a set, reader and number of frames, with the median over the videos; and which readers are absent.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what PyTorch does with the pixels is part of a reader's cost
    absent = {name: reason for name, (package, _) in READERS.items() if (reason := why_absent(package))}
    readers = {name: read for name, (_, read) in READERS.items() if name not in absent}
    rows: list[dict[str, Any]] = []
    for set_name, data in sets.items():
        paths = [record.path for record in evenly_chosen(data, num_clips)]
        for frames in (f"{SPARSE} spread", "all"):
            costs = _costs(paths, readers, is_sparse=frames != "all", repeats=repeats)
            for name, seconds in costs.items():
                first = next(iter(costs.values()))
                ratios = [own / other for own, other in zip(seconds, first, strict=True)]
                row = {"videos": set_name, "reader": name, "frames": frames, "num_videos": len(paths)}
                rows.append({**row, "processor_seconds": median(seconds), "ratio_to_first": median(ratios)})
    torch.set_num_threads(num_threads)
    return rows, absent


def _costs(
    paths: Sequence[str], readers: dict[str, Reader], *, is_sparse: bool, repeats: int
) -> dict[str, list[float]]:
    """Processor seconds of each video by each reader."""
    preprocessing = Preprocessing(num_frames=SPARSE)
    costs: dict[str, list[float]] = {name: [] for name in readers}
    for position, path in enumerate([paths[0], *paths]):  # the first once more, to import and warm up
        with open_video(path) as video:
            length = len(video)
        indices = sorted(set(preprocessing.indices(length)[0])) if is_sparse else range(length)
        for name, read in readers.items():
            seconds = min(_processor_seconds(read, path, indices) for _ in range(repeats))
            if position:
                costs[name].append(seconds)
    return costs


def _processor_seconds(read: Reader, path: str, indices: Sequence[int]) -> float:
    start = time.process_time()
    read(path, indices)
    return time.process_time() - start
