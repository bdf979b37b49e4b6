"""A few frames of a video, evenly spread: what a report shows of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from uniformerv2.data.decoding import VideoError, open_video

__all__ = ["frame_strip"]


def frame_strip(path: str, *, num_frames: int = 5) -> NDArray[np.uint8] | None:
    """The middle frames of ``num_frames`` equal parts of a video.

    ::

        10 frames, 5 parts  |..|..|..|..|..|  ->  1 3 5 7 9

    Args:
        path: A file or a folder of frames.
        num_frames: At most so many; a shorter video gives each of its frames once.

    Returns:
        RGB frames [n, H, W, 3]; None where the video cannot be read.

    Raises:
        ValueError: ``num_frames`` is below 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}.")
    try:
        with open_video(path) as video:
            count = min(num_frames, len(video))
            indices = [(2 * part + 1) * len(video) // (2 * count) for part in range(count)]
            return np.ascontiguousarray(video.frames(indices).permute(0, 2, 3, 1).numpy())
    except VideoError:
        return None
