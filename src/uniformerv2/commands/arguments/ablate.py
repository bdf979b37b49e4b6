"""The options of ``uniformerv2 ablate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniformerv2.commands.options import UsageError, check_at_least, check_exists, refuse_input
from uniformerv2.training.recipes import list_suites, suite_path

__all__ = ["PRETRAINED", "RANDOM", "add_arguments", "check"]

PRETRAINED, RANDOM = "pretrained", "random"
"""Words for ``--weights`` that are no file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("suite", metavar="SUITE", help=f"{', '.join(list_suites())}, or a YAML file of your own")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DATA", help="folder or list of videos, as for train"
    )
    parser.add_argument(
        "--task", default="classes", choices=("classes", "arrow_of_time"), help="arrow_of_time: forward or reversed?"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: runs/ablations/SUITE)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="so many seeds, or these where several")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="run these variants")
    parser.add_argument("--control", metavar="VARIANT", help="compare the others with this one (default: the suite's)")
    base = parser.add_argument_group("base settings, for variants that do not say otherwise")
    base.add_argument("--backbone", metavar="NAME", help="timm's image ViT")
    base.add_argument("--weights", metavar="FILE", help="of the image ViT; or: random, pretrained (fetched)")
    base.add_argument("--freeze-backbone", action=argparse.BooleanOptionalAction, help="only the video blocks learn")
    base.add_argument("--epochs", type=int, metavar="N", help="passes over the videos")
    base.add_argument("--num-frames", type=int, metavar="T", help="of a clip")
    base.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the input")
    parser.add_argument("--max-videos", type=int, metavar="N", help="so many videos of each split, to try it out")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read videos (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="print the grid and what it will cost, and run nothing")
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end; all else goes to stderr")


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: There is no such suite, no such data or weights, or a number is out of range.
    """
    check_exists(options.data)
    if options.out is not None:
        refuse_input(options.out, option="--out", inputs=(options.data,))
    check_at_least(1, options, "max_videos", "epochs", "num_frames", "image_size")
    check_at_least(0, options, "workers", "seeds")
    if options.weights not in {None, PRETRAINED, RANDOM} and not Path(options.weights).is_file():
        raise UsageError(f"There is no file {options.weights}; --weights also takes 'random' and 'pretrained'.")
    try:
        suite_path(options.suite)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
