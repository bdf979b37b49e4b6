"""From video files to labels: what ``predict`` and ``test`` reach of the slower of decoding alone and computing alone.

Decoding alone is what each of them does before the network: in one thread for ``predict``, in worker processes for
``test``; resizing and cropping included. Where both share the cores, as on a CPU, not even perfect overlap reaches the
slower of the two when they are nearly equal.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.scoring import VideoScorer
from uniformerv2.lab.benchmark.machine import time_in_turns
from uniformerv2.lab.benchmark.reading import evenly_chosen

__all__ = ["measure_pipeline", "measure_startup"]


def measure_pipeline(
    predictor: Predictor, data: str | Path, *, num_clips: int, num_workers: int | None, repeats: int
) -> list[dict[str, Any]]:
    """Videos per second, whole and in parts, in turns.

    Args:
        predictor: Network, preprocessing, device, precision.
        data: What ``read_records`` reads.
        num_clips: Videos of a round.
        num_workers: Processes that decode for ``test``; None: as many as it takes itself.
        repeats: Rounds.

    Returns:
        Two rows: ``predict`` (``Predictor.stream``) and ``test`` (``VideoScorer``).
    """
    records = evenly_chosen(data, num_clips)
    scorer = VideoScorer(predictor, num_workers=num_workers)
    pixels = _pixels(predictor, records[0])
    runs: dict[str, Callable[[], object]] = {
        "model": lambda: _compute(predictor, pixels, len(records)),
        "predict": lambda: list(predictor.stream([record.path for record in records])),
        "predict decode": lambda: [_pixels(predictor, record) for record in records],
        "test": lambda: list(scorer(records, range(len(records)))),
        "test decode": lambda: _load(predictor, records, scorer.num_workers),
    }
    _compute(predictor, pixels, 1)
    list(scorer(records, [0]))  # the server of the worker processes starts once
    times = time_in_turns(runs, repeats=repeats, device=predictor.device, warm=False)
    seconds = {name: timed.median for name, timed in times.items()}
    return [
        {
            **{"way": way, "num_videos": len(records), "views": len(pixels), **times[way].to_row()},
            "of_slower_part": max(seconds["model"], seconds[f"{way} decode"]) / seconds[way],
            "of_no_overlap": (seconds["model"] + seconds[f"{way} decode"]) / seconds[way],
            "clips_per_second": len(records) / seconds[way],
            "decode_clips_per_second": len(records) / seconds[f"{way} decode"],
            "model_clips_per_second": len(records) / seconds["model"],
        }
        for way in ("predict", "test")
    ]


def _pixels(predictor: Predictor, record: VideoRecord) -> Tensor:
    """[V, T, 3, h, w], not normalised."""
    return predictor.reader.read(record).video


def _compute(predictor: Predictor, pixels: Tensor, count: int) -> None:
    for _ in range(count):
        for views in pixels.split(predictor.views_per_batch):
            predictor.logits(views).softmax(-1)


def _load(predictor: Predictor, records: list[VideoRecord], num_workers: int) -> None:
    dataset = VideoDataset(records, predictor.preprocessing, decoder=predictor.reader.decoder)
    with closing(VideoLoader(dataset, batch_size=1, num_workers=num_workers)) as loader:
        for _ in loader:
            pass


_IMPORTS: Final = {
    "python": "pass",
    "import torch, timm": "import torch, timm",
    "import uniformerv2": "import uniformerv2",
    "every public name": "import uniformerv2\nfor name in uniformerv2.__all__: getattr(uniformerv2, name)",
}


def measure_startup(
    *, model: str | None, video: str | Path | None, repeats: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Time imports, the command's help and the first prediction, each in processes of its own.

    Args:
        model: What ``predict --model`` takes.
        video: What it is to classify.
        repeats: Processes for each.

    Returns:
        A row for each, and what is absent.

    Raises:
        ValueError: A process fails; the message has what it said.
    """
    python = [sys.executable, "-c"]
    words = {name: [*python, code] for name, code in _IMPORTS.items()}
    words["uniformerv2 --help"] = [sys.executable, "-m", "uniformerv2", "--help"]
    absent = {}
    if model is None or video is None:
        absent["first prediction"] = "give --model and --video"
    else:
        words["first prediction"] = [sys.executable, "-m", "uniformerv2", "predict", str(video), "--model", model]
    runs = {name: partial(_run, command) for name, command in words.items()}
    for run in runs.values():
        run()  # files into the memory, modules compiled
    times = time_in_turns(runs, repeats=repeats, warm=False)
    beyond = times["every public name"].median - times["import torch, timm"].median
    rows: list[dict[str, Any]] = [{"what": name, **timed.to_row()} for name, timed in times.items()]
    return [*rows, {"what": "every public name, beyond torch and timm", "seconds": beyond}], absent


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command[1:])} failed:\n{done.stderr.strip()}")
