"""The service as clients meet it: a real process, real videos, every refusal that it documents."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.media import write_video
from tests.media.made_videos import make_video
from tests.model.test_uniformerv2 import MOTION, TINY, make
from tests.serving.service import exchange, form_of, serving
from uniformerv2.cli import parser_of
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.serving.options import ServeOptions
from uniformerv2.zoo.checkpoint import save_model

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks for workers in /proc")  # noqa: PTH112

NAMES = ("archery", "<b>dunk</b>", "c", "d", "e")
DECODE_SECONDS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    for name, config in (("scene", TINY), ("motion", MOTION)):
        model = make(config)
        model.info = CheckpointInfo(class_names=NAMES)
        save_model(model, folder / name)
    write_video(folder / "clip.mp4")
    return folder


@pytest.fixture(scope="module")
def service(folder):
    limits = {
        "queue-size": 3,
        "max-upload-mb": 1,
        "max-video-seconds": 5,
        "max-pixels": 640 * 480,
        "max-memory-mb": 1,
        "decode-seconds": DECODE_SECONDS,
        "request-seconds": 6,
        "upload-seconds": 1.5,
    }
    words = [word for name, value in limits.items() for word in (f"--{name}", str(value))]
    with serving(folder, f"scene={folder / 'scene'}", f"motion={folder / 'motion'}", *words) as service:
        yield service


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    """After every test no upload lies anywhere, and the service answers."""
    yield
    if "service" in request.fixturenames:
        service = request.getfixturevalue("service")
        end = time.monotonic() + 10
        while service.uploads and time.monotonic() < end:
            time.sleep(0.05)
        assert service.uploads == []
        assert service.get("/v2/health/ready").status == 200


@pytest.fixture
def video(folder):
    return (folder / "clip.mp4").read_bytes()


def test_scores_are_those_of_the_predictor(service, folder, video):
    wanted = Predictor(folder / "motion", num_clips=2, num_crops=3)(folder / "clip.mp4")
    found = service.post("/v1/predict?model=motion&clips=2&crops=3&top_k=2", video)
    assert found.status == 200, found
    answer = found.json
    np.testing.assert_allclose(answer["scores"], wanted.scores, atol=1e-5)
    assert (answer["video"], answer["model"], answer["num_views"]) == ("upload", "motion", 6)
    assert [item["name"] for item in answer["top"]] == [item.name for item in wanted.top(2)]
    form = service.form("/v1/predict", video, model="motion", clips=2, crops=3, top_k=2)
    assert form.json["scores"] == answer["scores"]
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["cache-control"] == "no-store"
    assert "server" not in found.headers


def test_the_task_of_hugging_face(service, folder, video):
    wanted = Predictor(folder / "scene")(folder / "clip.mp4").top(2)
    task = {"inputs": base64.b64encode(video).decode(), "parameters": {"top_k": 2, "function_to_apply": "softmax"}}
    found = service.post("/", json.dumps(task), content_type="application/json")
    assert [item["label"] for item in found.json] == [item.name for item in wanted]
    assert [item["score"] for item in found.json] == pytest.approx([item.score for item in wanted], abs=1e-5)
    assert service.post("/", video, content_type="video/mp4").json[:2] == found.json
    for wrong, detail in (
        ({"inputs": "https://example.org/a.mp4"}, "addresses are not fetched"),
        ({"inputs": "AAAA", "parameters": {"function_to_apply": "none"}}, "'softmax' for this model"),
        ({"inputs": "AAAA", "parameters": {"num_frames": 99}}, "num_frames is 4"),
        ({"inputs": "AAAA", "parameters": {"topk": 1}}, "'topk'"),
        ({"inputs": "AAAA", "parameters": {"top_k": True}}, "top_k must be"),
        ({"inputs": 3}, "in base64"),
        ([], "in base64"),
    ):
        refused = service.post("/", json.dumps(wrong), content_type="application/json")
        assert (refused.status, refused.kind) == (422, "invalid-parameter")
        assert detail in refused.json["detail"]
    assert service.post("/", b"[" * 100_000, content_type="application/json").kind == "bad-request"


def test_models_health_metrics_and_the_document(service):
    assert service.get("/v2/health/live").json == {"live": True}
    assert service.get("/v2/models/motion").json["class_names"] == list(NAMES)
    assert service.get("/v2/models/motio").kind == "not-found"
    document = service.get("/openapi.json").json
    assert set(document["paths"]["/v1/predict"]["post"]["responses"]) >= {
        "200",
        "413",
        "415",
        "422",
        "429",
        "503",
        "504",
    }
    text = service.get("/metrics").body.decode()
    assert 'uniformerv2_requests_total{route="/v2/health/live",status="200"}' in text
    assert "uniformerv2_queue 0.0" in text


@pytest.mark.parametrize(
    ("path", "status", "kind", "detail"),
    [
        ("/v1/predict?model=motio", 422, "invalid-parameter", "Did you mean 'motion'?"),
        ("/v1/predict?topk=1", 422, "invalid-parameter", "Did you mean 'top_k'?"),
        ("/v1/predict?top_k=0", 422, "invalid-parameter", "top_k must be a whole number from 1 to 1000, got '0'"),
        ("/v1/predict?top_k=1&top_k=2", 422, "invalid-parameter", "given twice"),
        ("/v1/predict?crops=2", 422, "invalid-parameter", "crops must be 1 or 3"),
        ("/v1/predict?clips=60&crops=3", 422, "request-too-large", "180 views"),
        ("/v1/predict?clips=40", 422, "request-too-large", "of memory"),
        ("/v1/predict/", 404, "not-found", ""),
        ("/../../etc/passwd", 404, "not-found", ""),
    ],
)
def test_what_a_request_may_not_ask(service, video, path, status, kind, detail):
    found = service.post(path, video)
    assert (found.status, found.kind) == (status, kind)
    assert detail in found.json["detail"]


def test_other_methods_names_and_sites(service):
    found = service.ask("DELETE", "/v1/predict")
    assert (found.status, found.kind, found.headers["allow"]) == (405, "method-not-allowed", "POST")
    assert service.get("/v2/health/ready", host="evil.example").kind == "wrong-host"
    assert service.get("/metrics", sec_fetch_site="cross-site").kind == "cross-site"


def hostile(tmp_path, name):
    """What a stranger sends, and what it is told."""
    secret = tmp_path / "secret.mp4"
    write_video(secret)
    texts = {
        "ffconcat": f"ffconcat version 1.0\nfile {secret}\n",
        "playlist": f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "text": "hello",
        "nothing": "",
    }
    if name in texts:
        return texts[name].encode()
    made = {
        "large": lambda path: make_video(path, size=(1280, 720), frames=3),
        "long": lambda path: make_video(path, frames=60, fps=10),
        "cut": lambda path: path.write_bytes(secret.read_bytes()[:-400]),
    }
    made[name](tmp_path / "made.mp4")
    return (tmp_path / "made.mp4").read_bytes()


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("ffconcat", 415, "not-a-video"),
        ("playlist", 415, "not-a-video"),
        ("sdp", 415, "not-a-video"),
        ("text", 415, "not-a-video"),
        ("nothing", 422, "unreadable-video"),
        ("cut", 422, "unreadable-video"),
        ("large", 413, "video-too-large"),
        ("long", 413, "video-too-large"),
    ],
)
def test_hostile_uploads(service, tmp_path, name, status, kind):
    content = hostile(tmp_path, name)
    found = service.post("/v1/predict", content)
    assert (found.status, found.kind) == (status, kind), found
    assert "--limit" not in found.json["detail"]
    assert service.form("/v1/predict", content, file_name=f"x.{name}").kind == kind


@pytest.mark.parametrize(
    "name", ["../../evil.mp4", "a\\0b.mp4", "/etc/passwd.mp4", "x" * 3000 + ".mp4", "a.mp4/../..", "é.mp4"]
)
def test_names_of_files_go_nowhere(service, video, name):
    assert service.form("/v1/predict", video, file_name=name.replace("\\0", "\0")).status == 200


def test_odd_videos(service, shared):
    """As ``Predictor`` says, with a few of the files that broke other decoders."""
    for name, allowed in (
        ("decord/corrupted.mp4", {413, 415, 422}),
        ("decord/video_90.mov", {200, 413}),
        ("firefox/bipbop_cbcs_9_8_video_init.mp4", {415, 422}),
        ("firefox/789075.webm", {200, 413, 422}),
    ):
        found = service.post("/v1/predict", shared(f"data/odd_videos/{name}").read_bytes()[: 2**20])
        assert found.status in allowed, (name, found)


def test_bodies_that_are_no_form(service, video):
    body, kind = form_of(video)
    for wrong, of, detail in (
        (body[:-9], kind, "breaks off"),
        (body, "multipart/form-data", "no boundary"),
        (body, "multipart/form-data; boundary=" + "x" * 300, "Boundary"),
        (b"nonsense", kind, "RFC 7578"),
        (b'--edge\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n1\r\n--edge--\r\n', kind, "no file"),
        (body.replace(b"--edge--\r\n", b"") + body, kind, "two files"),
        (form_of(video, x="y" * 2000)[0], kind, "1024 bytes"),
    ):
        found = service.post("/v1/predict", wrong, content_type=of)
        assert (found.status, found.kind) == (400, "bad-request")
        assert detail in found.json["detail"]
    assert service.form("/v1/predict", video, topk=1).kind == "invalid-parameter"
    assert service.post("/v1/predict", video, content_encoding="gzip").kind == "encoded-body"


def test_too_large_a_body(service):
    """By its length, before it is sent; and in pieces without a length."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
    found = exchange(
        service, head + b"Content-Length: 10737418240\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    assert found.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in found
    piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    found = exchange(service, head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + 20 * piece)
    assert found.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("data", "more", "status"),
    [
        (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 99\r\n\r\nfew",
            [(0.1, b"x")] * 3,
            b"408",
        ),
        (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", (), b"400"),
        (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", (), b"400"),
        (b"POST /v1/predict HTTP/1.1\r\n\r\n", (), b"400"),
        (
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(10_000)),
            (),
            b"400",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (), b"400"),
    ],
)
def test_wrong_lengths_slow_bodies_and_nonsense(service, data, more, status):
    assert exchange(service, data, more=more).startswith(b"HTTP/1.1 " + status)


def test_clients_that_leave(service, video):
    """In the middle of the body, and with half a connection after it."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(video)
    exchange(service, head + video[:100], half_closed=True)
    exchange(service, head + video, half_closed=True)
    with service.socket() as connection:
        connection.sendall(head + video)
    assert service.post("/v1/predict", video).status == 200


def test_a_worker_that_is_killed_is_replaced(service, video):
    assert service.post("/v1/predict", video).status == 200
    for worker in service.workers():
        os.kill(worker, signal.SIGKILL)
    assert service.post("/v1/predict", video).status == 200


def test_a_decoder_that_hangs_costs_its_worker(service, video):
    assert service.post("/v1/predict", video).status == 200
    before = service.workers()
    for worker in before:
        os.kill(worker, signal.SIGSTOP)
    begin = time.monotonic()
    found = service.post("/v1/predict", video)
    assert (found.status, found.kind) == (504, "slow-decoding")
    assert DECODE_SECONDS - 0.5 < time.monotonic() - begin < DECODE_SECONDS + 3
    assert service.post("/v1/predict", video).status == 200
    assert not set(before) & set(service.workers())
    assert 'uniformerv2_workers_lost_total{reason="timeout"}' in service.get("/metrics").body.decode()


def test_a_full_queue_refuses_and_loses_nothing(service, video):
    """Each of many at once gets its scores or 429 with a time to wait."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(service.post("/v1/predict", video))) for _ in range(24)]
    for worker in service.workers():
        os.kill(worker, signal.SIGSTOP)
    for thread in threads:
        thread.start()
    time.sleep(1)
    for worker in service.workers():
        os.kill(worker, signal.SIGCONT)
    for thread in threads:
        thread.join()
    refused = [answer for answer in answers if answer.status == 429]
    served = [answer.json["scores"] for answer in answers if answer.status == 200]
    assert len(refused) + len(served) == 24
    assert len(refused) >= 24 - 3 - 3
    assert served == served[:1] * len(served) != []
    assert {answer.kind for answer in refused} == {"queue-full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


def test_the_log_tells_of_requests_and_no_names(service, video):
    answer = service.form("/v1/predict", video, file_name="my_holiday.mp4")
    end = time.monotonic() + 5
    while not (found := [one for one in service.lines() if one.get("request_id") == answer.headers["x-request-id"]]):
        assert time.monotonic() < end  # written after the answer is sent
    (line,) = found
    assert (line["route"], line["status"], line["model"], line["num_bytes"]) == (
        "/v1/predict",
        200,
        "scene",
        len(video),
    )
    text = service.log.read_text()
    assert "my_holiday" not in text
    assert "Traceback" not in text
    assert "passwd" not in text


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory):
    """As the page starts it: one model, the defaults."""
    with serving(tmp_path_factory.mktemp("plain"), str(folder / "scene")) as service:
        yield service


PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def commands_of_the_page():
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_page(plain, tmp_path):
    """Those that ask the service on this machine, from a folder with what the clone has."""
    for name in ("examples", "README.md"):
        (tmp_path / name).symlink_to(PAGE.parents[1] / name)
    asked = [command for command in commands_of_the_page() if "127.0.0.1:8000" in command]
    assert len(asked) == 9
    for command in asked:
        words = shlex.split(command.replace("127.0.0.1:8000", f"127.0.0.1:{plain.port}"))
        done = subprocess.run([*words, "--silent", "--show-error"], cwd=tmp_path, capture_output=True, check=True)
        if "README" in command:
            assert json.loads(done.stdout)["type"] == "urn:uniformerv2:not-a-video"
        elif "--output" in command:
            written = (tmp_path / words[-1]).read_bytes()
            assert written[4:8] == b"ftyp" or written.startswith(b"\x93NUMPY")
        elif "/v1/" in command:
            assert json.loads(done.stdout)["video"] == "upload"
        else:
            assert b"problem" not in done.stdout


def test_two_services_give_the_same_scores(service, plain, video):
    for path, name in (("predict?crops=3", "scores"), ("timeline?scores=true", "curve"), ("features", "vectors")):
        found = [each.post(f"/v1/{path}", video).json[name] for each in (service, plain, service, plain)]
        assert found == found[:1] * 4


def test_the_page_starts_services_that_are_allowed():
    started = [
        shlex.split(command)[2:] for command in commands_of_the_page() if command.startswith("uniformerv2 serve")
    ]
    assert len(started) == 2
    for words in started:
        options = parser_of("serve").parse_args(words)
        ServeOptions(**{name: getattr(options, name) for name in ServeOptions.__dataclass_fields__})


def test_sigterm_lets_what_runs_finish(plain, video):
    """Not ready at once, nothing new, the running request gets its scores, exit code 0, nothing left."""
    service = plain
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    answers = []
    running = threading.Thread(target=lambda: answers.append(service.post("/v1/predict", video)))
    running.start()
    while not service.uploads:
        time.sleep(0.02)
    time.sleep(0.3)
    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert service.get("/v2/health/live").status == 200
    ready = service.get("/v2/health/ready")
    assert (ready.status, ready.kind) == (503, "draining")
    assert service.post("/v1/predict", video).kind == "draining"
    os.kill(worker, signal.SIGCONT)
    running.join()
    assert answers[0].status == 200
    assert service.process.wait(20) == 0
    assert list(service.temp.iterdir()) == []
    assert "Traceback" not in service.log.read_text()
