"""Engines on this machine: one clip by PyTorch, ONNX Runtime and OpenVINO in every precision, alone and in company.

Wall time tells what a user waits; processor time tells the same of a machine that has other things to do.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor

from uniformerv2.export.exporting import export_model
from uniformerv2.inference.engines import EngineName, Precision, best_of_onnx
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.exported import find_exported

__all__ = ["measure_engines"]

PRECISIONS: Final[dict[EngineName, tuple[Precision, ...]]] = {
    "torch": ("fp32", "bf16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16"),
}
COMPANY: Final = (0, 1, 5)
"""Processes that compute for nothing meanwhile."""


def measure_engines(
    model: UniFormerV2, *, repeats: int, company: tuple[int, ...] = COMPANY
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Time one view by every engine that is installed, in turns.

    Args:
        model: The checkpoint's network, before its linear maps are merged.
        repeats: Rounds.
        company: Numbers of busy processes to measure beside.

    Returns:
        A row for each company, engine and precision; and what is absent.
    """
    absent = {name: "not installed" for name in ("onnxruntime", "openvino") if not find_spec(name)}
    with TemporaryDirectory() as folder:
        calls, best = _calls(model, Path(folder), absent)
        rows = []
        for count in company:
            with _busy(count):
                found = _in_turns(calls, repeats)
            first = found[next(iter(calls))]
            rows += [
                {
                    **{
                        "company": count,
                        "engine": engine,
                        "precision": precision,
                        "is_auto": (engine, precision) == best,
                    },
                    **{"seconds": wall, "processor_seconds": used},
                    "speed_to_first": first[0] / wall,
                    "processor_to_first": first[1] / used,
                }
                for (engine, precision), (wall, used) in found.items()
            ]
    return rows, absent


def _calls(
    model: UniFormerV2, folder: Path, absent: dict[str, str]
) -> tuple[dict[tuple[str, str], Callable[[], Tensor]], tuple[str, str]]:
    """What computes a view, by engine and precision; and what "auto" takes for the ONNX file."""
    exact, rounded = folder / "model.onnx", folder / "int8.onnx"
    if "onnxruntime" not in absent:
        export_model(model, exact, verify_on=False)
        export_model(model, rounded, precision="int8", verify_on=False)
    predictors: dict[tuple[str, str], Predictor] = {}
    network = model.merge_linear()
    for engine, precisions in PRECISIONS.items():
        if engine not in absent and (engine == "torch" or exact.exists()):
            for precision in precisions:
                source = network if engine == "torch" else exact
                predictors[engine, precision] = Predictor(source, device="cpu", engine=engine, precision=precision)
    best = ("torch", "fp32")
    if exact.exists():
        predictors["onnxruntime", "int8"] = Predictor(rounded, engine="onnxruntime")
        found = find_exported(exact)
        assert found is not None  # as it was just written
        chosen = best_of_onnx(found)
        best = (chosen, Predictor(exact).precision)
    own = next(iter(predictors.values())).preprocessing
    views = torch.randint(0, 256, (1, own.num_frames, 3, *own.input_size), dtype=torch.uint8)
    views = views if own.resize != "bilinear_float" else views.float()
    return {key: partial(predictor.logits, views) for key, predictor in predictors.items()}, best


def _in_turns(
    calls: dict[tuple[str, str], Callable[[], Tensor]], repeats: int
) -> dict[tuple[str, str], tuple[float, float]]:
    """Median seconds of wall and of processor of each call; see ``time_in_turns``."""
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in calls}
    for _ in range(repeats):
        for key, call in calls.items():
            call()
            begin, used = time.perf_counter(), time.process_time()
            call()
            seconds[key].append((time.perf_counter() - begin, time.process_time() - used))
    return {key: (median(wall for wall, _ in both), median(used for _, used in both)) for key, both in seconds.items()}


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Beside so many processes that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
