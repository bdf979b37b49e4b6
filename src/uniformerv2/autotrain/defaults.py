"""The defaults of ``train``, where the user leaves a number open: each a function of what it depends on.

Sources:
    Defaults without another remark are the published ones (Li et al., UniFormerV2, 2022,
    https://arxiv.org/abs/2211.09552, and its recipes). Learning rates are ours, see ``default_rates``: the published
    1e-5 at a batch of 256 is made for 50 epochs of 240,000 videos, and small data would be over before it moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from uniformerv2.autotrain.plan import FEW_VIDEOS, AugmentationName, Preset, Rates

__all__ = [
    *("MOST_EPOCHS", "PROBE_EPOCHS", "default_augmentation", "default_batch_size", "default_dropout", "default_epochs"),
    *("default_num_frames", "default_rates", "default_stages", "default_views"),
]

REFERENCE_BATCH: Final = 16
FROZEN_RATE: Final = 2e-4
PROBE_RATES: Final = (1e-6, 2e-5)
"""Rates of the image ViT, and of video blocks and head, where all learns from a probe of few videos on:
with ten times as much the tokens are soon others than the probe was fitted to (docs/lab/motion.md)."""
PROBE_EPOCHS: Final[Mapping[bool, int]] = {True: 10, False: 3}
"""Whether the backbone is frozen -> epochs at most from that start; with more, what is seen is learnt by heart."""
FEW_VIDEOS_DROPOUT: Final = 0.1
VIDEOS_SHOWN: Final = 5000
MOST_EPOCHS: Final = 50
MANY_SHOWN: Final = 100_000


def default_batch_size(num_train: int, *, largest: int) -> int:
    """A power of two with four steps or more an epoch, and two videos or more.

    Args:
        num_train: Training videos.
        largest: What the memory holds.

    >>> default_batch_size(529, largest=16), default_batch_size(24, largest=16), default_batch_size(3, largest=16)
    (16, 4, 2)
    """
    wanted = min(largest, max(2, num_train // 4))
    return 1 << (max(1, wanted).bit_length() - 1)


def default_epochs(num_train: int, *, most: int = MOST_EPOCHS) -> int:
    """As many as show the network 5000 videos, from 5 (the published fine-tuning) to 50 (the published training).

    Args:
        num_train: Training videos.
        most: In the place of 50; see ``PROBE_EPOCHS``.

    >>> default_epochs(24), default_epochs(529), default_epochs(240_000)
    (50, 10, 5)
    """
    return min(most, max(5, math.ceil(VIDEOS_SHOWN / num_train)))


def default_augmentation(num_train: int, epochs: int) -> AugmentationName:
    """Light, until training is long enough to profit from strong augmentation.

    >>> default_augmentation(529, 10), default_augmentation(240_000, 5)
    ('light', 'strong')
    """
    return "strong" if num_train * epochs >= MANY_SHOWN else "light"


def default_num_frames(preset: Preset, *, has_gpu: bool) -> int:
    """8, as published for scenes; 16 for motion, where a GPU computes them."""
    return 16 if preset == "motion" and has_gpu else 8


def default_stages(preset: Preset, num_train: int) -> int | None:
    """Global UniBlocks; None: those of the preset.

    >>> default_stages("scene", 529), default_stages("scene", 240_000), default_stages("motion", 529)
    (1, None, None)
    """
    return 1 if preset == "scene" and num_train < FEW_VIDEOS else None


def default_dropout(*, freeze_backbone: bool, num_train: int) -> float | None:
    """Before the classifier and in the FFN of global UniBlocks; None: as published, 0.5.

    >>> default_dropout(freeze_backbone=True, num_train=529)
    0.1
    """
    return FEW_VIDEOS_DROPOUT if freeze_backbone and num_train < FEW_VIDEOS else None


def default_rates(
    batch_size: int, *, preset: Preset, freeze_backbone: bool, is_armed_anew: bool, keeps_start: bool = False
) -> Rates:
    """How fast each part learns: rates found at a batch of 16, times the square root of batch / 16.

    The square root is the rule for Adam-like optimisers (Malladi et al., 2022, https://arxiv.org/abs/2205.10287). The
    blocks of an image ViT that is armed anew learn the slower the lower they are, as in the fine-tuning of BEiT (Bao et
    al., 2021, https://arxiv.org/abs/2106.08254); but not for motion, which the lowest layer, the tubelets, has to see.

    Args:
        batch_size: Videos of a step.
        preset: What tells the classes apart.
        freeze_backbone: Only the video blocks learn.
        is_armed_anew: The video blocks have random weights.
        keeps_start: Training starts at a probe of few videos, which larger steps would forget.

    >>> default_rates(64, preset="scene", freeze_backbone=True, is_armed_anew=True)
    Rates(learning_rate=0.0004, video_blocks_scale=1.0, layer_decay=1.0)
    """
    factor = math.sqrt(batch_size / REFERENCE_BATCH)
    if freeze_backbone:
        return Rates(FROZEN_RATE * factor)
    if keeps_start:
        backbone, video_blocks = PROBE_RATES
        return Rates(backbone * factor, video_blocks_scale=video_blocks / backbone)
    if not is_armed_anew:
        return Rates(2e-5 * factor, video_blocks_scale=5.0)
    if preset == "motion":
        return Rates(1e-4 * factor, video_blocks_scale=10.0)
    return Rates(1e-4 * factor, video_blocks_scale=5.0, layer_decay=0.65)


def default_views(preset: Preset) -> tuple[int, int]:
    """Clips and crops of the published tests: 4 x 3 for scenes, 1 x 3 for motion."""
    return (4, 3) if preset == "scene" else (1, 3)
