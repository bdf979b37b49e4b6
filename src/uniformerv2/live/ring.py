"""FrameRing: what a reader hands over to the one who computes, bounded."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, Protocol, TypeVar

__all__ = ["FrameRing"]


class _Counted(Protocol):
    """What goes through a ring: how many frames it stands for."""

    @property
    def num_frames(self) -> int:
        """1 for a frame, 0 for what is said between frames."""
        ...


Item = TypeVar("Item", bound=_Counted)


class FrameRing(Generic[Item]):
    """Frames between two threads.

    Args:
        size: Frames that it holds.

    Attributes:
        num_dropped: Frames that went, since the beginning.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Item] = deque()
        self._num_frames = 0
        self._condition = Condition()
        self.num_dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item, *, drops: bool, timeout: float) -> bool:
        """Hand an item over.

        Args:
            item: A frame, or what is said between frames, which never goes.
            drops: Live: where it is full the oldest frame goes. Otherwise this waits for room.
            timeout: Seconds to wait for room.

        Returns:
            Whether it is handed over; False: there was no room.
        """
        with self._condition:
            if self._num_frames + item.num_frames > self._size and item.num_frames:
                if drops:
                    self._drop_oldest()
                elif not self._condition.wait_for(lambda: self._num_frames < self._size, timeout):
                    return False
            self._items.append(item)
            self._num_frames += item.num_frames
            self._condition.notify_all()
            return True

    def take(self, most: int, *, timeout: float) -> list[Item]:
        """What is there, the oldest first; nothing where nothing came.

        Args:
            most: Items.
            timeout: Seconds to wait for one.
        """
        with self._condition:
            self._condition.wait_for(lambda: bool(self._items), timeout)
            found = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._num_frames -= sum(item.num_frames for item in found)
            self._condition.notify_all()
            return found

    def _drop_oldest(self) -> None:
        place = next(place for place, item in enumerate(self._items) if item.num_frames)
        self._num_frames -= self._items[place].num_frames
        self.num_dropped += self._items[place].num_frames
        del self._items[place]
