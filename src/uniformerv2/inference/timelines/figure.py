"""A timeline as a picture: a strip of frames, the score of each class that is seen, and the segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from uniformerv2.evaluation.figure_style import BLUE, GREEN, INK, MUTED, RED, new_axes
from uniformerv2.inference.timelines.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "draw_timeline", "shown_classes"]

COLOURS: Final = (BLUE, RED, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
"""Okabe and Ito's, then two more; further classes begin anew."""
MOST_CLASSES: Final = 8
MOST_POINTS: Final = 2000
"""Of a curve; of more each takes the highest of its stretch, so that no peak is lost."""
WIDTH: Final = 10.0
"""Inches."""
SLOT_ASPECT: Final = 1.1
"""Width to height of the place of each of the eight pictures."""


def draw_timeline(timeline: Timeline, strip: Sequence[Image.Image | None]) -> Figure:
    """Frames above, scores in the middle, segments below.

    Args:
        timeline: Of a video.
        strip: Pictures of evenly spread times, of one size; None where there is none.
    """
    classes = shown_classes(timeline)
    figure, (frames, scores, bars) = new_axes(
        WIDTH, 3.6 + 0.26 * len(classes), rows=3, ratios=(1.0, 1.7, 0.3 + 0.26 * len(classes))
    )
    start, end = timeline.windows.grid.start_seconds, float(timeline.windows.ends[-1])
    _draw_strip(frames, strip, start, end)
    _draw_scores(scores, timeline, classes)
    _draw_segments(bars, timeline, classes)
    for axis in (scores, bars):
        axis.set_xlim(start, end)
    bars.set_xlabel("seconds")
    return figure


def shown_classes(timeline: Timeline) -> list[int]:
    """The classes with the longest segments, at most eight; where nothing is sure the two with the highest scores."""
    seconds: dict[int, float] = {}
    for one in timeline.segments:
        seconds[one.index] = seconds.get(one.index, 0.0) + one.end_seconds - one.start_seconds
    longest = sorted(seconds, key=lambda index: -seconds[index])[:MOST_CLASSES]
    return longest or np.argsort(-timeline.curve.max(axis=0), kind="stable")[:2].tolist()


def _draw_strip(axis: Axes, strip: Sequence[Image.Image | None], start: float, end: float) -> None:
    there = [(place, picture) for place, picture in enumerate(strip) if picture is not None]
    each = (end - start) / max(1, len(strip))
    for place, picture in there:
        left = start + place * each
        place_of = (left + 0.02 * each, left + 0.98 * each, 0, 1)
        axis.imshow(np.asarray(_cropped(picture)), extent=place_of, aspect="auto")
    axis.set_xlim(start, end)
    axis.set_ylim(0, 1)
    axis.set_axis_off()


def _cropped(picture: Image.Image) -> Image.Image:
    """The middle of a picture, of the shape of its place in the strip."""
    width, height = picture.size
    wanted = min(width, round(SLOT_ASPECT * height)), min(height, round(width / SLOT_ASPECT))
    left, top = (width - wanted[0]) // 2, (height - wanted[1]) // 2
    return picture.crop((left, top, left + wanted[0], top + wanted[1]))


def _draw_scores(axis: Axes, timeline: Timeline, classes: Sequence[int]) -> None:
    times, curve = _thinned(timeline)
    for place, index in enumerate(classes):
        axis.plot(times, curve[:, index], color=COLOURS[place % len(COLOURS)], lw=1.4)
    for level in (timeline.rules.on, timeline.rules.off):
        axis.axhline(level, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("score")
    axis.set_xticklabels([])


def _draw_segments(axis: Axes, timeline: Timeline, classes: Sequence[int]) -> None:
    names = timeline.windows.class_names
    for place, index in enumerate(classes):
        spans = [
            (one.start_seconds, one.end_seconds - one.start_seconds) for one in timeline.segments if one.index == index
        ]
        axis.broken_barh(spans, (place - 0.36, 0.72), color=COLOURS[place % len(COLOURS)])
    axis.set_yticks(range(len(classes)), [names[index][:28] for index in classes], color=INK)
    axis.set_ylim(len(classes) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def _thinned(timeline: Timeline) -> tuple[np.ndarray, np.ndarray]:
    """Times and scores of at most ``MOST_POINTS`` points."""
    times, curve = timeline.times, timeline.curve
    each = -(-len(curve) // MOST_POINTS)
    if each > 1:
        starts = np.arange(0, len(curve), each)
        times, curve = times[starts], np.maximum.reduceat(curve, starts, axis=0)
    return times, curve
