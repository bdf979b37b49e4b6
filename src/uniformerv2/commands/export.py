"""``uniformerv2 export``: a checkpoint as a file for another runtime, proved to give the same scores."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import (
    MODEL_HELP,
    add_json,
    add_model_overrides,
    check_exists,
    check_model,
    model_overrides,
    refuse_input,
)
from uniformerv2.core.files import in_words
from uniformerv2.core.messages import UsageError, usage_errors

if TYPE_CHECKING:
    from uniformerv2.export.exporting import ExportReport

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 export runs/mine model.onnx --verify clips/*.mp4"
LOADS: Final = "uniformerv2.export.exporting"
FORMATS: Final = ("onnx", "openvino", "portable", "pt2")
"""As ``export.exporting.Format``."""
PRECISIONS: Final = ("fp32", "fp16", "int8")
"""As ``zoo.exported.ExportPrecision``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("out", metavar="OUT", type=Path, help="model.onnx, model.pt2; or a folder")
    parser.add_argument("--format", default="onnx", choices=FORMATS, metavar="NAME", help=", ".join(FORMATS))
    about = f"{', '.join(PRECISIONS)}: of the weights"
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, metavar="NAME", help=about)
    about = "videos that int8's scales and the accuracy are measured on"
    parser.add_argument("--calibrate", metavar="DATA", help=about)
    about = "videos of the proof (default: the bundled clips)"
    proof = parser.add_mutually_exclusive_group()
    proof.add_argument("--verify", nargs="+", dest="verify_on", type=Path, metavar="VIDEO", help=about)
    proof.add_argument("--no-verify", action="store_true", help="leave the proof out")
    parser.add_argument("--force", dest="replaces", action="store_true", help="replace what is at OUT")
    add_json(parser)
    add_model_overrides(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: There is no such model or video, or OUT is there already.
    """
    check_model(options.model)
    for video in options.verify_on or ():
        check_exists(video)
    if options.calibrate is not None:
        check_exists(Path(options.calibrate))
    refuse_input(options.out, option="OUT", inputs=(Path(options.model), *(options.verify_on or ())))
    if options.out.exists() and not options.replaces:
        raise UsageError(f"{options.out} exists already: choose another name, or add --force.")


def run(options: argparse.Namespace) -> int:
    """Export; where the scores are not those of the checkpoint, an error ends with 1.

    Raises:
        UsageError: The model cannot be exported as the options ask.
    """
    from uniformerv2.core.console import Progress
    from uniformerv2.export.exporting import export_model

    with usage_errors(), Progress("exporting", None, has_bar=False, is_quiet=options.json):
        report = export_model(
            options.model,
            options.out,
            format=options.format,
            precision=options.precision,
            calibrate=options.calibrate,
            verify_on=False if options.no_verify else options.verify_on,
            replaces=options.replaces,
            **model_overrides(options),
        )
    if options.json:
        sys.stdout.write(json.dumps(_content(report)) + "\n")
    else:
        _show(report)
    return 0


def _content(report: ExportReport) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "format": report.format,
        "bytes": report.num_bytes,
        "checkpoint_bytes": report.checkpoint_bytes,
        "verification": None if report.verification is None else asdict(report.verification),
        "accuracy": None if report.accuracy is None else asdict(report.accuracy),
        "network": report.network.to_dict(),
    }


def _show(report: ExportReport) -> None:
    from uniformerv2.core.console import make_console

    network, proof = report.network, report.verification
    video = network.input_type
    lines = [
        f"{report.path}: {report.format}, {network.precision}, {in_words(report.num_bytes)} (the checkpoint "
        f"{in_words(report.checkpoint_bytes)})",
        f"input   video {video.dtype} [{', '.join(map(str, video.shape))}], 0 to 255",
        f"output  logits, scores float32 [views, {network.num_classes}]",
    ]
    if proof is None:
        lines.append("proof   none, as --no-verify asked")
    else:
        lines += [
            f"proof   {proof.num_videos} videos: scores differ by {proof.largest_difference:.1e} at most "
            f"({proof.tolerance:g} allowed), top-1 is the same in {proof.num_same_top1}",
            f"time    {proof.seconds_per_clip:.3f} s a clip by {proof.engine}, "
            f"{proof.checkpoint_seconds_per_clip:.3f} s by torch in float32",
        ]
    if report.accuracy is not None:
        found = report.accuracy
        lines.append(
            f"top-1   {found.top1:.1f} % of {found.num_videos} videos, the checkpoint {found.checkpoint_top1:.1f} %"
        )
    make_console().print("\n".join(lines), markup=False)
