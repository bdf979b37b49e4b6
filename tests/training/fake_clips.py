"""Clips in memory, in the batches of the real loader, for tests that are not about decoding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch.utils.data import DataLoader

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.dataset import VideoBatch, VideoDataset, VideoSample, collate

NUM_FRAMES, SIZE, NUM_CLASSES = 4, 32, 3


def tiny_config(**fields) -> UniFormerV2Config:
    """48 channels, 4 blocks, without dropout."""
    quiet = {"global_dropout": (0.0,), "classifier_dropout": 0.0}
    size = {"dim": 48, "depth": 4, "num_heads": 4, "image_size": SIZE, "num_frames": NUM_FRAMES}
    return UniFormerV2Config(**{**size, **quiet, "num_classes": NUM_CLASSES, **fields})


def tiny_network(**fields) -> UniFormerV2:
    """The same weights each time."""
    torch.manual_seed(0)
    return UniFormerV2(tiny_config(**fields))


class FakeClips(VideoDataset):
    """Noise on a grey that tells the class; the same clip for the same number.

    Args:
        count: Clips.
        num_views: Stacked views; None: one, without the dimension.
        labels: By number of the clip; None: the number modulo the classes.
        unreadable: Numbers of clips that come as zeros.
    """

    def __init__(
        self,
        count: int,
        *,
        num_views: int | None = None,
        labels: Sequence | None = None,
        unreadable: Sequence[int] = (),
    ) -> None:
        self.labels = [index % NUM_CLASSES for index in range(count)] if labels is None else list(labels)
        self.records = [VideoRecord(f"clip_{index}.mp4") for index in range(count)]
        self.num_views = num_views
        self.unreadable = set(unreadable)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> VideoSample:
        generator = torch.Generator().manual_seed(index)
        views = () if self.num_views is None else (self.num_views,)
        noise = torch.randint(0, 60, (*views, NUM_FRAMES, 3, SIZE, SIZE), generator=generator)
        label = torch.tensor(self.labels[index])
        level = int(label) if label.ndim == 0 else int(label.argmax())
        readable = index not in self.unreadable
        video = (noise + 90 * level).clamp(0, 255).to(torch.uint8) * readable
        return VideoSample(video, label, index, readable)


def batch_of(dataset: FakeClips, indices: Sequence[int]) -> VideoBatch:
    """A batch by hand."""
    return collate([dataset[index] for index in indices])


loader = partial(DataLoader, collate_fn=collate, num_workers=0)
