"""Windows of a long video that share frames, against the same windows taken whole, in turns.

Letters of this file: T frames of a window, W windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.window_networks import NETWORKS, Way
from uniformerv2.inference.windows import WindowScorer
from uniformerv2.lab.benchmark import STRIDES
from uniformerv2.lab.benchmark.machine import time_in_turns

__all__ = ["measure_windows"]

WINDOWS: Final = 33


def measure_windows(
    predictor: Predictor,
    video: str | Path | None,
    *,
    strides: Sequence[int] = STRIDES,
    num_windows: int = WINDOWS,
    window_seconds: float = 2.0,
    repeats: int,
) -> list[dict[str, Any]]:
    """How much faster windows are that share frames: the network alone, and with decoding.

    Args:
        predictor: Network, preprocessing, device, precision.
        video: A file for the second; None: only the network is measured, on random frames.
        strides: Frames of the grid from window to window.
        num_windows: W.
        window_seconds: Length of a window of the video.
        repeats: Rounds.

    Returns:
        A row per stride. Sharing spares at most a factor of W * T / frames, which is about T / stride.
    """
    return [
        _row(predictor, video, stride=stride, num_windows=num_windows, window_seconds=window_seconds, repeats=repeats)
        for stride in strides
    ]


def _row(
    predictor: Predictor,
    video: str | Path | None,
    *,
    stride: int,
    num_windows: int,
    window_seconds: float,
    repeats: int,
) -> dict[str, Any]:
    num_frames = predictor.preprocessing.num_frames
    count = num_frames + stride * (num_windows - 1)
    shape = (count, 1, 3, *predictor.preprocessing.input_size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    step = window_seconds / num_frames
    stretch = None if video is None else VideoRecord(str(video), start_seconds=0.0, end_seconds=count * step + 1e-3)
    lengths = {"window_seconds": window_seconds, "stride_seconds": stride * step}
    runs: dict[str, Callable[[], object]] = {}
    for way in NETWORKS:
        runs[way] = partial(_compute, predictor, pixels, stride, way)
        if stretch is not None:
            runs[f"{way}, decoded"] = partial(WindowScorer(predictor, way=way, **lengths), stretch)
    times = time_in_turns(runs, repeats=repeats, device=predictor.device)
    shared, whole = times["shared frames"], times["whole windows"]
    law = num_frames / stride
    row = {
        "stride": stride,
        "num_windows": num_windows,
        "law": law,
        "ratio": whole.median / shared.median,
        "of_law": whole.median / shared.median / law,
        **shared.to_row(),
    }
    if stretch is not None:
        row["ratio_decoded"] = times["whole windows, decoded"].median / times["shared frames, decoded"].median
        row["seconds_decoded"] = times["shared frames, decoded"].median
    return row


def _compute(predictor: Predictor, pixels: Tensor, stride: int, way: Way) -> None:
    """Frames [F, 1, C, h, w] through the network, window by window."""
    network, num_frames = NETWORKS[way](predictor), predictor.preprocessing.num_frames
    kept = [frame for some in pixels.split(num_frames * predictor.views_per_batch) for frame in network.take(some)]
    windows = [kept[first : first + num_frames] for first in range(0, len(kept) - num_frames + 1, stride)]
    for first in range(0, len(windows), predictor.views_per_batch):
        network.compute(windows[first : first + predictor.views_per_batch])
