"""Everything that the document allows and more, and every odd file, by HTTP: no answer but the documented ones."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest

from tests.media import write_video
from tests.media.mutants import write_mutants
from tests.model.test_uniformerv2 import TINY, make
from tests.serving.service import serving
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.checkpoint import save_model

pytest.importorskip("fastapi")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
CASES = 2000
MUTANTS = 500


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attack")
    model = make(TINY)
    model.info = CheckpointInfo(class_names=tuple("abcde"))
    save_model(model, folder / "model")
    write_video(folder / "clip.mp4")
    with serving(folder, str(folder / "model"), "--max-video-seconds", "3600") as service:
        yield service


def documented(service, path):
    answers = service.get("/openapi.json").json["paths"][path]["post"]["responses"]
    return {int(status) for status in answers} - {500}


@pytest.mark.parametrize(
    ("address", "num_mutants", "least"),
    [("predict", MUTANTS, 100), ("timeline", 50, 60), ("features", 50, 60), ("explain", 50, 60)],
)
def test_odd_videos_and_mutants(service, shared, tmp_path, address, num_mutants, least):
    """Each gets a documented answer, no upload is left, and the service answers the next one."""
    path_of = f"/v1/{address}"
    odd = shared("data/odd_videos")
    files = [path for path in sorted(odd.rglob("*")) if path.is_file() and path.suffix != ".tsv"]
    files += write_mutants(odd, tmp_path, count=num_mutants, max_bytes=300_000)
    allowed, counts, slowest = documented(service, path_of), {}, (0.0, "")
    for path in files:
        begin = time.monotonic()
        found = service.form(path_of, path.read_bytes(), file_name=f"../{path.name}")
        slowest = max(slowest, (time.monotonic() - begin, path.name))
        kind = "200" if found.status == 200 else found.kind
        counts[kind] = counts.get(kind, 0) + 1
        assert found.status in allowed, (path, found)
        assert str(service.temp).encode() not in found.body
    print(json.dumps({"address": address, "files": len(files), "answers": counts, "slowest": slowest}))  # noqa: T201
    assert len(files) >= 185 + num_mutants
    assert counts["200"] > least
    assert service.uploads == []
    assert service.get("/v2/health/ready").status == 200
    assert "Traceback" not in service.log.read_text()


def test_heads_that_never_end(service):
    """Forty clients send a byte of their head now and then: each is hung up on, and others are served meanwhile."""
    sockets = [service.socket() for _ in range(40)]
    try:
        for connection in sockets:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: loc")
        begin, is_open = time.monotonic(), set(sockets)
        while is_open and time.monotonic() - begin < 40:
            assert service.get("/v2/health/ready").status == 200
            for connection in list(is_open):
                try:
                    connection.sendall(b"a")
                except OSError:
                    is_open.discard(connection)
            time.sleep(0.5)
        assert not is_open
    finally:
        for connection in sockets:
            connection.close()


def test_the_document_says_every_answer(service):
    """Cases that schemathesis makes of the OpenAPI document, right ones and wrong ones."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]

    base = f"http://127.0.0.1:{service.port}"
    schema = schemathesis.openapi.from_dict(service.get("/openapi.json").json)
    operations = [found.ok() for found in schema.get_all_operations()]
    counts = {}
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            cases = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=CASES // 10 if operation.method == "post" else 50,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=cases)
            def ask(case):
                answer = case.call(base_url=base, timeout=60)
                key = f"{case.operation.path} {answer.status_code}"
                counts[key] = counts.get(key, 0) + 1
                case.validate_response(answer, checks=wanted)

            with suppress(Unsatisfiable):  # nothing is asked there, so that nothing wrong can be said
                ask()
    print(json.dumps(counts))  # noqa: T201
    assert sum(counts.values()) >= CASES
    assert service.uploads == []
