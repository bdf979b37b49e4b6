"""Tokens of a frozen image ViT on disk: computed once, then read by every epoch.

::

    FOLDER/KEY/key.json                          what the key was made of
    FOLDER/KEY/train_view_0_00000.safetensors    R clips: tokens [R, S, T', N, C], label, index, readable
    FOLDER/KEY/val_view_0_00000.safetensors

KEY is that of ``feature_key``. A shard appears whole or not at all, and a stopped run goes on
with the first that is missing. A video that could not be read is tried again by the next run, and
is a failure in every epoch until then. Shards are mapped into memory: the system keeps in RAM what fits.

Letters: R clips of a shard, B clips of a batch, S read blocks, T frames, T' time steps, N tokens a step, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from uniformerv2.data.clips import SampleKey, VideoFailure, VideoSample
from uniformerv2.data.dataset import VideoBatch, VideoDataset, collate
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.feature_key import FeatureSettings, StorageName
from uniformerv2.zoo.files import write_tensors

__all__ = [
    "SHARD_BYTES",
    "CachedVideos",
    "FeaturePart",
    "clip_bytes",
    "fill",
    "token_grid",
    "token_shape",
]

DTYPES: Final[Mapping[StorageName, torch.dtype]] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
SHARD_BYTES: Final = 1 << 28
"""Most bytes of a shard that has more than one clip."""


def token_shape(network: UniFormerV2, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """S, T', N, C of one clip."""
    num_tokens = network.embedding.num_prefix_tokens + prod(token_grid(network, preprocessing))
    num_steps = preprocessing.num_frames // network.config.tubelet_size
    return len(network.read_blocks), num_steps, num_tokens, network.config.dim


def token_grid(network: UniFormerV2, preprocessing: Preprocessing) -> tuple[int, int]:
    """Patches H, W of a frame."""
    height, width = preprocessing.input_size
    return height // network.config.patch_size, width // network.config.patch_size


def clip_bytes(network: UniFormerV2, preprocessing: Preprocessing, storage: StorageName) -> int:
    """Bytes of the tokens of a clip."""
    return prod(token_shape(network, preprocessing)) * DTYPES[storage].itemsize


