"""One answer of a server, watched: it gives enough bytes in time, and sends us nowhere else than to https.

A timeout of a socket begins anew with each byte, so that a server that sends one now and then never ends. Here a thread
counts what arrives, headers included, and hangs up.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self
from urllib.parse import urljoin, urlsplit

from uniformerv2.core.terminal import without_credentials

__all__ = ["RedirectionError", "Watch", "opened"]

SLOWEST: Final = 1024
"""Bytes a second; a file of 350 MB would take four days."""

MOST_REDIRECTIONS: Final = 5
REDIRECTIONS: Final = frozenset({301, 302, 303, 307, 308})


class RedirectionError(Exception):
    """A server sends us to where we do not go."""


class Watch:
    """Hangs up where a connection gives too little or lasts too long. Use it with ``with``.

    Args:
        window_seconds: In each such time it must give ``SLOWEST`` bytes a second.
        deadline: When it has to be done, on the clock of ``time.monotonic``.

    Attributes:
        arrived: Bytes of the body so far; counted by who reads them.
        reason: Why it hung up; empty where it did not.
    """

    def __init__(self, *, window_seconds: float, deadline: float) -> None:
        self.arrived = 0
        self.reason = ""
        self.is_late = False
        self.sock: socket.socket | None = None
        self._window_seconds = window_seconds
        self._deadline = deadline
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="download watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        before = 0
        while not self._done.wait(max(0.0, min(self._window_seconds, self._deadline - time.monotonic()))):
            if time.monotonic() >= self._deadline:
                self.is_late, self.reason = True, "it takes too long"
            elif self.arrived - before < SLOWEST * self._window_seconds:
                self.reason = f"fewer than {SLOWEST} bytes a second came in {self._window_seconds:g} seconds"
            before = self.arrived
            if self.reason:
                break
        while self.reason and not self._done.wait(0.05):  # again, as a redirection opens another connection
            if self.sock is not None:
                try:
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # who reads finds the end; TLS is not asked
                except OSError:
                    continue


class _Http(http.client.HTTPConnection):
    watch: Watch

    def connect(self) -> None:
        super().connect()
        self.watch.sock = self.sock


class _Https(http.client.HTTPSConnection):
    watch: Watch

    def connect(self) -> None:
        super().connect()
        self.watch.sock = self.sock


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._kind: Any = type("_WatchedHttp", (_Http,), {"watch": watch})

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._kind, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._kind: Any = type("_WatchedHttps", (_Https,), {"watch": watch})

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._kind, req, context=ssl.create_default_context())


@contextmanager
def opened(
    url: str, headers: Mapping[str, str], *, watch: Watch, timeout_seconds: float
) -> Iterator[http.client.HTTPResponse]:
    """The answer of a server, after redirections, whose own bodies are not read.

    Args:
        url: An http or https address.
        headers: Headers of the request.
        watch: Hangs up.
        timeout_seconds: Silence after which the connection counts as broken.

    Raises:
        ConnectionError: It was hung up in the middle of a redirection.
        HTTPError: The server answered with a failure.
        RedirectionError: It sends us to where we do not go, or on and on.
    """
    opener = _opener(watch)
    for _ in range(1 + MOST_REDIRECTIONS):
        request = urllib.request.Request(url, headers=dict(headers))
        try:
            response: Any = opener.open(request, timeout=timeout_seconds)
        except urllib.error.HTTPError as error:
            if error.code not in REDIRECTIONS:
                raise
            error.close()
            if watch.reason:
                raise ConnectionError(watch.reason) from error
            url = _next(url, error.headers.get("Location", ""))
            continue
        with response:
            yield response
        return
    raise RedirectionError(f"sends us on more than {MOST_REDIRECTIONS} times")


def _next(url: str, location: str) -> str:
    """Where a server sends us.

    Raises:
        RedirectionError: Not to https. Between two servers on this machine http is enough.
    """
    there = urljoin(url, location)
    try:
        target, source = urlsplit(there), urlsplit(url)
        is_local = target.scheme == "http" and _is_loopback(target.hostname) and _is_loopback(source.hostname)
        if target.hostname and (target.scheme == "https" or is_local) and target.username is None:
            return there
    except ValueError:  # no address at all
        pass
    raise RedirectionError(f"sends us to {without_credentials(there)!r}, which is no https address")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _opener(watch: Watch) -> urllib.request.OpenerDirector:
    """The schemes http and https through the environment's proxies; no ftp, file or data, and no redirections."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _HttpHandler(watch),
        _HttpsHandler(watch),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
