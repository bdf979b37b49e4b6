"""The report's gallery: every video with its best answers, those worth a look first, and small previews that play.

A preview is a strip of frames, one below the other, in one small WebP image; the page's style sheet moves it through a
window of one frame, so it plays without a network and without a script.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniformerv2.evaluation.breakdown import is_hit
from uniformerv2.evaluation.scores import Evaluation, VideoScores

__all__ = ["FrameStrips", "Gallery", "Guess", "Preview", "changed_videos", "every_video", "make_preview", "top_guesses"]

FrameStrips = Callable[[VideoScores], NDArray[np.uint8] | None]
"""A video of the test -> some of its frames, uint8 RGB [n, H, W, 3]; None where it cannot be read or shown."""

PREVIEW_BYTES: Final = 6_000_000
"""All previews of a page together; base64 makes a third more of them."""

MOST_BYTES: Final = 60_000
"""A single preview."""

MOST_PREVIEWS: Final = 400
"""Decoding takes about a twentieth of a second per video; more videos than these have previews only where they come
first."""

SIZES: Final = ((12, 120, 60), (12, 96, 50), (8, 96, 40), (8, 72, 40), (5, 64, 40), (3, 48, 30))
"""Frames, height in pixels and quality of a preview: the first that is small enough."""

MAX_ASPECT: Final = 3

COMPACT: Final = 2000
"""From so many videos on, a card is one line."""

KINDS: Final = {
    "wrong": "wrong",
    "right": "right",
    "gained": "became right",
    "lost": "became wrong",
    "unknown": "without a label",
    "unreadable": "could not be read",
}


@dataclass(frozen=True)
class Guess:
    """A class and its score.

    Attributes:
        index: Class number.
        score: 0 to 1.
        is_label: It is (one of) the label(s) of the video.
    """

    index: int
    score: float
    is_label: bool


@dataclass(frozen=True)
class Preview:
    """A film strip for inside the page.

    Attributes:
        data: The WebP image, in base64.
        width: Pixels.
        height: Pixels of one frame.
        num_frames: Frames, one below the other.
    """

    data: str
    width: int
    height: int
    num_frames: int


@dataclass(frozen=True)
class Answer:
    """What one test says of a video: its best guesses, or why it could not be read."""

    guesses: tuple[Guess, ...]
    error: str


@dataclass(frozen=True)
class Item:
    """A card of the gallery.

    Attributes:
        kind: A key of ``KINDS``.
        path: Of the video.
        label: The names of its classes.
        labels: Their numbers.
        confidence: The highest score; of two tests, that of the second.
        runs: One answer per test.
        preview: None where there are no frames.
    """

    kind: str
    path: str
    label: str
    labels: tuple[int, ...]
    confidence: float
    runs: tuple[Answer, ...]
    preview: Preview | None

    @property
    def answers(self) -> list[int]:
        """The class that each test says."""
        return [run.guesses[0].index for run in self.runs if run.guesses]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The cards and what their filter offers.

    Attributes:
        items: In the order that ``order`` says.
        order: In words.
        runs: Names of the tests, where there are two.
        is_asked: Somebody said which videos may be shown.
    """

    items: tuple[Item, ...]
    order: str
    runs: tuple[str, ...] = ()
    is_asked: bool = True

    @cached_property
    def num_previews(self) -> int:
        """How many cards have one."""
        return sum(item.preview is not None for item in self.items)

    @cached_property
    def is_compact(self) -> bool:
        """Whether a card is one line."""
        return len(self.items) >= COMPACT

    @cached_property
    def kinds(self) -> list[tuple[str, str]]:
        """The kinds that occur, and their names with numbers."""
        counts = {kind: sum(item.kind == kind for item in self.items) for kind in KINDS}
        return [(kind, f"{KINDS[kind]} ({count:,})") for kind, count in counts.items() if count]

    @cached_property
    def skipped(self) -> int:
        """Length of the folder that all paths share: it tells nothing and fills lines."""
        paths = [item.path for item in self.items]
        first, last = min(paths, default=""), max(paths, default="")  # all others lie between them
        length = next((place for place, letter in enumerate(first) if letter != last[place : place + 1]), len(first))
        return max(first.rfind("/", 0, length), first.rfind("\\", 0, length)) + 1