@dataclass(frozen=True, kw_only=True)
class FeaturePart:
    """One pass over the videos of a split, in shards.

    Attributes:
        folder: Folder of this key.
        name: Name of the split and the pass.
        num_videos: Videos of the split.
        shape: S, T', N, C of one clip.
        storage: Type of the tokens.
        shard_bytes: A shard has as many clips as fit in it, and at least one.
    """

    folder: Path
    name: str
    num_videos: int
    shape: tuple[int, int, int, int]
    storage: StorageName
    shard_bytes: int
    _open: dict[int, dict[str, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _failures: dict[int, VideoFailure] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def clip_bytes(self) -> int:
        """Bytes of the tokens of a clip."""
        return prod(self.shape) * DTYPES[self.storage].itemsize

    @property
    def missing_bytes(self) -> int:
        """Bytes of the tokens of all shards that are absent or damaged."""
        missing = (len(self.numbers(shard)) for shard in range(self.num_shards) if not self._is_whole(shard))
        return sum(missing) * self.clip_bytes

    @property
    def clips_per_shard(self) -> int:
        """Clips R of every shard but perhaps the last."""
        return max(1, self.shard_bytes // self.clip_bytes)

    @property
    def num_shards(self) -> int:
        """Shards of a whole pass."""
        return -(-self.num_videos // self.clips_per_shard)

    def numbers(self, shard: int) -> range:
        """Numbers of the clips of a shard."""
        first = shard * self.clips_per_shard
        return range(first, min(first + self.clips_per_shard, self.num_videos))

    def path(self, shard: int) -> Path:
        """File of a shard."""
        return self.folder / f"{self.name}_{shard:05d}.safetensors"

    def first_missing(self) -> int:
        """Number of the first shard that is not there, or is damaged."""
        return next((shard for shard in range(self.num_shards) if not self._is_whole(shard)), self.num_shards)

    def write(self, shard: int, clips: Sequence[VideoSample]) -> None:
        """Write a shard, whole or not at all."""
        columns = ("video", "label", "index", "readable")
        stacked = {
            column: torch.stack([torch.as_tensor(getattr(clip, column)) for clip in clips]) for column in columns
        }
        write_tensors(self.path(shard), {"tokens": stacked.pop("video"), **stacked})
        self._open.pop(shard, None)

    def note(self, failures: Iterable[VideoFailure]) -> None:
        """Keep why videos could not be read, for the samples that show it."""
        self._failures.update({failure.index: failure for failure in failures if failure.attempt == 0})

    def failed(self, shard: int) -> list[int]:
        """Numbers of the clips of a shard that could not be read: in training another record is shown there."""
        columns, numbers = self._columns(shard), self.numbers(shard)
        is_own = columns["readable"] & (columns["index"] == torch.tensor(numbers))
        return [number for number, own in zip(numbers, is_own.tolist(), strict=True) if not own]

    def clip(self, number: int) -> VideoSample:
        """Tokens of a clip, [S, T', N, C], where a dataset has its pixels; nothing is read before it is needed."""
        shard, row = divmod(number, self.clips_per_shard)
        columns = self._columns(shard)
        tokens, label = columns["tokens"][row], columns["label"][row]
        index, is_readable = int(columns["index"][row]), bool(columns["readable"][row])
        is_failed = number in self._failures and not (is_readable and index == number)
        return VideoSample(tokens, label, index, is_readable, (self._failures[number],) if is_failed else ())

    def _columns(self, shard: int) -> dict[str, Tensor]:
        if shard not in self._open:
            self._open[shard] = _mapped(self.path(shard))
        return self._open[shard]

    def _is_whole(self, shard: int) -> bool:
        """A file that a disk lost part of is damaged: its length is not the one that its header says."""
        try:
            with safe_open(self.path(shard), framework="pt") as file:
                return tuple(file.get_slice("tokens").get_shape()) == (len(self.numbers(shard)), *self.shape)
        except (OSError, SafetensorError):
            return False


def _mapped(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)


class CachedVideos(VideoDataset):
    """A dataset of which the clips are there already, as tokens.

    In epoch e a video's clip is that of view e modulo the number of views: what a training on the fly would show it in
    that epoch, as long as there are enough views.

    Args:
        videos: What the tokens were computed from.
        parts: One per view.
    """

    def __init__(self, videos: VideoDataset, parts: Sequence[FeaturePart]) -> None:
        self.records, self.reader, self.views = videos.records, videos.reader, videos.views  # nothing to check again
        self.parts = tuple(parts)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey | int) -> VideoSample:
        """Tokens [S, T', N, C] where a dataset of videos has pixels."""
        key = key if isinstance(key, SampleKey) else SampleKey(key)
        return self.parts[key.epoch % len(self.parts)].clip(key.index)


def fill(
    parts: Sequence[FeaturePart],
    videos: VideoDataset,
    loader: VideoLoader,
    network: UniFormerV2,
    settings: FeatureSettings,
    *,
    on_clips: Callable[[int], None],
) -> None:
    """Try again what could not be read before, and compute the shards that are missing, in order.

    Args:
        parts: One per view.
        videos: Videos of the split.
        loader: Loader of these videos; its epoch has all of them.
        network: Whose tokens; comes back in the mode it is in.
        settings: How.
        on_clips: Told how many clips are done since it was told last.

    Raises:
        ValueError: Tokens that the storage type does not hold.
        TooManyFailuresError: Too many videos cannot be read.
    """
    was_training = network.training
    network.eval().to(settings.device)
    loader.sampler.shuffle = False  # as the shards have them
    try:
        for view, part in enumerate(parts):
            shard = part.first_missing()
            for known in range(shard):
                _read_again(part, known, videos, network, settings, view=view)
            on_clips(min(shard * part.clips_per_shard, part.num_videos))
            if shard == part.num_shards:
                continue
            loader.set_epoch(view)
            loader.sampler.start_at(shard * part.clips_per_shard)
            clips: list[VideoSample] = []
            for batch in loader:
                clips += _encoded(batch, network, videos.reader.preprocessing, settings)
                part.note(batch.failures)
                on_clips(len(batch.index))
                while len(clips) >= part.clips_per_shard:
                    part.write(shard, clips[: part.clips_per_shard])
                    clips, shard = clips[part.clips_per_shard :], shard + 1
            if clips:
                part.write(shard, clips)
    finally:
        loader.close()
        network.train(was_training)


def _read_again(
    part: FeaturePart,
    shard: int,
    videos: VideoDataset,
    network: UniFormerV2,
    settings: FeatureSettings,
    *,
    view: int,
) -> None:
    """Where a video of a shard could not be read, but now can: a disk was away, or the machine too busy."""
    mended: dict[int, VideoSample] = {}
    for number in part.failed(shard):
        batch = collate([videos[SampleKey(number, view)]])
        part.note(batch.failures)
        if not batch.failures:
            (mended[number],) = _encoded(batch, network, videos.reader.preprocessing, settings)
    if mended:
        part.write(shard, [mended.get(number) or part.clip(number) for number in part.numbers(shard)])


@torch.no_grad()
def _encoded(
    batch: VideoBatch, network: UniFormerV2, preprocessing: Preprocessing, settings: FeatureSettings
) -> list[VideoSample]:
    """The clips of a batch, their pixels replaced by tokens [S, T', N, C].

    Raises:
        ValueError: A token is too large for the storage type.
    """
    video = batch.video.flatten(0, 1) if batch.video.ndim == 6 else batch.video  # one view a video in both
    with torch.autocast(settings.device.type, dtype=torch.bfloat16, enabled=settings.is_bfloat16):
        pixels = preprocessing.normalize(video.to(settings.device))
        blocks = network.read_tokens(pixels)
    tokens = torch.stack([block.to(DTYPES[settings.storage]) for block in blocks], dim=1).cpu()
    if not tokens.isfinite().all():
        raise ValueError(
            f"The image ViT has tokens that {settings.storage} does not hold; store them as bfloat16 "
            "(--cache-dtype bfloat16)."
        )
    rows = zip(tokens, batch.label, batch.index, batch.readable, strict=True)
    return [VideoSample(clip, label, int(index), bool(readable)) for clip, label, index, readable in rows]
