"""What the network says of the windows of a video: of each, and of all of them.

Letters of this file: W windows, T frames of a window, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniformerv2.inference.window_grid import WindowGrid
from uniformerv2.inference.window_networks import Way

__all__ = ["Window", "WindowScores", "WindowTable"]


@dataclass(frozen=True)
class Window:
    """What the network says of one window.

    Attributes:
        start_seconds: From the first frame of the video.
        end_seconds: Likewise.
        scores: Probabilities [num_classes], the mean over the crops.
        features: The normed features [C], the mean over the crops; None where the network gives only scores.
        frame_indices: The T frames of the video that were looked at.
    """

    start_seconds: float
    end_seconds: float
    scores: NDArray[np.float32]
    features: NDArray[np.float32] | None
    frame_indices: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WindowScores:
    """All windows of a video.

    Attributes:
        video: The path.
        class_names: In the order of the scores.
        is_multi_label: The scores are sigmoids: several classes may be right at once.
        starts: Seconds at which each window starts [W].
        ends: Seconds at which it ends [W].
        scores: Probabilities [W, num_classes].
        features: Normed features [W, C] in half precision; None where the network gives only scores.
        grid: How the windows lie.
        fps: Frames per second of the video.
        way: How they were computed.
        duration_seconds: Of the video, as its container says.
        broken: Why the video could not be read to the end; None where it could.
    """

    video: str
    class_names: tuple[str, ...]
    is_multi_label: bool
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    scores: NDArray[np.float32]
    features: NDArray[np.float16] | None
    grid: WindowGrid
    fps: float
    way: Way
    duration_seconds: float
    broken: str | None = None

    def __repr__(self) -> str:
        grid = self.grid
        return (
            f"<WindowScores of {self.video!r}: {len(self.scores)} windows of {grid.window_seconds:.2f} s every "
            f"{grid.stride_seconds:.2f} s, {len(self.class_names)} classes, {self.way}>"
        )


class WindowTable:
    """Windows as they come, in arrays of one piece each: small ones for every window would break up the memory.

    Attributes:
        count: How many there are.
        bounds: Start and end of each in seconds [W, 2]; the rows from ``count`` on mean nothing, here as below.
        scores: [W, num_classes].
        features: [W, C] in half precision; None where the network gives only scores.
    """

    count = 0
    bounds: NDArray[np.float64]
    scores: NDArray[np.float32]
    features: NDArray[np.float16] | None = None

    def add(self, window: Window, *, num_windows: int) -> None:
        """The next window, of so many."""
        if not self.count:
            self.bounds = np.empty((num_windows, 2))
            self.scores = np.empty((num_windows, len(window.scores)), np.float32)
            if window.features is not None:
                self.features = np.empty((num_windows, len(window.features)), np.float16)
        self.bounds[self.count] = window.start_seconds, window.end_seconds
        self.scores[self.count] = window.scores
        if self.features is not None and window.features is not None:
            self.features[self.count] = window.features
        self.count += 1
