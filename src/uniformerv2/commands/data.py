"""``uniformerv2 data check`` and ``uniformerv2 data prepare``: look at videos before training does; make them quick."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from uniformerv2.commands.options import add_json, check_at_least, check_exists, check_output, example, given
from uniformerv2.core.messages import UsageError, usage_errors
from uniformerv2.data.prepare import PrepareSettings

if TYPE_CHECKING:
    from uniformerv2.data.check import VideoCheck
    from uniformerv2.data.prepare import PreparedVideo

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 data check videos"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    about = "open and decode every video"
    check = tasks.add_parser(
        "check", help=about, **example(f"{about.capitalize()}.", "uniformerv2 data check videos --manifest checked.csv")
    )
    check.set_defaults(task="check")
    _add_common(check)
    check.add_argument("--deep", action="store_true", help="decode every frame, not the first, middle and last")
    check.add_argument("--min-frames", type=int, default=2, metavar="N", help="fewer are too short (default: 2)")
    check.add_argument("--manifest", type=Path, metavar="FILE", help="write a row per video to this .csv or .parquet")
    check.add_argument("--resume", action="store_true", help="look only at what is new or has changed since --manifest")
    about = "re-encode videos so that training reads them fast"
    prepare = tasks.add_parser(
        "prepare", help=about, **example(f"{about.capitalize()}.", "uniformerv2 data prepare videos prepared")
    )
    prepare.set_defaults(task="prepare")
    _add_common(prepare)
    _add_preparation(prepare)


def _add_preparation(parser: argparse.ArgumentParser) -> None:
    settings = PrepareSettings()
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write; what is done there is kept")
    parser.add_argument("--fps", type=float, metavar="F", help="change to this constant rate (default: as it is)")
    parser.add_argument("--shards", action="store_true", help="also pack the result into WebDataset shards")
    for option, default, about in (
        ("--short-side", settings.short_side, "pixels of the shorter side; smaller videos are not enlarged"),
        ("--gop", settings.gop_length, "frames per keyframe"),
        ("--crf", settings.crf, "quality: 0 best, 51 worst"),
        ("--shard-videos", 1000, "videos per shard"),
        ("--shard-megabytes", 1024, "size of a shard"),
    ):
        name = "gop_length" if option == "--gop" else None
        parser.add_argument(
            option, dest=name, type=int, default=default, metavar="N", help=f"{about} (default: {default})"
        )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="DATA", help="a list in any known format, or a folder")
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where paths of a list start (default: its folder)")
    parser.add_argument(
        "--workers", dest="num_workers", type=int, metavar="N", help="processes (default: one per core)"
    )
    about = "for one video (default: check 60, --deep 600, prepare 900)"
    parser.add_argument("--timeout", dest="timeout_seconds", type=float, metavar="SECONDS", help=about)
    add_json(parser, "print one line of JSON per video; everything else goes to stderr")


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: There is no such list or folder, or an option is out of range.
    """
    check_exists(options.source)
    check_at_least(1, options, "workers", "shard_videos", "shard_megabytes")
    if options.timeout_seconds is not None and not options.timeout_seconds > 0:
        raise UsageError(f"--timeout must be above 0, got {options.timeout_seconds}.")
    if options.task == "check":
        check_output(options.manifest, option="--manifest", suffixes=(".csv", ".parquet"), inputs=(options.source,))


def run(options: argparse.Namespace) -> int:
    """Check or prepare; 1 where a video is bad."""
    return (_check if options.task == "check" else _prepare)(options)


def _check(options: argparse.Namespace) -> int:
    from uniformerv2.commands.data_tables import show_checks
    from uniformerv2.data.list_runs import check_list

    checks, summary = check_list(**given(options, check_list), on_row=partial(_write_json, options))
    show_checks(checks, summary, options)
    return 0 if summary.is_good else 1


def _prepare(options: argparse.Namespace) -> int:
    from uniformerv2.commands.data_tables import show_prepared
    from uniformerv2.data.list_runs import prepare_list

    with usage_errors():
        settings = PrepareSettings(**given(options, PrepareSettings))
    bounds = {"max_bytes": options.shard_megabytes << 20, "max_count": options.shard_videos}
    made = prepare_list(
        **{**given(options, prepare_list), "shards": bounds if options.shards else None},
        settings=settings,
        on_row=partial(_write_json, options),
    )
    show_prepared(made, options)
    return 0 if all(video.status == "ok" for video in made.videos) else 1


def _write_json(options: argparse.Namespace, row: VideoCheck | PreparedVideo) -> None:
    from uniformerv2.core.console import write_line

    if options.json:
        write_line(json.dumps(asdict(row)))
