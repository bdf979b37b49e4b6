"""``uniformerv2 predict``: videos in, top classes out, as a table, JSON or CSV."""

from __future__ import annotations

import argparse
import csv
import sys
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Final, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from uniformerv2.commands.console import make_console, write_line
from uniformerv2.commands.options import UsageError, model_overrides
from uniformerv2.core.files import telling_full_disk
from uniformerv2.core.terminal import harmless
from uniformerv2.inference.notes import is_sure, notes_of
from uniformerv2.inference.predictor import Prediction, Predictor
from uniformerv2.media.decoding import VideoError
from uniformerv2.zoo.checkpoint import load_model

__all__ = ["run"]

BAR_WIDTH = 30
CSV_COLUMNS: Final = ("video", "rank", "class", "index", "score", "error", "is_sure", "notes")
"""``is_sure`` is empty without ``--threshold``."""


def run(options: argparse.Namespace) -> int:
    """Predict; 1 where a video could not be read.

    Args:
        options: As ``arguments.predict`` made and checked them.

    Raises:
        UsageError: The model cannot be used as the options ask.
    """
    videos = options.videos
    start = perf_counter()
    predictor = _predictor(options)
    console = make_console()
    if not options.json:
        console.print(f"[dim]{escape(options.model)} loaded in {perf_counter() - start:.1f} s[/]")
    for sentence in options.passed_over:
        sys.stderr.write(f"{harmless(sentence)}\n")
    failures = 0
    telling = telling_full_disk(options.csv) if options.csv else nullcontext()  # closing the file may find it too
    with telling, _csv_file(options.csv) if options.csv else nullcontext() as file:
        table = csv.writer(file) if file else None
        if file and table:
            table.writerow(CSV_COLUMNS)
        for video, result in zip(videos, predictor.stream(videos), strict=True):
            failures += isinstance(result, VideoError)
            if file and table:
                table.writerows(_rows(video, result, options))
                file.flush()  # a run that is stopped has the rows of every video that it finished
            if options.json:
                write_line(_json_line(video, result, options))
            else:
                _show(console, video, result, options)
    if failures:
        sys.stderr.write(f"{failures} of {len(videos)} videos could not be read.\n")
    return 1 if failures else 0


def _predictor(options: argparse.Namespace) -> Predictor:
    try:
        return Predictor(
            load_model(options.model, **model_overrides(options)).merge_linear(),
            options.preprocessing,
            num_clips=options.clips,
            num_crops=options.crops,
            device=options.device,
            precision=options.precision,
            decoder=options.decoder,
        )
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        raise UsageError(str(error)) from error


def _csv_file(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")  # file names as the disk has them


def _show(console: Console, video: Path, result: Prediction | VideoError, options: argparse.Namespace) -> None:
    if isinstance(result, VideoError):
        console.print(f"\n[red]{escape(str(result))}[/]")  # which names the file
        return
    table = Table(box=None, show_header=False, padding=(0, 1))
    full, least = ("█", "▏") if console.encoding.startswith("utf") else ("#", ".")
    for item in result.top(options.topk):
        bar = full * round(item.score * BAR_WIDTH) if item.score * BAR_WIDTH >= 0.5 else least
        table.add_row(escape(item.name), f"{item.score:6.4f}", f"[cyan]{bar}[/]")
    timings, num_views = result.timings, len(result.view_scores)
    console.print(f"\n[bold]{escape(str(video))}[/]")
    console.print(table)
    for note in notes_of(result, threshold=options.threshold):
        console.print(f"  [yellow]{escape(note)}[/]")
    console.print(
        f"  [dim]{num_views} view{'s' * (num_views > 1)}: decode {timings.decode_seconds:.2f} s, "
        f"resize and crop {timings.preprocess_seconds:.2f} s, network {timings.compute_seconds:.2f} s[/]"
    )


def _json_line(video: Path, result: Prediction | VideoError, options: argparse.Namespace) -> str:
    import json

    if isinstance(result, VideoError):
        return json.dumps({"video": str(video), "error": result.reason, "kind": result.kind}, ensure_ascii=False)
    threshold = options.threshold
    more = {"is_sure": is_sure(result, threshold), "notes": notes_of(result, threshold=threshold)}
    return json.dumps({**result.to_dict(top_k=options.topk), **more}, ensure_ascii=False)


def _rows(video: Path, result: Prediction | VideoError, options: argparse.Namespace) -> list[list[object]]:
    if isinstance(result, VideoError):
        return [[video, "", "", "", "", result.reason, "", ""]]
    sure, notes = is_sure(result, options.threshold), " ".join(notes_of(result, threshold=options.threshold))
    said = "" if sure is None else str(sure).lower()
    return [
        [video, rank, item.name, item.index, f"{item.score:.6f}", "", said, notes]
        for rank, item in enumerate(result.top(options.topk), start=1)
    ]
