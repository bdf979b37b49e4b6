"""One process and two, in real subprocesses over gloo: the same losses, the same weights, the same metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.training.test_recipes import write_noise

ROOT = Path(__file__).resolve().parents[2]
NUM_VIDEOS, GLOBAL_BATCH, EPOCHS = 11, 4, 2
"""Two videos are left over in each epoch: the last batch is uneven."""
NAMES = [f"clip_{index:02}.mp4" for index in range(NUM_VIDEOS)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name in NAMES:
        write_noise(folder / name, num_frames=6, seed=NAMES.index(name))
    lines = "".join(f"{name} {index % 3}\n" for index, name in enumerate(NAMES))
    (folder / "list.txt").write_text(lines)
    return folder / "list.txt"


@pytest.fixture(scope="module")
def run(videos, tmp_path_factory):
    """A function: options -> what the run wrote; the same options run once."""

    @cache
    def started(**options):
        out = tmp_path_factory.mktemp("run")
        result = start(out=str(out), videos=str(videos), **options)
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads((out / "losses.json").read_text()), torch.load(out / "weights.pt", weights_only=True)

    return started


def start(*, launcher=(), **options):
    settings = {"global_batch_size": GLOBAL_BATCH, "max_epochs": EPOCHS, **options}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = str(Path(__file__).with_name("process_run.py"))
    command = [sys.executable, *launcher, script, json.dumps(settings)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def check_equal(one, two):
    (one, weights), (two, other_weights) = one, two
    assert len(one["losses"]) == EPOCHS * (NUM_VIDEOS // GLOBAL_BATCH)
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-4)
    for name, value in weights.items():
        # as tensors, not number by number: where a gradient is rounding noise, AdamW still takes a whole step
        difference = (other_weights[name] - value).double().norm()
        assert difference <= 2e-4 * (1 + value.double().norm()), f"{name}: {difference:.1e}"


def test_two_processes_equal_one(run):
    check_equal(run(devices=1), run(devices=2))


@pytest.mark.slow
def test_sharded_parameters_equal_whole_ones(run):
    """FSDP2 with the blocks as units."""
    check_equal(run(devices=1), run(devices=2, sharded=True))


@pytest.mark.slow
def test_torchrun_equals_lightnings_launch(run):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    check_equal(run(devices=1), run(devices=2, launcher=torchrun))


@pytest.mark.slow
def test_a_loss_that_is_no_number_in_one_process_ends_both(videos, tmp_path):
    result = start(out=str(tmp_path), videos=str(videos), devices=2, poisoned=1)
    assert result.returncode != 0
    assert "NonFiniteLossError" in result.stderr
    assert "step 1 (epoch 1" in result.stderr
    assert "another process names its files" in result.stderr
    assert sum(name in result.stderr for name in NAMES) == GLOBAL_BATCH // 2
    assert not (tmp_path / "losses.json").exists()
