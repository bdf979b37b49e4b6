"""Timelines as files: CSV, ActivityNet's detections, and subtitles (WebVTT, SRT), so that a player shows the labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Final

from uniformerv2.inference.timelines.timeline import Timeline

__all__ = ["CSV_COLUMNS", "clock", "to_activitynet", "to_csv", "to_srt", "to_vtt"]

CSV_COLUMNS: Final = ("video", "start_seconds", "end_seconds", "label", "score")


def to_csv(timelines: Iterable[Timeline]) -> str:
    """A row per segment, with a header."""
    text = StringIO(newline="")
    table = csv.writer(text)
    table.writerow(CSV_COLUMNS)
    for timeline in timelines:
        for one in timeline.segments:
            times = f"{one.start_seconds:.3f}", f"{one.end_seconds:.3f}"
            table.writerow([timeline.video, *times, one.label, f"{one.score:.6f}"])
    return text.getvalue()


def to_activitynet(timelines: Sequence[Timeline]) -> str:
    """The detection format of ActivityNet 1.3, which its evaluation and ours read; videos by name without suffix."""
    results = {
        Path(timeline.video).stem: [
            {
                "label": one.label,
                "score": round(one.score, 6),
                "segment": [round(one.start_seconds, 3), round(one.end_seconds, 3)],
            }
            for one in timeline.segments
        ]
        for timeline in timelines
    }
    content = {"version": "VERSION 1.3", "results": results, "external_data": {"used": False, "details": ""}}
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def to_vtt(timeline: Timeline) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/), for ``<track>`` of a web page and most players."""
    cues = [
        f"{clock(one.start_seconds)} --> {clock(one.end_seconds)}\n{_escaped(one.label)} {one.score:.2f}\n"
        for one in timeline.segments
    ]
    return "\n".join(["WEBVTT\n", *cues])


def to_srt(timeline: Timeline) -> str:
    """SubRip, for players that know no WebVTT."""
    cues = [
        f"{number}\n{clock(one.start_seconds, ',')} --> {clock(one.end_seconds, ',')}\n"
        f"{_one_line(one.label)} {one.score:.2f}\n"
        for number, one in enumerate(timeline.segments, start=1)
    ]
    return "\n".join(cues)


def clock(seconds: float, point: str = ".") -> str:
    """Hours, minutes, seconds and milliseconds.

    >>> clock(3725.5), clock(1.9996, ",")
    ('01:02:05.500', '00:00:02,000')
    """
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "-"


def _escaped(text: str) -> str:
    return _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
