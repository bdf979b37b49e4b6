"""``uniformerv2 features``: features of videos, one per window for localisation or one per video for retrieval."""

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
    check_at_least,
    check_exists,
    check_model,
    check_output_folder,
    given,
    model_overrides,
)
from uniformerv2.core.messages import UsageError, first_few, usage_errors
from uniformerv2.core.optional import check_installed
from uniformerv2.core.terminal import harmless
from uniformerv2.data.named_videos import named_records

if TYPE_CHECKING:
    from uniformerv2.inference.features.extraction import FeatureExtractor

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 features match.mp4 --model models/demo --out features"
LOADS: Final = "uniformerv2.inference.features.runs"
EXIT_CODES: Final = "The exit code is 0, 1 where any video could not be read to its end, and 2 for a wrong call."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    about = "a file, a folder, a pattern in quotes, or a list of videos"
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help=about)
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="write there; goes on with what is")
    about = "one feature per video, or per segment of a list, into features.parquet"
    parser.add_argument("--whole", action="store_true", help=about)
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where paths of a list start (default: its folder)")
    parser.add_argument("--split", metavar="NAME", help="only these videos of a list")
    windows = parser.add_argument_group("windows, without --whole")
    about = "length of a window (default: a clip of dense sampling, else 1)"
    windows.add_argument("--window-seconds", type=float, metavar="S", help=about)
    about = "from window to window (default: a quarter of one)"
    windows.add_argument("--stride-seconds", type=float, metavar="S", help=about)
    windows.add_argument("--fps", type=float, metavar="N", help="frames per second of a folder of frames")
    add_json(parser, "print one line of JSON per video")
    add_views(add_model(parser))
    add_model_overrides(parser)
    parser.epilog = f"{EXIT_CODES}\n{parser.epilog}"


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; ``options.videos`` becomes a list of records.

    Raises:
        UsageError: No video, no such model, or a folder that must not be written.
    """
    check_at_least(1, options, "clips")
    if options.whole and (options.window_seconds, options.stride_seconds) != (None, None):
        raise UsageError("--whole takes each video as a whole: leave out --window-seconds and --stride-seconds.")
    if not options.whole and options.num_clips is not None:
        raise UsageError("--clips is for --whole: without it each window is one clip.")
    check_model(options.model)
    check_output_folder(options.out, option="--out")
    options.records, options.passed_over = named_records(options.videos, root=options.root, split=options.split)
    if options.whole:
        with usage_errors():
            check_installed("pyarrow", extra="tables")
    if not any(Path(record.path).exists() for record in options.records):
        check_exists(Path(options.records[0].path))


def run(options: argparse.Namespace) -> int:
    """Compute and write; 1 where a video could not be read to its end.

    Raises:
        UsageError: The model cannot be used as the options ask, or the folder holds something else.
    """
    from uniformerv2.inference.features.extraction import FeatureExtractor, load_feature_model

    with usage_errors():
        model = load_feature_model(options.model, **model_overrides(options))
        extractor = FeatureExtractor(**{**given(options, FeatureExtractor), "model": model})
    for sentence in options.passed_over:
        sys.stderr.write(f"{harmless(sentence)}\n")
    return (_whole if options.whole else _dense)(options, extractor)


def _dense(options: argparse.Namespace, extractor: FeatureExtractor) -> int:
    from uniformerv2.core.console import make_console, telling, write_line
    from uniformerv2.inference.features.runs import DenseRun
    from uniformerv2.media.decoding import VideoError

    with usage_errors():
        run = DenseRun(extractor, [record.path for record in options.records], options.out)
    console = make_console(stderr=options.json)
    failures: list[tuple[str, str]] = []
    num_done = 0
    try:
        for video, found in run.run(lambda video: telling(f"{Path(video).name}, windows")):
            num_done += 1
            if isinstance(found, VideoError):
                failures.append((video, f"{found.kind}: {found.detail}"))
                _show_json(options, {"video": video, "error": found.reason, "kind": found.kind})
                continue
            content = found if isinstance(found, dict) else found.to_dict()
            if content["broken"]:
                failures.append((video, f"up to the break: {content['broken']}"))
            if options.json:
                write_line(json.dumps({**content, "file": str(run.place(video))}, ensure_ascii=False))
            else:
                _show_dense(console, video, content, was_there=isinstance(found, dict))
    except KeyboardInterrupt:
        _tell_stopped(num_done, len(run.videos))
        raise
    written = run.finish()
    for path in written:
        console.print(f"\n{path}", style="bold", markup=False)
        console.print(path.read_text("utf-8"), end="", markup=False)
    return _end(failures, len(run.videos), options.out if written else None)


def _show_dense(console: Any, video: str, content: dict[str, Any], *, was_there: bool) -> None:
    seconds = content["feature_stride"] / content["fps"]
    how = "there already" if was_there else content["way"]
    words = f"{content['num_features']} features of {content['dim']} numbers, one every {seconds:.3g} s ({how})"
    console.print(f"{video}: {words}", markup=False)


def _whole(options: argparse.Namespace, extractor: FeatureExtractor) -> int:
    from uniformerv2.core.console import Progress
    from uniformerv2.inference.features.runs import WholeRun
    from uniformerv2.media.decoding import VideoError

    with usage_errors():
        run = WholeRun(extractor, options.records, options.out)
    num_done, total = run.num_done, len(options.records)
    if run.is_finished:
        sys.stderr.write(f"{harmless(str(run.file))} is there already, of the same videos and the same model.\n")
    try:
        with Progress("videos", total, done=num_done, is_quiet=run.is_finished) as progress:
            for _, found in run.run():
                num_done += 1
                progress.advance(is_bad=isinstance(found, VideoError))
                if isinstance(found, VideoError):
                    _show_json(options, {"video": str(found.path), "error": found.reason, "kind": found.kind})
                else:
                    _show_json(options, found.to_dict())
    except KeyboardInterrupt:
        _tell_stopped(num_done, total)
        raise
    failures = run.finish()
    sys.stderr.write(f"{total - len(failures)} features of {extractor.dim} numbers, each of length 1.\n")
    return _end(failures, total, run.file)


def _show_json(options: argparse.Namespace, content: dict[str, Any]) -> None:
    from uniformerv2.core.console import write_line

    if options.json:
        write_line(json.dumps(content, ensure_ascii=False))


def _tell_stopped(num_done: int, total: int) -> None:
    sys.stderr.write(f"{num_done} of {total} videos are done; the same command goes on from there.\n")


def _end(failures: Sequence[tuple[str, str]], total: int, written: Path | None) -> int:
    if failures:
        listed = first_few([f"{path}: {reason}" for path, reason in failures], separator="\n  ")
        sys.stderr.write(harmless(f"{len(failures)} of {total} videos could not be read to the end:\n  {listed}\n"))
    sys.stderr.write(f"Written: {harmless(str(written))}\n" if written else "Nothing was written.\n")
    return 1 if failures else 0
