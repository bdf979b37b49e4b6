"""``uniformerv2 benchmark``: speed, memory and multiply-adds of networks, decoders, the loader, the whole pipeline."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final, get_args

import torch
from rich.markup import escape
from rich.table import Table
from torch import nn

from uniformerv2.benchmark.decoders import measure_decoding
from uniformerv2.benchmark.figures import FIGURE_SUFFIXES, draw
from uniformerv2.benchmark.flops import count_flops
from uniformerv2.benchmark.growth import FRAMES, SIZES, measure_growth
from uniformerv2.benchmark.loading import measure_loading, measure_worker_memory
from uniformerv2.benchmark.networks import Pass, Precision, Subject, TestClip, Work, make_ours, measure_networks
from uniformerv2.benchmark.peers import peer_subjects
from uniformerv2.benchmark.pipeline import measure_pipeline
from uniformerv2.benchmark.report import BenchmarkReport, load_average
from uniformerv2.benchmark.startup import measure_startup
from uniformerv2.benchmark.tables import table_of
from uniformerv2.commands.console import make_console
from uniformerv2.commands.options import UsageError
from uniformerv2.core.optional import require
from uniformerv2.inference.predictor import Predictor

__all__ = ["add_arguments", "run"]

Measured = tuple[list[dict[str, Any]], dict[str, str]]

MODEL: Final = "uniformerv2_b16_k400_8x224"
COUNTS: Final = ("size", "frames", "batch", "repeats", "threads", "clips", "workers", "sweep_frames", "sizes", "stages")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    kinds = parser.add_subparsers(metavar="WHAT", required=True, dest="benchmark")
    add = partial(_add, kinds)

    model = add("model", _model, "a forward pass, a training step, against their matrix products", repeats=5)
    _add_network(model)
    _add_work(model)
    model.add_argument("--trainable", choices=("all", "armour"), default="all", help="of a step (default: all)")
    model.add_argument("--peers", action="store_true", help="also other packages' networks, with random weights")
    model.add_argument("--against", metavar="MODULE:CLASS", help="also what this makes of the network")

    growth = add("growth", _growth, "time and memory over frames, resolution and fusion stages", repeats=3)
    _add_network(growth, sized=False)
    _add_work(growth)
    growth.add_argument("--sweep-frames", type=int, nargs="+", default=FRAMES, metavar="T", help=_default(FRAMES))
    growth.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help=_default(SIZES))
    growth.add_argument("--stages", type=int, nargs="+", default=(), metavar="N", help="default: five, from one to all")

    decode = add("decode", _decode, "PyAV, torchcodec and decord: 8 spread frames, all frames", repeats=3)
    _add_videos(decode, clips=30)
    decode.add_argument("--prepared", type=Path, metavar="DATA", help="the same videos after data prepare")

    data = add("data", _data, "the loader against a bare decode loop", repeats=3)
    _add_videos(data, clips=96)
    data.add_argument("--prepared", type=Path, metavar="DATA", help="the same videos after data prepare")
    data.add_argument("--workers", type=int, nargs="+", default=(1, 2), metavar="N", help="processes (default: 1 2)")
    data.add_argument(
        "--memory-epochs", type=int, default=0, metavar="N", help="also a worker's memory after each of N"
    )

    pipeline = add("pipeline", _pipeline, "from video files to labels, against the slower part alone", repeats=3)
    _add_videos(pipeline, clips=24)
    _add_network(pipeline, sized=False)
    pipeline.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="default: auto")
    pipeline.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    pipeline.add_argument("--workers", type=int, metavar="N", help="processes that decode for test (default: as test)")

    flops = add("flops", _flops, "multiply-adds of each part, against models NAME", repeats=None)
    _add_network(flops)

    startup = add("startup", _startup, "imports, --help, the first prediction, in fresh processes", repeats=5)
    startup.add_argument("--model", metavar="MODEL", help="for the first prediction: what predict --model takes")
    startup.add_argument("--video", type=Path, metavar="FILE", help="for the first prediction")


def _add(
    kinds: Any, name: str, measure: Callable[[argparse.Namespace], Measured], summary: str, *, repeats: int | None
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.set_defaults(measure=measure)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="of PyTorch on the CPU (default: as it chooses)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, machine, versions and date")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw a figure: {', '.join(FIGURE_SUFFIXES)}")
    return parser


def _add_network(parser: argparse.ArgumentParser, *, sized: bool = True) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", default=MODEL, metavar="NAME", help="of the zoo, random weights, or a folder or file")
    which.add_argument("--arm", metavar="TIMM", help="timm's name of an image ViT to arm, random weights")
    if sized:
        parser.add_argument("--size", type=int, metavar="N", help="side of a frame in pixels (default: the network's)")
        parser.add_argument("--frames", type=int, metavar="T", help="of a clip (default: the network's)")


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pass", dest="kind", nargs="+", choices=get_args(Pass), default=["forward"], help="or a step")
    parser.add_argument(
        "--precision", nargs="+", choices=get_args(Precision), default=["fp32", "bf16"], help="default: fp32 bf16"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="clips of a call (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--checkpointing", action="store_true", help="compute blocks again in the backward pass")


def _add_videos(parser: argparse.ArgumentParser, *, clips: int) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder or list of videos")
    parser.add_argument("--clips", type=int, default=clips, metavar="N", help="videos of it (default: %(default)s)")


def _default(values: Sequence[int]) -> str:
    return f"default: {' '.join(map(str, values))}"


def run(options: argparse.Namespace) -> int:
    """Measure, show, write.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: An option outside what is allowed; nothing was measured.
    """
    _check(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    load = load_average()
    rows, absent = options.measure(options)
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


def _check(options: argparse.Namespace) -> None:
    for name in COUNTS:
        value = getattr(options, name, None)
        for count in value if isinstance(value, list | tuple) else [value]:
            if count is not None and count < 1:
                raise UsageError(f"--{name.replace('_', '-')} is {count}; it must be 1 or more.")
    if getattr(options, "memory_epochs", 0) not in {0, *range(2, 10_000)}:
        raise UsageError(f"--memory-epochs is {options.memory_epochs}; it must be 0, or 2 and more to compare halves.")
    for name in ("data", "prepared", "video"):
        path = getattr(options, name, None)
        if path is not None and not path.exists():
            raise UsageError(f"There is no file or folder {path}.")
    if options.plot:
        if options.plot.suffix not in FIGURE_SUFFIXES:
            raise UsageError(f"--plot is {options.plot}; its name must end with {', '.join(FIGURE_SUFFIXES)}.")
        require("matplotlib", extra="plot")
    if getattr(options, "checkpointing", False) and options.kind != ["step"]:
        given = " ".join(options.kind)
        raise UsageError(f"--checkpointing is for a training step, and --pass is {given}: give --pass step alone.")
    try:
        torch.empty(0, device=getattr(options, "device", "cpu"))
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch without CUDA
        raise UsageError(f"--device {options.device}: {error}") from error


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What decides the numbers; of paths the last name, as where they lie is nobody's business."""
    hidden = {"words", "measure", "json", "plot", "benchmark"}
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
        Work(kind, precision, options.batch, options.device, options.compile, options.checkpointing)
        for kind, precision in product(options.kind, options.precision)
    ]


