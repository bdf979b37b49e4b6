"""How far a long run is: a bar on a terminal, a line now and then elsewhere. Both on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

__all__ = ["Progress"]


class Progress:
    """Count videos as they are done. Use it with ``with``.

    Args:
        what: What is done to them, the word in front.
        total: How many there are.
        done: How many of these were done in an earlier run; they do not count for the rate.
        every_seconds: Between two lines where stderr is no terminal.
    """

    def __init__(self, what: str, total: int, *, done: int = 0, every_seconds: float = 10.0) -> None:
        self._what = what
        self._total = total
        self._before = self._done = done
        self._num_bad = 0
        self._every_seconds = every_seconds
        self._start = self._spoke = time.monotonic()
        self._bar: Bar | None = None
        console = Console(stderr=True)
        if console.is_terminal:
            columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            columns += (TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
            self._bar = Bar(*columns, console=console, transient=True)
            self._task = self._bar.add_task(what, total=total, completed=done, rate="")

    def advance(self, *, is_bad: bool) -> None:
        """One more is done."""
        self._done += 1
        self._num_bad += is_bad
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, advance=1, rate=self._rate(now))
        elif now - self._spoke >= self._every_seconds:
            self._spoke = now
            left = (self._total - self._done) * (now - self._start) / max(1, self._done - self._before)
            words = f"{self._done} of {self._total}, {self._rate(now)}, about {left:.0f} s left"
            sys.stderr.write(f"{self._what}: {words}\n")

    def _rate(self, now: float) -> str:
        rate = (self._done - self._before) / max(now - self._start, 1e-9)
        return f"{rate:.1f} a second" + (f", {self._num_bad} bad" if self._num_bad else "")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
