"""Killed or stopped, and gone on: the same numbers as if nothing had happened. What fails is in ``test_faults``."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from tests.training.fake_clips import tiny_network
from tests.training.resumed_run import load, splits_of, steps_of, write_videos
from uniformerv2.cli import main
from uniformerv2.data.augmentation import BatchMixing
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.optim import Optimization
from uniformerv2.training.resume import ExactResume, LastCheckpoint, WholeFileIO

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Fourteen of two classes."""
    return write_videos(tmp_path_factory.mktemp("videos"))


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
