"""What every request passes first, without a server."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.problems import KINDS, ServiceError, problem_of

pytest.importorskip("fastapi")
from uniformerv2.media.decoding import VideoError
from uniformerv2.serving.http.guard import Guard, JSONLines
from uniformerv2.serving.http.metrics import Metrics

TOKENS = ("first-token-of-many", "second-token-of-many")


def ask(guard, path="/v1/predict", **headers):
    """Status, headers and body of an answer."""
    given = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()
    ]
    scope = {"type": "http", "method": "POST", "path": path, "headers": given, "query_string": b""}
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    start = sent[0]
    return start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


def guard_of(service, *, tokens=(), **options):
    return Guard(service, options=ServeOptions(**options), tokens=tokens, metrics=Metrics())


async def fine(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


async def failing(_scope, _receive, _send):
    raise ZeroDivisionError("/home/secret/clip.mp4")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer first-token-of-man"}, 401),
        ({"authorization": "Bearer first-token-of-manyy"}, 401),
        ({"authorization": "Basic first-token-of-many"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Bearer é"}, 401),
        ({"authorization": "Bearer first-token-of-many"}, 200),
        ({"authorization": "bearer second-token-of-many"}, 200),
    ],
)
def test_tokens(headers, status):
    found, sent, body = ask(guard_of(fine, tokens=TOKENS), **headers)
    assert found == status
    if status == 401:
        assert sent[b"www-authenticate"] == b"Bearer"
        assert b"token-of-many" not in body


def test_health_needs_no_token_and_metrics_do():
    guard = guard_of(fine, tokens=TOKENS)
    assert ask(guard, "/v2/health/ready")[0] == 200
    assert ask(guard, "/metrics")[0] == 401
    assert ask(guard, "/v2/health/ready/")[0] == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("LOCALHOST", 200),
        ("evil.example", 421),
        ("", 421),
    ],
)
def test_names_of_the_host(host, status):
    assert ask(guard_of(fine), host=host)[0] == status


def test_a_defect_is_told_by_its_number_and_not_by_its_message(caplog):
    with caplog.at_level(logging.INFO, "uniformerv2.serving"):
        logging.getLogger("uniformerv2.serving").propagate = True
        status, headers, body = ask(guard_of(failing))
    problem = json.loads(body)
    assert (status, problem["type"]) == (500, "urn:uniformerv2:internal")
    assert b"secret" not in body
    (record,) = [record for record in caplog.records if record.message == "request"]
    line = json.loads(JSONLines().format(record))
    assert line["request_id"] == problem["request_id"] == headers[b"x-request-id"].decode()
    assert line["where"].startswith("ZeroDivisionError in failing, line ")
    assert "secret" not in json.dumps(line)


def test_every_answer_has_the_headers():
    for guard in (guard_of(fine), guard_of(failing), guard_of(fine, tokens=TOKENS)):
        _, headers, _ = ask(guard)
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert b"default-src 'none'" in headers[b"content-security-policy"]


def test_what_is_wrong_with_a_video_is_said_without_its_path():
    for kind, wanted in (
        ("corrupt", 422),
        ("not a video", 415),
        ("too large", 413),
        ("timeout", 504),
        ("missing", 500),
    ):
        error = problem_of(VideoError("/srv/x/1f.mp4", kind, "/srv/x/1f.mp4 is bad; to allow it: --limit depth=3"))
        assert error.status == wanted
        assert error.detail == f"{kind}: the video is bad."
    assert all(isinstance(ServiceError(kind, "x").status, int) for kind in KINDS)
