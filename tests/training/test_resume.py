"""Killed, stopped or failed, and gone on: the same numbers as if nothing had happened, and words that help."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from tests.media import write_video
from tests.training.fake_clips import tiny_network
from tests.training.resumed_run import splits_of
from uniformerv2 import save_model
from uniformerv2.cli import main
from uniformerv2.commands.train_progress import TrainProgress
from uniformerv2.data.mixing import BatchMixing
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.optim import Optimization
from uniformerv2.training.resume import CheckpointWriteError, ExactResume, LastCheckpoint, WholeFileIO

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, BATCH, FAULT_STEP = 3, 4, 3
"""Two steps an epoch."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Fourteen of two classes."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(14):
        write_video(folder / f"{index:02}{'ab'[index % 2]}.mp4", num_frames=8, seed=index)
    return folder


class TestKills:
    """In processes of their own: a network with BatchNorm, dropout, drop path and an average of its weights."""

    def test_a_killed_training_ends_as_one_that_was_not(self, videos, tmp_path):
        kills = [[2, 0.0, "KILL"], "save", [1, 0.005, "TERM"], [4, 0.0, "TERM"], "save"]
        whole, broken = run_jobs(tmp_path, videos, epochs=3, kills=kills)
        assert whole["exits"] == [0]
        assert broken["exits"] == [-9, -9, 143, 143, -9, 0]
        check_equal(tmp_path / "whole", tmp_path / "broken")

    @pytest.mark.slow
    @pytest.mark.timeout(3600)
    def test_twenty_kills_at_random(self, videos, tmp_path):
        draw = random.Random(20)
        moments = [[draw.randrange(6), draw.uniform(0, 0.1), "KILL"] for _ in range(14)]
        kills = draw.sample([*moments, *["save"] * 6], k=20)
        _, broken = run_jobs(tmp_path, videos, epochs=30, kills=kills)
        assert broken["exits"] == [-9] * 20 + [0]
        assert broken["in_save"] >= 1
        check_equal(tmp_path / "whole", tmp_path / "broken")


