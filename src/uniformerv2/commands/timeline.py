"""``uniformerv2 timeline``: what happens when in long videos, as a table, JSON, CSV, subtitles, pictures, a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import (
    add_json,
    add_model,
    add_model_overrides,
    add_views,
    check_exists,
    check_model,
    check_output,
    check_output_folder,
    given,
    make_predictor,
)
from uniformerv2.core.messages import UsageError, counted, first_few, usage_errors
from uniformerv2.core.optional import check_installed
from uniformerv2.core.options import options_of
from uniformerv2.core.terminal import harmless
from uniformerv2.data.named_videos import named_files
from uniformerv2.inference.timelines.rules import SegmentRules

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.inference.predictor import Predictor
    from uniformerv2.inference.timelines.timeline import Timeline

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 timeline match.mp4 --model models/demo --html match.html"
LOADS: Final = "uniformerv2.inference.timelines.timeline"
EXIT_CODES: Final = "The exit code is 0, 1 where any video could not be read to its end, and 2 for a wrong call."
STRIP: Final = 8
"""Frames in a picture."""
STRIP_HEIGHT: Final = 160


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, a folder of videos, or a pattern in quotes")
    windows = parser.add_argument_group("windows and segments")
    about = "length of a window (default: a clip of dense sampling, else 1)"
    windows.add_argument("--window-seconds", type=float, metavar="S", help=about)
    about = "from window to window (default: a quarter of one)"
    windows.add_argument("--stride-seconds", type=float, metavar="S", help=about)
    windows.add_argument("--fps", type=float, metavar="N", help="frames per second of a folder of frames")
    for one in options_of(SegmentRules):
        about = f"{one.about} (default: {one.default:g})"
        windows.add_argument(one.flag, type=float, default=one.default, metavar=one.metavar, help=about)
    outputs = parser.add_argument_group("output")
    add_json(outputs, "print one line of JSON per video")
    outputs.add_argument("--windows", action="store_true", help="with --json: the scores of every window, too")
    outputs.add_argument("--csv", type=Path, metavar="FILE", help="write a row per segment")
    about = "write ActivityNet's detection JSON"
    outputs.add_argument("--activitynet", type=Path, metavar="FILE", help=about)
    outputs.add_argument("--html", type=Path, metavar="FILE", help="write a page: a click seeks the video")
    about = "write NAME.vtt, NAME.srt and a picture, NAME.png, of each video"
    outputs.add_argument("--out", type=Path, metavar="FOLDER", help=about)
    add_views(add_model(parser), clips=False)
    add_model_overrides(parser)
    parser.epilog = f"{EXIT_CODES}\n{parser.epilog}"


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; ``options.videos`` becomes a list of files.

    Raises:
        UsageError: No video, no such model, or a file that must not be written.
    """
    if options.windows and not options.json:
        raise UsageError("--windows adds the windows to the JSON: give --json too.")
    check_model(options.model)
    options.videos, options.passed_over = named_files(options.videos)
    for name, suffix in (("csv", ".csv"), ("activitynet", ".json"), ("html", ".html")):
        check_output(getattr(options, name), option=f"--{name}", suffixes=(suffix,), inputs=options.videos)
    check_output_folder(options.out, option="--out")
    with usage_errors():
        options.rules = SegmentRules(**given(options, SegmentRules))
        if options.out is not None:
            check_installed("matplotlib", extra="plot")
    if options.out is not None or options.activitynet is not None:
        _check_names(options.videos)
    if not any(video.exists() for video in options.videos):
        check_exists(options.videos[0])


def _check_names(videos: Sequence[Path]) -> None:
    """Refuse videos that a file which calls them by their names without suffix could not tell apart.

    Raises:
        UsageError: Two have the same name.
    """
    seen: dict[str, Path] = {}
    for video in videos:
        other = seen.setdefault(video.stem, video)
        if other is not video:
            raise UsageError(
                f"--out and --activitynet call {other} and {video} both {video.stem!r}: give one of them at a time."
            )


