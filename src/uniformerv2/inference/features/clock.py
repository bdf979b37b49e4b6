"""Where feature i lies, as tools for temporal localisation count it: in ticks of a clock that fits the windows.

These tools count in frames of the video, and want whole numbers of them from one feature to the next. Windows here lie
by time: a stride of 0.25 s is 6.25 frames at 25 a second, and rounded to 6 the last feature of ten minutes would be
placed 24 seconds early. So the clock is not that of the video: its ticks divide the windows evenly, and are the
same for videos of any rate::

    window of 1 s, T = 8 frames, a stride of 2 steps:   32 ticks a second, feature_stride 8, num_frames 32

    feature i lies at (feature_stride * i + num_frames / 2) / fps seconds, the middle of window i

ActionFormer (Zhang et al., 2022, https://github.com/happyharrycn/actionformer_release, ``libs/datasets/thumos14.py``)
puts a second t at ``(t * fps - 0.5 * num_frames) / feat_stride`` on its grid of features; OpenTAD
(https://github.com/sming256/OpenTAD, ``opentad/datasets/epic_kitchens.py``) at ``(int(t * fps) - offset_frames) /
feature_stride``, with whole numbers in both places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Self

__all__ = ["FeatureClock"]

LEAST_TICKS: Final = 25
"""A second: OpenTAD rounds the borders of true segments to ticks, which are then no coarser than frames."""


@dataclass(frozen=True, kw_only=True)
class FeatureClock:
    """How the features of a video lie in time.

    Attributes:
        fps: Ticks per second.
        feature_stride: Ticks from one feature to the next.
        num_frames: Ticks of a window; even.
    """

    fps: float
    feature_stride: int
    num_frames: int

    @classmethod
    def of(
        cls, *, window_seconds: float, num_frames: int, stride_steps: int, ticks_per_step: int | None = None
    ) -> Self:
        """The clock of windows.

        Args:
            window_seconds: Length of a window.
            num_frames: T, the steps of a window.
            stride_steps: From one window to the next.
            ticks_per_step: At least so many; None: so many that there are 25 a second.

        >>> FeatureClock.of(window_seconds=1.0, num_frames=8, stride_steps=2)
        FeatureClock(fps=32.0, feature_stride=8, num_frames=32)
        >>> FeatureClock.of(window_seconds=1.28, num_frames=16, stride_steps=4, ticks_per_step=2).fps  # 25 a second
        25.0
        """
        ticks = ticks_per_step or max(1, math.ceil(LEAST_TICKS * window_seconds / num_frames - 1e-9))
        ticks += ticks * num_frames % 2 and (ticks if ticks_per_step else 1)  # half a window is whole ticks
        return cls(
            fps=ticks * num_frames / window_seconds,
            feature_stride=ticks * stride_steps,
            num_frames=ticks * num_frames,
        )

    @property
    def offset_frames(self) -> int:
        """Ticks from the start of the video to the middle of the first window."""
        return self.num_frames // 2

    def seconds(self, index: int) -> float:
        """The middle of a window.

        >>> FeatureClock(fps=32.0, feature_stride=8, num_frames=32).seconds(2)
        1.0
        """
        return (self.feature_stride * index + self.offset_frames) / self.fps

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the names that the tools have for them."""
        return {
            "fps": self.fps,
            "feature_stride": self.feature_stride,
            "num_frames": self.num_frames,
            "offset_frames": self.offset_frames,
        }
