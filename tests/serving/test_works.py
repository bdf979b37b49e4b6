"""Longer works in the engine, without HTTP: in steps, in turns, and no further than somebody waits."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest

from tests.media import write_video
from tests.media.made_videos import make_video
from tests.model.test_uniformerv2 import TINY, make
from tests.serving.service import children
from tests.serving.test_engine import ask, until
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.inference.windows import WindowFeed
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.serving import asking
from uniformerv2.serving.engine import Engine
from uniformerv2.serving.lanes import Turns
from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.problems import ServiceError

DECODE_SECONDS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("works")
    write_video(folder / "clip.mp4")
    make_video(folder / "long.mp4", frames=600, fps=10, gop=50)
    return folder


@pytest.fixture(scope="module")
def engine():
    """With one worker, as on two cores: decoding and computing take turns."""
    model = make(TINY)
    model.info = CheckpointInfo(class_names=tuple("abcde"))
    options = ServeOptions(queue_size=5, num_workers=1, decode_seconds=DECODE_SECONDS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("uniformerv2.serving.engine.available_cores", lambda: 2)
        engine = Engine({"tiny": Predictor(model, precision="fp32")}, options=options)
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
def slowed(monkeypatch):
    """Each frame takes a while; how many were taken."""
    taken, take = [], WindowFeed.take

    def slow(self, frame):
        time.sleep(0.02)
        taken.append(frame.number)
        yield from take(self, frame)

    monkeypatch.setattr(WindowFeed, "take", slow)
    monkeypatch.setattr(asking, "PIECE_BYTES", 20 * 3 * 32 * 32)
    return taken


def timeline(engine, folder, *, seconds=60.0, **asked):
    work = asking.timeline_work(engine, folder / "long.mp4", rules=SegmentRules(), **asked)
    return engine.run(work, seconds=seconds)


def test_others_are_served_between_two_steps(engine, folder, slowed):
    """A prediction that comes later is there long before the timeline is; the frames come in pieces and in order."""

    async def both():
        long = asyncio.ensure_future(timeline(engine, folder))
        await until(lambda: len(slowed) > 10)
        assert (await ask(engine, folder / "clip.mp4")).top(1)
        before = len(slowed)
        return before, await long

    before, found = asyncio.run(both())
    assert before < len(slowed) / 2
    assert slowed == sorted(slowed)
    assert len(slowed) == len(set(slowed)) == found.windows.grid.num_steps == 240
    assert found.video == "upload"


def test_nothing_is_computed_for_who_leaves_in_the_middle(engine, folder, slowed):
    async def leave():
        long = asyncio.ensure_future(timeline(engine, folder))
        await until(lambda: len(slowed) > 30)
        long.cancel()
        await until(lambda: engine.num_jobs == 0)
        count = len(slowed)
        await asyncio.sleep(0.5)
        return count

    assert asyncio.run(leave()) == len(slowed) < 200


def test_a_deadline_in_the_middle_ends_it(engine, folder, slowed):
    async def late():
        with pytest.raises(ServiceError, match=r"not there after 0\.7 seconds") as refused:
            await timeline(engine, folder, seconds=0.7)
        assert refused.value.status == 504
        await until(lambda: engine.num_jobs == 0)
        count = len(slowed)
        await asyncio.sleep(0.5)
        return count

    assert asyncio.run(late()) == len(slowed) < 200


def test_a_network_that_fails_in_the_middle_costs_one_request(engine, folder, slowed, monkeypatch):
    def fail(self, frame):
        if len(slowed) > 30:
            raise ZeroDivisionError("a defect")
        slowed.append(frame.number)
        yield from ()

    monkeypatch.setattr(WindowFeed, "take", fail)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(timeline(engine, folder))
    assert engine.num_jobs == 0
    assert asyncio.run(ask(engine, folder / "clip.mp4")).top(1)


def test_windows_that_take_too_much_memory_are_refused_once_they_are_counted(engine, folder, monkeypatch):
    monkeypatch.setattr(engine, "options", ServeOptions(max_memory_mb=1))
    for work in (
        partial(asking.timeline_work, rules=SegmentRules()),
        partial(asking.dense_work, is_json=True),
    ):
        made = work(engine, folder / "long.mp4", window_seconds=0.1, stride_seconds=0.02)
        made._most_bytes = 200_000
        with pytest.raises(ServiceError, match=r"windows of it take .* of memory") as refused:
            asyncio.run(engine.run(made, seconds=20))
        assert refused.value.kind == "request-too-large"
    with pytest.raises(ServiceError, match="Pictures of 960 pixels take"):
        asking.explain_work(engine, folder / "long.mp4", side=960)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks for workers in /proc")  # noqa: PTH112
def test_a_worker_that_nobody_waits_for_makes_room(engine, folder):
    """It hangs, its client has left: it is ended as soon as another one waits, long before its time is up."""

    async def hang():
        (worker,) = (one for server in children(os.getpid()) for one in children(server))
        os.kill(worker, signal.SIGSTOP)
        first = asyncio.ensure_future(ask(engine, folder / "clip.mp4"))
        await asyncio.sleep(0.3)
        first.cancel()
        begin = time.monotonic()
        assert (await ask(engine, folder / "clip.mp4")).top(1)
        return time.monotonic() - begin

    assert asyncio.run(hang()) < DECODE_SECONDS / 2
    assert engine.num_jobs == 0


def test_exported_networks_have_no_features_and_no_explanation():
    exported = SimpleNamespace(predictor=lambda _model: ("tiny", SimpleNamespace(is_exported=True)))
    for check in (asking.check_has_features, asking.check_can_explain):
        with pytest.raises(ServiceError, match="scores") as refused:
            check(exported, None)
        assert refused.value.kind == "unsupported-model"


def test_turns_go_to_who_came_first():
    """Who gives a turn up and wants another one waits behind the others; who gives up waiting is passed over."""
    turns, order = Turns(), []
    assert turns.acquire(timeout=1)
    assert not turns.acquire(timeout=0.05)

    def wait(name):
        assert turns.acquire(timeout=10)
        order.append(name)
        turns.release()

    threads = []
    for name in ("first", "second"):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        time.sleep(0.05)
    turns.release()
    wait("again")
    for thread in threads:
        thread.join()
    assert order == ["first", "second", "again"]
