"""``Evaluation``: the scores of every video of a test; what metrics, dumps, comparisons and the report read.

Letters of this file: M videos, V views, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SEGMENT", "Evaluation", "VideoScores", "views_in_words"]

SEGMENT: Final[Mapping[str, type]] = {
    "start_seconds": float,
    "end_seconds": float,
    "start_frame": int,
    "end_frame": int,
}
"""The fields that say which part of a file a video is, and their types."""

ROUNDING: Final = 1e-3
"""So much above 1 a probability may be: other programs round to 16 bits."""

SUM_ROUNDING: Final = 0.05
"""So far from 1 the probabilities of a video may sum up to: other programs write four digits of each of 700 classes."""


def views_in_words(num_clips: int, num_crops: int) -> str:
    """The views of a video.

    >>> views_in_words(4, 3), views_in_words(1, 3), views_in_words(1, 1)
    ('4 clips x 3 crops', '1 clip x 3 crops', '1 view')
    """
    if num_clips * num_crops == 1:
        return "1 view"
    return f"{num_clips} clip{'s' * (num_clips > 1)} x {num_crops} crop{'s' * (num_crops > 1)}"


@dataclass(frozen=True, kw_only=True)
class VideoScores:
    """What a test says of one video.

    Attributes:
        index: Its number in the list that was tested, from 0.
        path: Where it lies, as the list has it.
        id: The benchmark's name of the video.
        label: Class number; several where the data are multi-label, () where it is of no class; None where nobody says.
        scores: Probabilities [K], float32, the mean over the views; zeros where the video could not be read.
        view_scores: Probabilities of each view [V, K]: the crops of the first clip, then of the next. None where they
            were not kept, or the video could not be read.
        error: Why it could not be read; empty where it could.
        duration_seconds: None where it is not known.
        one_view_scores: Probabilities of the middle crop of the middle clip [K]; of an even number of clips the earlier
            of the two in the middle. None where it was not kept, or the video could not be read.
        start_seconds: Where its segment of the file starts; None: at the beginning.
        end_seconds: Where it ends; None: at the end.
        start_frame: First frame of the segment, from 0; None: the first of the file.
        end_frame: One past the last frame of the segment; None: to the end.
    """

    index: int
    path: str
    id: str
    label: int | tuple[int, ...] | None
    scores: NDArray[np.float32]
    view_scores: NDArray[np.float32] | None = None
    error: str = ""
    duration_seconds: float | None = None
    one_view_scores: NDArray[np.float32] | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    start_frame: int | None = None
    end_frame: int | None = None

    @property
    def is_readable(self) -> bool:
        """Whether the network saw it."""
        return not self.error

    @property
    def labels(self) -> tuple[int, ...]:
        """Class numbers; none where it has no label."""
        if self.label is None:
            return ()
        return self.label if isinstance(self.label, tuple) else (self.label,)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a test set.

    Attributes:
        videos: By their index, each once.
        class_names: In head order.
        is_multi_label: A video may have several classes.
        num_clips: Clips of a video.
        num_crops: Crops of a clip.
        info: What else is known, in plain values: checkpoint, data, preprocessing, command.

    Raises:
        ValueError: A video comes twice, scores do not fit the classes or are no probabilities, labels are none of the
            classes or several where the data have one, or there are no views.
    """

    videos: tuple[VideoScores, ...]
    class_names: tuple[str, ...]
    is_multi_label: bool = False
    num_clips: int = 1
    num_crops: int = 1
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        indices = [video.index for video in self.videos]
        if indices != sorted(set(indices)):
            raise ValueError("Videos come in the order of their index, each once.")
        if self.num_clips < 1 or self.num_crops < 1:
            raise ValueError(f"num_clips is {self.num_clips}, num_crops is {self.num_crops}; both must be at least 1.")
        for video in self.videos:
            _check_scores(video, len(self.class_names), is_multi_label=self.is_multi_label)
            _check_label(video, len(self.class_names), is_multi_label=self.is_multi_label)

    @property
    def scores(self) -> NDArray[np.float32]:
        """[M, K]."""
        return np.stack([video.scores for video in self.videos])

    @property
    def readable(self) -> NDArray[np.bool_]:
        """[M]."""
        return np.array([video.is_readable for video in self.videos])


def _check_scores(video: VideoScores, num_classes: int, *, is_multi_label: bool) -> None:
    for name, num_axes in (("scores", 1), ("one_view_scores", 1), ("view_scores", 2)):
        scores = getattr(video, name)
        if scores is None:
            continue
        if scores.ndim != num_axes or scores.shape[-1] != num_classes:
            raise ValueError(f"{video.path} has {name} of shape {scores.shape}, but there are {num_classes} classes.")
        if not ((scores >= 0) & (scores <= 1 + ROUNDING)).all():  # which NaN is not either
            raise ValueError(
                f"{video.path} has {name} from {scores.min():.4g} to {scores.max():.4g}; these are no probabilities: "
                "apply softmax (sigmoid, where videos have several classes) before dumping."
            )
        total = scores.sum(axis=-1)
        if video.is_readable and not is_multi_label and (abs(total - 1) > SUM_ROUNDING).any():
            raise ValueError(
                f"{video.path} has {name} that sum up to {np.ravel(total)[0]:.4g}; these are no probabilities of "
                "classes of which one is right: apply softmax before dumping."
            )


def _check_label(video: VideoScores, num_classes: int, *, is_multi_label: bool) -> None:
    if video.label is None:
        return
    numbers = video.label if isinstance(video.label, tuple) else (video.label,)
    if not all(0 <= number < num_classes for number in numbers):
        raise ValueError(f"{video.path} has the label {video.label}; there are {num_classes} classes, from 0 on.")
    if len(numbers) != 1 and not is_multi_label:
        raise ValueError(f"{video.path} has the label {video.label}; these data have one label a video.")
