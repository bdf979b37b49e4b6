"""``FrameIndex``: the place of each frame in a file; those of long videos are kept by this process."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import BinaryIO, Final

__all__ = ["INDEXES", "FrameIndex", "IndexCache", "timed_index"]

LEAST_FRAMES: Final = 1000
"""The index of a shorter video is made faster than it is worth keeping."""
MOST_FRAMES: Final = 2**19
"""All that are kept together: 50 MB. The one that was not asked for longest goes first."""

Identity = tuple[int, int, int, int]


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


class IndexCache:
    """Indexes by the identity of an open file: device, inode, size, and when it was changed.

    A worker of the loader opens the same files in every epoch, and clips, thumbnails and windows of one film open it
    several times.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Identity, FrameIndex] = OrderedDict()
        self._num_frames = 0
        self._lock = Lock()

    def get(self, file: BinaryIO) -> FrameIndex | None:
        """The index of a file as it now is; None where none is kept."""
        with self._lock:
            key = _identity(file)
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, file: BinaryIO, index: FrameIndex) -> None:
        """Keep an index, where it is worth it and fits."""
        if not LEAST_FRAMES <= len(index) <= MOST_FRAMES:
            return
        with self._lock:
            key = _identity(file)
            if key in self._kept:
                return
            self._kept[key] = index
            self._num_frames += len(index)
            while self._num_frames > MOST_FRAMES:
                _, oldest = self._kept.popitem(last=False)
                self._num_frames -= len(oldest)


def _identity(file: BinaryIO) -> Identity:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


INDEXES: Final = IndexCache()
"""Of the long videos that this process opened last."""
