"""``Evaluation``: the scores of every video of a test; what metrics, dumps, comparisons and the report read.

Letters of this file: M videos, V views, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Evaluation", "VideoScores", "views_in_words"]


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
        label: Class number; several where the data are multi-label; -1 where it has none.
        scores: Probabilities [K], float32, the mean over the views; zeros where the video could not be read.
        view_scores: Probabilities of each view [V, K]: the crops of the first clip, then of the next. None where they
            were not kept, or the video could not be read.
        error: Why it could not be read; empty where it could.
        duration_seconds: None where it is not known.
        one_view_scores: Probabilities of the middle crop of the middle clip [K]; of an even number of clips the earlier
            of the two in the middle. None where it was not kept, or the video could not be read.
    """

    index: int
    path: str
    id: str
    label: int | tuple[int, ...]
    scores: NDArray[np.float32]
    view_scores: NDArray[np.float32] | None = None
    error: str = ""
    duration_seconds: float | None = None
    one_view_scores: NDArray[np.float32] | None = None

    @property
    def is_readable(self) -> bool:
        """Whether the network saw it."""
        return not self.error

    @property
    def labels(self) -> tuple[int, ...]:
        """Class numbers; none where it has no label."""
        several = self.label if isinstance(self.label, tuple) else (self.label,)
        return tuple(label for label in several if label >= 0)


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
        ValueError: A video comes twice, or scores do not fit the classes.
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
        for video in self.videos:
            if video.scores.shape != (len(self.class_names),):
                raise ValueError(
                    f"{video.path} has scores of shape {video.scores.shape}, but there are "
                    f"{len(self.class_names)} classes."
                )

    @property
    def scores(self) -> NDArray[np.float32]:
        """[M, K]."""
        return np.stack([video.scores for video in self.videos])

    @property
    def readable(self) -> NDArray[np.bool_]:
        """[M]."""
        return np.array([video.is_readable for video in self.videos])
