"""``uniformerv2 evaluate PREDICTIONS --truth ANNOTATIONS``: how well segments were found in long videos."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniformerv2.commands.options import check_exists
from uniformerv2.core.messages import UsageError, first_few, usage_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from uniformerv2.evaluation.localization import Detection, Localization, TrueSegment

__all__ = ["check_localization", "measure_localization"]


def check_localization(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: A file that is not there, several files, or options that are for dumps.
    """
    if len(options.dumps) != 1:
        raise UsageError(f"--truth takes one file of predictions, got {len(options.dumps)}.")
    for name in ("compare", "ensemble_weights", "dump", "report", "root"):
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} is for dumps of scores: leave it out, or leave out --truth.")
    for path in (*options.dumps, options.truth):
        check_exists(path)


def measure_localization(options: argparse.Namespace) -> int:
    """Print the mean average precision at the thresholds of ActivityNet and of THUMOS14, and each class.

    Raises:
        UsageError: A file holds no predictions or no annotations, or they share no video.
    """
    from uniformerv2.core.console import make_console, write_line
    from uniformerv2.evaluation.localization import (
        ACTIVITYNET_THRESHOLDS,
        THUMOS_THRESHOLDS,
        localize,
        read_detections,
        share_of_seconds,
    )

    console = make_console(stderr=options.json)
    with usage_errors():
        truth, videos = _truth(options.truth)
        detections = _renamed(read_detections(options.dumps[0]), videos)
        if not {one.video for one in detections} & videos and detections:
            raise UsageError(
                f"{options.dumps[0]} and {options.truth} share no video: the one has "
                f"{first_few(sorted({one.video for one in detections}), shown=3)}, the other "
                f"{first_few(sorted(videos), shown=3)}. Videos are matched by name without suffix."
            )
        measured = {
            "activitynet": localize(truth, detections, thresholds=ACTIVITYNET_THRESHOLDS),
            "thumos14": localize(truth, detections, thresholds=THUMOS_THRESHOLDS),
        }
    share = math.nan if _overlap(truth) else share_of_seconds(truth, detections)
    console.print(f"videos: {len(videos)}, true segments: {len(truth)}, found: {len(detections)}\n", markup=False)
    _show(console, measured["activitynet"], measured["thumos14"], share)
    unknown = sorted({one.video for one in detections} - videos)
    if unknown:
        words = f"Not in {options.truth}, so that all that was found in them is wrong: {first_few(unknown)}"
        console.print(f"\n{words}", style="yellow", markup=False)
    if options.json:
        content: dict[str, Any] = {name: found.to_dict() for name, found in measured.items()}
        write_line(json.dumps({**content, "share_of_seconds": None if math.isnan(share) else share}))
    return 0


def _truth(path: Path) -> tuple[list[TrueSegment], frozenset[str]]:
    """Annotations of ActivityNet's form, or a list of segments that ``read_records`` reads.

    Raises:
        UsageError: A record has no class or no times.
    """
    from uniformerv2.data.annotations import read_records
    from uniformerv2.evaluation.localization import TrueSegment, read_truth

    if path.suffix == ".json":
        return read_truth(path)
    segments = []
    for record in read_records(path, val_fraction=0.0):
        names = record.label_names or tuple(map(str, record.labels))
        if record.start_seconds is None or record.end_seconds is None or not names:
            raise UsageError(
                f"{path}: {record.path} has no class, or no start and end in seconds; a list of true segments has the "
                "columns video, start_seconds, end_seconds and label."
            )
        video = Path(record.path).stem
        segments += [TrueSegment(video, name, record.start_seconds, record.end_seconds) for name in names]
    return segments, frozenset(segment.video for segment in segments)


def _renamed(detections: Sequence[Detection], videos: frozenset[str]) -> list[Detection]:
    """ActivityNet's files are called v_ID.mp4, its annotations ID."""

    def name(video: str) -> str:
        short = video.removeprefix("v_")
        return short if video not in videos and short in videos else video

    return [replace(one, video=name(one.video)) for one in detections]


def _overlap(truth: Sequence[TrueSegment]) -> bool:
    """Whether two true segments of a video overlap: then no single label is right."""
    inside = sorted((one.video, one.start_seconds, one.end_seconds) for one in truth)
    return any(before[0] == after[0] and before[2] > after[1] + 1e-6 for before, after in pairwise(inside))


def _show(console: Console, activitynet: Localization, thumos: Localization, share: float) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = (0.3, 0.5, 0.7, 0.95)
    ap = {**dict(zip(thumos.thresholds, zip(*thumos.per_class.values(), strict=True), strict=True))}
    ap |= dict(zip(activitynet.thresholds, zip(*activitynet.per_class.values(), strict=True), strict=True))
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("average precision at tIoU")
    for title in (*map(str, shown), "0.5:0.95", "0.3:0.7", "true", "found"):
        table.add_column(title, justify="right")
    for place, name in enumerate(activitynet.per_class):
        means = (sum(one.per_class[name]) / len(one.thresholds) for one in (activitynet, thumos))
        cells = [f"{100 * value:.1f}" for value in (*(ap[level][place] for level in shown), *means)]
        table.add_row(escape(name), *cells, str(activitynet.num_true[name]), str(activitynet.num_found[name]))
    mean = [sum(ap[level]) / len(ap[level]) for level in shown]
    cells = [f"{100 * value:.1f}" for value in (*mean, activitynet.average_map, thumos.average_map)]
    table.add_row("mean (mAP)", *cells, style="bold")
    console.print(table)
    if not math.isnan(share):
        console.print(f"\nRight in {100 * share:.1f} % of the annotated seconds", markup=False)
