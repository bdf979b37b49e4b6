"""Guard: what every request passes first and every answer last, as an ASGI application around the service.

The name and the tokens are checked before a byte of the body is read; every answer has a number, headers that keep
browsers from taking it for anything else, and a line in the log, which names no file and no token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from fastapi.responses import Response

from uniformerv2.serving.http.metrics import Metrics
from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.problems import KINDS, ServiceError

__all__ = ["PROBLEM_TYPE", "Guard", "JSONLines", "problem_response"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBLEM_TYPE: Final = "application/problem+json"
OPEN: Final = frozenset({"/v2/health/live", "/v2/health/ready"})
"""Asked by what starts and stops services, without tokens."""
PAGE: Final = ("/", "/page/")
"""The page, and where its files begin: they hold nothing secret, and a page of another site may link to them."""
HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
logger = logging.getLogger("uniformerv2.serving")


class JSONLines(logging.Formatter):
    """A line of JSON for each record; its fields are in ``extra={"fields": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        content = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps({**content, **getattr(record, "fields", {})}, ensure_ascii=True)


def problem_response(error: ServiceError, *, request_id: str) -> Response:
    """A refusal as RFC 9457 has it.

    Args:
        error: What is refused.
        request_id: Of the request, to be found in the log.
    """
    kind = KINDS[error.kind]
    content = {
        "type": f"urn:uniformerv2:{error.kind}",
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail,
        "request_id": request_id,
    }
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if error.kind == "unauthorized":
        headers["www-authenticate"] = "Bearer"
    body = json.dumps(content, ensure_ascii=True)
    return Response(body, kind.status, headers=headers, media_type=PROBLEM_TYPE)


class Guard:
    """Checks requests, tells of answers.

    Args:
        service: The application behind.
        options: Names of the host.
        tokens: Any of them is enough; none: nobody needs one.
        metrics: Counts requests.
    """

    def __init__(self, service: Application, *, options: ServeOptions, tokens: Sequence[str], metrics: Metrics) -> None:
        self._service = service
        self._names = options.host_names
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is no request, such as the start of the service, passes."""
        if scope["type"] != "http":
            await self._service(scope, receive, send)
            return
        begin, request_id, status = monotonic(), secrets.token_hex(8), 0
        notes = scope.setdefault("state", {})
        notes.update(request_id=request_id)

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message.get("headers", ())}
                more = [*HEADERS, (b"x-request-id", request_id.encode())]
                message["headers"] = [*message.get("headers", ()), *(pair for pair in more if pair[0] not in own)]
            await send(message)

        try:
            self._check(scope)
            await self._service(scope, receive, send_guarded)
        except ServiceError as error:
            notes["kind"] = error.kind
            await problem_response(error, request_id=request_id)(scope, receive, send_guarded)
        except Exception as error:
            notes.update(kind="internal", where=_where(error))
            if not status:
                failed = ServiceError("internal", "The service failed; its log tells more under this request's number.")
                await problem_response(failed, request_id=request_id)(scope, receive, send_guarded)
        self._tell(scope, status, monotonic() - begin)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._names and _host_name(headers.get(b"host", b"")) not in self._names:
            detail = "It is not called by the name in the Host header; whoever runs it allows names by --allow-host."
            raise ServiceError("wrong-host", detail)
        if _is_page(scope):
            return
        if headers.get(b"sec-fetch-site") == b"cross-site":
            raise ServiceError("cross-site", "A page of another site sent this request.")
        if not self._digests or scope["path"] in OPEN:
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        found = [hmac.compare_digest(digest, known) for known in self._digests]  # all of them, whichever it is
        if scheme.lower() != b"bearer" or not any(found):
            raise ServiceError("unauthorized", "Send one of the service's tokens: Authorization: Bearer TOKEN.")

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        notes = scope["state"]
        route = getattr(scope.get("route"), "path", "none")
        kind = notes.get("kind")
        self._metrics.request(route, status, seconds, kind=kind)
        names = ("request_id", "kind", "where", "model", "num_bytes", "decode_seconds", "compute_seconds")
        fields = {name: notes[name] for name in names if name in notes}
        method = scope["method"] if scope["method"] in {"GET", "HEAD", "POST", "OPTIONS"} else "OTHER"
        told = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4), **fields}
        logger.log(logging.ERROR if status == 500 else logging.INFO, "request", extra={"fields": told})


def _is_page(scope: Scope) -> bool:
    path, (page, files) = scope["path"], PAGE
    return scope["method"] in {"GET", "HEAD"} and (path == page or path.startswith(files))


def _host_name(value: bytes) -> str:
    """The name in a Host header, without the port."""
    text = value.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    return name if colon and port.isdecimal() else text


def _where(error: BaseException) -> str:
    """What failed, and in which line; without the message, which may name a file."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    place = "" if last is None else f" in {last.name}, line {last.lineno}"
    return f"{type(error).__name__}{place}"
