"""The report's sections of videos worth a look: the most confident mistakes and the least confident hits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniformerv2.evaluation.breakdown import is_hit, rated
from uniformerv2.evaluation.report_page import Section, bar, data_image, paragraph, percent, text
from uniformerv2.evaluation.scores import Evaluation, VideoScores

__all__ = [
    "FrameStrips",
    "Guess",
    "example_sections",
    "hits_by_doubt",
    "jpeg_strip",
    "mistakes_by_confidence",
    "top_guesses",
]

FrameStrips = Callable[[VideoScores], NDArray[np.uint8] | None]
"""A video of the test -> some of its frames, uint8 RGB [n, H, W, 3]; None where it cannot be read."""

BLANK: Final = "The video could not be read when this page was made."
NO_FRAMES: Final = "Without frames: none of these videos could be read when this page was made."
NOT_ASKED: Final = (
    "Without frames: a dump may name any file, so uniformerv2 evaluate shows those of videos below --root FOLDER alone."
)

MISTAKES: Final = 16
HITS: Final = 8
MAX_FRAMES: Final = 8
MAX_ASPECT: Final = 3


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


def example_sections(evaluation: Evaluation, strips: FrameStrips | None) -> list[Section]:
    """The most confident mistakes and the least confident hits, as far as there are any.

    Args:
        evaluation: The scores.
        strips: Frames of a video; None shows no frames.
    """
    wrong, right = mistakes_by_confidence(evaluation, limit=MISTAKES), hits_by_doubt(evaluation, limit=HITS)
    sections = []
    if wrong:
        lead = (
            "The network was wrong and sure of it. Look here for wrong labels, for classes that overlap, and for what "
            "it looks at instead of the action."
        )
        sections.append(Section("mistakes", "Most confident mistakes", _cards(lead, evaluation, wrong, strips)))
    if right:
        lead = "The network was right, but only just: small changes would turn these."
        sections.append(Section("hits", "Least confident hits", _cards(lead, evaluation, right, strips)))
    return sections


def mistakes_by_confidence(evaluation: Evaluation, *, limit: int) -> list[VideoScores]:
    """Videos whose highest score is none of their labels, the highest such score first."""
    wrong = [video for video in rated(evaluation) if not is_hit(video)]
    return sorted(wrong, key=lambda video: -float(video.scores.max()))[:limit]


def hits_by_doubt(evaluation: Evaluation, *, limit: int) -> list[VideoScores]:
    """Videos whose highest score is a label of theirs, the lowest such score first."""
    right = [video for video in rated(evaluation) if is_hit(video)]
    return sorted(right, key=lambda video: float(video.scores.max()))[:limit]


def top_guesses(video: VideoScores, *, count: int = 5) -> list[Guess]:
    """The ``count`` highest scores, best first, and after them the first label where it is not among them."""
    labels = video.labels
    best = [int(index) for index in np.argsort(-video.scores, kind="stable")[:count]]
    if labels and not set(best) & set(labels):
        best.append(labels[0])
    return [Guess(index, float(video.scores[index]), index in labels) for index in best]


def jpeg_strip(frames: NDArray[np.uint8], *, height: int = 96, quality: int = 72) -> tuple[bytes, tuple[int, int]]:
    """Frames side by side in one small JPEG.

    Args:
        frames: RGB [n, H, W, 3]; of more than ``MAX_FRAMES`` some are left out, evenly.
        height: Pixels.
        quality: Of the JPEG, 1 to 95.

    Returns:
        The file, and its width and height.

    Raises:
        ValueError: The array is no sequence of frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"Frames are uint8 RGB [n, H, W, 3], got {frames.dtype} {frames.shape}.")
    if len(frames) > MAX_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, MAX_FRAMES).round().astype(int)]
    aspect = min(max(frames.shape[2] / frames.shape[1], 1 / MAX_ASPECT), MAX_ASPECT)
    width = round(height * aspect)
    gap = 2
    strip = Image.new("RGB", (len(frames) * (width + gap) - gap, height), "white")
    for index, frame in enumerate(frames):
        picture = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
        strip.paste(picture, (index * (width + gap), 0))
    file = BytesIO()
    strip.save(file, format="JPEG", quality=quality, optimize=True)
    return file.getvalue(), strip.size


def _cards(lead: str, evaluation: Evaluation, videos: Sequence[VideoScores], strips: FrameStrips | None) -> str:
    pictures = [_picture(evaluation, video, strips) for video in videos]
    body = paragraph(lead)
    if not any(pictures):
        body += paragraph(NO_FRAMES if strips else NOT_ASKED, kind="muted")
    else:
        pictures = [picture or f'<p class="blank">{BLANK}</p>' for picture in pictures]
    skipped = len(_common_folder(evaluation))
    cards = "\n".join(
        _card(evaluation.class_names, video, picture, video.path[skipped:])
        for video, picture in zip(videos, pictures, strict=True)
    )
    return f'{body}<div class="cards">{cards}</div>'


def _picture(evaluation: Evaluation, video: VideoScores, strips: FrameStrips | None) -> str:
    """Empty where there are no frames."""
    frames = strips(video) if strips else None
    if frames is None:
        return ""
    label = ", ".join(evaluation.class_names[index] for index in video.labels)
    return data_image(*jpeg_strip(frames), alt=f"{len(frames)} frames of a video of {label}")


def _common_folder(evaluation: Evaluation) -> str:
    """What the paths of all videos start with, up to its last slash: it tells nothing and fills lines."""
    paths = [video.path for video in evaluation.videos]
    first, last = min(paths), max(paths)  # all others lie between them
    length = next((place for place, letter in enumerate(first) if letter != last[place : place + 1]), len(first))
    return first[: max(first.rfind("/", 0, length), first.rfind("\\", 0, length)) + 1]


def _card(names: Sequence[str], video: VideoScores, picture: str, path: str) -> str:
    label = ", ".join(names[index] for index in video.labels)
    guesses = "".join(_guess(names[guess.index], guess, place) for place, guess in enumerate(top_guesses(video)))
    return (
        f"<article>{picture}<h3>{text(label)}</h3>"
        f'<p class="path" title="{text(video.path)}">{text(path)}</p><ol class="guesses">{guesses}</ol></article>'
    )


def _guess(name: str, guess: Guess, place: int) -> str:
    kind, mark = ("label", "✓ ") if guess.is_label else ("other" if place else "mistake", "")
    told = ' <span class="unseen">true class</span>' if guess.is_label else ""
    return (
        f'<li class="{kind}"><span class="name" title="{text(name)}">{mark}{text(name)}{told}</span>'
        f'{bar(guess.score, kind="track")}<span class="score">{percent(guess.score)}</span></li>'
    )
