"""``uniformerv2 benchmark``: speed, memory and multiply-adds of networks, decoders, the loader, the whole pipeline."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch
from rich.markup import escape
from rich.table import Table
from torch import nn

from uniformerv2.commands.console import make_console
from uniformerv2.commands.options import UsageError
from uniformerv2.core.optional import require
from uniformerv2.inference.predictor import Predictor
from uniformerv2.lab.benchmark.decoders import measure_decoding
from uniformerv2.lab.benchmark.figures import draw
from uniformerv2.lab.benchmark.growth import count_flops, measure_growth
from uniformerv2.lab.benchmark.loading import measure_loading, measure_worker_memory
from uniformerv2.lab.benchmark.networks import Subject, TestClip, Work, make_ours, measure_networks, peer_subjects
from uniformerv2.lab.benchmark.pipeline import measure_pipeline, measure_startup
from uniformerv2.lab.benchmark.report import BenchmarkReport, load_average
from uniformerv2.lab.benchmark.tables import table_of

__all__ = ["run"]

Measured = tuple[list[dict[str, Any]], dict[str, str]]


def run(options: argparse.Namespace) -> int:
    """Measure, show, write.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: An option outside what is allowed; nothing was measured.
    """
    _check_device(getattr(options, "device", "cpu"))
    if options.plot:
        require("matplotlib", extra="plot")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    load = load_average()
    rows, absent = MEASURES[options.benchmark](options)
    report = BenchmarkReport.of_now(
        options.benchmark,
        rows,
        settings=_settings(options),
        absent=absent,
        device=getattr(options, "device", "cpu"),
        load=load,
    )
    if options.json:
        report.write(options.json)
    if options.plot:
        draw(options.benchmark, rows, options.plot)
    _show(report)
    return 0


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch without CUDA
        raise UsageError(f"--device {device}: {error}") from error


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What decides the numbers; of paths the last name, as where they lie is nobody's business."""
    hidden = {"words", "json", "plot", "benchmark"}
    found = {}
    for name, value in vars(options).items():
        if name not in hidden and value not in (None, False, ()):
            is_path = isinstance(value, Path) or (name == "model" and Path(value).exists())
            found[name] = Path(value).resolve().name if is_path else list(value) if isinstance(value, tuple) else value
    return found


def _show(report: BenchmarkReport) -> None:
    console = make_console()
    texts = table_of(report.benchmark, report.rows)
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for number, title in enumerate(texts.header):
        table.add_column(title, justify="left" if number < texts.num_text_columns else "right")
    for cells in texts.rows:
        table.add_row(*map(escape, cells))
    machine = report.machine
    console.print(table)
    console.print(
        f"[dim]{escape(str(machine['processor']))}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{escape(str(machine['device']))}; torch {report.versions['torch']}; load before: {machine['load_before']}[/]"
    )
    for name, reason in report.absent.items():
        console.print(f"[dim]not measured: {escape(name)}: {escape(reason)}[/]")


def _maker(options: argparse.Namespace) -> Callable[..., Any]:
    """What makes the network of the options.

    Raises:
        UsageError: There is no such network: it is tried without weights, so that this is said at once.
    """
    make = partial(make_ours, options.arm or options.model, is_timm=options.arm is not None)
    try:
        with torch.device("meta"):
            make()
    except (ValueError, FileNotFoundError, RuntimeError) as error:  # RuntimeError: timm's of an unknown name
        raise UsageError(str(error)) from error
    return make


def _works(options: argparse.Namespace) -> list[Work]:
    return [
        Work(kind, precision, options.batch_size, options.device, options.compile, options.checkpointing)
        for kind, precision in product(options.kind, options.precision)
    ]


def _tell(text: str) -> None:
    sys.stderr.write(f"measuring {text}\n")


def _model(options: argparse.Namespace) -> Measured:
    make = partial(
        _maker(options),
        num_frames=options.num_frames,
        image_size=options.image_size,
        freeze_backbone=options.freeze_backbone,
    )
    name = Path(options.arm or options.model).name
    ours = [Subject(f"{name}, armed" if options.arm else name, make)]
    if options.against:
        other = _imported(options.against)
        ours.append(Subject(other.__name__, partial(_remade, other, make)))
    peers, absent = peer_subjects() if options.peers else ([], {})
    rows = []
    for work in _works(options):
        _tell(f"{work.kind}, {work.precision}")
        rows += measure_networks([*ours, *peers], work, repeats=options.repeats)
    return rows, absent


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


def _growth(options: argparse.Namespace) -> Measured:
    if not options.arm and Path(options.model).exists():
        raise UsageError("growth makes its networks anew: give a name of the zoo, or --arm.")
    make = _maker(options)
    with torch.device("meta"):
        depth = make()[0].config.depth
    if any(count > depth for count in options.stages):
        raise UsageError(f"--stages is {max(options.stages)}; the network has {depth} blocks.")
    rows = []
    for work in _works(options):
        _tell(f"{work.kind}, {work.precision}")
        rows += measure_growth(
            make,
            work,
            frames=options.sweep_frames,
            sizes=options.sizes,
            stages=options.stages,
            repeats=options.repeats,
        )
    return rows, {}


def _sets(options: argparse.Namespace) -> dict[str, str | Path]:
    return {"original": options.data} | ({"prepared": options.prepared} if options.prepared else {})


def _decode(options: argparse.Namespace) -> Measured:
    return measure_decoding(_sets(options), num_clips=options.max_videos, repeats=options.repeats)


def _data(options: argparse.Namespace) -> Measured:
    rows, absent = measure_loading(
        _sets(options), num_clips=options.max_videos, num_workers=options.workers, repeats=options.repeats
    )
    if options.memory_epochs:
        memory = measure_worker_memory(options.data, num_clips=options.max_videos, num_epochs=options.memory_epochs)
        rows[0] |= {f"memory_{name}": value for name, value in memory.items()}
        used = [round(value / 2**20, 1) for value in memory["worker_bytes"]]
        _tell(f"done; a worker's memory: {min(used)} to {max(used)} MiB, second half {memory['growth']:+.1%}")
    return rows, absent


def _pipeline(options: argparse.Namespace) -> Measured:
    model, _ = _maker(options)()
    predictor = Predictor(model.merge_linear(), device=options.device, precision=options.precision)
    rows = measure_pipeline(
        predictor, options.data, num_clips=options.max_videos, num_workers=options.workers, repeats=options.repeats
    )
    name = Path(options.arm or options.model).name
    return [{**row, "model": name, "precision": predictor.precision} for row in rows], {}


def _flops(options: argparse.Namespace) -> Measured:
    model, clip = partial(_maker(options), num_frames=options.num_frames, image_size=options.image_size)()
    return count_flops(model, clip), {}


def _startup(options: argparse.Namespace) -> Measured:
    return measure_startup(model=options.model, video=options.video, repeats=options.repeats)


MEASURES: Final[Mapping[str, Callable[[argparse.Namespace], Measured]]] = {
    "model": _model,
    "growth": _growth,
    "decode": _decode,
    "data": _data,
    "pipeline": _pipeline,
    "flops": _flops,
    "startup": _startup,
}
