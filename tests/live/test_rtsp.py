"""A camera on loopback, by a real RTSP server: cut, silent, restarted, of another size; half an hour of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.live.watched import Watched, wait_until
from uniformerv2.live.events import ActionEvent
from uniformerv2.live.options import LinkRules

DEBIAN_PYTHON = "/usr/bin/python3"
NEEDED = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


def has_server():
    done = subprocess.run([DEBIAN_PYTHON, "-c", NEEDED], capture_output=True, check=False)
    return done.returncode == 0


pytestmark = [
    pytest.mark.rtsp,
    pytest.mark.skipif(
        not has_server(),
        reason="needs GStreamer's RTSP server: apt-get install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good "
        "python3-gi",
    ),
]


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Camera:
    """The server, which may be killed and started again at its address."""

    def __init__(self, *words):
        self.port, self.words = free_port(), words
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}/live"

    def start(self):
        script = Path(__file__).with_name("rtsp_server.py")
        words = [DEBIAN_PYTHON, str(script), str(self.port), *self.words]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"did {word}\n"

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def camera():
    server = Camera()
    yield server
    server.kill()


def test_a_camera_is_watched_and_stopped(camera):
    watched = Watched(f"rtsp://{camera.address}")
    wait_until(lambda: len(watched.windows) > 15, 20)
    assert watched.stop() < 2
    assert watched.states == ["connecting", "running", "stopped"]
    actions = [event for event in watched.events if isinstance(event, ActionEvent)]
    assert actions[0].kind == "new"
    assert abs(actions[0].start_time - time.time()) < 60
    starts = [window.start_seconds for window in watched.windows]
    assert starts == sorted(starts)


def test_one_that_is_silent_stalls_and_one_that_stays_so_is_opened_anew(camera):
    watched = Watched(f"rtsp://{camera.address}")
    watched.wait_for("connecting", "running")
    camera.tell("silent")
    watched.wait_for("running", "stalled")
    camera.tell("loud")
    watched.wait_for("stalled", "running")
    camera.tell("silent")
    watched.wait_for("stalled", "reconnecting", "connecting")
    camera.tell("loud")
    watched.wait_for("connecting", "running")
    assert watched.stop() < 2


def test_one_that_is_cut_and_restarted_comes_back(camera):
    watched = Watched(f"rtsp://{camera.address}")
    watched.wait_for("connecting", "running")
    camera.tell("cut")
    watched.wait_for("reconnecting", "connecting", "running")
    camera.kill()
    watched.wait_for("connecting", "reconnecting")
    camera.start()
    watched.wait_for("connecting", "running")
    assert watched.stop() < 2
    kinds = [event.kind for event in watched.events if isinstance(event, ActionEvent)]
    assert kinds.count("new") == kinds.count("end")
    starts = [window.start_seconds for window in watched.windows]
    assert starts == sorted(starts)


def test_another_size_in_the_middle_is_taken(camera):
    watched = Watched(f"rtsp://{camera.address}")
    watched.wait_for("connecting", "running")
    camera.tell("size 96x64")
    sizes = lambda: {picture.shape[:2] for window in watched.windows for _, picture in window.pictures}  # noqa: E731
    wait_until(lambda: sizes() == {(48, 64), (64, 96)}, 20)
    assert watched.stop() < 2
    assert watched.states == ["connecting", "running", "stopped"]


@pytest.mark.parametrize("state", ["connecting", "stalled", "reconnecting"])
def test_it_stops_within_two_seconds_from(state):
    camera = Camera()
    try:
        if state == "connecting":
            camera.kill()
            with socket.socket() as mute:  # takes connections, and says nothing
                mute.bind(("127.0.0.1", camera.port))
                mute.listen()
                watched = Watched(f"rtsp://{camera.address}")
                watched.wait_for("connecting")
                assert watched.stop() < 2
        else:
            watched = Watched(f"rtsp://{camera.address}", link=LinkRules(stall_seconds=0.3, max_wait=30))
            watched.wait_for("connecting", "running")
            camera.tell("silent") if state == "stalled" else camera.kill()
            watched.wait_for("running", state)
            assert watched.stop() < 2
    finally:
        camera.kill()
    assert watched.states[-2:] == [state, "stopped"]


def test_a_password_opens_the_camera_and_is_seen_nowhere(tmp_path):
    camera = Camera("--user", "me", "--password", "s3cret")
    try:
        watched = Watched(f"rtsp://me:s3cret@{camera.address}")
        watched.wait_for("connecting", "running")
        watched.stop()
        wrong = Watched(f"rtsp://me:wr0ng@{camera.address}", link=LinkRules(retries=0))
        wrong.thread.join(20)
        assert wrong.states == ["connecting", "failed"]
        assert "401" in wrong.events[-1].reason
        text = "".join(event.to_json() + repr(event) for event in (*watched.events, *wrong.events))
        assert "s3cret" not in text + repr(watched.watcher.source)
        assert "wr0ng" not in text
    finally:
        camera.kill()


def resident_mb(process):
    (line,) = (line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line[:5] == "VmRSS")
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_memory_is_flat_for_half_an_hour(camera, tmp_path):
    """UNIFORMERV2_SOAK_MINUTES: how long; UNIFORMERV2_SOAK_LOG: where memory is noted every minute."""
    minutes = float(os.environ.get("UNIFORMERV2_SOAK_MINUTES", "30"))
    log = Path(os.environ.get("UNIFORMERV2_SOAK_LOG", tmp_path / "soak.txt"))
    model = Path(__file__).parents[2] / "models" / "demo"
    words = [sys.executable, "-m", "uniformerv2", "watch", f"rtsp://{camera.address}", "--model", str(model), "--json"]
    words += ["--on", "0.2", "--off", "0.1", "--give-up-seconds", "5", "--max-wait", "1"]
    told = log.with_suffix(".jsonl")  # a folder of pytest may be gone after half an hour of other tests
    with told.open("w") as file:
        process = subprocess.Popen(words, stdout=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = []
    for minute in range(1, int(minutes) + 1):
        time.sleep(60)
        found.append(resident_mb(process))
        with log.open("a") as file:
            file.write(f"minute {minute}: {found[-1]:.1f} MB\n")
        if minute % 5 == 0:
            camera.tell(("cut", "size 96x64", "cut", "size 64x48")[minute // 5 % 4])
    process.terminate()
    assert process.wait(10) == 0
    events = [json.loads(line) for line in told.read_text().splitlines()]
    with log.open("a") as file:
        file.write(f"{len(events)} events, {events[-1]}\n")
    assert events[-1]["state"] == "stopped"
    assert found[-1] <= 1.02 * found[0]
