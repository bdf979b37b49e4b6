"""What is told of a source that is watched: states and actions, as values and as lines of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from uniformerv2.live.link import State
from uniformerv2.live.tracker import ActionKind

__all__ = ["ActionEvent", "StateEvent", "WatchEvent"]


@dataclass(frozen=True, kw_only=True)
class StateEvent:
    """A state of the source begins.

    Attributes:
        source: What is watched, without passwords and tokens.
        state: The new state.
        reason: Why; empty where there is nothing to say.
        wait_seconds: Until the next try to connect; None in other states.
        time: Seconds since 1970.
        dropped_frames: Frames that came too fast to be looked at, since the beginning.
    """

    source: str
    state: State
    reason: str
    wait_seconds: float | None
    time: float
    dropped_frames: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        wait = None if self.wait_seconds is None else round(self.wait_seconds, 3)
        return {
            "event": "state",
            "state": self.state,
            "reason": self.reason,
            "wait_seconds": wait,
            "source": self.source,
            "time": _iso(self.time),
            "dropped_frames": self.dropped_frames,
        }

    def to_json(self) -> str:
        """One line of JSON."""
        return _line(self.to_dict())


@dataclass(frozen=True, kw_only=True)
class ActionEvent:
    """An action begins, goes on or ends.

    Attributes:
        source: What is watched, without passwords and tokens.
        kind: Which of these.
        number: The same for all events of one action.
        label: Name of the class.
        index: Its number.
        score: The mean of its scores so far, 0 to 1.
        start_seconds: When it began, from the first frame that was watched.
        end_seconds: Up to when it was seen.
        start_time: Likewise, in seconds since 1970; None for a file, which does not tell when it was made.
        end_time: Likewise.
        latency_seconds: From the arrival of the last frame that was looked at to this event.
        dropped_frames: Frames that came too fast to be looked at, since the beginning.
    """

    source: str
    kind: ActionKind
    number: int
    label: str
    index: int
    score: float
    start_seconds: float
    end_seconds: float
    start_time: float | None
    end_time: float | None
    latency_seconds: float
    dropped_frames: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "event": self.kind,
            "id": self.number,
            "label": self.label,
            "index": self.index,
            "score": round(self.score, 6),
            "start_seconds": round(self.start_seconds, 3),
            "end_seconds": round(self.end_seconds, 3),
            "start_time": _iso(self.start_time),
            "end_time": _iso(self.end_time),
            "latency_seconds": round(self.latency_seconds, 3),
            "source": self.source,
            "dropped_frames": self.dropped_frames,
        }

    def to_json(self) -> str:
        """One line of JSON."""
        return _line(self.to_dict())


WatchEvent = StateEvent | ActionEvent


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def _iso(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
