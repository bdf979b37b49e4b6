"""Timelines, explanations and features over HTTP: what Python answers, within the limits of predictions."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from tests.media import write_video
from tests.media.made_videos import make_video
from tests.model.test_uniformerv2 import MOTION, TINY, make
from tests.serving.service import serving
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.explanations.pictures import draw_overlays, overlay_sheet, overlay_video
from uniformerv2.inference.features.extraction import FeatureExtractor
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.strips import pictures_of
from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.inference.timelines.timeline import find_actions
from uniformerv2.inference.windows import WindowScorer
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.model.statistics import KINDS
from uniformerv2.zoo.checkpoint import save_model

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks for workers in /proc")  # noqa: PTH112

NAMES = ("archery", "<b>dunk</b>", "c", "d", "e")
SMALL = {"window_seconds": 0.8, "stride_seconds": 0.2}
"""Windows of the long video of which there are many."""
DECODE_SECONDS, TIMELINE_SECONDS, MEMORY_MB = 5, 20, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, config in {"scene": TINY, "motion": MOTION, "probe": replace(TINY, statistics=KINDS["motion"])}.items():
        model = make(config)
        model.info = CheckpointInfo(class_names=NAMES)
        save_model(model, folder / name)
    make_video(folder / "clip.mp4", frames=90, fps=10, size=(96, 64), gop=25)
    return folder


@pytest.fixture(scope="module")
def service(folder):
    """Pieces are small, so that a short video is a long one."""
    limits = {"decode-seconds": DECODE_SECONDS, "timeline-seconds": TIMELINE_SECONDS, "max-video-seconds": 300}
    limits["max-memory-mb"] = MEMORY_MB
    words = [word for name, value in limits.items() for word in (f"--{name}", str(value))]
    models = [f"scene={folder / 'scene'}", f"motion={folder / 'motion'}", f"probe={folder / 'probe'}"]
    with serving(folder, *models, "--precision", "fp32", *words) as service:
        yield service


@pytest.fixture(autouse=True)
def nothing_is_left(service):
    """After every test no upload lies anywhere, and the queue is empty."""
    yield
    end = time.monotonic() + 15
    while (service.uploads or "uniformerv2_queue 0.0" not in service.get("/metrics").body.decode()) and (
        time.monotonic() < end
    ):
        time.sleep(0.05)
    assert service.uploads == []
    assert "uniformerv2_queue 0.0" in service.get("/metrics").body.decode()
    assert "Traceback" not in service.log.read_text()


@pytest.fixture
def video(folder):
    return (folder / "clip.mp4").read_bytes()


@pytest.fixture(scope="module")
def long(folder):
    """Some pieces of frames."""
    return make_video(folder / "long.mp4", frames=2400, fps=10, size=(64, 48)).read_bytes()


def query(**parameters):
    return "&".join(f"{name}={value}" for name, value in parameters.items())


@pytest.mark.parametrize("model", ["scene", "motion"])
def test_a_timeline_is_that_of_python(service, folder, video, model):
    asked = {**SMALL, "on": 0.25, "off": 0.2, "smooth_seconds": 0.5, "crops": 3}
    found = service.post(f"/v1/timeline?{query(**asked, model=model, scores='true')}", video)
    assert found.status == 200, found
    scorer = WindowScorer(Predictor(folder / model, num_crops=3, precision="fp32"), **SMALL)
    rules = SegmentRules(on=0.25, off=0.2, smooth_seconds=0.5)
    wanted = find_actions(folder / "clip.mp4", scorer, rules=rules)
    answer = found.json
    curve, timings = answer.pop("curve"), answer.pop("timings")
    assert (answer.pop("video"), answer.pop("model")) == ("upload", model)
    expected = wanted.to_dict()
    del expected["video"]
    assert expected["segments"]
    for one, other in zip(answer.pop("segments"), expected.pop("segments"), strict=True):
        assert one == {**other, "score": pytest.approx(other["score"], abs=1e-5)}
    assert answer == expected
    assert curve["start_seconds"] == [round(float(one), 3) for one in wanted.windows.starts]
    assert curve["end_seconds"][-1] == 9.0
    assert [one["index"] for one in curve["classes"]] == list(wanted.shown_classes())
    for one in curve["classes"]:
        assert one["label"] == NAMES[one["index"]]
        np.testing.assert_allclose(one["scores"], wanted.windows.scores[:, one["index"]], atol=1e-5)
    assert min(timings.values()) > 0


def test_a_long_video_is_read_in_pieces(service, folder, long):
    """By workers that open it anew each time; others are served meanwhile."""
    answers = []
    running = threading.Thread(target=lambda: answers.append(service.post("/v1/timeline?scores=true", long)))
    running.start()
    while not service.uploads:
        time.sleep(0.01)
    small = write_video(folder / "small.mp4").read_bytes()
    assert service.post("/v1/predict", small).status == 200
    running.join()
    assert answers[0].status == 200, answers
    wanted = WindowScorer(Predictor(folder / "scene", precision="fp32"))(folder / "long.mp4")
    curve = answers[0].json["curve"]
    assert len(curve["start_seconds"]) == len(wanted.starts) > 900
    for one in curve["classes"]:
        np.testing.assert_allclose(one["scores"], wanted.scores[:, one["index"]], atol=1e-5)


@pytest.mark.parametrize("model", ["scene", "motion", "probe"])
def test_features_are_those_of_python(service, folder, video, model):
    extractor = FeatureExtractor(folder / model, num_clips=2, num_crops=3, precision="fp32", **SMALL)
    (whole,) = extractor.whole([folder / "clip.mp4"])
    asked = query(model=model, clips=2, crops=3)
    found = service.post(f"/v1/features?{asked}", video)
    assert found.status == 200, found
    np.testing.assert_allclose(found.json["vectors"], whole.vectors, atol=1e-5)
    assert found.json["is_normalised"]
    as_file = service.post(f"/v1/features?{asked}", video, accept="application/octet-stream")
    assert as_file.headers["content-type"] == "application/octet-stream"
    np.testing.assert_allclose(np.load(io.BytesIO(as_file.body)), whole.vectors, atol=1e-5)
    dense, asked = extractor.dense(folder / "clip.mp4"), query(model=model, crops=3, per="window", **SMALL)
    found = service.post(f"/v1/features?{asked}", video).json
    expected = dense.to_dict(vectors=True)
    np.testing.assert_allclose(found.pop("vectors"), expected.pop("vectors"), atol=1e-5)
    assert found.pop("timings")
    assert found == {**expected, "model": model, "video": "upload"}
    as_file = service.post(f"/v1/features?{asked}&format=npy", video)
    np.testing.assert_allclose(np.load(io.BytesIO(as_file.body)), dense.vectors, atol=1e-5)


def test_an_explanation_is_that_of_python(service, folder, video):
    predictor = Predictor(folder / "scene", precision="fp32")
    wanted = predictor.explain(folder / "clip.mp4", 1)
    found = service.post("/v1/explain?class=1&format=json", video)
    assert found.status == 200, found
    answer, expected = found.json, wanted.to_dict(maps=True)
    np.testing.assert_allclose(answer.pop("map"), expected.pop("map"), atol=1e-4)
    for name in ("format", "view", "grid", "blocks", "method"):
        assert answer[name] == json.loads(json.dumps(expected[name]))
    assert answer["target"] == {**expected["target"], "score": pytest.approx(expected["target"]["score"], abs=1e-5)}
    record, numbers = VideoRecord(str(folder / "clip.mp4")), wanted.view.frame_indices
    overlays = draw_overlays(wanted, pictures_of(record, numbers, side=80, reader=predictor.reader))
    picture = service.post(f"/v1/explain?{query(format='png', side=80)}&class=%3Cb%3Edunk%3C/b%3E", video)
    assert picture.headers["content-type"] == "image/png"
    difference = np.asarray(Image.open(io.BytesIO(picture.body)), int) - np.asarray(overlay_sheet(overlays), int)
    assert abs(difference).max() <= 1
    for pace, seconds in (("slides", None), ("video", [3.3, 2.2, 2.3, 1.2])):
        film = service.post(f"/v1/explain?{query(side=80, pace=pace)}&class=1", video)
        assert film.headers["content-type"] == "video/mp4"
        for one, other in zip(frames(film.body), frames(overlay_video(overlays, seconds=seconds)), strict=True):
            assert abs(one.astype(int) - other).mean() < 2
    with av.open(io.BytesIO(film.body)) as container:
        assert container.duration / 1e6 == pytest.approx(9.0, abs=0.01)
        times = [float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.size]
    assert times == pytest.approx([0.0, *wanted.view.frame_seconds[1:]], abs=0.01)


def frames(film):
    with av.open(io.BytesIO(film)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("path", "kind", "detail"),
    [
        ("/v1/timeline?window_seconds=0", "invalid-parameter", "window_seconds must be a number from 0.1 to 600"),
        ("/v1/timeline?window_seconds=1&stride_seconds=2", "invalid-parameter", "at most window_seconds"),
        ("/v1/timeline?on=0.1", "invalid-parameter", "0 < off <= on <= 1"),
        ("/v1/timeline?score=true", "invalid-parameter", "Did you mean 'scores'?"),
        ("/v1/timeline?scores=yes", "invalid-parameter", "true or false"),
        ("/v1/explain?class=arch", "invalid-parameter", "Did you mean 'archery'?"),
        ("/v1/explain?class=5", "invalid-parameter", "no class '5'"),
        ("/v1/explain?format=gif", "invalid-parameter", "mp4 or png or json"),
        ("/v1/explain?side=2000", "invalid-parameter", "from 64 to 960"),
        ("/v1/explain?model=probe", "unsupported-model", "reads statistics of all tokens"),
        ("/v1/features?per=window&clips=2", "invalid-parameter", "clips is for features per video"),
        ("/v1/features?stride_seconds=1", "invalid-parameter", "per=window"),
        ("/v1/features?clips=60&crops=3", "request-too-large", "180 views"),
    ],
)
def test_what_a_request_may_not_ask(service, video, path, kind, detail):
    found = service.post(path, video)
    assert (found.status, found.kind) == (422, kind)
    assert detail in found.json["detail"]


@pytest.mark.parametrize("path", ["/v1/timeline", "/v1/explain", "/v1/features", "/v1/features?per=window"])
def test_hostile_uploads(service, folder, tmp_path, path):
    secret = tmp_path / "secret.mp4"
    write_video(secret)
    whole = make_video(tmp_path / "whole.mp4", frames=40, fps=10)
    for content, kinds in (
        (f"ffconcat version 1.0\nfile {secret}\n".encode(), {"not-a-video"}),
        (f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n".encode(), {"not-a-video"}),
        (b"hello", {"not-a-video"}),
        (b"", {"unreadable-video"}),
        (whole.read_bytes()[:-900], {"not-a-video"}),
        (make_video(tmp_path / "longer.mp4", frames=310, fps=1, size=(32, 32)).read_bytes(), {"video-too-large"}),
    ):
        found = service.post(path, content)
        assert found.kind in kinds, (path, content[:40], found)
        assert str(folder) not in found.body.decode()


def test_a_video_that_breaks_off_has_a_timeline_up_to_there(service, tmp_path):
    whole = make_video(tmp_path / "whole.mp4", frames=100, fps=10, size=(128, 96), gop=10)
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    content = cut.read_bytes()
    found = service.post("/v1/timeline", content[: len(content) * 6 // 10])
    assert found.status == 200, found
    assert "truncated" in found.json["broken"]
    assert "/" not in found.json["broken"]
    assert 2 < found.json["num_windows"] < 33


def begun(service, path, content):
    """A request whose computing has begun, and its answers to come."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(service.post(path, content)))
    before = seconds_of_stage(service, "decode")
    thread.start()
    end = time.monotonic() + 20
    while seconds_of_stage(service, "decode") == before:
        assert time.monotonic() < end
        time.sleep(0.01)
    return thread, answers


def seconds_of_stage(service, stage):
    text = service.get("/metrics").body.decode()
    counts = [line for line in text.splitlines() if line.startswith("uniformerv2_stage_seconds_count")]
    return sum(float(line.split()[-1]) for line in counts if f'stage="{stage}"' in line)


def test_a_worker_that_is_killed_in_the_middle_costs_nothing(service, long):
    thread, answers = begun(service, "/v1/timeline", long)
    killed = service.workers()
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    thread.join()
    assert answers[0].status == 200, answers
    assert answers[0].json["broken"] is None
    assert answers[0].json["num_windows"] > 900
    assert not set(killed) & set(service.workers())
