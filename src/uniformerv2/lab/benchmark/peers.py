"""Other video networks that the package registry has, with random weights, each on the clip it was published with.

Sizes are those of the published checkpoints: VideoMAE-B and MViTv2-S 16 frames, TimeSformer 8, Swin3D-T 32, all of
224 pixels; V-JEPA 2 ViT-L as its published classifier for Something-Something V2, 16 frames of 256.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from torch import nn

from uniformerv2.core.optional import require
from uniformerv2.lab.benchmark.networks import Subject, TestClip

__all__ = ["PEERS", "Peer", "peer_subjects"]


@dataclass(frozen=True)
class Peer:
    """A network of another package.

    Attributes:
        package: Where it is from.
        maker: Its name there: the stem of a configuration and a classifier, or a function.
        clip: What it was published with.
        fields: Of its configuration, beside the defaults.
    """

    package: str
    maker: str
    clip: TestClip
    fields: tuple[tuple[str, Any], ...] = ()

    def make(self) -> tuple[nn.Module, TestClip]:
        """The network, with random weights and 400 classes."""
        make = _of_torchvision if self.package == "torchvision" else _of_transformers
        return make(self.maker, dict(self.fields)), self.clip


def _of_torchvision(maker: str, fields: dict[str, Any]) -> nn.Module:
    from torchvision.models import video

    make: Callable[..., nn.Module] = getattr(video, maker)
    return make(weights=None, **fields)


def _of_transformers(maker: str, fields: dict[str, Any]) -> nn.Module:
    transformers = require("transformers", extra="peers")
    config = getattr(transformers, f"{maker}Config")(num_labels=400, **fields)
    model: nn.Module = getattr(transformers, f"{maker}ForVideoClassification")(config)
    return model


PEERS: Final = {
    "VideoMAE-B": Peer("transformers", "VideoMAE", TestClip(16, 224)),
    "TimeSformer-B": Peer("transformers", "Timesformer", TestClip(8, 224), (("num_frames", 8),)),
    "V-JEPA 2 ViT-L": Peer("transformers", "VJEPA2", TestClip(16, 256), (("frames_per_clip", 16),)),
    "MViTv2-S": Peer("torchvision", "mvit_v2_s", TestClip(16, 224, is_channels_first=True)),
    "Swin3D-T": Peer("torchvision", "swin3d_t", TestClip(32, 224, is_channels_first=True)),
}


def peer_subjects() -> tuple[list[Subject], dict[str, str]]:
    """The peers that can be measured here, and why the others cannot."""
    subjects, absent = [], {}
    for name, peer in PEERS.items():
        if importlib.util.find_spec(peer.package) is None:
            absent[name] = f"{peer.package} is not installed: pip install 'uniformerv2[peers]'"
        else:
            subjects.append(Subject(name, partial(Peer.make, peer), note=peer.package))
    return subjects, absent
