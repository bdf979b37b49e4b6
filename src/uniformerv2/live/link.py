"""Link: the connection to a source, from its first try to its end: states, a watchdog, tries with growing waits.

::

    connecting --> running <--> stalled --> reconnecting --> connecting ...
        |             |                          |
        +-------------+--- ended, failed, stopped +

It owns no thread and no clock: ``look`` says what changed, whenever it is asked.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from uniformerv2.live.options import LinkRules
from uniformerv2.media.live_stream import SourceError

__all__ = ["FINAL", "Attempt", "Change", "Link", "State"]

State = Literal["connecting", "running", "stalled", "reconnecting", "ended", "stopped", "failed"]
FINAL: Final = frozenset({"ended", "stopped", "failed"})
FIRST_WAIT: Final = 0.5
STEADY_SECONDS: Final = 5.0
"""A connection that held so long was a good one: the waits begin anew."""
MOST_LEFT: Final = 4
"""Threads that hang in a source and were left behind; while there are so many no other is started."""


class Attempt(Protocol):
    """One try to read a source, in a thread of its own."""

    @property
    def last_frame_at(self) -> float | None:
        """By the clock of the link; None: no frame came yet."""
        ...

    @property
    def is_over(self) -> bool:
        """Its thread has ended."""
        ...

    @property
    def error(self) -> SourceError | None:
        """Why it broke off; None: at the end of the source."""
        ...

    @property
    def has_end(self) -> bool:
        """The source says of itself that it ends."""
        ...

    def cancel(self) -> None:
        """Nothing of it counts from now on; its thread ends as soon as it can."""
        ...


@dataclass(frozen=True)
class Change:
    """A state that begins.

    Attributes:
        state: The new one.
        reason: Why; empty where there is nothing to say.
        wait_seconds: Until the next try.
    """

    state: State
    reason: str = ""
    wait_seconds: float | None = None


class Link:
    """Keeps a source connected.

    Args:
        start: Begins a try.
        rules: See there.
        is_live: A source that goes on by itself is taken up again; a file or a pipe is not, and may be silent.
        clock: Seconds that never go back.
        draw: A random number from 0 to 1, for the waits.

    Attributes:
        state: The present one.
        num_tries: Tries that failed one after the other.
    """

    def __init__(
        self,
        start: Callable[[], Attempt],
        rules: LinkRules,
        *,
        is_live: bool,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._start, self._rules, self._is_live, self._clock, self._draw = start, rules, is_live, clock, draw
        self._attempt: Attempt | None = None
        self._left: list[Attempt] = []
        self._begun_at = self._next_at = clock()
        self._runs_since: float | None = None
        self.state: State = "connecting"
        self.num_tries = 0

    def look(self, *, is_drained: bool) -> Iterator[Change]:
        """What changed since the last look.

        Args:
            is_drained: Everything that was read is computed; before that a source has not ended.

        Yields:
            The states that began.
        """
        if self.state in FINAL:
            return
        now, attempt = self._clock(), self._attempt
        if attempt is None:
            self._left = [one for one in self._left if not one.is_over]
            if now >= self._next_at and len(self._left) < MOST_LEFT:
                self._attempt, self._begun_at, self._runs_since = self._start(), now, None
                yield self._change("connecting")
            return
        last = attempt.last_frame_at
        if last is not None and self.state in {"connecting", "stalled"} and now - last <= self._rules.stall_seconds:
            self._runs_since = now if self._runs_since is None else self._runs_since
            yield self._change("running")
        if attempt.is_over:
            if is_drained:
                yield self._over(attempt)
        elif last is None:
            if self._is_live and now - self._begun_at > 2 * self._rules.open_seconds:
                yield self._lost(f"no frame came in {2 * self._rules.open_seconds:g} s")
        elif self._is_live and now - last > self._rules.give_up_seconds:
            yield self._lost(f"no frame came for {self._rules.give_up_seconds:g} s")
        elif self.state == "running" and now - last > self._rules.stall_seconds:
            yield self._change("stalled", f"no frame came for {self._rules.stall_seconds:g} s")

    def stop(self) -> Change:
        """End now, whatever the state is."""
        self.close()
        return self._change("stopped")

    def fail(self, reason: str) -> Change:
        """End now, as what came cannot be computed."""
        self.close()
        return self._change("failed", reason)

    def close(self) -> None:
        """Cancel the present try; closing twice is harmless."""
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None

    def _change(self, state: State, reason: str = "", wait_seconds: float | None = None) -> Change:
        self.state = state
        return Change(state, reason, wait_seconds)

    def _over(self, attempt: Attempt) -> Change:
        error = attempt.error
        if error is None and (attempt.has_end or not self._is_live):
            self.close()
            return self._change("ended")
        if error is not None and (error.is_final or not self._is_live):
            return self.fail(error.reason)
        return self._lost("the source ended" if error is None else error.reason)

    def _lost(self, reason: str) -> Change:
        attempt, now = self._attempt, self._clock()
        self.close()
        if attempt is not None and not attempt.is_over:
            self._left.append(attempt)
        if self._runs_since is not None and now - self._runs_since >= STEADY_SECONDS:
            self.num_tries = 0
        self.num_tries += 1
        if self._rules.retries is not None and self.num_tries > self._rules.retries:
            return self._change("failed", reason)
        wait = min(self._rules.max_wait, FIRST_WAIT * 2.0 ** min(self.num_tries - 1, 30)) * (0.5 + 0.5 * self._draw())
        self._next_at = now + wait
        return self._change("reconnecting", reason, wait)
