"""What cached tokens depend on: a SHA-256 over all of it names the folder that they lie in.

The configuration, the weights of the image ViT, preprocessing and augmentation, the seed, precision and type, versions
of the packages, the bytes of every video: where anything changes, the folder is another one, and nothing stale is
ever found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal

import torch

from uniformerv2.core.messages import UsageError
from uniformerv2.data.annotations import VideoRecord, records_digest
from uniformerv2.data.annotations.record import content_digest
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["FeatureSettings", "NotCacheableError", "StorageName", "check_cacheable", "feature_key"]

StorageName = Literal["float16", "bfloat16", "float32"]
"""Type of cached tokens. float16 is eight times finer than bfloat16, but ends at 65504; what is beyond is refused."""

FORMAT: Final = 1
"""Counts the changes of what a shard holds."""
HASHING_THREADS: Final = 8
PACKAGES: Final = ("uniformerv2", "torch", "torchvision", "timm", "av", "torchcodec")
"""Decoders, resizing and kernels may change with their versions."""


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How tokens are computed and kept.

    Attributes:
        num_views: Augmented clips of each training video.
        storage: Type of the stored tokens.
        precision: Lightning's word; they are computed in it.
        device: Where.
    """

    num_views: int
    storage: StorageName
    precision: str
    device: torch.device

    @property
    def is_bfloat16(self) -> bool:
        """Whether they are computed under autocast."""
        return self.precision.startswith("bf16")


class NotCacheableError(UsageError):
    """Tokens that would change in training."""


def check_cacheable(network: UniFormerV2) -> None:
    """Refuse a network of which the tokens change while it trains.

    Raises:
        NotCacheableError: Local temporal steps lie between the blocks of the image ViT, or the image ViT is not frozen.
    """
    if network.config.num_local_steps:
        raise NotCacheableError(
            "Features cannot be cached: this network has local temporal steps (preset motion), which learn inside the "
            "image ViT and change its tokens with every step. Take --preset scene, or leave the cache out."
        )
    if any(weight.requires_grad for part in (network.embedding, network.blocks) for weight in part.parameters()):
        raise NotCacheableError(
            "Features cannot be cached: the image ViT learns, and changes its tokens with every step. Freeze it "
            "(--freeze-backbone), or leave the cache out."
        )


def feature_key(
    network: UniFormerV2, videos: Mapping[str, VideoDataset], settings: FeatureSettings
) -> tuple[str, dict[str, Any]]:
    """The name of the folder, and what it was made of.

    Args:
        network: Its configuration and the weights of its image ViT.
        videos: By the name of the split.
        settings: How.

    Returns:
        64 hex digits; the material, for JSON.

    Raises:
        ValueError: A video that is no file or folder here.
        OSError: A video cannot be read.
    """
    material = {
        "format": FORMAT,
        "network": network.config.to_dict(),
        "weights": _weights_digest(network),
        "storage": settings.storage,
        "precision": settings.precision,
        "device": settings.device.type,
        "versions": {name: _version(name) for name in PACKAGES},
        **{split: _videos_material(dataset) for split, dataset in videos.items()},
    }
    text = json.dumps(material, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest(), material


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # torchcodec is not everywhere
        return None


def _weights_digest(network: UniFormerV2) -> str:
    digest = hashlib.sha256()
    for part in (network.embedding, network.blocks):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _videos_material(dataset: VideoDataset) -> dict[str, Any]:
    reader = dataset.reader
    return {
        "preprocessing": reader.preprocessing.to_dict(),
        "augmentation": repr(reader.augmentation),
        "decoder": reader.decoder,
        "seed": reader.seed,
        "num_classes": reader.num_classes,
        "num_videos": len(dataset.records),
        "videos": _records_digest(list(dataset.records)),
    }


def _records_digest(records: Sequence[VideoRecord]) -> str:
    """Over the bytes, the labels and the segments, in order; a video may lie elsewhere next time."""
    paths = sorted({record.path for record in records})
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        digests = dict(zip(paths, pool.map(_content, paths), strict=True))
    return records_digest(records, ((digests[record.path],) for record in records))


def _content(path: str) -> str:
    try:
        return content_digest(path)
    except ValueError as error:
        raise ValueError(
            f"Features cannot be cached: {error} Bring the videos here, or leave the cache out."
        ) from error
