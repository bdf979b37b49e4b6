"""``uniformerv2 explain``: where in a video the network looked for a class, as pictures, a video, a page, numbers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from uniformerv2.commands.options import (
    add_json,
    add_model,
    add_model_overrides,
    add_views,
    check_at_least,
    check_exists,
    check_model,
    check_output_folder,
    make_predictor,
)
from uniformerv2.core.messages import UsageError, usage_errors
from uniformerv2.core.optional import check_installed
from uniformerv2.core.terminal import harmless

if TYPE_CHECKING:
    from uniformerv2.inference.explanations.explanation import Explanation

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 explain clip.mp4 --model models/demo --out why"
LOADS: Final = "uniformerv2.inference.explanations.files"
EXIT_CODES: Final = "The exit code is 0, 1 where the video could not be read, and 2 for a wrong call."
PICTURE_SIDE: Final = 960
"""Pixels of the longer side of the pictures and of the video, at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("video", type=Path, metavar="VIDEO", help="a file, or a folder of frames")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="write pictures, video and page there"
    )
    about = "name or number of a class (default: the most probable one)"
    parser.add_argument("--target", metavar="CLASS", help=about)
    about = "gradient: what speaks for the class; attention: what is read at all (default: gradient)"
    parser.add_argument("--method", choices=("gradient", "attention"), default="gradient", metavar="NAME", help=about)
    parser.add_argument("--start-seconds", type=float, metavar="S", help="explain a segment that starts there")
    parser.add_argument("--end-seconds", type=float, metavar="S", help="and ends there")
    add_json(parser)
    views = parser.add_argument_group("which view")
    about = "number of a view, from 0: the crops of the first clip come first (default: the middle crop of one clip)"
    views.add_argument("--view", type=int, metavar="N", help=about)
    add_views(views)
    add_model(parser)
    add_model_overrides(parser)
    parser.epilog = f"{EXIT_CODES}\n{parser.epilog}"


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: No such video or model, a segment that is none, or a folder that must not be written.
    """
    check_at_least(0, options, "view", "start_seconds")
    check_at_least(1, options, "clips")
    if options.view is None and (options.num_clips, options.num_crops) != (None, None):
        raise UsageError("--clips and --crops say which views there are; choose one of them with --view.")
    start, end = options.start_seconds or 0.0, options.end_seconds
    if end is not None and not end > start:
        raise UsageError(f"--end-seconds must be above the start at {start:g} s, got {end:g}.")
    check_model(options.model)
    check_exists(options.video)
    check_output_folder(options.out, option="--out")
    with usage_errors():
        check_installed("jinja2", extra="plot")


def run(options: argparse.Namespace) -> int:
    """Explain, show, write; 1 where the video could not be read.

    Raises:
        UsageError: The model cannot be used as the options ask, or the folder holds something else.
    """
    from uniformerv2.core.console import Progress, make_console, write_line
    from uniformerv2.data.annotations import VideoRecord
    from uniformerv2.inference.explanations.explanation import explain
    from uniformerv2.inference.explanations.files import check_explanation_folder, write_explanation
    from uniformerv2.inference.strips import pictures_of
    from uniformerv2.media.decoding import VideoError

    record = VideoRecord(str(options.video), start_seconds=options.start_seconds, end_seconds=options.end_seconds)
    with usage_errors():
        check_explanation_folder(options.out)
        predictor = make_predictor(options)
    console = make_console()
    try:
        with Progress(f"{options.video.name}, explaining", None, has_bar=False, is_quiet=options.json):
            with usage_errors():
                found = explain(predictor, record, target=options.target, view=options.view, method=options.method)
            numbers = found.view.frame_indices
            frames = pictures_of(record, numbers, side=PICTURE_SIDE, reader=predictor.reader)
            write_explanation(found, options.out, frames=frames, model=str(options.model))
    except VideoError as error:
        if options.json:
            failure = {"video": str(options.video), "error": error.reason, "kind": error.kind}
            write_line(json.dumps(failure, ensure_ascii=False))
        else:
            console.print(str(error), style="red", markup=False)
        return 1
    if options.json:
        write_line(found.to_json())
    else:
        console.print("\n".join(_words(found)), markup=False, highlight=False)
    sys.stderr.write(f"Written: {harmless(str(options.out))}\n")
    return 0


def _words(found: Explanation) -> list[str]:
    """What is shown of an explanation."""
    best, target, view = found.top[0], found.target, found.view
    lines = [f"{found.video}: {target.name} {target.score:.4f}"]
    if best.index != target.index:
        lines.append(f"  the most probable class is {best.name}, {best.score:.4f}")
    if not found.map.any():
        return [*lines, "  no patch speaks for it: nothing that the video token reads adds to its score"]
    times = view.frame_seconds or [None] * len(view.frame_indices)
    for place, (number, seconds) in enumerate(zip(view.frame_indices, times, strict=True)):
        step = found.step_of(place)
        if place and step == found.step_of(place - 1):
            continue
        row, column = divmod(int(found.map[step].argmax()), found.map.shape[2])
        when = "" if seconds is None else f"{seconds:8.2f} s  "
        share = found.time_curve[step]
        lines.append(f"  {when}frame {number:6}  {share:6.1%}  most in row {row + 1}, column {column + 1}")
    if found.class_token_share:
        mean = "class token" if found.has_class_token else "patch"
        lines.append(f"  not shown: {found.class_token_share:.0%} of the features come from the mean {mean}")
    return lines
