"""``measure``: one kind of benchmark from its options to a ``BenchmarkReport``; what ``uniformerv2 benchmark`` runs.

report = measure("model", backbone="vit_small_patch16_224", precision=["fp32"])
report.write(Path("model.json"))
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Self

import torch
from torch import nn

from uniformerv2.core.devices import existing_device
from uniformerv2.core.files import write_text
from uniformerv2.core.messages import UsageError
from uniformerv2.inference.predictor import Predictor
from uniformerv2.lab.benchmark import FRAMES, SIZES, STRIDES
from uniformerv2.lab.benchmark.engines import measure_engines
from uniformerv2.lab.benchmark.machine import load_average, machine_of, versions
from uniformerv2.lab.benchmark.networks import (
    Subject,
    TestClip,
    Work,
    make_ours,
    measure_growth,
    measure_networks,
    peer_subjects,
)
from uniformerv2.lab.benchmark.pipeline import measure_pipeline, measure_startup
from uniformerv2.lab.benchmark.products import count_flops
from uniformerv2.lab.benchmark.reading import measure_decoding, measure_loading, measure_worker_memory
from uniformerv2.lab.benchmark.windows import measure_windows

__all__ = ["BenchmarkReport", "measure"]

Measured = tuple[list[dict[str, Any]], dict[str, str]]
DEFAULTS: Final[Mapping[str, Any]] = {
    **{name: None for name in ("backbone", "threads", "image_size", "num_frames", "prepared", "against", "video")},
    **{name: False for name in ("compile", "checkpointing", "freeze_backbone", "peers")},
    "model": "uniformerv2_b16_k400_8x224",
    "kind": ["forward"],
    "precision": ["fp32", "bf16"],
    "batch_size": 1,
    "device": "cpu",
    "repeats": 3,
    "sweep_frames": FRAMES,
    "sizes": SIZES,
    "stages": (),
    "strides": STRIDES,
    "max_videos": 24,
    "workers": None,
    "memory_epochs": 0,
}
"""Options of all benchmarks, as on the command line."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport:
    """One measurement.

    Attributes:
        benchmark: Its name, as on the command line.
        rows: What was measured, in plain values; times in seconds, memory in bytes where the name says nothing else.
        settings: The options that decide what was measured.
        absent: What could not be measured -> why.
        date: The day of the measurement, UTC.
        machine: Processor, cores, memory, device, and how many processes ran or waited in the minute before.
        versions: Python's version and those of the packages that were measured.
    """

    benchmark: str
    rows: tuple[dict[str, Any], ...]
    settings: Mapping[str, Any]
    absent: Mapping[str, str]
    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """What ``write`` wrote.

        Raises:
            ValueError: The file holds no such report.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names or not values["rows"]:
            raise ValueError(f"{path} is no report of a benchmark: it must have {', '.join(sorted(names))}, with rows.")
        return cls(**{**values, "rows": tuple(values["rows"])})


def measure(benchmark: str, **options: Any) -> BenchmarkReport:
    """Measure one thing on this machine.

    Args:
        benchmark: A key of ``MEASURES``: "model", "growth", "decode", "data", "pipeline", "windows", "flops" or
            "startup".
        **options: As ``uniformerv2 benchmark`` takes them; see ``DEFAULTS``.

    Raises:
        UsageError: An option outside what is allowed; nothing was measured.
    """
    given = SimpleNamespace(**{**DEFAULTS, **options})
    try:
        existing_device(given.device)
    except ValueError as error:
        raise UsageError(f"--device {given.device}: {error}") from error
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    load = load_average()
    rows, absent = MEASURES[benchmark](given)
    return BenchmarkReport(
        benchmark=benchmark,
        rows=tuple(rows),
        settings=_settings(options),
        absent=absent,
        date=datetime.now(UTC).date().isoformat(),
        machine={**machine_of(torch.device(given.device)), "load_before": round(load, 1)},
        versions=versions(),
    )


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the numbers; of paths the last name, as where they lie is nobody's business."""
    found = {}
    for name, value in options.items():
        if value not in (None, False, ()):
            is_path = isinstance(value, Path) or (name == "model" and Path(value).exists())
            found[name] = Path(value).resolve().name if is_path else list(value) if isinstance(value, tuple) else value
    return found


def _maker(options: SimpleNamespace) -> Callable[..., Any]:
    """What makes the network of the options.

    Raises:
        UsageError: There is no such network: it is tried without weights, so that this is said at once.
    """
    make = partial(make_ours, options.backbone or options.model, is_timm=options.backbone is not None)
    try:
        with torch.device("meta"):
            make()
    except (ValueError, FileNotFoundError, RuntimeError) as error:  # RuntimeError: timm's of an unknown name
        raise UsageError(str(error)) from error
    return make