def run_jobs(folder, videos, *, kills, **options):
    """What a training and one with kills told."""
    jobs = [
        json.dumps({"out": str(folder / name), "videos": str(videos), "kills": list(moments), **options})
        for name, moments in (("whole", ()), ("broken", kills))
    ]
    script = str(Path(__file__).with_name("kill_and_resume.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, script, *jobs], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def check_equal(whole, broken):
    """Weights, averages, optimiser, schedule, random states, the best score, the order of the data, the log."""
    assert told(broken / "steps.txt") == told(whole / "steps.txt")
    assert logged(broken) == logged(whole)
    for name in ("best", "last"):
        one, two = (
            dict(leaves(torch.load(out / f"checkpoints/{name}.ckpt", weights_only=True), str(out)))
            for out in (whole, broken)
        )
        assert len(one) > 1000
        assert {"current_model_state", "optimizer_states", "lr_schedulers", "exact_resume"} <= {key[0] for key in one}
        assert one == two
    weights = [out / "model" / "model.safetensors" for out in (whole, broken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not list(broken.rglob("*.part"))


def told(path):
    """Each line once: a step that was made again was made alike."""
    return set(path.read_text().splitlines())


def logged(out):
    """(step, name) -> the values over all versions of the log."""
    values = {}
    for log in out.glob("logs/version_*/metrics.csv"):
        with log.open(newline="") as file:
            for row in csv.DictReader(file):
                for name in row.keys() - {"step", "epoch"}:
                    if row[name]:
                        values.setdefault((int(row["step"]), name), set()).add(row[name])
    return values


def leaves(value, out, path=()):
    """(path, plain value) of everything in a checkpoint; the folder's own name is left out.

    So is ``current_score``, which Lightning saves, but does not restore.
    """
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if key == "current_score":
                continue
            yield from leaves(item, out, (*path, str(key).replace(out, "")))
    elif isinstance(value, torch.Tensor):
        yield path, (value.dtype, value.shape, value.numpy().tobytes())
    else:
        yield path, value.replace(out, "") if isinstance(value, str) else value


class Crash(Callback):
    """Ends the training after a batch, with nothing that tidies up."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise CrashError


class CrashError(Exception):
    pass


class Validations(Callback):
    """How often, by the steps before it."""

    def __init__(self):
        self.steps = []

    def on_validation_end(self, trainer, pl_module):
        self.steps.append(trainer.global_step)


def fit_short(splits, folder, *, crash=None, resume=False, **options):
    """Two epochs of four batches; the weights and the steps that were validated."""
    torch.manual_seed(0)
    data = VideoDataModule(
        splits.train[:8],
        Preprocessing(num_frames=4, image_size=32),
        val=splits.val[:2],
        batch_size=2,
        num_workers=0,
        classes=splits.class_names,
    )
    network = tiny_network(num_classes=2, num_local_steps=1, classifier_dropout=0.5)
    fast = Optimization(learning_rate=1e-3, batch_size=None, warmup_epochs=0)
    classifier = VideoClassifier(network, optimization=fast, mixing=BatchMixing(num_classes=2))
    seen = Validations()
    crashes = [] if crash is None else [Crash(crash)]
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[WholeFileIO()],
        callbacks=[
            EMAWeightAveraging(decay=0.5),
            seen,
            ExactResume(),
            LastCheckpoint(folder, every=timedelta(0)),
            *crashes,
        ],
        **options,
    )
    last = folder / "last.ckpt"
    trainer.fit(classifier, datamodule=data, weights_only=True, ckpt_path=last if resume and last.exists() else None)
    return network.state_dict(), seen.steps


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("options", "validated", "crashes"),
    [({"accumulate_grad_batches": 2}, [2, 4], (0, 2, 5)), ({"val_check_interval": 2}, [2, 4, 6, 8], (1, 2, 5))],
)
def test_after_any_batch(videos, tmp_path, options, validated, crashes):
    """Between batches whose gradients add up, around validations within an epoch, and with mixed batches."""
    splits = splits_of(videos)
    weights, steps = fit_short(splits, tmp_path / "whole", **options)
    assert steps == validated
    for crash in crashes:
        folder = tmp_path / str(crash)
        with pytest.raises(CrashError):
            fit_short(splits, folder, crash=crash, **options)
        resumed, later = fit_short(splits, folder, resume=True, **options)
        assert later == validated[len(validated) - len(later) :]
        assert all(torch.equal(resumed[name], value) for name, value in weights.items()), crash


class TestFaults:
    """``uniformerv2 train``, with something that goes wrong after the third step."""

    def test_workers_that_are_gone(self, command, fault, capsys):
        """As where the system ends them for their memory; what they had read beforehand is still used."""
        words = [*command, "--workers", "1", "--batch-size", "1"]

        @fault
        def kill_the_workers(trainer):
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)

        assert main(words) == 1
        message = capsys.readouterr().err
        assert "A process that reads videos is gone (" in message
        assert "--workers" in message
        assert message.rstrip().endswith(f"--resume goes on from {last_of(command)}.")
        assert FAULT_STEP <= steps_of(last_of(command)) < 8
        goes_on(words, capsys, steps=8 * EPOCHS)

    def test_a_disk_that_is_full(self, command, fault, capsys):
        """Files may have no more than so many bytes: the same words from the system as for a quota."""

        @fault
        def leave_no_room(trainer):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            assert main(command) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        message = capsys.readouterr().err
        assert re.search(
            r"run/checkpoints/(best|last)\.ckpt could not be written: \[Errno 27\] File too large\.", message
        )
        assert "Make room on the disk" in message
        assert steps_of(last_of(command)) == 2
        assert sorted(path.name for path in last_of(command).parent.iterdir()) == ["best.ckpt", "last.ckpt"]
        goes_on(command, capsys)

    def test_a_disk_without_a_byte_left(self, command, fault, capsys, tmp_path):
        """Then the log cannot be written either."""
        (tmp_path / "run").mkdir()
        with small_disk(tmp_path / "run"):

            @fault
            def fill(trainer):
                with (tmp_path / "run" / "filler").open("wb", buffering=0) as file, suppress(OSError):
                    while True:
                        file.write(bytes(4096))

            assert main(command) == 1
            message = capsys.readouterr().err
            assert "No space left on device" in message
            assert "Make room on the disk" in message
            assert steps_of(last_of(command)) == 2
            (tmp_path / "run" / "filler").unlink()
            goes_on(command, capsys)

    def test_a_loss_that_is_no_number(self, command, fault, capsys):
        @fault
        def poison(trainer):
            with torch.no_grad():
                trainer.lightning_module.network.head.weight.fill_(torch.nan)

        assert main(command) == 1
        message = capsys.readouterr().err
        assert f"The loss is nan at step {FAULT_STEP} (epoch 1, learning rate " in message
        assert message.count(".mp4") == BATCH
        assert f"Last good checkpoint: {last_of(command)}." in message
        assert all(value.isfinite().all() for value in load(last_of(command))["state_dict"].values())
        goes_on(command, capsys)

    def test_a_file_where_the_folder_should_be(self, command, tmp_path, capsys):
        """Found before the first step, not at the first checkpoint."""
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "checkpoints").write_text("mine")
        assert main(command) == 1
        message = capsys.readouterr().err
        assert f"{tmp_path / 'run' / 'checkpoints'} cannot be written (File exists)" in message
        assert "--out" in message
        assert "epoch 1" not in message
        assert (tmp_path / "run" / "checkpoints").read_text() == "mine"

    def test_sigterm(self, command, capsys):
        """As before a machine is taken away; the page says 143."""
        script = [sys.executable, "-m", "uniformerv2", *command]
        with subprocess.Popen(script, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
            told = ""
            for line in running.stderr:
                told += line
                if line.startswith("epoch 1 of"):
                    running.terminate()
            assert running.wait(timeout=60) == 143, told
        assert "The same command with --resume goes on from there." in told
        assert "Traceback" not in told
        assert f"Stopped after step {steps_of(last_of(command))} " in told
        goes_on(command, capsys)


@pytest.fixture
def command(videos, tmp_path):
    """Words that train on ten of the videos."""
    network = save_model(tiny_network(), tmp_path / "network")
    rows = [f"{path},{path.name[2]}" for path in sorted(videos.glob("*.mp4"))[:10]]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    fixed = f"--workers 0 --batch-size {BATCH} --epochs {EPOCHS} --clips 1 --crops 1 --json".split()
    return ["train", str(tmp_path / "clips.csv"), "--backbone", str(network), "--out", str(tmp_path / "run"), *fixed]


@pytest.fixture
def fault(monkeypatch):
    """A decorator: what it is given is done once, after the third step."""

    def arrange(cause):
        class Fault(TrainProgress):
            def on_train_batch_end(self, trainer, *rest):
                super().on_train_batch_end(trainer, *rest)
                if trainer.global_step == FAULT_STEP:
                    monkeypatch.undo()
                    cause(trainer)

        monkeypatch.setattr("uniformerv2.commands.train.TrainProgress", Fault)

    return arrange


@contextmanager
def small_disk(folder):
    """A disk of 32 MB in memory, for those who may have one."""
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root can make a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def last_of(command):
    return Path(command[command.index("--out") + 1]) / "checkpoints" / "last.ckpt"


def load(checkpoint):
    return torch.load(checkpoint, weights_only=True)


def steps_of(checkpoint):
    return load(checkpoint)["global_step"]


def goes_on(command, capsys, *, steps=2 * EPOCHS):
    """The same command, resumed, comes to its end."""
    assert main([*command, "--resume"]) == 0
    assert "Going on from" in capsys.readouterr().err
    assert steps_of(last_of(command)) == steps


class TestWholeFiles:
    def test_what_was_there_stays_until_the_new_one_is_whole(self, tmp_path):
        """A disk without room ends the write; the file of before is loadable, and nothing is left over."""
        path = tmp_path / "new" / "last.ckpt"
        WholeFileIO().save_checkpoint({"step": 1}, path)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(CheckpointWriteError, match=r"last\.ckpt could not be written: .*File too large.*whole"):
                WholeFileIO().save_checkpoint({"weights": torch.zeros(10_000)}, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert load(path) == {"step": 1}
        assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]

    def test_a_place_that_is_no_folder(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointWriteError, match="could not be written"):
            WholeFileIO().save_checkpoint({}, tmp_path / "file" / "last.ckpt")


def test_random_states_travel(tmp_path):
    """Of Python, NumPy and PyTorch, through a checkpoint that runs no code."""
    module, resume = lightning.LightningModule(), ExactResume()
    trainer = SimpleNamespace(train_dataloader=None, world_size=1, global_rank=0)
    draws = lambda: (random.random(), np.random.rand(), np.random.randn(), torch.rand(3).tolist())  # noqa: E731
    np.random.randn()  # half of a pair of normal numbers is kept for the next draw
    content = {}
    resume.on_save_checkpoint(trainer, module, content)
    drawn = draws()
    WholeFileIO().save_checkpoint(content, tmp_path / "states.ckpt")
    assert draws() != drawn
    resume.on_load_checkpoint(trainer, module, load(tmp_path / "states.ckpt"))
    resume.on_train_start(trainer, module)
    assert draws() == drawn


class Terminate(Callback):
    """SIGTERM, once."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3 and trainer.current_epoch == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.usefixtures("one_thread")
def test_fit_goes_on_by_the_same_command(videos, tmp_path, capsys):
    rows = [f"{path},{path.name[2]}" for path in sorted(videos.glob("*.mp4"))]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    words = ["fit", "--config", str(small_recipe(tmp_path)), "--ckpt_path", "last"]
    assert main(words) == 143
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert (steps_of(last), load(last)["epoch"]) == (3, 0)
    assert main(words) == 0
    assert (steps_of(last), load(last)["epoch"]) == (14, 1)


def small_recipe(folder):
    """A recipe's file, with a small network."""
    size = {"num_frames": 4, "image_size": 32}
    network = {**size, "dim": 48, "depth": 4, "num_heads": 4, "num_classes": 2, "fusion_stages": [0, 1, 2, 3]}
    clips = str(folder / "clips.csv")
    content = {
        "seed_everything": 0,
        "model": {"network": network},
        "data": {"train": clips, "val": clips, "preprocessing": size, "batch_size": 2, "num_workers": 0},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "default_root_dir": str(folder / "run"),
            "precision": "32-true",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
            "callbacks": [{"class_path": f"{__name__}.Terminate"}],
        },
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(content))
    return folder / "small.yaml"
