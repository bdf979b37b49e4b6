"""``uniformerv2 benchmark``: speed, memory and multiply-adds of networks, decoders, the loader, the whole pipeline."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import (
    add_hardware,
    add_json,
    check_at_least,
    check_exists,
    check_model,
    check_output,
    example,
)
from uniformerv2.core.messages import UsageError
from uniformerv2.core.optional import require
from uniformerv2.lab.benchmark import FIGURE_SUFFIXES, FRAMES, PASSES, PRECISIONS, SIZES, STRIDES

if TYPE_CHECKING:
    from uniformerv2.lab.benchmark.measures import BenchmarkReport

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 benchmark model --backbone vit_small_patch16_224"
LOADS: Final = "uniformerv2.lab.benchmark.measures"
OF_VIDEOS: Final = frozenset({"decode", "data", "pipeline"})
MODEL: Final = "uniformerv2_b16_k400_8x224"
COUNTS: Final = (
    *("image_size", "num_frames", "batch_size", "repeats", "threads", "max_videos", "workers"),
    *("sweep_frames", "sizes", "stages", "strides"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    kinds = parser.add_subparsers(metavar="WHAT", required=True, dest="benchmark")
    add = partial(_add, kinds)

    model = add("model", "a forward pass, a training step, against their matrix products", repeats=5)
    _add_network(model)
    _add_work(model)
    model.add_argument("--freeze-backbone", action="store_true", help="in a step only the video blocks learn")
    model.add_argument("--peers", action="store_true", help="also other packages' networks, with random weights")
    model.add_argument("--against", metavar="MODULE:CLASS", help="also what this makes of the network")

    growth = add("growth", "time and memory over frames, resolution and fusion stages", repeats=3)
    _add_network(growth, sized=False)
    _add_work(growth)
    growth.add_argument("--sweep-frames", type=int, nargs="+", default=FRAMES, metavar="T", help=_default(FRAMES))
    growth.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help=_default(SIZES))
    growth.add_argument("--stages", type=int, nargs="+", default=(), metavar="N", help="default: five, from one to all")

    decode = add("decode", "PyAV, torchcodec and decord: 8 spread frames, all frames", repeats=3)
    _add_videos(decode, count=30)
    decode.add_argument("--prepared", type=Path, metavar="DATA", help="the same videos after data prepare")

    data = add("data", "the loader against a bare decode loop", repeats=3)
    _add_videos(data, count=96)
    data.add_argument("--prepared", type=Path, metavar="DATA", help="the same videos after data prepare")
    data.add_argument("--workers", type=int, nargs="+", default=(1, 2), metavar="N", help="processes (default: 1 2)")
    data.add_argument(
        "--memory-epochs", type=int, default=0, metavar="N", help="also a worker's memory after each of N"
    )

    pipeline = add("pipeline", "from video files to labels, against the slower part alone", repeats=3)
    _add_videos(pipeline, count=24)
    _add_network(pipeline, sized=False)
    add_hardware(pipeline, precisions=("auto", "fp32", "bf16"), device="cpu")
    pipeline.add_argument("--workers", type=int, metavar="N", help="processes that decode for test (default: as test)")

    windows = add("windows", "windows of a long video that share frames, against whole ones", repeats=3)
    _add_network(windows, sized=False)
    add_hardware(windows, precisions=("auto", "fp32", "bf16"), device="cpu")
    windows.add_argument("--video", type=Path, metavar="FILE", help="also with decoding, of this video")
    windows.add_argument("--strides", type=int, nargs="+", default=STRIDES, metavar="N", help=_default(STRIDES))

    engines = add("engines", "a clip by PyTorch, ONNX Runtime and OpenVINO, alone and in company", repeats=5)
    _add_network(engines, sized=False)
    about = "busy processes to measure beside, or decoders (default: 0 1 5 decoders)"
    engines.add_argument("--company", type=_company, nargs="+", default=(0, 1, 5, "decoders"), metavar="N", help=about)

    flops = add("flops", "multiply-adds of each part, against models NAME", repeats=None)
    _add_network(flops)

    startup = add("startup", "imports, --help, the first prediction, in fresh processes", repeats=5)
    startup.add_argument("--model", metavar="MODEL", help="for the first prediction: what predict --model takes")
    startup.add_argument("--video", type=Path, metavar="FILE", help="for the first prediction")


def _company(word: str) -> int | str:
    """What engines are measured beside.

    Raises:
        ArgumentTypeError: It is no number and not "decoders".
    """
    if word != "decoders" and not word.isdecimal():
        raise argparse.ArgumentTypeError(f"it is a number of at least 0, or decoders, got {word!r}")
    return word if word == "decoders" else int(word)


def _add(kinds: Any, name: str, summary: str, *, repeats: int | None) -> argparse.ArgumentParser:
    command = f"uniformerv2 benchmark {name}{' videos' * (name in OF_VIDEOS)} --out {name}.json"
    opening = example(f"Measure {summary}.", command)
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=summary, **opening)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of PyTorch on the CPU (default: its choice)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write rows, machine, versions and date as .json")
    add_json(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw a figure: {', '.join(FIGURE_SUFFIXES)}")
    return parser


def _add_network(parser: argparse.ArgumentParser, *, sized: bool = True) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--model", default=MODEL, metavar="MODEL", help="name of the zoo with random weights, or a folder or file"
    )
    which.add_argument("--backbone", metavar="NAME", help="timm's name of an image ViT to arm, random weights")
    if sized:
        parser.add_argument("--image-size", type=int, metavar="N", help="side of a frame in pixels (default: its own)")
        parser.add_argument("--num-frames", type=int, metavar="T", help="frames per clip (default: its own)")


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pass", dest="kind", nargs="+", choices=PASSES, default=["forward"], help="or a step")
    about = "one or several (default: fp32 bf16)"
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"], help=about)
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="clips per call (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--compile", action="store_true", help="compile the network with torch.compile")
    parser.add_argument("--checkpointing", action="store_true", help="compute blocks again in the backward pass")


def _add_videos(parser: argparse.ArgumentParser, *, count: int) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder or list of videos")
    parser.add_argument(
        "--max-videos", type=int, default=count, metavar="N", help="the first of them (default: %(default)s)"
    )


def _default(values: Sequence[int]) -> str:
    return f"default: {' '.join(map(str, values))}"


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; nothing was measured.

    Raises:
        UsageError: An option outside what is allowed, or a file or model that is not there.
    """
    check_at_least(1, options, *COUNTS)
    if getattr(options, "memory_epochs", 0) not in {0, *range(2, 10_000)}:
        raise UsageError(f"--memory-epochs must be 0, or at least 2 to compare halves, got {options.memory_epochs}.")
    inputs = [path for name in ("data", "prepared", "video") if (path := getattr(options, name, None)) is not None]
    for path in inputs:
        check_exists(path)
    check_output(options.plot, option="--plot", suffixes=FIGURE_SUFFIXES, inputs=inputs)
    check_output(options.out, option="--out", suffixes=(".json",), inputs=inputs)
    if getattr(options, "checkpointing", False) and options.kind != ["step"]:
        given = " ".join(options.kind)
        raise UsageError(f"--checkpointing is for a training step, and --pass is {given}: give --pass step alone.")
    if getattr(options, "model", None) is not None and getattr(options, "backbone", None) is None:
        check_model(options.model)


def run(options: argparse.Namespace) -> int:
    """Measure, show, write.

    Raises:
        UsageError: An option outside what is allowed; nothing was measured.
    """
    from uniformerv2.lab.benchmark.measures import measure
    from uniformerv2.lab.benchmark.render import draw

    if options.plot:
        require("matplotlib", extra="plot")
    shown = {"words", "json", "out", "plot", "benchmark", "debug"}
    report = measure(options.benchmark, **{name: value for name, value in vars(options).items() if name not in shown})
    if options.out:
        report.write(options.out)
    if options.plot:
        draw(options.benchmark, report.rows, options.plot)
    if options.json:
        sys.stdout.write(json.dumps(asdict(report)) + "\n")
    else:
        _show(report)
    return 0


def _show(report: BenchmarkReport) -> None:
    from rich.markup import escape
    from rich.table import Table

    from uniformerv2.core.console import make_console
    from uniformerv2.lab.benchmark.render import table_of

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
