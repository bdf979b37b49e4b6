"""What a reader of a prediction should know: one label for a long video, one picture, no class that is sure."""

from __future__ import annotations

import math
from typing import Final

from uniformerv2.inference.prediction import Prediction

__all__ = ["is_sure", "notes_of"]

FAR_APART: Final = 5.0
"""Seconds from one frame that is looked at to the next from which on much of a video goes unseen; Kinetics' clips of
ten seconds have one in 1.25 s."""
MAX_CLIPS: Final = 32
"""More are not advised: each costs as much as the first."""


def is_sure(prediction: Prediction, threshold: float | None) -> bool | None:
    """Whether a class has at least this score; None where nobody asks."""
    return None if threshold is None else float(prediction.scores.max()) >= threshold


def notes_of(prediction: Prediction, *, threshold: float | None = None) -> tuple[str, ...]:
    """Sentences about a prediction that looks surer than it is; none where it does not.

    Args:
        prediction: Prediction of a video.
        threshold: The score from which on a class is sure.
    """
    notes = []
    if is_sure(prediction, threshold) is False:
        notes.append(f"No class is sure: the highest score, {prediction.scores.max():.4f}, is below {threshold}.")
    clips = prediction.frame_indices
    num_seen, num_frames = len({frame for clip in clips for frame in clip}), len(clips[0])
    if num_seen == 1:
        notes.append("It has a single frame: the label is of what that shows, not of a movement.")
    elif num_seen < num_frames:
        notes.append(f"It has {num_seen} frames, fewer than the {num_frames} of a clip: some are looked at repeatedly.")
    seconds = prediction.duration_seconds or 0.0
    gap = seconds / num_seen
    if gap > FAR_APART and num_seen >= num_frames:
        wanted = min(math.ceil(len(clips) * gap / FAR_APART), MAX_CLIPS)
        advice = f" --clips {wanted} (num_clips={wanted}) looks at more of it." if wanted > len(clips) else ""
        notes.append(
            f"One label for {_duration(seconds)}: {num_seen} frames were looked at, one in {gap:.0f} s, and what "
            f"happens between them goes unseen.{advice}"
        )
    return tuple(notes)


def _duration(seconds: float) -> str:
    """In words: ``18 min 3 s``.

    >>> _duration(45.2), _duration(1083.0)
    ('45 s', '18 min 3 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
