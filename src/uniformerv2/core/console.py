"""Where a command prints: consoles that a name cannot control, and how far a long run is.

Progress is a moving bar on a terminal, or one line that is written anew where something else may draw a bar, and lines
elsewhere; all on stderr, and never silent for long.
"""

from __future__ import annotations

import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Final, Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar
from rich.segment import Segment
from rich.text import Text

from uniformerv2.core.messages import duration, pace, time_left
from uniformerv2.core.terminal import harmless

__all__ = ["EVERY_SECONDS", "Progress", "Ticker", "WordsColumn", "can_draw", "make_console", "telling", "write_line"]

EVERY_SECONDS: Final = 2.0
MOST_SECONDS: Final = 30.0
SHARE: Final = 30
"""Between two lines lie 2 seconds in the first minute, later a thirtieth of what has passed, half a minute at most."""
LOOK_SECONDS: Final = 0.1
IN_PLACE_SECONDS: Final = 1.0
"""Between two writings of a terminal's line."""
CLEAR: Final = "\r\x1b[2K"
LEAST_MEASURED: Final = 2
"""So many must be done after the first before a rate is told."""
ONE_RUN_SECONDS: Final = 10.0
"""What was said no longer ago was said by the stage before, and its silence counts."""


class HarmlessConsole(Console):
    """A console whose colours are ours: sequences in a name, a path or a message are shown, not obeyed."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As ``Console.render_str``, before widths are measured."""
        return super().render_str(harmless(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As ``Console.render``; also what came as ``Text``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))

    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends quietly when nobody reads on.

        Raises:
            BrokenPipeError: Always.
        """
        self.quiet = True
        raise BrokenPipeError


def make_console(*, stderr: bool = False, quiet: bool = False, width: int = 10_000) -> Console:
    """A console that cuts nothing off when its output goes to a file or a pipe.

    Args:
        stderr: Print there instead of stdout.
        quiet: Print nothing.
        width: Columns where there is no terminal.
    """
    console = HarmlessConsole(stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True)
    if console.is_terminal:
        return console
    return HarmlessConsole(stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True, width=width)


def write_line(text: str) -> None:
    """Write a line to stdout at once: who reads a pipe waits for no buffer, and a stopped run leaves whole lines."""
    sys.stdout.write(f"{harmless(text)}\n")
    sys.stdout.flush()


def can_draw(console: Console) -> bool:
    """Whether a bar can be drawn: on a terminal that moves its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


class WordsColumn(ProgressColumn):
    """Words of a bar that are asked for at each drawing, as a time that is left goes on to shrink.

    Args:
        words: What is to be said now.
    """

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: Task) -> Text:
        """The words of now."""
        return Text(self._words())


