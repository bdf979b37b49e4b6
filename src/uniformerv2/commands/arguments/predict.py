"""The options of ``uniformerv2 predict``."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Sequence
from pathlib import Path

from uniformerv2.commands.options import (
    DECODERS,
    MODEL_HELP,
    PRECISIONS,
    UsageError,
    add_model_overrides,
    check_at_least,
    check_exists,
    check_model,
    check_output,
)
from uniformerv2.data.annotations.folder import files_below
from uniformerv2.media.video_error import IMAGE_SUFFIXES

__all__ = ["add_arguments", "check", "expand"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, a folder of videos, or a pattern in quotes")
    parser.add_argument("--model", required=True, help=MODEL_HELP)
    parser.add_argument("--clips", type=int, metavar="K", help="clips of a video; the checkpoint's number if not given")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="crops of a clip")
    parser.add_argument("--topk", type=int, default=5, metavar="N", help="classes to print (default: 5)")
    parser.add_argument(
        "--threshold", type=float, metavar="P", help="say that no class is sure where no score is at least P"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON a video")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write path, rank, class and score as CSV")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="int8: on a CPU (default: auto)")
    parser.add_argument("--preprocessing", choices=("official", "mmaction2"), help="instead of the checkpoint's own")
    parser.add_argument("--decoder", default="auto", choices=DECODERS, help="default: auto")
    add_model_overrides(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; ``options.videos`` becomes a list of files.

    Raises:
        UsageError: No video, no such model, no class to print, or a file that must not be written.
    """
    check_at_least(1, options, "topk", "clips")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UsageError(f"--threshold is a score from 0 to 1, got {options.threshold}.")
    check_model(options.model)
    options.videos, options.passed_over = expand(options.videos)
    check_output(options.csv, option="--csv", suffixes=(".csv",), inputs=options.videos)
    if not any(video.exists() for video in options.videos):
        check_exists(options.videos[0])  # one of many that is absent is told among the others' results


def expand(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files as they are, folders as the videos that training reads from them, patterns as what they match.

    A folder without videos that has images is a folder of frames.

    Args:
        words: As typed.

    Returns:
        The videos; and what is passed over in folders, a sentence each.

    Raises:
        UsageError: A folder or a pattern without a video.
    """
    videos: list[Path] = []
    told: list[str] = []
    for word in words:
        path = Path(word)
        if path.exists() or not glob.has_magic(word):
            matches = [path]
        else:
            matches = sorted(map(Path, glob.glob(word, recursive=True)))  # noqa: PTH207  Path takes no absolute pattern
            if not matches:
                raise UsageError(f"No file matches {word}.")
        for match in matches:
            inside, passed_over = _inside(match) if match.is_dir() else ([match], "")
            videos += inside
            told += [f"Passed over in {match}: {passed_over}."] if passed_over else []
    return videos, told


def _inside(folder: Path) -> tuple[list[Path], str]:
    """The videos of a folder, and how many other files it has.

    Raises:
        UsageError: There is none.
    """
    found = files_below(folder)
    if found.videos:
        return [folder / name for name in found.videos], found.passed_over()
    if any(item.suffix.casefold() in IMAGE_SUFFIXES for item in folder.iterdir()):
        return [folder], ""
    rest = found.passed_over()
    raise UsageError(f"There is no video in the folder {folder}" + (f": it has {rest}." if rest else "."))
