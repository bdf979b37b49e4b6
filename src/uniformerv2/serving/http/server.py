"""serve: predictors at an address, until a signal ends it.

Uvicorn speaks HTTP; ours is what it leaves open: how long a client may take for the head of a request, how many
connections there may be, and a drain that a balancer sees before the address is closed.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from uniformerv2.inference.predictor import Predictor
from uniformerv2.serving.engine import Engine
from uniformerv2.serving.http.app import make_service
from uniformerv2.serving.http.guard import Guard, JSONLines
from uniformerv2.serving.http.metrics import Metrics
from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.own_folder import own_folder

__all__ = ["listen", "serve"]

HEAD_SECONDS: Final = 10.0
"""From the first byte of a connection, or from the last answer on it, to the end of the next head."""
HEAD_BYTES: Final = 2**15
MOST_CONNECTIONS: Final = 512
IGNORED_BYTES: Final = 2**26
"""Of a body that nobody reads, as the answer was there before it; then the connection is cut."""
CLOSE_SECONDS: Final = 2
logger = logging.getLogger("uniformerv2.serving")


class _Connection(H11Protocol):
    """One connection: cut where no request comes in time, where there are too many, or where a body never ends."""

    _timer: asyncio.TimerHandle | None = None
    _num_ignored = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_answered:
            self._num_ignored += len(data)
            if self._num_ignored > IGNORED_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._num_ignored = 0
        self._wait_for_head()
        super().on_response_complete()

    @property
    def _is_answered(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete

    def _wait_for_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._no_head)

    def _no_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class _Server(uvicorn.Server):
    """Ends in two steps: no new work, then, once the rest is done or the time is up, no more connections."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine
        self._drain_end: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain_end is not None:  # a second signal: at once
            self.should_exit = self.force_exit = True
            return
        self._engine.drain()
        self._drain_end = monotonic() + self._engine.options.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if self._drain_end is not None and (not self.server_state.tasks or monotonic() > self._drain_end):
            self.should_exit = True
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """The address of a service, taken before anything slow is done.

    Raises:
        ValueError: It is taken already, or is none of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128, reuse_port=False)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ValueError(
            f"The service cannot listen at {host}, port {port} ({reason}): give another --host or --port."
        ) from error


def serve(
    predictors: Mapping[str, Predictor], *, options: ServeOptions | None = None, address: socket.socket | None = None
) -> None:
    """Serve predictors over HTTP until SIGTERM or Ctrl-C; for the main thread of a process.

    Args:
        predictors: By the name that a request calls them; the first is taken where it calls none.
        options: Where, and the limits.
        address: Of ``listen``; None: that of the options.

    Raises:
        ValueError: The address cannot be taken, or the tokens or the folder for uploads cannot be used.
        ChildProcessError: No worker process starts.
    """
    options = options or ServeOptions()
    tokens = options.tokens()
    metrics = Metrics()
    folder = None if options.temp_folder is None else Path(options.temp_folder)
    with own_folder(folder) as place, address or listen(options.host, options.port) as listener:
        engine = Engine(predictors, options=options, observer=metrics)
        metrics.watch(engine)
        service = make_service(engine, folder=place, metrics=metrics)
        guard = Guard(service, options=options, tokens=tokens, metrics=metrics)
        server = _Server(_config(guard), engine)
        _log_lines()
        engine.start()
        host, port = listener.getsockname()[:2]
        told = {"host": host, "port": port, "models": list(predictors), "workers": engine.num_workers}
        logger.info("ready", extra={"fields": told})
        try:
            server.run(sockets=[listener])
        finally:
            engine.close()
            for process in multiprocessing.active_children():  # a decoder that hangs would keep this one waiting
                process.kill()
    logger.info("stopped")


def _config(guard: Guard) -> uvicorn.Config:
    return uvicorn.Config(
        guard,
        http=_Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )


def _log_lines() -> None:
    """One line of JSON on stderr for each request; of Uvicorn what is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines())
    for name, level in (("uniformerv2.serving", logging.INFO), ("uvicorn.error", logging.ERROR)):
        one: Any = logging.getLogger(name)
        one.handlers, one.propagate = [handler], False
        one.setLevel(level)
