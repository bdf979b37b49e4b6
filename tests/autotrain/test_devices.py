"""``--devices``: two real processes train what one would; both stop together, and go on together."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from tests.media import write_video
from tests.training.fake_clips import tiny_network
from uniformerv2 import load_model, save_model
from uniformerv2.autotrain import TrainOptions, train
from uniformerv2.core.messages import UsageError
from uniformerv2.training.module import NonFiniteLossError

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

FIXED = {"probe": False, "preset": "scene", "num_workers": 0, "num_clips": 1, "num_crops": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Fourteen, of which eleven are trained on: three are left over in each epoch."""
    top = tmp_path_factory.mktemp("videos")
    for index in range(14):
        (top / "ab"[index % 2]).mkdir(exist_ok=True)
        write_video(top / "ab"[index % 2] / f"{index:02}.mp4", num_frames=6, seed=index)
    return top


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return str(save_model(tiny_network(), tmp_path_factory.mktemp("network") / "tiny"))


def curves(log):
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("train_loss_epoch", "val_loss", "val_top1")
    return {name: [float(row[name]) for row in rows if row[name]] for name in names}


def test_two_processes_train_what_one_does(videos, network, tmp_path, capfd):
    """The same losses, validation numbers and weights, and nothing is said twice."""
    options = {"model": network, "batch_size": 4, "epochs": 2, "device": "cpu", **FIXED}
    one, two = (
        train(videos, out=str(tmp_path / f"of_{count}"), devices=count, progress=count == 2, **options)
        for count in (1, 2)
    )
    assert curves(two.log) == {name: pytest.approx(values, abs=1e-4) for name, values in curves(one.log).items()}
    assert two.val_score == one.val_score
    assert two.summary.all_videos["loss"].value == pytest.approx(one.summary.all_videos["loss"].value, abs=1e-4)
    weights, others = load_model(one.model).state_dict(), load_model(two.model).state_dict()
    assert all(torch.allclose(value, others[name], atol=1e-4) for name, value in weights.items())
    told = capfd.readouterr().err
    assert told.count("epoch 1 of 2: ") == 1
    assert "distributed" not in told
    assert not torch.distributed.is_initialized()


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UsageError, match="5 videos cannot be divided by 2; take a multiple of 2"):
        TrainOptions(data="v", devices=2, batch_size=5)
    with pytest.raises(UsageError, match="--device cuda:1 names one GPU, and --devices 2 asks for more"):
        TrainOptions(data="v", devices=2, device="cuda:1")
    with pytest.raises(UsageError, match="--devices is for a training in steps"):
        TrainOptions(data="v", devices=2, probe=True)
    with pytest.raises(UsageError, match="--devices must be at least 1, got 0"):
        TrainOptions(data="v", devices=0)


@pytest.mark.slow
def test_a_loss_that_is_no_number_names_the_files_of_both(videos, network, tmp_path):
    options = {"model": network, "batch_size": 4, "epochs": 3, "learning_rate": 1e30, "device": "cpu", **FIXED}
    with pytest.raises(NonFiniteLossError, match=r"(?s)Files of the batch.*Process 2 of 2 that train says: .*Files of"):
        train(videos, out=str(tmp_path / "run"), devices=2, progress=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)])
def test_both_stop_after_the_same_step_and_go_on(videos, network, tmp_path, number, to_all):
    out = tmp_path / "run"
    words = f"--model {network} --no-probe --preset scene --workers 0 --clips 1 --crops 1 --precision fp32 --device cpu"
    words += f" --batch-size 4 --epochs 200 --devices 2 --freeze-backbone --cache-features --out {out}"
    command = [sys.executable, "-m", "uniformerv2", "train", str(videos), *words.split()]
    log = tmp_path / "stderr.txt"
    with started(command, log) as running:
        wait_for(log, r"epoch 3 of 200: ")
        (os.killpg if to_all else os.kill)(running.pid, number)
        assert running.wait(60) == 128 + number
    assert re.search(r"Stopped after step \d+ .*--resume continues from there", log.read_text())
    assert "Traceback" not in log.read_text()
    end = time.monotonic() + 20
    while Path("/proc").is_dir() and is_somebody_left(running.pid):
        assert time.monotonic() < end
        time.sleep(0.1)
    with started([*command, "--resume"], log):
        wait_for(log, r"epoch ([4-9]|[1-9]\d+) of 200: ")


@contextmanager
def started(command, log):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        running = subprocess.Popen(command, stderr=file, stdout=file, start_new_session=True, env=environment)
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def wait_for(log, pattern, *, seconds=90):
    end = time.monotonic() + seconds
    while not re.search(pattern, log.read_text()):
        assert time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.1)


def is_somebody_left(session):
    """Whether a process of this session lives."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False
