r"""EventTracker: from the scores of one window after the other to actions that begin, go on and end, while they happen.

::

    on     - - - - - /\ - - - - - - - -    a class begins when its score reaches ``on`` ...
    off    - - - - -/- \ - - - - - - - -    ... from where it last rose above ``off``, and lasts while it is above
           ________/    \_____________
    told            [ new   end            ``new`` after min_seconds, ``end`` after merge_seconds without it

Letters of this file: K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from uniformerv2.live.options import EventRules

__all__ = ["Action", "ActionKind", "EventTracker"]

ActionKind = Literal["new", "update", "end"]
ROUNDING: float = 1e-6


@dataclass(frozen=True)
class Action:
    """What is told of an action.

    Attributes:
        kind: It has begun, it goes on, it has ended.
        number: The same for all that is told of one action.
        index: Number of the class.
        score: The mean of its scores so far.
        start_seconds: When it began.
        end_seconds: Up to when it was seen.
    """

    kind: ActionKind
    number: int
    index: int
    score: float
    start_seconds: float
    end_seconds: float


@dataclass
class _Track:
    """An action that is seen: not told of while it has no number."""

    index: int
    start: float
    end: float
    total: float
    count: int
    number: int | None = None
    told: float = 0.0

    def say(self, kind: ActionKind) -> Action:
        assert self.number is not None
        self.told = self.end
        return Action(kind, self.number, self.index, self.total / self.count, self.start, self.end)


class EventTracker:
    """Follows the actions of one source.

    Args:
        num_classes: K.
        rules: See there.
        is_multi_label: Several classes may be right at once. Otherwise the best of those that are on is, and one action
            ends when another is told.
    """

    def __init__(self, num_classes: int, rules: EventRules, *, is_multi_label: bool) -> None:
        self._rules = rules
        self._is_multi_label = is_multi_label
        self._is_high = np.zeros(num_classes, bool)
        self._is_on = np.zeros(num_classes, bool)
        self._rise = np.zeros(num_classes)
        self._totals, self._counts = np.zeros(num_classes), np.zeros(num_classes, int)
        self._ends: dict[int, float] = {}
        self._tracks: dict[int, _Track] = {}
        self._numbers = count(1)

    @property
    def open_classes(self) -> tuple[int, ...]:
        """The classes of the actions that were told and have not ended."""
        return tuple(index for index, track in self._tracks.items() if track.number is not None)

    def see(self, start: float, end: float, scores: NDArray[np.float32]) -> list[Action]:
        """Take the scores of the next stretch of time.

        Args:
            start: Seconds; where the stretch before ended, or later.
            end: Seconds.
            scores: [K].

        Returns:
            What is to be told now: first what ended.
        """
        self._follow(start, scores)
        found: list[Action] = []
        seen = self._seen(scores)
        for index in seen:
            track = self._tracks.get(index)
            if track is None:
                track = self._tracks[index] = self._begin(index, start, float(scores[index]))
            else:
                track.total, track.count = track.total + float(scores[index]), track.count + 1
            track.end = self._ends[index] = end
            if track.number is not None and not self._is_multi_label:  # what came between was a moment of it
                self._tracks = {key: one for key, one in self._tracks.items() if one is track or one.number is not None}
        for track in [track for index, track in self._tracks.items() if index not in seen]:
            if end - track.end >= self._rules.merge_seconds - ROUNDING:
                found.extend(self._end(track))
        for index in seen:
            found.extend(self._tell(self._tracks[index]))
        return found

    def finish(self) -> list[Action]:
        """End what has not ended: the source has, or is lost."""
        found = [action for track in list(self._tracks.values()) for action in self._end(track)]
        self._is_high[:] = self._is_on[:] = False
        self._ends.clear()
        return found

    def _follow(self, start: float, scores: NDArray[np.float32]) -> None:
        """Which classes are above ``off``, since when, with which scores, and which of them reached ``on``."""
        is_high = scores >= self._rules.off
        begins = is_high & ~self._is_high
        self._rise[begins], self._totals[begins], self._counts[begins] = start, 0.0, 0
        self._totals += scores
        self._counts += 1
        self._is_on = is_high & (self._is_on | (scores >= self._rules.on))
        self._is_high = is_high

    def _seen(self, scores: NDArray[np.float32]) -> list[int]:
        if self._is_multi_label or not self._is_on.any():
            return [int(index) for index in np.flatnonzero(self._is_on)]
        return [int(np.where(self._is_on, scores, -1.0).argmax())]

    def _begin(self, index: int, start: float, score: float) -> _Track:
        """From where the score rose above ``off``; not from before another class was the best."""
        others = (end for other, end in self._ends.items() if other != index)
        free_from = -np.inf if self._is_multi_label else max(others, default=-np.inf)
        rise = float(self._rise[index])
        if rise >= free_from - ROUNDING:
            return _Track(index, rise, start, float(self._totals[index]), int(self._counts[index]))
        return _Track(index, min(float(free_from), start), start, score, 1)

    def _tell(self, track: _Track) -> Iterator[Action]:
        if track.number is not None:
            if track.end - track.told >= self._rules.update_seconds - ROUNDING:
                yield track.say("update")
            return
        if track.end - track.start < self._rules.min_seconds - ROUNDING:
            return
        if not self._is_multi_label:
            for other in [other for other in self._tracks.values() if other is not track]:
                yield from self._end(other)
        track.number = next(self._numbers)
        yield track.say("new")

    def _end(self, track: _Track) -> Iterator[Action]:
        del self._tracks[track.index]
        if track.number is not None:
            yield track.say("end")
