"""Clips through a frozen network, once: the statistics that a probe compares.

    clips = clip_statistics(network, read_records("videos"), class_names=("jump", "run"))
    Probe()(clips)

Letters of this file: B clips of a batch, T time steps, N tokens a step, S statistics, C channels, K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from uniformerv2.autotrain.probe import ROWS, ClipStatistics
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.annotations.held_out import source_of
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.statistics import TokenStatistics
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.frozen import CachedDataModule

__all__ = ["cached_statistics", "clip_statistics", "spread_evenly"]

BATCH = 4
Found = Iterator[tuple[int, Tensor]]
"""Number of a record, and the statistics of its clip [S, C]."""


def clip_statistics(
    network: UniFormerV2,
    records: Sequence[VideoRecord],
    *,
    class_names: Sequence[str],
    is_multi_label: bool = False,
    sources: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    is_bfloat16: bool = False,
    num_workers: int = 0,
    on_clips: Callable[[int], None] = lambda count: None,
) -> ClipStatistics:
    """The statistics of one view of each video: the middle crop of the middle clip, as a validation sees it.

    Args:
        network: Its embedding and blocks are read; comes back in the mode and on the device it is on.
        records: With labels; those that cannot be read are left out.
        class_names: In head order.
        is_multi_label: A video may have several classes.
        sources: What each video was cut from; None: as its name says, see ``source_of``.
        device: Where to compute.
        is_bfloat16: Compute under autocast.
        num_workers: Processes that read videos.
        on_clips: Told how many clips are done since it was told last.

    Raises:
        ValueError: Not one video can be read.
    """
    size = {"num_frames": network.config.num_frames, "image_size": network.config.image_size}
    own = Preprocessing.from_dict({**size, **network.info.preprocessing})
    preprocessing = replace(own, num_clips=1, num_crops=1)
    unlabelled = [replace(record, label=0) for record in records]  # the classes are told by the records
    dataset = VideoDataset(unlabelled, preprocessing, num_classes=None)
    loader = VideoLoader(dataset, batch_size=BATCH, num_workers=num_workers, drop_last=False)
    was_training, home = network.training, network.norm.weight.device
    network.eval().to(device)
    try:
        with closing(loader):
            found = _computed(loader, network, preprocessing, torch.device(device), is_bfloat16, on_clips)
            return _collected(found, records, class_names, sources, is_multi_label=is_multi_label)
    finally:
        network.train(was_training).to(home)


def cached_statistics(
    data: CachedDataModule, network: UniFormerV2, records: Sequence[VideoRecord], *, class_names: Sequence[str]
) -> ClipStatistics:
    """The same of the first augmented view of each training video, from tokens that are cached already.

    Args:
        data: With the first view of the training videos in its cache.
        network: Whose tokens they are.
        records: Those of the training videos that are wanted.
        class_names: In head order.
    """
    wanted = set(records)
    numbers = [number for number, record in enumerate(data.records["train"]) if record in wanted]
    return _collected(
        _read(data, network, numbers), data.records["train"], class_names, None, is_multi_label=data.multi_label
    )


def spread_evenly(records: Sequence[VideoRecord], most: int) -> list[VideoRecord]:
    """As many records as allowed, in their order: the first source of every class, then the second, and so on.

    Args:
        records: With labels.
        most: How many.
    """
    if len(records) <= most:
        return list(records)
    sources: dict[tuple[int, ...], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, record in enumerate(records):
        sources[record.labels][record.source or source_of(record.path)].append(number)
    order: list[tuple[int, int, int]] = []
    for of_class in sources.values():
        for rank, name in enumerate(sorted(of_class)):
            order += [(place, rank, number) for place, number in enumerate(of_class[name])]
    chosen = sorted(number for _, _, number in sorted(order)[:most])
    return [records[number] for number in chosen]


@torch.no_grad()
def _computed(
    batches: Iterable[object],
    network: UniFormerV2,
    preprocessing: Preprocessing,
    device: torch.device,
    is_bfloat16: bool,
    on_clips: Callable[[int], None],
) -> Found:
    statistics = _statistics_of(network)
    for batch in batches:
        video: Tensor = batch.video.flatten(0, 1)  # type: ignore[attr-defined]  # one view a video
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bfloat16):
            tokens = network.read_tokens(preprocessing.normalize(video.to(device)))[-1]
        values = _values(statistics, tokens)
        for number, is_readable, value in zip(batch.index, batch.readable, values, strict=True):  # type: ignore[attr-defined]
            if is_readable:
                yield int(number), value
        on_clips(len(values))


@torch.no_grad()
def _read(data: CachedDataModule, network: UniFormerV2, numbers: Sequence[int]) -> Found:
    """Clips of the cache, without those that show another video in the place of one that cannot be read."""
    statistics = _statistics_of(network)
    part = data.parts("train")[0]
    for number in numbers:
        clip = part.clip(number)
        if clip.readable and clip.index == number:
            yield number, _values(statistics, clip.video[-1:])[0]


def _statistics_of(network: UniFormerV2) -> TokenStatistics:
    embedding = network.embedding
    return TokenStatistics(
        ROWS["all"],
        network.config.dim,
        num_prefix_tokens=embedding.num_prefix_tokens,
        has_class_token=embedding.has_class_token,
    )


def _values(statistics: TokenStatistics, tokens: Tensor) -> Tensor:
    """[B, T, N, C] -> [B, S, C]."""
    statistics = statistics.to(tokens.device)
    return statistics.step(0, statistics.start(len(tokens)), tokens, (0, 0)).cpu()


def _collected(
    found: Found,
    records: Sequence[VideoRecord],
    class_names: Sequence[str],
    sources: Sequence[str] | None,
    *,
    is_multi_label: bool,
) -> ClipStatistics:
    rows = list(found)
    if not rows:
        raise ValueError(f"Not one of {len(records)} videos can be read.")
    target = np.zeros((len(rows), len(class_names)), dtype=bool)
    for row, (number, _) in enumerate(rows):
        target[row, list(records[number].labels)] = True
    names = [record.source or source_of(record.path) for record in records] if sources is None else sources
    return ClipStatistics(
        values=torch.stack([value for _, value in rows]).numpy(),
        names=ROWS["all"],
        target=target,
        sources=tuple(names[number] for number, _ in rows),
        class_names=tuple(class_names),
        is_multi_label=is_multi_label,
    )
