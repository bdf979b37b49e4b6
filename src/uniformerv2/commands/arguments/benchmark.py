"""The options of ``uniformerv2 benchmark``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from uniformerv2.commands.options import UsageError, check_at_least, check_exists, check_model, check_output
from uniformerv2.lab.benchmark.choices import FIGURE_SUFFIXES, FRAMES, PASSES, PRECISIONS, SIZES

__all__ = ["add_arguments", "check"]


MODEL: Final = "uniformerv2_b16_k400_8x224"
COUNTS: Final = (
    *("image_size", "num_frames", "batch_size", "repeats", "threads", "max_videos", "workers"),
    *("sweep_frames", "sizes", "stages"),
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
    pipeline.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="default: auto")
    pipeline.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    pipeline.add_argument("--workers", type=int, metavar="N", help="processes that decode for test (default: as test)")

    flops = add("flops", "multiply-adds of each part, against models NAME", repeats=None)
    _add_network(flops)

    startup = add("startup", "imports, --help, the first prediction, in fresh processes", repeats=5)
    startup.add_argument("--model", metavar="MODEL", help="for the first prediction: what predict --model takes")
    startup.add_argument("--video", type=Path, metavar="FILE", help="for the first prediction")


def _add(kinds: Any, name: str, summary: str, *, repeats: int | None) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=summary, description=summary, allow_abbrev=False)
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
        parser.add_argument(
            "--image-size", type=int, metavar="N", help="side of a frame in pixels (default: the network's)"
        )
        parser.add_argument("--num-frames", type=int, metavar="T", help="of a clip (default: the network's)")


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pass", dest="kind", nargs="+", choices=PASSES, default=["forward"], help="or a step")
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"], help="default: fp32 bf16"
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="clips of a call (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
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
    check_output(options.json, option="--json", suffixes=(".json",), inputs=inputs)
    if getattr(options, "checkpointing", False) and options.kind != ["step"]:
        given = " ".join(options.kind)
        raise UsageError(f"--checkpointing is for a training step, and --pass is {given}: give --pass step alone.")
    if getattr(options, "model", None) is not None and getattr(options, "arm", None) is None:
        check_model(options.model)
