"""``uniformerv2 predict``: videos in, top classes out, as a table, JSON or CSV."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final, TextIO

from uniformerv2.commands.options import (
    add_json,
    add_model,
    add_model_overrides,
    add_views,
    check_at_least,
    check_exists,
    check_model,
    check_output,
    make_predictor,
)
from uniformerv2.core.files import telling_full_disk
from uniformerv2.core.messages import UsageError, counted, usage_errors
from uniformerv2.core.terminal import harmless
from uniformerv2.data.named_videos import named_files

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.inference.prediction import Prediction
    from uniformerv2.media.decoding import VideoError

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 predict clip.mp4 more/ --model models/demo --json"
LOADS: Final = "uniformerv2.inference.predictor"
EXIT_CODES: Final = "The exit code is 0, 1 where any video could not be read, and 2 for a wrong call."
BAR_WIDTH: Final = 30
CSV_COLUMNS: Final = ("video", "rank", "class", "index", "score", "error", "is_sure", "notes")
"""``is_sure`` is empty without ``--threshold``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, a folder of videos, or a pattern in quotes")
    parser.add_argument("--topk", type=int, default=5, metavar="N", help="classes to print (default: 5)")
    parser.add_argument("--threshold", type=float, metavar="P", help="say that no class is sure below this score")
    add_json(parser, "print one line of JSON per video")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write path, rank, class and score as CSV")
    add_views(add_model(parser))
    add_model_overrides(parser)
    parser.epilog = f"{EXIT_CODES}\n{parser.epilog}"


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; ``options.videos`` becomes a list of files.

    Raises:
        UsageError: No video, no such model, no class to print, or a file that must not be written.
    """
    check_at_least(1, options, "topk", "clips")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UsageError(f"--threshold is a score from 0 to 1, got {options.threshold}.")
    check_model(options.model)
    options.videos, options.passed_over = named_files(options.videos)
    check_output(options.csv, option="--csv", suffixes=(".csv",), inputs=options.videos)
    if not any(video.exists() for video in options.videos):
        check_exists(options.videos[0])  # one of many that is absent is told among the others' results


def run(options: argparse.Namespace) -> int:
    """Predict; 1 where a video could not be read.

    Raises:
        UsageError: The model cannot be used as the options ask.
    """
    from uniformerv2.core.console import make_console, write_line
    from uniformerv2.media.decoding import VideoError

    start = perf_counter()
    with usage_errors():
        predictor = make_predictor(options)
    console = make_console()
    if not options.json:
        words = f"{options.model} loaded in {perf_counter() - start:.1f} s"
        make_console(stderr=True).print(words, style="dim", markup=False)
    for sentence in options.passed_over:
        sys.stderr.write(f"{harmless(sentence)}\n")
    failures = 0
    telling = telling_full_disk(options.csv) if options.csv else nullcontext()  # closing the file may find it too
    with telling, _csv_file(options.csv) if options.csv else nullcontext() as file:
        table = csv.writer(file) if file else None
        if file and table:
            table.writerow(CSV_COLUMNS)
        for number, (video, result) in enumerate(zip(options.videos, predictor.stream(options.videos), strict=True)):
            failures += isinstance(result, VideoError)
            if file and table:
                table.writerows(_rows(video, result, options))
                file.flush()  # a run that is stopped has the rows of every video that it finished
            if options.json:
                write_line(_json_line(video, result, options))
            else:
                console.print("\n" * (number > 0), end="")
                _show(console, video, result, options)
    if failures:
        sys.stderr.write(f"{failures} of {counted(len(options.videos), 'video')} could not be read.\n")
    return 1 if failures else 0


def _csv_file(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")  # file names as the disk has them


def _show(console: Console, video: Path, result: Prediction | VideoError, options: argparse.Namespace) -> None:
    from rich.markup import escape
    from rich.table import Table

    from uniformerv2.inference.notes import notes_of

    if isinstance(result, Exception):
        console.print(f"[red]{escape(str(result))}[/]")  # which names the file
        return
    table = Table(box=None, show_header=False, padding=(0, 1))
    full, least = ("█", "▏") if console.encoding.startswith("utf") else ("#", ".")
    for item in result.top(options.topk):
        bar = full * round(item.score * BAR_WIDTH) if item.score * BAR_WIDTH >= 0.5 else least
        table.add_row(escape(item.name), f"{item.score:6.4f}", f"[cyan]{bar}[/]")
    timings, num_views = result.timings, len(result.view_scores)
    console.print(f"[bold]{escape(str(video))}[/]")
    console.print(table)
    for note in notes_of(result, threshold=options.threshold):
        console.print(f"  [yellow]{escape(note)}[/]")
    console.print(
        f"  [dim]{num_views} view{'s' * (num_views > 1)}: decode {timings.decode_seconds:.2f} s, "
        f"resize and crop {timings.preprocess_seconds:.2f} s, network {timings.compute_seconds:.2f} s[/]"
    )


def _json_line(video: Path, result: Prediction | VideoError, options: argparse.Namespace) -> str:
    from uniformerv2.inference.notes import is_sure, notes_of

    if isinstance(result, Exception):
        return json.dumps({"video": str(video), "error": result.reason, "kind": result.kind}, ensure_ascii=False)
    threshold = options.threshold
    more = {"is_sure": is_sure(result, threshold), "notes": notes_of(result, threshold=threshold)}
    return json.dumps({**result.to_dict(top_k=options.topk), **more}, ensure_ascii=False)


def _rows(video: Path, result: Prediction | VideoError, options: argparse.Namespace) -> list[list[object]]:
    from uniformerv2.inference.notes import is_sure, notes_of

    if isinstance(result, Exception):
        return [[video, "", "", "", "", result.reason, "", ""]]
    sure, notes = is_sure(result, options.threshold), " ".join(notes_of(result, threshold=options.threshold))
    said = "" if sure is None else str(sure).lower()
    return [
        [video, rank, item.name, item.index, f"{item.score:.6f}", "", said, notes]
        for rank, item in enumerate(result.top(options.topk), start=1)
    ]
