"""Killed in the middle of work, or interrupted: no process of the run outlives it.

All processes of a run write to the same two pipes, so that these end when the last one is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from tests.training.fake_clips import tiny_network
from uniformerv2.evaluation.journal import journal_folder
from uniformerv2.zoo.checkpoint import save_model

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals to a group of processes are POSIX")

SECONDS = 200
"""A deadline for a busy machine, not a time that is waited for."""


@contextmanager
def started(*words):
    """The command in a session of its own; whatever of it is left over is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uniformerv2", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def running_test(tmp_path, *, devices):
    """A test of ten thousand videos, when each of its processes has scored some that its worker has decoded."""
    paths = [write_video(tmp_path / f"{index}.mp4", seed=index, num_frames=8) for index in range(4)]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{path},0\n" for path in paths) * 2500)
    model, dump = save_model(make(TINY), tmp_path / "model"), tmp_path / "dump.pkl"
    words = ["--device", "cpu", "--devices", devices, "--workers", 1, "--clips", 1, "--crops", 1, "--dump", dump]
    with started("test", tmp_path / "list.csv", "--model", model, *words) as process:
        deadline = time.monotonic() + SECONDS
        for journal in (journal_folder(dump) / f"{rank}.jsonl" for rank in range(devices)):
            while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield process
    assert not dump.exists()


def ranks(process):
    """The processes that --devices has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc to find the processes of a process")
    found = [int(pid) for pid in children.read_text().split()]
    return [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("name", ["SIGKILL", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_killed_test_takes_its_worker_along(name, tmp_path):
    with running_test(tmp_path, devices=1) as process:
        process.send_signal(signal.Signals[name])
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == (-signal.SIGKILL if name == "SIGKILL" else 128 + signal.SIGTERM)
        assert name == "SIGKILL" or "leaked" not in said


def test_ctrl_c_ends_the_workers_of_every_device(tmp_path):
    with running_test(tmp_path, devices=2) as process:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=SECONDS)
        assert process.returncode == 130


@pytest.mark.slow
def test_one_of_two_killed_ends_all(tmp_path):
    with running_test(tmp_path, devices=2) as process:
        first, second = ranks(process)
        os.kill(max(first, second), signal.SIGKILL)
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == 1
        assert "ended with exit code -9" in said


@pytest.mark.slow
def test_a_killed_main_process_takes_all_along(tmp_path):
    with running_test(tmp_path, devices=2) as process:
        process.kill()
        process.communicate(timeout=SECONDS)
        assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_training_takes_its_workers_along(tmp_path):
    for name in ("jump", "run"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for index in range(3):
            write_video(tmp_path / "videos" / name / f"{index}.mp4", num_frames=8, seed=index)
    network = save_model(tiny_network(), tmp_path / "network")
    words = ["--model", network, "--out", tmp_path / "run", "--batch-size", 2, "--workers", 1, "--epochs", 1000]
    with started("train", tmp_path / "videos", *words) as process:
        for line in process.stderr:
            if line.startswith("epoch 1 of 1000"):
                break
        process.kill()
        process.communicate(timeout=SECONDS)
        assert process.returncode == -signal.SIGKILL
