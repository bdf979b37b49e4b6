"""Training what lies above a frozen image ViT, from its cached tokens.

Only what a step is made of differs from a training from videos: ``CachedDataModule`` gives tokens where pixels were,
``TokenClassifier`` starts from them. Optimiser, metrics, callbacks, checkpoints and the final test from videos are the
same, and the checkpoints of both fit the other.

Letters: B clips of a batch, S read blocks, T' time steps, N tokens a step, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from torch import Tensor

from uniformerv2.core.files import check_room, free_bytes, lock_folder
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.feature_cache import (
    SHARD_BYTES,
    CachedVideos,
    FeaturePart,
    clip_bytes,
    fill,
    token_grid,
    token_shape,
)
from uniformerv2.training.feature_key import FeatureSettings, check_cacheable, feature_key
from uniformerv2.training.module import VideoClassifier
from uniformerv2.zoo.files import write_json

__all__ = ["CachedDataModule", "TokenClassifier", "missing_bytes"]

MARGIN_BYTES: Final = 1 << 30
"""Left free on the disk, for checkpoints and others."""


class TokenClassifier(VideoClassifier):
    """A ``VideoClassifier`` for batches of a ``CachedDataModule``: ``video`` holds tokens, [B, S, T', N, C]."""

    def prepare(self, video: Tensor) -> Tensor:
        """Nothing: the tokens are of normalised pixels."""
        return video

    def logits(self, prepared: Tensor) -> Tensor:
        """Tokens [B, S, T', N, C] -> [B, K] float32."""
        dtype = self.network.norm.weight.dtype
        blocks = [block.to(dtype) for block in prepared.unbind(1)]
        return self.network.forward_tokens(blocks, token_grid(self.network, self.preprocessing)).float()


class CachedDataModule(VideoDataModule):
    """A ``VideoDataModule`` that trains and validates on cached tokens, and tests on videos.

    Args:
        *args: As ``VideoDataModule``.
        cache: Folder of all caches; each has a folder in it, named by its key.
        settings: How tokens are computed and kept.
        shard_bytes: A shard has as many clips as fit in it, and at least one.
        **kwargs: As ``VideoDataModule``.

    Raises:
        ValueError: Several clips of a video in a step (``repeats``): a cache has one in an epoch.
    """

    def __init__(
        self, *args: Any, cache: str | Path, settings: FeatureSettings, shard_bytes: int = SHARD_BYTES, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.repeats > 1:
            raise ValueError(f"A cache gives one clip of a video in an epoch, got repeats={self.repeats}.")
        self.cache = Path(cache)
        self.settings = settings
        self.shard_bytes = shard_bytes
        one_view = replace(self.preprocessing, num_clips=1, num_crops=1)
        self._videos: dict[str, VideoDataset] = {"train": self._dataset("train", one_view, self.augmentation)}
        if self.records["val"]:
            self._videos["val"] = self._dataset("val", one_view)
        self._parts: dict[str, list[FeaturePart]] = {}

    @property
    def num_clips(self) -> int:
        """Clips in the cache: all views of the training videos, one of each validation video."""
        return sum(self._num_views(split) * len(videos) for split, videos in self._videos.items())

    def num_bytes(self, network: UniFormerV2) -> int:
        """Bytes of the tokens of all clips."""
        return self.num_clips * clip_bytes(network, self.preprocessing, self.settings.storage)

    def open_cache(self, network: UniFormerV2) -> list[FeaturePart]:
        """Find the folder; this reads every video's bytes, once.

        Args:
            network: Whose image ViT is frozen.

        Returns:
            The parts, whole or not.

        Raises:
            ValueError: The tokens would change in training, or a video is no file here.
        """
        if not self._parts:
            check_cacheable(network)
            key, self._material = feature_key(network, self._videos, self.settings)
            shape = token_shape(network, self.preprocessing)

            def part(split: str, view: int) -> FeaturePart:
                return FeaturePart(
                    folder=self.cache / key,
                    name=f"{split}_view_{view}",
                    num_videos=len(self._videos[split]),
                    shape=shape,
                    storage=self.settings.storage,
                    shard_bytes=self.shard_bytes,
                )

            self._parts = {
                split: [part(split, view) for view in range(self._num_views(split))] for split in self._videos
            }
        return [part for parts in self._parts.values() for part in parts]

    def parts(self, split: Literal["train", "val"]) -> list[FeaturePart]:
        """One per view of the videos of a split, once the cache is open."""
        return self._parts[split]

    def fill_cache(
        self,
        network: UniFormerV2,
        *,
        only_first_view: bool = False,
        on_clips: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Compute what is missing, and what could not be read before; where another process does it, wait and read it.

        Args:
            network: Whose image ViT is frozen.
            only_first_view: Of the training videos, and nothing else.
            on_clips: Told how many clips are done since it was told last.

        Raises:
            ValueError: As ``open_cache``.
            TooManyFailuresError: Too many videos cannot be read.
            DiskFullError: The disk has no room for what is missing.
        """
        parts = self.open_cache(network)
        folder = parts[0].folder
        with lock_folder(folder, what="A training that fills this cache", waits=True):
            check_room(folder, sum(part.missing_bytes for part in parts), what="The cache of features")
            write_json(folder / "key.json", self._material)  # for people; nothing reads it
            wanted = {"train": self._parts["train"][:1]} if only_first_view else self._parts
            self._fill(wanted, network, on_clips)

    def _fill(
        self, parts: Mapping[str, list[FeaturePart]], network: UniFormerV2, on_clips: Callable[[int], None]
    ) -> None:
        for split in parts:
            videos = self._videos[split]
            loader = VideoLoader(
                videos,
                batch_size=self.eval_batch_size,
                num_workers=self.num_workers,
                drop_last=False,
                max_failed=self.max_failed,
            )
            fill(parts[split], videos, loader, network, self.settings, on_clips=on_clips)

    def train_dataloader(self) -> VideoLoader:
        """Cached tokens of augmented clips."""
        return self._loader(self._cached("train"), batch_size=self.batch_size, weights=self.weights)

    def val_dataloader(self) -> VideoLoader | list[VideoLoader]:
        """Cached tokens of one view of each validation video; an empty list without validation videos."""
        if "val" not in self._videos:
            return []
        return self._loader(self._cached("val"), batch_size=self.eval_batch_size)

    def _cached(self, split: str) -> CachedVideos:
        return CachedVideos(self._videos[split], self._parts[split])

    def _num_views(self, split: str) -> int:
        return self.settings.num_views if split == "train" else 1

    def _num_workers(self, dataset: VideoDataset) -> int | None:
        return 0 if isinstance(dataset, CachedVideos) else self.num_workers  # a copy from memory needs no process


def missing_bytes(data: CachedDataModule, network: UniFormerV2) -> int:
    """What is still to be written, and room for checkpoints beside it; 0 where the disk has it.

    Args:
        data: Whose cache.
        network: Whose image ViT is frozen.

    Returns:
        Bytes that the disk lacks.
    """
    free = free_bytes(data.cache)
    if data.num_bytes(network) + MARGIN_BYTES <= free:
        return 0
    missing = sum(part.missing_bytes for part in data.open_cache(network))
    return max(0, missing + MARGIN_BYTES - free)