def run(options: argparse.Namespace) -> int:
    """Find, show, write; 1 where a video could not be read to its end.

    Raises:
        UsageError: The model cannot be used as the options ask.
    """
    from uniformerv2.core.console import make_console, telling, write_line
    from uniformerv2.inference.timelines.timeline import find_actions
    from uniformerv2.inference.windows import WindowScorer
    from uniformerv2.media.decoding import VideoError

    with usage_errors():
        predictor = make_predictor(options)
        scorer = WindowScorer(**{**given(options, WindowScorer), "predictor": predictor})
    console = make_console()
    for sentence in options.passed_over:
        sys.stderr.write(f"{harmless(sentence)}\n")
    timelines: list[Timeline] = []
    failures = 0
    try:
        for video in options.videos:
            try:
                with telling(f"{video.name}, windows") as tell:
                    found = find_actions(video, scorer, rules=options.rules, tell=tell)
            except VideoError as error:
                failures += 1
                _show_failure(console, video, error, options)
                continue
            failures += found.windows.broken is not None
            timelines.append(found)
            if options.json:
                write_line(found.to_json(windows=options.windows))
            else:
                _show(console, found)
            _write(options, timelines, predictor)
    finally:
        _finish(options, timelines, predictor)
    if failures:
        sys.stderr.write(f"{failures} of {counted(len(options.videos), 'video')} could not be read to the end.\n")
    return 1 if failures else 0


def _write(options: argparse.Namespace, timelines: Sequence[Timeline], predictor: Predictor) -> None:
    """Write what is there, anew after each video: a run that is stopped has every one that it finished."""
    from uniformerv2.core.files import write_text
    from uniformerv2.inference.timelines import files as timeline_files

    if options.csv is not None:
        write_text(options.csv, timeline_files.to_csv(timelines))
    if options.activitynet is not None:
        write_text(options.activitynet, timeline_files.to_activitynet(timelines))
    if options.out is not None:
        newest = timelines[-1]
        start = options.out / Path(newest.video).stem
        write_text(start.with_name(f"{start.name}.vtt"), timeline_files.to_vtt(newest))
        write_text(start.with_name(f"{start.name}.srt"), timeline_files.to_srt(newest))
        _draw(newest, start.with_name(f"{start.name}.png"), predictor)


def _finish(options: argparse.Namespace, timelines: Sequence[Timeline], predictor: Predictor) -> None:
    """Write the page, also where a signal ended the run, and say which files there are."""
    files = [path for path in (options.csv, options.activitynet, options.html, options.out) if path is not None]
    if not timelines:
        if left := [path for path in files if path.is_file()]:
            sys.stderr.write(f"Nothing was written: {first_few(left)} is of an earlier run.\n")
        return
    if options.html is not None:
        from uniformerv2.inference.timelines.page import write_timeline_page

        write_timeline_page(options.html, timelines, reader=predictor.reader, model=str(options.model))
    for path in files:
        sys.stderr.write(f"Written: {harmless(str(path))}\n")


def _draw(timeline: Timeline, path: Path, predictor: Predictor) -> None:
    from uniformerv2.core.files import write_whole
    from uniformerv2.evaluation.figure_style import figure_style
    from uniformerv2.inference.strips import thumbnails
    from uniformerv2.inference.timelines.figure import draw_timeline

    start, end = timeline.windows.grid.start_seconds, float(timeline.windows.ends[-1])
    times = [start + (place + 0.5) * (end - start) / STRIP for place in range(STRIP)]
    strip = thumbnails(timeline.video, times, height=STRIP_HEIGHT, reader=predictor.reader, fps=timeline.windows.fps)
    with figure_style():
        figure = draw_timeline(timeline, strip)
        write_whole(path, lambda temporary: figure.savefig(temporary, format="png"))


def _show_failure(console: Console, video: Path, error: Any, options: argparse.Namespace) -> None:
    from rich.markup import escape

    from uniformerv2.core.console import write_line

    if options.json:
        write_line(json.dumps({"video": str(video), "error": error.reason, "kind": error.kind}, ensure_ascii=False))
    else:
        console.print(f"[red]{escape(str(error))}[/]")


def _show(console: Console, timeline: Timeline) -> None:
    from rich.markup import escape
    from rich.table import Table

    from uniformerv2.inference.timelines.files import clock

    windows = timeline.windows
    table = Table(box=None, show_header=False, padding=(0, 1))
    rows = [(one.start_seconds, one.end_seconds, escape(one.label), f"{one.score:.2f}") for one in timeline.segments]
    rows += [(start, end, "[dim]nothing of these[/]", "") for start, end in timeline.nothing]
    for start, end, label, score in sorted(rows):
        table.add_row(clock(start)[:-2], clock(end)[:-2], label, score)
    console.print(f"[bold]{escape(timeline.video)}[/]")
    console.print(table)
    if windows.broken is not None:
        console.print(f"  [yellow]It breaks off at {windows.ends[-1]:.1f} s: {escape(windows.broken)}[/]")
    console.print(
        f"  [dim]{len(windows.scores)} windows of {windows.grid.window_seconds:.2f} s every "
        f"{windows.grid.stride_seconds:.2f} s, {windows.way}[/]\n"
    )
