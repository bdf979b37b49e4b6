"""The options of ``uniformerv2 train``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from uniformerv2.commands.options import UsageError, check_at_least, check_exists, refuse_input
from uniformerv2.core.run_paths import RunPaths

__all__ = ["PRECISIONS", "add_arguments", "check", "check_place"]

PRECISIONS: Final[Mapping[str, str | None]] = {"auto": None, "fp32": "32-true", "bf16": "bf16-mixed"}
"""Our words, and Lightning's."""
LARGEST_SEED: Final = 2**32 - 1
"""Of NumPy's global generator, which Lightning seeds too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of class folders, list, CSV, folder of lists")
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where the relative paths of the list start")
    parser.add_argument("--classes", metavar="SPACE|FILE", help="names of the list's class numbers")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: runs/NAME_OF_DATA)")
    parser.add_argument("--preset", choices=("scene", "motion"), help="what tells the classes apart (default: scene)")
    parser.add_argument(
        "--backbone", metavar="NAME|FILE", help="timm's image ViT, a model of the zoo, or a checkpoint to start from"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of the image ViT (default: fetched)")
    parser.add_argument("--freeze-backbone", action="store_true", help="only the video blocks and the head learn")
    parser.add_argument("--num-frames", type=int, metavar="T", help="frames of a clip")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the input")
    parser.add_argument(
        "--stages", type=int, metavar="N", help="global UniBlocks, on the last N blocks (default: by the videos)"
    )
    parser.add_argument("--dropout", type=float, metavar="P", help="of classifier and global UniBlocks, 0 to below 1")
    parser.add_argument("--batch-size", type=int, metavar="N", help="videos of a step (default: tried out)")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the videos")
    parser.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="of the backbone, or of the video blocks alone"
    )
    parser.add_argument("--clips", type=int, metavar="K", help="clips of a video in the final test")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="crops of a clip in the final test")
    parser.add_argument("--augmentation", choices=("light", "strong"), help="crops and flips; or RandAugment with them")
    _add_cache(parser)
    parser.add_argument(
        "--precision",
        default="auto",
        choices=tuple(PRECISIONS),
        help="default: auto, bf16 where it is faster",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (default: 0)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read videos")
    parser.add_argument("--resume", action="store_true", help="go on where this command was stopped")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and do nothing")
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end; all else goes to stderr")


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache-features", action="store_true", help="run the frozen image ViT once, and train from its tokens on disk"
    )
    parser.add_argument("--cache-views", type=int, metavar="N", help="augmented clips of each training video in it")
    parser.add_argument(
        "--cache-dtype", choices=("float16", "bfloat16", "float32"), help="of tokens (default: float16)"
    )
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where (default: features in the run's folder)")


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; ``options.out`` gets its default.

    Raises:
        UsageError: There are no such data, the folder is taken, or options contradict each other.
    """
    check_exists(options.data)
    check_at_least(1, options, "num_frames", "image_size", "stages", "batch_size", "epochs", "clips", "cache_views")
    check_at_least(0, options, "workers")
    if options.learning_rate is not None and not options.learning_rate > 0:
        raise UsageError(f"--learning-rate must be above 0, got {options.learning_rate}.")
    if not 0 <= options.seed <= LARGEST_SEED:
        raise UsageError(f"--seed must be from 0 to {LARGEST_SEED}, got {options.seed}.")
    if options.dropout is not None and not 0 <= options.dropout < 1:
        raise UsageError(f"--dropout must be at least 0 and below 1, got {options.dropout}.")
    if options.root is not None and not options.root.is_dir():
        raise UsageError(f"There is no folder {options.root}; --root is where the relative paths of the list start.")
    if options.weights is not None and not options.weights.is_file():
        raise UsageError(f"There is no file {options.weights}.")
    _check_cache(options)
    options.out = options.out or Path("runs") / options.data.resolve().stem
    check_place(options)


def check_place(options: argparse.Namespace) -> None:
    """Refuse a folder that cannot be written, that another training is writing, or that holds one or none to resume.

    Raises:
        UsageError: It is so.
        FolderInUseError: A training is running there.
    """
    folder = RunPaths(options.out)
    if folder.path.exists() and not folder.path.is_dir():
        raise UsageError(f"{folder.path} is a file; --out names a folder.")
    refuse_input(folder.path, option="--out", inputs=(options.data,))
    above = next(path for path in (folder.path, *folder.path.absolute().parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise UsageError(f"{folder.path} cannot be written, as {above} cannot; give another place with --out.")
    if not options.dry_run:
        folder.refuse_held()
    if folder.last.exists() and not (options.resume or options.dry_run):
        raise UsageError(
            f"{folder.path} holds a training already: add --resume to go on with it, or give another folder with --out."
        )
    if options.resume and not folder.record.exists():
        raise UsageError(
            f"{folder.path} holds no training to resume; leave --resume out, or give its folder with --out."
        )


def _check_cache(options: argparse.Namespace) -> None:
    for name in ("cache_views", "cache_dtype", "cache_dir"):
        if getattr(options, name) is not None and not options.cache_features:
            raise UsageError(f"--{name.replace('_', '-')} is for --cache-features; add it, or leave both out.")
    if options.cache_features and not options.freeze_backbone:
        raise UsageError(
            "--cache-features keeps the tokens of an image ViT that does not learn: add --freeze-backbone, or leave "
            "--cache-features out."
        )
    if options.cache_features and options.preset == "motion":
        raise UsageError(
            "--cache-features and --preset motion exclude each other: motion has local temporal steps, which learn "
            "inside the image ViT and change its tokens with every step. Take --preset scene, or leave "
            "--cache-features out."
        )
    if options.cache_dir is not None and options.cache_dir.exists() and not options.cache_dir.is_dir():
        raise UsageError(f"{options.cache_dir} is a file; --cache-dir names a folder.")
