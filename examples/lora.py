"""Fine-tune with LoRA: small matrices beside the image ViT's weights learn, with the new video blocks; then they merge.

LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), https://arxiv.org/abs/2106.09685, by PEFT
(pip install peft).

python examples/lora.py videos --out models/mine
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning.pytorch as lightning
from peft import LoraConfig, get_peft_model

from uniformerv2 import arm, save_model
from uniformerv2.autotrain.run import augmentation_of
from uniformerv2.core.workers import available_cores
from uniformerv2.data.splits import read_splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.optim import Optimization

VIDEO_BLOCKS = ("fusion.", "norm.", "head.")
"""What arming has added with preset scene; it learns whole."""


def main(words: list[str] | None = None) -> None:
    """Train and write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of class folders, list, CSV, folder of lists")
    parser.add_argument("--root", help="where the relative paths of a list start")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--backbone", default="vit_small_patch14_dinov2")
    parser.add_argument("--weights", help="file of the backbone's weights (default: fetched)")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--rank", type=int, default=8, help="of LoRA; 0: none, the backbone stays as it is")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)

    lightning.seed_everything(options.seed)
    splits = read_splits(options.data, root=options.root)
    network = arm(
        options.backbone,
        class_names=splits.class_names,
        num_classes=len(splits.class_names),
        image_size=options.image_size,
        num_stages=1,
        pretrained=options.weights is None,
        weights=options.weights,
    )
    if options.rank:
        targets = r"blocks\..*\.(qkv|proj)"  # the attention of every block of the image ViT
        lora = LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=targets)
        adapted = get_peft_model(network, lora)
        for name, weight in network.named_parameters():  # LoRA is put into the network, and freezes all but itself
            if name.startswith(VIDEO_BLOCKS):
                weight.requires_grad_(True)
    else:
        network.freeze_backbone()
    learning = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    print(f"{learning / 1e6:.2f} M weights learn")

    preprocessing = Preprocessing.from_dict(
        {"num_frames": network.config.num_frames, "image_size": options.image_size, **network.info.preprocessing}
    )
    data = VideoDataModule(
        list(splits.train),
        preprocessing,
        val=list(splits.val),
        classes=splits.class_names,
        augmentation=augmentation_of("light", image_size=options.image_size, flip=0.5),
        batch_size=16,
        num_workers=min(2, available_cores()),
        seed=options.seed,
    )
    rates = Optimization(learning_rate=options.learning_rate, batch_size=None, warmup_epochs=0.1 * options.epochs)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=options.epochs, num_sanity_val_steps=0, **quiet)
    trainer.fit(VideoClassifier(network, optimization=rates, label_smoothing=0.1), datamodule=data)
    if options.rank:
        network = adapted.merge_and_unload()  # without a trace of PEFT
    save_model(network.eval(), options.out)
    print(f"{options.out}: val_top1 {float(trainer.callback_metrics['val_top1']):.4f}")


if __name__ == "__main__":
    main()
