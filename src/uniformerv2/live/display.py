"""What a person sees of a source that is watched: a few lines that change on a terminal, a line per event elsewhere."""

from __future__ import annotations

import time
from collections import deque
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from uniformerv2.core.console import can_draw
from uniformerv2.live.events import StateEvent, WatchEvent
from uniformerv2.live.windows import SeenWindow

__all__ = ["WatchDisplay", "top_classes"]

SHOWN_CLASSES: Final = 5
SHOWN_EVENTS: Final = 6
BAR: Final = 24
REFRESHED: Final = 4
"""Times a second."""
WORDS: Final = {"new": "begins", "update": "goes on", "end": "has ended"}
COLOURS: Final = {"running": "green", "ended": "green", "stopped": "green", "failed": "red"}


def top_classes(window: SeenWindow, names: tuple[str, ...], *, shown: int) -> list[tuple[str, float]]:
    """Names and scores of the best classes of a window, the best first."""
    best = window.scores.argsort()[::-1][:shown]
    return [(names[index], float(window.scores[index])) for index in best]


class WatchDisplay:
    """Shows states, scores and events. Use it with ``with``.

    Args:
        console: Where.
        class_names: In the order of the scores.
    """

    def __init__(self, console: Console, class_names: tuple[str, ...]) -> None:
        self._console, self._names = console, class_names
        self._state: StateEvent | None = None
        self._window: SeenWindow | None = None
        self._lines: deque[Text] = deque(maxlen=SHOWN_EVENTS)
        is_drawn = can_draw(console)
        self._live = Live(self._view(), console=console, refresh_per_second=REFRESHED) if is_drawn else None

    def window(self, window: SeenWindow) -> None:
        """The newest scores."""
        self._window = window
        self._refresh()

    def event(self, event: WatchEvent) -> None:
        """What happened."""
        line = _line(event)
        if isinstance(event, StateEvent):
            self._state = event
        if self._live is None:
            self._console.print(line)
        else:
            self._lines.append(line)
            self._refresh()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._refresh()
            self._live.stop()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._view())

    def _view(self) -> Group:
        parts: list[Text | Table] = []
        if self._state is not None:
            state, window = self._state, self._window
            head = Text.assemble(state.source, "  ", (state.state, COLOURS.get(state.state, "yellow")))
            if window is not None:
                head.append(f"  {window.end_seconds:.1f} s", "dim")
            if state.dropped_frames:
                head.append(f"  {state.dropped_frames} frames dropped", "dim")
            parts.append(head)
        if self._window is not None:
            table = Table(box=None, show_header=False, padding=(0, 1))
            for name, score in top_classes(self._window, self._names, shown=SHOWN_CLASSES):
                table.add_row(Text(name), Text("\u2588" * round(BAR * score), "blue"), f"{score:.2f}")
            parts.append(table)
        return Group(*parts, *self._lines)


def _line(event: WatchEvent) -> Text:
    if isinstance(event, StateEvent):
        reason = f": {event.reason}" if event.reason else ""
        wait = "" if event.wait_seconds is None else f", next try in {event.wait_seconds:.1f} s"
        clock = time.strftime("%H:%M:%S", time.localtime(event.time))
        return Text(f"{clock}  {event.source} {event.state}{reason}{wait}", "dim")
    clock = "" if event.start_time is None else time.strftime("%H:%M:%S  ", time.localtime(event.start_time))
    times = f"{event.start_seconds:.1f} to {event.end_seconds:.1f} s"
    return Text(f"{clock}{event.label} {WORDS[event.kind]}, {times}, {event.score:.2f}")
