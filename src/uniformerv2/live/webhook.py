"""Webhook: events as JSON to an address of one's own; it never holds up the watching.

``http.client`` follows no redirect and asks no proxy. The address may be a secret as a whole (many services put a token
into the path): messages name the host alone.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR
from threading import Condition, Thread, Timer
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from uniformerv2.core.terminal import harmless

__all__ = ["Webhook", "check_webhook"]

SIZE: Final = 100
TRIES: Final = 3
FIRST_WAIT: Final = 0.5
SECONDS: Final = 5.0
AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which another try may help."""


def check_webhook(address: str) -> SplitResult:
    """The parts of an address that events may be sent to.

    Raises:
        ValueError: It is no HTTP address, or names no host.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("webhook takes an address of the form https://host/path, and this is none.")
    if any(ord(letter) <= 32 or ord(letter) > 126 for letter in address):
        raise ValueError("webhook takes an address of plain ASCII without blanks: write others as %20 and the like.")
    return parts


class Webhook:
    """Sends events one after the other, from a thread of its own.

    Args:
        address: ``http`` or ``https``; ``user:password@`` becomes a header.
        seconds: How long one try may take, from the connection to the answer.
        first_wait: Seconds before the second try; before the third it is twice as long.
        tell: Called with a sentence when sending begins to fail, and when it works again.

    Attributes:
        num_sent: Events that were taken.
        num_lost: Events that were not, or that waited too long.

    Raises:
        ValueError: The address is none.
    """

    def __init__(
        self,
        address: str,
        *,
        seconds: float = SECONDS,
        first_wait: float = FIRST_WAIT,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._parts = check_webhook(address)
        self._seconds, self._first_wait, self._tell = seconds, first_wait, tell
        self._events: deque[bytes] = deque()
        self._is_busy = self._is_closing = self._is_failing = False
        self._condition = Condition()
        self.num_sent = self.num_lost = 0
        Thread(target=self._run, name="webhook", daemon=True).start()

    @property
    def shown(self) -> str:
        """The host, for messages."""
        return harmless(f"{self._parts.scheme}://{self._parts.hostname}")

    def send(self, event: Mapping[str, Any]) -> None:
        """Send an event soon; where a hundred wait the oldest is lost."""
        body = json.dumps(event, ensure_ascii=False, allow_nan=False).encode()
        with self._condition:
            if len(self._events) >= SIZE:
                self._events.popleft()
                self.num_lost += 1
            self._events.append(body)
            self._condition.notify_all()

    def close(self, *, seconds: float = 2.0) -> None:
        """Wait until everything is sent, but not longer than this; what is left is lost."""
        end = time.monotonic() + seconds
        with self._condition:
            self._condition.wait_for(lambda: not self._events and not self._is_busy, max(0.0, end - time.monotonic()))
            self.num_lost += len(self._events) + self._is_busy
            self._events.clear()
            self._is_closing = True
            self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._events or self._is_closing)
                if self._is_closing:
                    return
                body, self._is_busy = self._events.popleft(), True
            problem = self._delivered(body)
            with self._condition:
                self._is_busy = False
                if not self._is_closing:
                    self.num_sent, self.num_lost = self.num_sent + (not problem), self.num_lost + bool(problem)
                self._condition.notify_all()
            if bool(problem) != self._is_failing:
                self._is_failing = bool(problem)
                self._tell(f"{self.shown} does not take events: {problem}" if problem else f"{self.shown} takes events")

    def _delivered(self, body: bytes) -> str:
        """Why not; empty where it was."""
        problem = ""
        for number in range(TRIES):
            if number:
                with self._condition:
                    if self._condition.wait_for(lambda: self._is_closing, self._first_wait * 2 ** (number - 1)):
                        break
            try:
                status = self._post(body)
            except (OSError, HTTPException) as error:
                problem = str(getattr(error, "strerror", None) or type(error).__name__)
                continue
            if 200 <= status < 300:
                return ""
            problem = f"it answers {status}"
            if status not in AGAIN:
                break
        return problem

    def _post(self, body: bytes) -> int:
        parts = self._parts
        assert parts.hostname is not None
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection: HTTPConnection = HTTPSConnection(
                parts.hostname, parts.port, timeout=self._seconds, context=context
            )
        else:
            connection = HTTPConnection(parts.hostname, parts.port, timeout=self._seconds)
        headers = {"Content-Type": "application/json", "User-Agent": "uniformerv2", "Connection": "close"}
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
        timer = Timer(self._seconds, _hang_up, [connection])  # a time-out of a socket begins anew with each byte
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
            return connection.getresponse().status
        finally:
            timer.cancel()
            connection.close()


def _hang_up(connection: HTTPConnection) -> None:
    try:
        if connection.sock is not None:
            connection.sock.shutdown(SHUT_RDWR)
    except OSError:
        pass  # it was closed meanwhile
