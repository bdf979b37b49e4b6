"""What ``test_processes`` starts: a short training of a tiny network, by Lightning's own launch or under torchrun.

python process_run.py '{"out": "DIR", "videos": "LIST", "devices": 2, ...}'
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from tests.training.fake_clips import tiny_network
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.optim import Optimization
from uniformerv2.training.recipe_cli import ShardedVideoClassifier, whole_network


class Losses(Callback):
    """The loss of each step; at step ``poisoned`` the weights of process 1 are made to give no numbers."""

    def __init__(self, poisoned: int | None) -> None:
        self.losses: list[float] = []
        self.poisoned = poisoned

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.poisoned and trainer.global_rank == 1:
            with torch.no_grad():
                pl_module.network.embedding.weight.fill_(float("nan"))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(trainer.callback_metrics["train_loss"]))


def main(options: dict) -> None:
    """Train, and write ``losses.json`` and ``weights.pt`` from process 0."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    devices, sharded = options["devices"], options.get("sharded", False)
    preprocessing = Preprocessing(num_frames=4, image_size=32)
    data = VideoDataModule(
        options["videos"],
        preprocessing,
        val=options["videos"],
        augmentation=TrainAugmentation(image_size=32),
        batch_size=options["global_batch_size"] // devices,
        num_workers=0,
        max_failed=0,
    )
    network = tiny_network(num_classes=data.num_classes)
    rates = Optimization(learning_rate=1e-3, batch_size=options["global_batch_size"], warmup_epochs=1)
    classifier = (ShardedVideoClassifier if sharded else VideoClassifier)(network, optimization=rates)
    strategy: object = DDPStrategy(process_group_backend="gloo") if devices > 1 else "auto"
    if sharded:
        strategy = ModelParallelStrategy(
            data_parallel_size=devices,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend="gloo",
        )
    recorder = Losses(options.get("poisoned"))
    out = Path(options["out"])
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        max_epochs=options["max_epochs"],
        default_root_dir=out,
        callbacks=[recorder],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier, datamodule=data)
    whole = whole_network(classifier.network)
    if trainer.is_global_zero:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        (out / "losses.json").write_text(json.dumps({"losses": recorder.losses, "metrics": metrics}))
        torch.save(whole.state_dict(), out / "weights.pt")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