def every_video(evaluation: Evaluation, strips: FrameStrips | None) -> Gallery:
    """All videos: the most confident mistakes first, then the least confident hits.

    Args:
        evaluation: The scores.
        strips: Frames of a video; None shows no frames.
    """
    ranks = {"wrong": 0, "right": 1, "unknown": 2, "unreadable": 3}
    kinds = {video.index: _kind(video) for video in evaluation.videos}

    def rank(video: VideoScores) -> tuple[int, float]:
        sure = float(video.scores.max())
        return ranks[kinds[video.index]], -sure if kinds[video.index] == "wrong" else sure

    videos = sorted(evaluation.videos, key=rank)
    entries = [(kinds[video.index], (video,)) for video in videos]
    order = "worth a look first"
    return Gallery(items=_items(evaluation, entries, strips), order=order, is_asked=strips is not None)


def changed_videos(before: Evaluation, after: Evaluation, names: Sequence[str], strips: FrameStrips | None) -> Gallery:
    """The videos that one of two tests has right and the other has not: first those that became wrong.

    Args:
        before: As ``comparison.align`` gives it.
        after: As ``comparison.align`` gives it.
        names: What the two tests are called.
        strips: Frames of a video; None shows no frames.
    """
    pairs = [pair for pair in zip(before.videos, after.videos, strict=True) if pair[0].labels]
    lost = [("lost", pair) for pair in pairs if is_hit(pair[0]) and not is_hit(pair[1])]
    gained = [("gained", pair) for pair in pairs if is_hit(pair[1]) and not is_hit(pair[0])]
    items = _items(before, [*lost, *gained], strips)
    return Gallery(items=items, order="became wrong first", runs=tuple(names), is_asked=strips is not None)


def top_guesses(video: VideoScores, *, count: int = 3) -> tuple[Guess, ...]:
    """The ``count`` highest scores, best first, and after them the first label where it is not among them."""
    labels = video.labels
    best = [int(index) for index in np.argsort(-video.scores, kind="stable")[:count]]
    if labels and not set(best) & set(labels):
        best.append(labels[0])
    return tuple(Guess(index, float(video.scores[index]), index in labels) for index in best)


def make_preview(frames: NDArray[np.uint8], *, max_bytes: int = MOST_BYTES) -> Preview | None:
    """Frames below each other in one small image; None where even the smallest is too large.

    Args:
        frames: RGB [n, H, W, 3]; of many, some are left out, evenly.
        max_bytes: Of the image.

    Raises:
        ValueError: The array is no sequence of frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"Frames are uint8 RGB [n, H, W, 3], got {frames.dtype} {frames.shape}.")
    aspect = min(max(frames.shape[2] / frames.shape[1], 1 / MAX_ASPECT), MAX_ASPECT)
    for most, height, quality in SIZES:
        kept = frames[np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)]
        width = round(height * aspect)
        strip = Image.new("RGB", (width, height * len(kept)))
        for place, frame in enumerate(kept):
            picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
            strip.paste(picture, (0, place * height))
        file = BytesIO()
        strip.save(file, format="WEBP", quality=quality, method=2)
        if file.tell() <= max_bytes:
            return Preview(base64.b64encode(file.getvalue()).decode(), width, height, len(kept))
    return None


def _kind(video: VideoScores) -> str:
    if not video.is_readable:
        return "unreadable"
    if not video.labels:
        return "unknown"
    return "right" if is_hit(video) else "wrong"


def _items(
    evaluation: Evaluation, entries: Sequence[tuple[str, Sequence[VideoScores]]], strips: FrameStrips | None
) -> tuple[Item, ...]:
    """The cards of kinds and videos, one video per test."""
    names, count = evaluation.class_names, 1 if len(entries) >= COMPACT else 3
    share = min(MOST_BYTES, PREVIEW_BYTES // max(1, min(len(entries), MOST_PREVIEWS)))
    items = []
    for place, (kind, videos) in enumerate(entries):
        frames = strips(videos[0]) if strips and place < MOST_PREVIEWS else None
        items.append(
            Item(
                kind=kind,
                path=videos[0].path,
                label=", ".join(names[index] for index in videos[0].labels) or "no label",
                labels=videos[0].labels,
                confidence=float(videos[-1].scores.max()),
                runs=tuple(
                    Answer(top_guesses(video, count=count) if video.is_readable else (), video.error)
                    for video in videos
                ),
                preview=None if frames is None else make_preview(frames, max_bytes=share),
            )
        )
    return tuple(items)
