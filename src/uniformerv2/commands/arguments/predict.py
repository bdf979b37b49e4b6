"""The options of ``uniformerv2 predict``."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from uniformerv2.commands.options import (
    DECODERS,
    PRECISIONS,
    UsageError,
    add_model_overrides,
    check_at_least,
    check_exists,
    check_model,
    check_output,
)
from uniformerv2.data.annotations import VIDEO_SUFFIXES

__all__ = ["add_arguments", "check", "expand"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, a folder of videos, or a pattern in quotes")
    parser.add_argument(
        "--model", required=True, help="a folder, a checkpoint file, a name of the zoo, or hf:user/name"
    )
    parser.add_argument("--clips", type=int, metavar="K", help="clips of a video; the checkpoint's number if not given")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="crops of a clip")
    parser.add_argument("--topk", type=int, default=5, metavar="N", help="classes to print (default: 5)")
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
    check_model(options.model)
    options.videos = list(expand(options.videos))
    check_output(options.csv, option="--csv", suffixes=(".csv",), inputs=options.videos)
    if not any(video.exists() for video in options.videos):
        check_exists(options.videos[0])  # one of many that is absent is told among the others' results


def expand(words: Sequence[str]) -> Iterator[Path]:
    """Files as they are, folders as the videos in them, patterns as what they match.

    Raises:
        UsageError: A folder or a pattern without a video.
    """
    for word in words:
        path = Path(word)
        if path.is_dir() and not _is_frame_folder(path):
            found = sorted(item for item in path.rglob("*") if item.suffix.lower() in VIDEO_SUFFIXES)
            if not found:
                raise UsageError(f"There is no video in the folder {path}.")
            yield from found
        elif not path.exists() and glob.has_magic(word):
            matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
            if not matches:
                raise UsageError(f"No file matches {word}.")
            yield from map(Path, matches)
        else:
            yield path


def _is_frame_folder(folder: Path) -> bool:
    suffixes = {item.suffix.lower() for item in folder.iterdir() if item.is_file()}
    return not suffixes.isdisjoint({".jpg", ".jpeg", ".png"}) and suffixes.isdisjoint(VIDEO_SUFFIXES)
