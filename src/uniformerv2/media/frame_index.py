"""``FrameIndex``: the place of each frame in a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

__all__ = ["FrameIndex", "timed_index"]


@dataclass(frozen=True)
class FrameIndex:
    """The place of each frame in the file.

    Attributes:
        keys: One number per frame in presentation order, strictly increasing: its timestamp in ticks of the stream
            where ``timed``, else simply 0, 1, 2, ...
        times: The timestamp of each frame in ticks, strictly increasing; empty where the file does not tell them.
        seek_points: Keys at which decoding can start, increasing; the first is at or before the first frame.
        keyframes: Frame numbers at which decoding can start.
        timed: The packets' timestamps identify the frames. Otherwise frames are found by counting from the start.
    """

    keys: tuple[int, ...]
    times: tuple[int, ...]
    seek_points: tuple[int, ...]
    keyframes: tuple[int, ...]
    timed: bool

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def gop_length(self) -> int:
        """The longest run of frames from one keyframe to the next."""
        bounds = sorted({0, *self.keyframes, len(self.keys)})
        return max(after - before for before, after in pairwise(bounds))

    @cached_property
    def constant_rate(self) -> bool:
        """Steps between timestamps differ by no more than the rounding to ticks."""
        steps = [after - before for before, after in pairwise(self.times)]
        return not steps or max(steps) - min(steps) <= 1


def timed_index(shown: list[int | None], seek_points: set[int]) -> FrameIndex | None:
    """The index of frames that are shown at these times; None where the times do not identify them."""
    keys = sorted({pts for pts in shown if pts is not None})
    if not keys or not seek_points or min(seek_points) > keys[0] or len(keys) < len(shown):
        return None
    keyframes = tuple(number for number, key in enumerate(keys) if key in seek_points)
    return FrameIndex(tuple(keys), tuple(keys), tuple(sorted(seek_points)), keyframes, timed=True)