def _works(options: SimpleNamespace) -> Iterator[Work]:
    for kind, precision in product(options.kind, options.precision):
        _tell(f"{kind}, {precision}")
        yield Work(kind, precision, options.batch_size, options.device, options.compile, options.checkpointing)


def _tell(text: str) -> None:
    sys.stderr.write(f"measuring {text}\n")


def _model(options: SimpleNamespace) -> Measured:
    make = partial(
        _maker(options),
        num_frames=options.num_frames,
        image_size=options.image_size,
        freeze_backbone=options.freeze_backbone,
    )
    name = Path(options.backbone or options.model).name
    ours = [Subject(f"{name}, armed" if options.backbone else name, make)]
    if options.against:
        other = _imported(options.against)
        ours.append(Subject(other.__name__, partial(_remade, other, make)))
    peers, absent = peer_subjects() if options.peers else ([], {})
    every = [*ours, *peers]
    return [row for work in _works(options) for row in measure_networks(every, work, repeats=options.repeats)], absent


def _remade(other: Callable[[Any], nn.Module], make: Callable[[], tuple[Any, TestClip]]) -> tuple[nn.Module, TestClip]:
    model, clip = make()
    return other(model), clip


def _imported(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    try:
        if colon:
            return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--against {name}: {error}.") from error
    raise UsageError(
        f"--against is {name}; it must be MODULE:CLASS, for instance benchmarks.plain_form:PlainUniFormerV2."
    )


def _growth(options: SimpleNamespace) -> Measured:
    if not options.backbone and Path(options.model).exists():
        raise UsageError("growth makes its networks anew: give a name of the zoo, or --backbone.")
    make = _maker(options)
    with torch.device("meta"):
        depth = make()[0].config.depth
    if any(count > depth for count in options.stages):
        raise UsageError(f"--stages is {max(options.stages)}; the network has {depth} blocks.")
    points = {"frames": options.sweep_frames, "sizes": options.sizes, "stages": options.stages}
    measured = (measure_growth(make, work, **points, repeats=options.repeats) for work in _works(options))
    return [row for rows in measured for row in rows], {}


def _sets(options: SimpleNamespace) -> dict[str, str | Path]:
    return {"original": options.data} | ({"prepared": options.prepared} if options.prepared else {})


def _decode(options: SimpleNamespace) -> Measured:
    return measure_decoding(_sets(options), num_clips=options.max_videos, repeats=options.repeats)


def _data(options: SimpleNamespace) -> Measured:
    rows, absent = measure_loading(
        _sets(options), num_clips=options.max_videos, num_workers=options.workers, repeats=options.repeats
    )
    if options.memory_epochs:
        memory = measure_worker_memory(options.data, num_clips=options.max_videos, num_epochs=options.memory_epochs)
        rows[0] |= {f"memory_{name}": value for name, value in memory.items()}
        used = [round(value / 2**20, 1) for value in memory["worker_bytes"]]
        _tell(f"done; a worker's memory: {min(used)} to {max(used)} MiB, second half {memory['growth']:+.1%}")
    return rows, absent


def _pipeline(options: SimpleNamespace) -> Measured:
    model, _ = _maker(options)()
    predictor = Predictor(model.merge_linear(), device=options.device, precision=options.precision)
    rows = measure_pipeline(
        predictor, options.data, num_clips=options.max_videos, num_workers=options.workers, repeats=options.repeats
    )
    name = Path(options.backbone or options.model).name
    return [{**row, "model": name, "precision": predictor.precision} for row in rows], {}


def _windows(options: SimpleNamespace) -> Measured:
    model, _ = _maker(options)()
    predictor = Predictor(model.merge_linear(), device=options.device, precision=options.precision)
    if not model.takes_frames_alone:
        raise UsageError("This network has local steps or tubelets of 2 frames: its windows share no frames.")
    rows = measure_windows(predictor, options.video, strides=options.strides, repeats=options.repeats)
    name = Path(options.backbone or options.model).name
    return [{"model": name, "precision": predictor.precision, **row} for row in rows], {}


def _flops(options: SimpleNamespace) -> Measured:
    model, clip = partial(_maker(options), num_frames=options.num_frames, image_size=options.image_size)()
    return count_flops(model, clip.batch(1)), {}


def _engines(options: SimpleNamespace) -> Measured:
    model, _ = _maker(options)()
    return measure_engines(model, repeats=options.repeats, company=tuple(options.company))


def _startup(options: SimpleNamespace) -> Measured:
    return measure_startup(model=options.model, video=options.video, repeats=options.repeats)


MEASURES: Final[Mapping[str, Callable[[SimpleNamespace], Measured]]] = {
    "model": _model,
    "growth": _growth,
    "decode": _decode,
    "data": _data,
    "pipeline": _pipeline,
    "windows": _windows,
    "flops": _flops,
    "engines": _engines,
    "startup": _startup,
}
