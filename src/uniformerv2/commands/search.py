"""``uniformerv2 search``: which videos of an index are most like another one, and which class is."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import (
    add_json,
    add_model,
    add_model_overrides,
    check_at_least,
    check_exists,
    check_model,
    check_output,
    given,
    model_overrides,
)
from uniformerv2.core.messages import usage_errors
from uniformerv2.core.optional import check_installed
from uniformerv2.core.terminal import harmless
from uniformerv2.data.named_videos import named_files

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.inference.features.extraction import FeatureExtractor
    from uniformerv2.inference.features.search import SearchResult

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 search clip.mp4 --index features/features.parquet --model models/demo"
LOADS: Final = "uniformerv2.inference.features.search"
EXIT_CODES: Final = "The exit code is 0, 1 where any video could not be read, and 2 for a wrong call."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    about = "what to look for: a file, a folder of videos, or a pattern in quotes"
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help=about)
    about = "what uniformerv2 features --whole wrote with the same model"
    parser.add_argument("--index", required=True, type=Path, metavar="FILE", help=about)
    parser.add_argument("-k", type=int, default=10, metavar="N", help="neighbours to print (default: 10)")
    about = "also the classes whose mean feature is nearest: a classifier without training"
    parser.add_argument("--by-class", action="store_true", help=about)
    add_json(parser, "print one line of JSON per video")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of pictures")
    about = "with --html: pictures only of videos below it (default: the current folder)"
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help=about)
    add_model(parser)
    add_model_overrides(parser)
    parser.epilog = f"{EXIT_CODES}\n{parser.epilog}"


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; ``options.videos`` becomes a list of files.

    Raises:
        UsageError: No video, no such model or index, or a file that must not be written.
    """
    check_at_least(1, options, "k")
    check_model(options.model)
    check_exists(options.index)
    check_exists(options.root)
    options.videos, options.passed_over = named_files(options.videos)
    check_output(options.html, option="--html", suffixes=(".html",), inputs=[*options.videos, options.index])
    with usage_errors():
        check_installed("pyarrow", extra="tables")
    if not any(video.exists() for video in options.videos):
        check_exists(options.videos[0])


def run(options: argparse.Namespace) -> int:
    """Search and show; 1 where a video could not be read.

    Raises:
        UsageError: The index is none, or of another model.
    """
    from uniformerv2.core.console import make_console, write_line
    from uniformerv2.inference.features.extraction import FeatureExtractor, load_feature_model
    from uniformerv2.inference.features.index import FeatureIndex
    from uniformerv2.inference.features.search import fit_to_index, search
    from uniformerv2.media.decoding import VideoError

    with usage_errors():
        index = FeatureIndex.read(options.index)
        if options.by_class:
            index.nearest_classes(index.vectors[0], k=1)
        model = load_feature_model(options.model, **model_overrides(options))
        extractor = FeatureExtractor(**{**given(options, FeatureExtractor), "model": model})
        fit_to_index(extractor, index)
    for sentence in options.passed_over:
        sys.stderr.write(f"{harmless(sentence)}\n")
    console = make_console()
    results: list[SearchResult] = []
    for found in search(options.videos, extractor, index, k=options.k, by_class=options.by_class):
        if isinstance(found, VideoError):
            _show_failure(console, found, options)
            continue
        results.append(found)
        if options.json:
            write_line(found.to_json())
        else:
            _show(console, found)
    if options.html is not None and results:
        _write_page(options, results, extractor)
    failures = len(options.videos) - len(results)
    if failures:
        sys.stderr.write(f"{failures} of {len(options.videos)} videos could not be read.\n")
    return 1 if failures else 0


def _write_page(options: argparse.Namespace, results: list[SearchResult], extractor: FeatureExtractor) -> None:
    from uniformerv2.inference.features.search_page import write_search_page

    reader = extractor.predictor.reader
    missing = write_search_page(options.html, results, reader=reader, root=options.root, model=str(options.model))
    if missing:
        sys.stderr.write(
            f"{missing} neighbours have no picture: their videos are not below {harmless(str(options.root))} or cannot "
            "be read (--root FOLDER says where they are).\n"
        )
    sys.stderr.write(f"Written: {harmless(str(options.html))}\n")


def _show_failure(console: Console, error: Any, options: argparse.Namespace) -> None:
    from rich.markup import escape

    from uniformerv2.core.console import write_line

    if options.json:
        write_line(
            json.dumps({"query": str(error.path), "error": error.reason, "kind": error.kind}, ensure_ascii=False)
        )
    else:
        console.print(f"[red]{escape(str(error))}[/]")


def _show(console: Console, found: SearchResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]{escape(found.query)}[/]")
    if found.classes:
        classes = Table(box=None, show_header=False, padding=(0, 1))
        for place in found.classes:
            classes.add_row(f"{place.cosine:.3f}", escape(place.label), f"[dim]centre of {place.num_videos}[/]")
        console.print(classes)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for one in found.neighbours:
        ends = "" if one.end_seconds is None else f" to {one.end_seconds:.1f} s"
        times = "" if one.start_seconds is None else f"{one.start_seconds:.1f}{ends}"
        table.add_row(f"{one.cosine:.3f}", escape(one.label or ""), escape(one.video), times)
    console.print(table)