class Ticker:
    """Writes a line whenever none was written for a while, from a thread of its own, as one step may take long.

    On a terminal the line takes the place of the one before, and goes at the end.

    Args:
        line: What is to be said now.
        every_seconds: Between two lines at first.
    """

    _last_said: ClassVar[float] = -math.inf

    def __init__(self, line: Callable[[], str], *, every_seconds: float = EVERY_SECONDS) -> None:
        self._line = line
        self._every_seconds = every_seconds
        self._start = self._spoke = time.monotonic()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._is_in_place = self._is_written = False
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin to write lines."""
        now = self._start = time.monotonic()
        self._is_in_place = sys.stderr.isatty() and can_draw(Console(stderr=True))
        self._spoke = Ticker._last_said if now - Ticker._last_said < ONE_RUN_SECONDS else now
        self._thread.start()

    def stop(self) -> None:
        """No line comes after it; stopping twice is harmless."""
        self._end.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            if self._is_written:
                self._is_written = False
                sys.stderr.write(CLEAR)
                sys.stderr.flush()

    def said(self) -> None:
        """Note that something was written."""
        self._spoke = Ticker._last_said = time.monotonic()

    def tick(self) -> None:
        """Write a line where one is due."""
        with self._lock:
            now = time.monotonic()
            gap = max(self._every_seconds, min(MOST_SECONDS, (now - self._start) / SHARE))
            if self._is_written:
                gap = min(gap, IN_PLACE_SECONDS)
            if now - self._spoke < gap or self._end.is_set():
                return
            self.said()
            if self._is_in_place:  # the cursor stays in front: what else is written takes the line
                columns = shutil.get_terminal_size().columns
                sys.stderr.write(f"{CLEAR}{self._line()[: columns - 1]}\r")
                sys.stderr.flush()
                self._is_written = True
            else:
                sys.stderr.write(f"{self._line()}\n")

    def _run(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            self.tick()


class Progress:
    """Count what is done, or show that something is. Use it with ``with``.

    Args:
        what: What is done, the word in front.
        total: How many there are; None where there is nothing to count.
        done: How many of these were done in an earlier run; they do not count for the rate.
        every_seconds: Between two lines at first, where stderr is no terminal.
        has_bar: False: a line on a terminal, where something else may draw a bar meanwhile.
        is_quiet: Show nothing.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        done: int = 0,
        every_seconds: float = EVERY_SECONDS,
        has_bar: bool = True,
        is_quiet: bool = False,
    ) -> None:
        self._what = what
        self._is_quiet = is_quiet
        self._total = total
        self._done = done
        self._num_bad = 0
        self._start = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._last = self._start
        self._ticker = Ticker(self._line, every_seconds=every_seconds)
        self._bar: Bar | None = None
        console = Console(stderr=True)
        if has_bar and can_draw(console) and not is_quiet:
            columns: tuple[Any, ...] = (SpinnerColumn(), TextColumn("{task.description}"))
            if total is not None:
                columns += (BarColumn(), MofNCompleteColumn(), WordsColumn(self._rate))
            self._bar = Bar(*columns, TimeElapsedColumn(), console=console, transient=True)
            self._task = self._bar.add_task(what, total=total, completed=done)

    def advance(self, count: int = 1, *, is_bad: bool = False) -> None:
        """So many more are done."""
        self._done += count
        self._num_bad += is_bad
        self._last = time.monotonic()
        self._first = self._first or (self._last, self._done)
        if self._bar is not None:
            self._bar.update(self._task, advance=count)
        elif not self._is_quiet:
            self._ticker.tick()

    def _line(self) -> str:
        if self._total is None:
            return f"{self._what}: {duration(time.monotonic() - self._start)} so far"
        rate = self._rate() or f"{duration(time.monotonic() - self._start)} so far"
        return f"{self._what}: {self._done} of {self._total}, {rate}"

    def _rate(self) -> str:
        """From the first that was done on: before it lies what is done once, such as to start processes.

        What is left shrinks while the next one is under way, and grows where that one takes longer than the others::

            first            last        now
              |----|----|------|----------|          (last - first) / 3 each, or (now - first) / 4 where that is more
        """
        when, count = self._first or (0.0, self._done)
        bad = [f"{self._num_bad} bad"] if self._num_bad else []
        num = self._done - count
        if num < LEAST_MEASURED or self._total is None:
            return ", ".join(bad)
        now, more = time.monotonic(), self._total - self._done
        each = max((self._last - when) / num, (now - when) / (num + 1), 1e-9)
        left = [(more - 1) * each + max(0.0, each - (now - self._last))] if more > 0 else []
        return ", ".join([pace(each), *bad, *map(time_left, left)])

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        elif not self._is_quiet:
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._ticker.stop()


@contextmanager
def telling(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress of something whose size is known when its first step is done.

    Args:
        what: What is done, the word in front.

    Yields:
        What is told, after each step, how many are done and of how many.
    """
    with ExitStack() as stack:
        progress: Progress | None = None

        def tell(_done: int, total: int) -> None:
            nonlocal progress
            progress = progress or stack.enter_context(Progress(what, total))
            progress.advance()

        yield tell
