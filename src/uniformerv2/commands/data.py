"""``uniformerv2 data check`` and ``uniformerv2 data prepare``: look at videos before training does; make them quick."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from uniformerv2.commands.options import add_json, check_at_least, check_exists, check_output, example, given
from uniformerv2.core.messages import UsageError, counted, usage_errors
from uniformerv2.data.prepared_video import PrepareSettings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from uniformerv2.data.check import CheckSummary, ClassSummary, VideoCheck
    from uniformerv2.data.list_runs import Preparation
    from uniformerv2.data.prepared_video import PreparedVideo

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 data check videos"
SHOWN: Final = 25


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
    from uniformerv2.data.list_runs import check_list

    checks, summary = check_list(**given(options, check_list), on_row=partial(_write_json, options))
    _show_checks(checks, summary, options)
    return 0 if summary.is_good else 1


def _prepare(options: argparse.Namespace) -> int:
    from uniformerv2.data.list_runs import prepare_list

    with usage_errors():
        settings = PrepareSettings(**given(options, PrepareSettings))
    bounds = {"max_bytes": options.shard_megabytes << 20, "max_count": options.shard_videos}
    made = prepare_list(
        **{**given(options, prepare_list), "shards": bounds if options.shards else None},
        settings=settings,
        on_row=partial(_write_json, options),
    )
    _show_prepared(made, options)
    return 0 if all(video.status == "ok" for video in made.videos) else 1


def _write_json(options: argparse.Namespace, row: VideoCheck | PreparedVideo) -> None:
    from uniformerv2.core.console import write_line

    if options.json:
        write_line(json.dumps(asdict(row)))


def _show_checks(checks: Sequence[VideoCheck], summary: CheckSummary, options: argparse.Namespace) -> None:
    """Bad videos (all of them where they are few), classes, leaks, counts, advice."""
    console = _console(options)
    shown = checks if len(checks) <= SHOWN else [check for check in checks if check.status != "ok"]
    if shown:
        console.print(_video_table(shown[:SHOWN], options.source))
    if len(shown) > SHOWN:
        where = options.manifest or "the file of --manifest"
        console.print(f"  and {len(shown) - SHOWN} more bad ones, all in {where}", markup=False)
    if any(each.name != "(no class)" for each in summary.classes):
        console.print(_class_table(summary.classes))
    for repeat in summary.leaks[:SHOWN]:
        where = " and ".join(repeat.splits)
        console.print(f"in {where}: {' = '.join(repeat.paths)}", style="red", markup=False)
    counts = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
    console.print(f"{len(checks)} videos: {counts}", style="bold", markup=False)
    for line in summary.suggestions:
        console.print(f"- {line}", markup=False)


def _video_table(checks: Sequence[VideoCheck], source: Path) -> Table:
    from rich.table import Table
    from rich.text import Text

    base = source if source.is_dir() else source.parent
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("status", no_wrap=True)
    table.add_column("video", overflow="fold")
    for name in ("frames", "fps", "seconds", "size", "codec", "GOP"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for check in checks:
        facts = [""] * 6
        if check.frames is not None:
            rate = f"{check.fps:.4g}" + ("" if check.constant_rate else " mean")
            size = f"{check.width}x{check.height}" + (f" turned {check.rotation}" if check.rotation else "")
            facts = [str(check.frames), rate, f"{check.duration_seconds:.2f}", size, check.codec, str(check.gop_length)]
        status = Text(check.status, style="green" if check.status == "ok" else "red")
        path = Path(check.path)
        shown = path.relative_to(base) if path.is_relative_to(base) else path
        table.add_row(status, Text(str(shown)), *facts, Text(check.detail))
    return table


def _class_table(classes: Sequence[ClassSummary]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("class", "videos", "bad", "hours", "median frames"):
        table.add_column(name, justify="left" if name == "class" else "right", no_wrap=True)
    shown = classes if len(classes) <= SHOWN else sorted(classes, key=lambda each: (-each.bad, each.videos))[:SHOWN]
    for each in shown:
        frames = "" if each.median_frames is None else f"{each.median_frames:.0f}"
        table.add_row(Text(each.name), str(each.videos), str(each.bad), f"{each.hours:.2f}", frames)
    if len(shown) < len(classes):
        table.caption = f"the {SHOWN} of {len(classes)} classes with the most bad videos, then the fewest videos"
    return table


def _show_prepared(made: Preparation, options: argparse.Namespace) -> None:
    """Failures, sizes, how quick a clip is read now, and what was written."""
    from uniformerv2.data.reencode import measure_sparse_decoding

    console, prepared = _console(options), made.videos
    good = [each for each in prepared if each.status == "ok"]
    bad = [each for each in prepared if each.status != "ok"]
    for each in bad[:SHOWN]:
        console.print(f"{each.status}: {each.source}: {each.detail}", style="red", markup=False)
    if len(bad) > SHOWN:
        console.print(f"  and {len(bad) - SHOWN} more bad ones, all in {options.out / 'prepared.csv'}", markup=False)
    before = sum(each.source_bytes or 0 for each in good) / 2**20
    after = sum(each.output_bytes or 0 for each in good) / 2**20
    console.print(
        f"{len(good)} of {counted(len(prepared), 'video')} prepared: {made.settings}", style="bold", markup=False
    )
    console.print(f"- {before:.1f} MiB before, {after:.1f} MiB now", markup=False)
    console.print(f"- {measure_sparse_decoding(good)}", markup=False)
    console.print(f"- written: {', '.join(map(str, made.written))}", markup=False)


def _console(options: argparse.Namespace) -> Console:
    from uniformerv2.core.console import make_console

    console = make_console(stderr=options.json, width=200)
    console.soft_wrap = False  # the tables here are to be cut
    return console
