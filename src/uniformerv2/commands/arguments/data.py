"""The options of ``uniformerv2 data``."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniformerv2.commands.options import UsageError, check_at_least, check_exists, check_output
from uniformerv2.data.prepare import PrepareSettings

__all__ = ["add_arguments", "check"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    settings = PrepareSettings()

    check = tasks.add_parser("check", help="open and decode every video", allow_abbrev=False)
    check.set_defaults(task="check")
    _add_common(check)
    check.add_argument("--deep", action="store_true", help="decode every frame, not the first, middle and last")
    check.add_argument("--min-frames", type=int, default=2, metavar="N", help="fewer are too short (default: 2)")
    check.add_argument("--manifest", type=Path, metavar="FILE", help="write a row a video to this .csv or .parquet")
    check.add_argument("--resume", action="store_true", help="look only at what is new or has changed since --manifest")

    prepare = tasks.add_parser("prepare", help="re-encode videos so that training reads them fast", allow_abbrev=False)
    prepare.set_defaults(task="prepare")
    _add_common(prepare)
    prepare.add_argument("out", type=Path, metavar="OUT", help="the folder to write; what is done there is kept")
    prepare.add_argument(
        "--short-side",
        type=int,
        default=settings.short_side,
        metavar="N",
        help=f"pixels of the shorter side (default: {settings.short_side}); smaller videos are not enlarged",
    )
    prepare.add_argument("--fps", type=float, metavar="F", help="change to this constant rate (default: as it is)")
    prepare.add_argument(
        "--gop", type=int, default=settings.gop_length, metavar="N", help="frames a keyframe (default: %(default)s)"
    )
    prepare.add_argument(
        "--crf", type=int, default=settings.crf, metavar="N", help="quality: 0 best, 51 worst (default: %(default)s)"
    )
    prepare.add_argument("--shards", action="store_true", help="also pack the result into WebDataset shards")
    prepare.add_argument(
        "--shard-videos", type=int, default=1000, metavar="N", help="videos a shard (default: %(default)s)"
    )
    prepare.add_argument(
        "--shard-megabytes", type=int, default=1024, metavar="N", help="size of a shard (default: %(default)s)"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="LIST|DIR", help="a list in any known format, or a folder")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where paths of a list start (default: its folder)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="for one video (default: check 60, --deep 600, prepare 900)",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON a video; all else goes to stderr")


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: There is no such list or folder, or an option is out of range.
    """
    check_exists(options.source)
    check_at_least(1, options, "workers", "shard_videos", "shard_megabytes")
    if options.timeout is not None and not options.timeout > 0:
        raise UsageError(f"--timeout must be above 0, got {options.timeout}.")
    if options.task == "check":
        check_output(options.manifest, option="--manifest", suffixes=(".csv", ".parquet"), inputs=(options.source,))
