"""Arm the first blocks of an image ViT and train it on a folder of videos, in plain PyTorch.

    python examples/train_demo.py DATA --weights dinov2_vits14.safetensors --out models/demo

DATA holds ``train.txt`` and ``val.txt`` (path and label a line), or one folder per class. Prints the accuracy on the
validation videos after every epoch; the last epoch is what is stored, so that nothing is chosen by that accuracy.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from uniformerv2 import Preprocessing, UniFormerV2, arm, open_video, save_model
from uniformerv2.data.annotations import VideoRecord, class_names, read_records
from uniformerv2.data.augmentation import TrainAugmentation

NUM_FRAMES, IMAGE_SIZE, CACHED_SIZE, CACHED_FRAMES = 8, 112, 128, 32


def read_clip(record: VideoRecord) -> Tensor:
    """Frames evenly spread over the video, small enough to keep in memory: uint8 [CACHED_FRAMES, 3, H, W]."""
    cache = Preprocessing(num_frames=CACHED_FRAMES, image_size=CACHED_SIZE, resize="bicubic_antialias")
    with open_video(record.path) as video:
        (indices,) = cache.indices(len(video))
        return cache.resize_and_crop(video.frames(indices))[0]


def augment(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """One frame out of each segment, then one draw of colours, crop and flip: uint8 [NUM_FRAMES, 3, h, w]."""
    step = CACHED_FRAMES // NUM_FRAMES
    clip = clip[torch.from_numpy(np.arange(NUM_FRAMES) * step + rng.integers(0, step, NUM_FRAMES))]
    return TrainAugmentation(image_size=IMAGE_SIZE, area=(0.3, 1.0))(clip, rng=rng)[0]


def centre(clip: Tensor) -> Tensor:
    """The middle frame of each segment, the middle crop."""
    step, offset = CACHED_FRAMES // NUM_FRAMES, (CACHED_SIZE - IMAGE_SIZE) // 2
    return clip[step // 2 :: step, :, offset : offset + IMAGE_SIZE, offset : offset + IMAGE_SIZE]


@torch.inference_mode()
def accuracy(model: UniFormerV2, clips: list[Tensor], labels: Tensor, preprocessing: Preprocessing) -> float:
    """Share of the videos whose most probable class is right, one view each."""
    model.eval()
    hits = 0
    for start in range(0, len(clips), 16):
        video = preprocessing.normalize(torch.stack([centre(clip) for clip in clips[start : start + 16]]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model(video)
        hits += int((scores.argmax(-1) == labels[start : start + 16]).sum())
    return hits / len(clips)


def train(options: argparse.Namespace) -> None:
    """Read, arm, train, measure, store."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    splits = {split: read_records(options.data, split=split) for split in ("train", "val")}
    names = class_names(splits["train"])
    clips = {split: [read_clip(record) for record in track(of, split)] for split, of in splits.items()}
    labels = {split: torch.tensor([record.label for record in of]) for split, of in splits.items()}
    model = arm(
        "vit_small_patch14_dinov2",
        weights=options.weights,
        num_blocks=options.blocks,
        num_frames=NUM_FRAMES,
        image_size=IMAGE_SIZE,
        num_classes=len(names),
        class_names=names,
        fusion_stages=(options.blocks - 1,),
        global_mlp_ratio=2.0,
        drop_path_rate=0.1,
    )
    preprocessing = Preprocessing.from_dict(model.info.preprocessing)
    video_blocks = [
        weight for name, weight in model.named_parameters() if not name.startswith(("blocks.", "embedding."))
    ]
    upper_half = [*model.blocks[options.blocks // 2 :].parameters()]
    for frozen in (model.embedding, *model.blocks[: options.blocks // 2]):
        frozen.requires_grad_(False)
    groups = [{"params": upper_half, "lr": options.rate / 10}, {"params": video_blocks, "lr": options.rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = options.epochs * (len(clips["train"]) // options.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(step / (0.1 * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    for epoch in range(options.epochs):
        model.train()
        start, losses = time.perf_counter(), []
        order = rng.permutation(len(clips["train"]))
        for batch in track(np.split(order[: len(order) // options.batch * options.batch], steps // options.epochs)):
            video = preprocessing.normalize(torch.stack([augment(clips["train"][index], rng) for index in batch]))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(video)
            loss = F.cross_entropy(logits.float(), labels["train"][batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        top1 = accuracy(model, clips["val"], labels["val"], preprocessing)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, val top-1 {top1:.4f}, {seconds:.0f} s", flush=True)
    model.info = replace(
        model.info,
        metrics={"val_top1": round(100 * top1, 2), "val_videos": len(clips["val"]), "protocol": "one view a video"},
        licence="DINOv2 weights: Apache-2.0; trained on UCF101 clips, which are for research",
        source=f"DINOv2 ViT-S/14, first {options.blocks} blocks, armed; examples/train_demo.py --seed {options.seed}",
    )
    print(save_model(model.half(), options.out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="DINOv2 ViT-S/14 in timm's or Hugging Face's names")
    parser.add_argument("--out", type=Path, default=Path("models/demo"))
    parser.add_argument("--blocks", type=int, default=8, help="blocks of the image ViT to keep; half are trained")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-4, help="of the video blocks; the backbone has a tenth of it")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
