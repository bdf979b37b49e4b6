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

from uniformerv2.core.bundled import bundled_clips
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.export.calibration import calibration_views
from uniformerv2.export.exporting import contract_of, write_files
from uniformerv2.export.graph import ExportableNetwork, trace
from uniformerv2.inference.engines import EngineName, Precision, best_of_onnx
from uniformerv2.inference.predictor import Predictor
from uniformerv2.lab.benchmark.products import record_products, square_product
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.exported import ONNX_FILE, ExportPrecision, find_exported

__all__ = ["COMPANY", "DECODERS", "measure_engines"]

PRECISIONS: Final[dict[EngineName, tuple[Precision, ...]]] = {
    "torch": ("fp32", "bf16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16"),
}
DECODERS: Final = "decoders"
"""Company that reads videos as ``predict`` does, in a process of its own."""
COMPANY: Final[tuple[int | str, ...]] = (0, 1, 5, DECODERS)
"""Processes that compute for nothing meanwhile, by their number; or what else is beside."""
DECODES: Final = """
import sys
from uniformerv2.data.clips import ClipReader
from uniformerv2.data.transforms import Preprocessing
reader = ClipReader(preprocessing=Preprocessing())
while True:
    for path in sys.argv[1:]:
        reader.read(path)
"""
STARTS_SECONDS: Final = 5.0
"""Until a process that reads videos has imported what it needs."""
CALIBRATED: Final = "int8 calibrated"
SQUARE: Final = "square product"
"""In the place of an engine: the most that a precision gives here, by PyTorch."""
DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}

Calls = dict[tuple[str, str], Callable[[], object]]


def measure_engines(
    model: UniFormerV2, *, repeats: int, company: tuple[int | str, ...] = COMPANY
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Time one view by every engine that is installed, in turns with a square product of each precision.

    Args:
        model: The checkpoint's network, before its linear maps are merged.
        repeats: Rounds.
        company: What to measure beside; see ``COMPANY``.

    Returns:
        A row for each company, engine and precision; and what is absent.
    """
    absent = {name: "not installed" for name in ("onnxruntime", "openvino") if not find_spec(name)}
    products = {name: square_product(dtype, "cpu") for name, dtype in DTYPES.items()}
    with TemporaryDirectory() as folder:
        calls, best, flops = _calls(model, Path(folder), absent)
        first = next(iter(calls))
        calls |= {(SQUARE, name): product for name, product in products.items()}
        rows = []
        for beside in company:
            with _beside(beside):
                found = _in_turns(calls, repeats)
            ceilings = {name: product.flops / found[SQUARE, name][0] for name, product in products.items()}
            rows += [
                {
                    **{"company": beside, "engine": engine, "precision": precision},
                    **{"is_auto": (engine, precision) == best, "seconds": wall, "processor_seconds": used},
                    "speed_to_first": found[first][0] / wall,
                    "processor_to_first": found[first][1] / used,
                    "share_of_ceiling": flops / wall / ceilings[precision] if precision in ceilings else None,
                }
                for (engine, precision), (wall, used) in found.items()
                if engine != SQUARE
            ]
    return rows, absent


def _calls(model: UniFormerV2, folder: Path, absent: dict[str, str]) -> tuple[Calls, tuple[str, str], int]:
    """What computes a view, by engine and precision; what "auto" takes for the ONNX file; floating-point operations."""
    files = {} if "onnxruntime" in absent else _write(model, folder)
    network = model.merge_linear()
    predictors: dict[tuple[str, str], Predictor] = {}
    for engine, precisions in PRECISIONS.items():
        if engine not in absent and (engine == "torch" or files):
            for precision in precisions:
                source = network if engine == "torch" else files["fp32"]
                predictors[engine, precision] = Predictor(source, device="cpu", engine=engine, precision=precision)
    best = ("torch", "fp32")
    if files:
        engines: tuple[EngineName, ...] = ("onnxruntime",) if "openvino" in absent else ("onnxruntime", "openvino")
        predictors["onnxruntime", "int8"] = Predictor(files["int8"], engine="onnxruntime")
        for engine in engines:
            predictors[engine, CALIBRATED] = Predictor(files[CALIBRATED], engine=engine, precision="fp32")
        found = find_exported(files["fp32"])
        assert found is not None  # as it was just written
        best = (best_of_onnx(found), Predictor(files["fp32"]).precision)
    exact = predictors["torch", "fp32"]
    own = exact.preprocessing
    views = torch.randint(0, 256, (1, own.num_frames, 3, *own.input_size), dtype=torch.uint8)
    views = views if own.resize != "bilinear_float" else views.float()
    with torch.no_grad():
        flops = record_products(lambda: network(exact.network_input(views))).flops
    return {key: partial(predictor.logits, views) for key, predictor in predictors.items()}, best, flops


def _write(model: UniFormerV2, folder: Path) -> dict[str, Path]:
    """The network as ONNX files: exact, in 8 bits with scales of each view, and with scales of the bundled clips."""
    files, program = {}, None
    clips = [VideoRecord(path=str(path)) for path in bundled_clips()]
    for name in ("fp32", "int8", CALIBRATED):
        is_calibrated = name == CALIBRATED
        out = folder / name.replace(" ", "_")
        out.mkdir()
        precision: ExportPrecision = "fp32" if name == "fp32" else "int8"
        contract = contract_of(model, out, precision=precision, is_calibrated=is_calibrated)
        views = calibration_views(clips, contract.preprocessing) if is_calibrated else None
        program = program or trace(ExportableNetwork(model, contract), contract)
        write_files(program, contract, out, format="onnx", views=views)
        files[name] = out / ONNX_FILE
    return files


def _in_turns(calls: Calls, repeats: int) -> dict[tuple[str, str], tuple[float, float]]:
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
def _beside(company: int | str) -> Iterator[None]:
    """Beside so many processes that never rest, or beside one that reads videos."""
    is_decoder = company == DECODERS
    words = [["-c", DECODES, *map(str, bundled_clips())]] if is_decoder else [["-c", "while True: pass"]] * int(company)
    processes = [subprocess.Popen([sys.executable, *command]) for command in words]
    try:
        if is_decoder:
            time.sleep(STARTS_SECONDS)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
