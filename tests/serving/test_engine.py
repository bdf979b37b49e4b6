"""The engine alone, without HTTP: batches across requests, deadlines, clients that leave, folders of killed ones."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.serving.engine import Engine
from uniformerv2.serving.jobs import Observer
from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.own_folder import new_file, own_folder
from uniformerv2.serving.problems import ServiceError


class Seen(Observer):
    def __init__(self):
        self.batches, self.stages = [], []

    def batch(self, num_videos):
        self.batches.append(num_videos)

    def stage(self, name, seconds):
        self.stages.append(name)


class Slow:
    """A network that waits until it may compute."""

    def __init__(self, engine):
        self.engine, self.may = engine, threading.Event()
        self.may.set()

    def __call__(self, views):
        self.may.wait(60)
        return self.engine(views)

    def __getattr__(self, name):
        return getattr(self.engine, name)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("engine") / "clip.mp4")


@pytest.fixture(scope="module")
def running():
    """An engine whose network takes four videos at once, as on a GPU, and waits where a test says so."""
    model = make(TINY)
    model.info = CheckpointInfo(class_names=tuple("abcde"))
    predictor = Predictor(model, precision="fp32", views_per_batch=4)
    predictor.engine = slow = Slow(predictor.engine)
    seen = Seen()
    options = ServeOptions(queue_size=5, request_seconds=20, num_workers=1)
    with pytest.MonkeyPatch.context() as patched:  # on few cores decoding would wait for the network's turn to end
        patched.setattr("uniformerv2.serving.engine.available_cores", lambda: 8)
        engine = Engine({"tiny": predictor}, options=options, observer=seen)
    with pytest.raises(ServiceError, match="just been started"):
        engine.check_room()
    engine.start()
    yield engine, slow, seen
    engine.close()
    with pytest.raises(ServiceError, match="about to stop"):
        engine.check_room()


def ask(engine, video, **views):
    name, reader = engine.reader(None, **views)
    return engine.predict(video, reader, model=name)


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it took too long")


def test_videos_that_wait_are_computed_together(running, video):
    """The first alone, as nothing else was there; the scores are those of one at a time."""
    engine, slow, seen = running
    seen.batches.clear()

    async def four():
        slow.may.clear()
        tasks = [asyncio.ensure_future(ask(engine, video)) for _ in range(4)]
        await until(lambda: seen.stages.count("decode") == 4)  # the first computes
        slow.may.set()
        return await asyncio.gather(*tasks)

    seen.stages.clear()
    found = asyncio.run(four())
    wanted = engine.predictors["tiny"](video)
    for prediction in found:
        np.testing.assert_allclose(prediction.scores, wanted.scores, atol=1e-6)
    assert seen.batches == [1, 3]
    assert engine.num_jobs == 0


def test_who_leaves_is_not_computed_and_the_queue_has_a_bound(running, video):
    engine, slow, seen = running
    seen.batches.clear()

    async def leave():
        slow.may.clear()
        tasks = [asyncio.ensure_future(ask(engine, video)) for _ in range(5)]
        await until(lambda: engine.num_jobs == 5)
        with pytest.raises(ServiceError, match="5 requests wait already") as refused:
            await ask(engine, video)
        assert refused.value.kind == "queue-full"
        assert refused.value.retry_after >= 1
        await until(lambda: seen.batches)
        for task in tasks[1:]:
            task.cancel()
        slow.may.set()
        await tasks[0]
        await until(lambda: engine.num_jobs == 0)

    asyncio.run(leave())
    assert sum(seen.batches) == 1


def test_an_answer_that_comes_too_late(running, video, monkeypatch):
    engine, slow, _ = running
    monkeypatch.setattr(engine, "options", ServeOptions(request_seconds=0.5))

    async def late():
        slow.may.clear()
        try:
            with pytest.raises(ServiceError, match="not there after") as refused:
                await ask(engine, video)
        finally:
            slow.may.set()
        assert refused.value.status == 504
        await until(lambda: engine.num_jobs == 0)

    asyncio.run(late())


def test_a_network_that_fails_costs_one_request(running, video, monkeypatch):
    engine, slow, _ = running
    for error, kind in ((MemoryError(), "no-memory"), (ZeroDivisionError("a defect"), None)):

        def fail(_views, error=error):
            raise error

        monkeypatch.setattr(slow, "engine", fail)
        with pytest.raises(ServiceError if kind else ZeroDivisionError):
            asyncio.run(ask(engine, video))
        monkeypatch.undo()
    assert asyncio.run(ask(engine, video)).top(1)


def test_what_options_refuse(tmp_path):
    for wrong, words in (
        ({"port": 70_000}, "port is a number"),
        ({"queue_size": 0}, "queue_size must be at least 1"),
        ({"decode_seconds": float("nan")}, "decode_seconds must be at least"),
        ({"host": "0.0.0.0"}, "--token-file"),
    ):
        with pytest.raises(ValueError, match=words):
            ServeOptions(**wrong)
    tokens = tmp_path / "tokens"
    for text, words in (("# none\n", "no token"), ("short\n", "16 or more")):
        tokens.write_text(text)
        with pytest.raises(ValueError, match=words):
            ServeOptions(host="0.0.0.0", token_file=str(tokens)).tokens()
    tokens.write_text("# mine\n0123456789abcdef\n")
    assert ServeOptions(host="0.0.0.0", token_file=str(tokens)).tokens() == ("0123456789abcdef",)
    assert ServeOptions(host="0.0.0.0", allow_anonymous=True).host_names == ()
    assert "example.org" in ServeOptions(allow_host="Example.org").host_names


KILLED = """
import sys, time
from pathlib import Path
from uniformerv2.serving.own_folder import new_file, own_folder
with own_folder(Path(sys.argv[1])) as folder:
    print(new_file(folder)[0], flush=True)
    time.sleep(60)
"""


def test_what_a_killed_service_left_is_removed_at_the_next_start(tmp_path):
    """And what a live one has stays."""
    base = tmp_path / "uploads"
    command = [sys.executable, "-c", KILLED, str(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        upload = killed.stdout.readline().strip()
        with own_folder(base) as mine:
            path, descriptor = new_file(mine)
            os.close(descriptor)
            assert os.path.exists(upload)  # noqa: PTH110
            assert path.stat().st_mode & 0o777 == 0o600
        assert not mine.exists()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert os.path.exists(upload)  # noqa: PTH110
    with own_folder(base) as mine:
        assert [path for path in base.iterdir() if path.is_dir()] == [mine]
    assert [path for path in base.iterdir() if path.is_dir()] == []


def test_a_folder_of_others_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(ValueError, match="only this user"), own_folder(tmp_path / name):
            pass
