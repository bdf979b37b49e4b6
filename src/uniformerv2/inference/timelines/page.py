"""Timelines as one page that needs no network: a click on a segment seeks the video."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np

from uniformerv2.core.files import write_bytes
from uniformerv2.data.clips import ClipReader
from uniformerv2.evaluation.page import page_environment
from uniformerv2.inference.strips import inline_picture, thumbnails
from uniformerv2.inference.timelines.figure import COLOURS, shown_classes
from uniformerv2.inference.timelines.files import clock
from uniformerv2.inference.timelines.timeline import Timeline

__all__ = ["write_timeline_page"]

EMBEDDED_BYTES: Final = 6_000_000
"""A smaller video is put into the page; a larger one is read from where it is, beside the page."""
MOST_THUMBNAILS: Final = 100
"""Each needs a random access to the video."""
THUMBNAIL_HEIGHT: Final = 72
POINTS: Final = 600
"""Of a curve in the page."""


@dataclass(frozen=True)
class Lane:
    """What a class looks like in the page.

    Attributes:
        index: Of the class.
        name: Of the class.
        colour: For the style sheet.
        points: Of its curve, for an SVG that is 1000 wide and 100 high.
    """

    index: int
    name: str
    colour: str
    points: str


@dataclass(frozen=True)
class Film:
    """One video of the page.

    Attributes:
        timeline: What was found in it.
        source: The address of the video: relative, or with all of its bytes.
        is_inside: The address holds the video itself.
        lanes: The classes that are shown.
        pictures: Of each segment, as an address; empty where there is none, as of those after the first hundred.
        start: Seconds at which the timeline starts.
        length: Its seconds.
    """

    timeline: Timeline
    source: str
    is_inside: bool
    lanes: tuple[Lane, ...]
    pictures: tuple[str, ...]
    start: float
    length: float

    def part(self, seconds: float) -> float:
        """How far along the timeline a time is, in percent."""
        return 100 * (seconds - self.start) / self.length


def write_timeline_page(path: Path, timelines: Sequence[Timeline], *, reader: ClipReader, model: str) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The file. A video that is not inside is named relative to its folder.
        timelines: At least one.
        reader: Decodes the thumbnails.
        model: What to call the model.
    """
    films = [_film(timeline, path, reader) for timeline in timelines]
    environment = page_environment("uniformerv2.inference.timelines")
    environment.filters["clock"] = lambda seconds: clock(seconds)[: -len("00")].removeprefix("00:")
    html = environment.get_template("timeline.html").render(films=films, model=model).lstrip()
    write_bytes(path, html.encode("utf-8", errors="replace"))


def _film(timeline: Timeline, page: Path, reader: ClipReader) -> Film:
    video, start = Path(timeline.video), timeline.windows.grid.start_seconds
    is_inside = video.is_file() and video.stat().st_size <= EMBEDDED_BYTES
    middles = [(one.start_seconds + one.end_seconds) / 2 for one in timeline.segments[:MOST_THUMBNAILS]]
    missing = ("",) * (len(timeline.segments) - len(middles))
    pictures = thumbnails(video, middles, height=THUMBNAIL_HEIGHT, reader=reader, fps=timeline.windows.fps)
    return Film(
        timeline=timeline,
        source=_inside(video) if is_inside else quote(os.path.relpath(video, page.parent).replace(os.sep, "/")),
        is_inside=is_inside,
        lanes=tuple(_lanes(timeline)),
        pictures=(*(inline_picture(picture) if picture else "" for picture in pictures), *missing),
        start=start,
        length=float(timeline.windows.ends[-1]) - start,
    )


def _lanes(timeline: Timeline) -> list[Lane]:
    curve = timeline.curve
    each = -(-len(curve) // POINTS)
    high = np.maximum.reduceat(curve, np.arange(0, len(curve), each), axis=0)
    places = 1000 * (np.arange(len(high)) + 0.5) / len(high)
    lanes = []
    for place, index in enumerate(shown_classes(timeline)):
        points = " ".join(f"{x:.1f},{100 - 100 * y:.1f}" for x, y in zip(places, high[:, index], strict=True))
        colour = COLOURS[place % len(COLOURS)]
        lanes.append(Lane(index, timeline.windows.class_names[index], colour, f"0,100 {points} 1000,100"))
    return lanes


def _inside(video: Path) -> str:
    kind = mimetypes.guess_type(video.name)[0] or "video/mp4"
    return f"data:{kind};base64,{base64.b64encode(video.read_bytes()).decode()}"
