"""What ``test_resume`` and ``test_faults`` train: a tiny network with all that has a state, on tiny real videos."""

from __future__ import annotations

import logging
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from tests.media import write_video
from tests.training.fake_clips import tiny_network
from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.plan import Rates, TrainingPlan
from uniformerv2.autotrain.run import run_plan
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.splits import Splits

CLASSES = ("a", "b")
BATCH = 2


def write_videos(folder: Path) -> Path:
    """Fourteen of two classes."""
    for index in range(14):
        write_video(folder / f"{index:02}{'ab'[index % 2]}.mp4", num_frames=8, seed=index)
    return folder


def load(checkpoint: Path) -> dict:
    """All that it holds."""
    return torch.load(checkpoint, weights_only=True)


def steps_of(checkpoint: Path) -> int:
    """Steps that were made when it was written."""
    return load(checkpoint)["global_step"]


class StepLog(Callback):
    """A line for each step and each validation: a number that comes twice must come with the same words."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        loss = float(outputs["loss"]).hex()
        self._write(f"step {trainer.global_step}", trainer.current_epoch, batch_idx, *batch.index.tolist(), loss)

    def on_validation_epoch_start(self, trainer, pl_module):
        self.before = torch.get_rng_state()

    def on_validation_end(self, trainer, pl_module):
        assert torch.equal(self.before, torch.get_rng_state())
        self._write(f"validation {trainer.current_epoch}", float(trainer.callback_metrics["val_loss"]).hex())

    def _write(self, name, *words):
        with self.path.open("a") as file:
            file.write(f"{name}: {' '.join(map(str, words))}\n")


def splits_of(videos: Path) -> Splits:
    """The names' first letters are their classes; the last four validate."""
    paths = sorted(videos.glob("*.mp4"))
    records = tuple(VideoRecord(str(path), label=CLASSES.index(path.name[-5])) for path in paths)
    return Splits(train=records[:-4], val=records[-4:], test=(), class_names=CLASSES, rule="the last four validate")


def plan_of(out: Path, splits: Splits, *, epochs: int, num_workers: int) -> TrainingPlan:
    return TrainingPlan(
        data="videos",
        out=str(out),
        class_names=splits.class_names,
        num_train=len(splits.train),
        num_val=len(splits.val),
        num_test=0,
        preset="scene",
        backbone="tiny",
        freeze_backbone=False,
        num_frames=4,
        image_size=32,
        batch_size=BATCH,
        num_stages=2,
        dropout=0.5,
        rates=Rates(1e-3, video_blocks_scale=2.0),
        epochs=epochs,
        num_clips=1,
        num_crops=1,
        augmentation="strong",
        flip=0.5,
        label_smoothing=0.1,
        is_multi_label=False,
        precision="32-true",
        seed=0,
        num_workers=num_workers,
        why={},
    )


def train_on(out: str, videos: str, *, epochs: int, save_every: float = 0.0, num_workers: int = 0, callbacks=()):
    """Start, or go on where there is something to go on from: what ``uniformerv2 train --resume`` does."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    folder, splits = RunFolder(Path(out)), splits_of(Path(videos))
    resume = folder.last.exists()
    if resume:
        plan, network = folder.read()
    else:
        plan = plan_of(folder.path, splits, epochs=epochs, num_workers=num_workers)
        noisy = {"global_dropout": (0.3,), "classifier_dropout": 0.3, "drop_path_rate": 0.3}
        network = tiny_network(num_classes=len(CLASSES), num_local_steps=1, **noisy)
        assert any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in network.modules())
        folder.write(plan, network, {})
    watched = [StepLog(folder.path / "steps.txt"), EMAWeightAveraging(decay=0.9), *callbacks]
    return run_plan(network, splits, plan, callbacks=watched, resume=resume, save_every=timedelta(seconds=save_every))