def _tell(text: str) -> None:
    sys.stderr.write(f"measuring {text}\n")


def _model(options: argparse.Namespace) -> Measured:
    make = partial(_maker(options), num_frames=options.frames, image_size=options.size, trainable=options.trainable)
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
    return measure_decoding(_sets(options), num_clips=options.clips, repeats=options.repeats)


def _data(options: argparse.Namespace) -> Measured:
    rows, absent = measure_loading(
        _sets(options), num_clips=options.clips, num_workers=options.workers, repeats=options.repeats
    )
    if options.memory_epochs:
        memory = measure_worker_memory(options.data, num_clips=options.clips, num_epochs=options.memory_epochs)
        rows[0] |= {f"memory_{name}": value for name, value in memory.items()}
        used = [round(value / 2**20, 1) for value in memory["worker_bytes"]]
        _tell(f"done; a worker's memory: {min(used)} to {max(used)} MiB, second half {memory['growth']:+.1%}")
    return rows, absent


def _pipeline(options: argparse.Namespace) -> Measured:
    model, _ = _maker(options)()
    predictor = Predictor(model.fuse(), device=options.device, precision=options.precision)
    rows = measure_pipeline(
        predictor, options.data, num_clips=options.clips, num_workers=options.workers, repeats=options.repeats
    )
    name = Path(options.arm or options.model).name
    return [{**row, "model": name, "precision": predictor.precision} for row in rows], {}


def _flops(options: argparse.Namespace) -> Measured:
    model, clip = partial(_maker(options), num_frames=options.frames, image_size=options.size)()
    return count_flops(model, clip), {}


def _startup(options: argparse.Namespace) -> Measured:
    return measure_startup(model=options.model, video=options.video, repeats=options.repeats)
