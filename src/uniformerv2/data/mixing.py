"""Mixing the videos of a batch with each other: mixup and CutMix, one draw per batch.

Zhang et al., "mixup", 2017, https://arxiv.org/abs/1710.09412; Yun et al., "CutMix", 2019,
https://arxiv.org/abs/1905.04899; both as in torchvision's ``transforms.v2``. Each sample is mixed with the one before
it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

__all__ = ["BatchMixing"]


@dataclass(frozen=True, kw_only=True)
class BatchMixing:
    """Mixup or CutMix of a batch and its targets.

    The published recipes of UniFormerV2 use neither; the defaults are those of DeiT (Touvron et al., 2020,
    https://arxiv.org/abs/2012.12877), which most later recipes took over.

    Attributes:
        num_classes: Length of the soft targets.
        mixup_alpha: Of the Beta distribution of mixup's share; 0: no mixup.
        cutmix_alpha: The same for CutMix.
        probability: That a batch is mixed at all.
        cutmix_probability: That CutMix is taken, where both are on.
    """

    num_classes: int
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    probability: float = 1.0
    cutmix_probability: float = 0.5

    def __post_init__(self) -> None:
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} is {value}; it must be at least 0")
        for name in ("probability", "cutmix_probability"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value}; it must be from 0 to 1")
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; it must be at least 1")

    def __call__(self, video: Tensor, label: Tensor, *, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mix.

        Args:
            video: [B, T, C, h, w], normalised; on any device.
            label: Class numbers [B], or multi-hot or soft targets [B, num_classes].
            rng: Where the draws come from; torch's own generators stay as they were.

        Returns:
            The batch, and float32 targets [B, num_classes], also where nothing is mixed.

        Raises:
            ValueError: The video is not floating point, or a label is no class.
        """
        if not video.is_floating_point():
            raise ValueError(f"video is {video.dtype}; normalise it before it is mixed")
        if label.ndim == 1:
            if label.numel() and not 0 <= int(label.min()) <= int(label.max()) < self.num_classes:
                raise ValueError(
                    f"labels go from {int(label.min())} to {int(label.max())}, of {self.num_classes} classes"
                )
            label = torch.nn.functional.one_hot(label, self.num_classes)
        label = label.float()
        mix = self._draw(rng)
        if mix is None:
            return video, label
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's global generator
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            mixed, label = mix(tv_tensors.Video(video), label)
        return mixed.as_subclass(Tensor), label

    def _draw(self, rng: np.random.Generator) -> v2.MixUp | v2.CutMix | None:
        chance, which = rng.random(2).tolist()
        if chance >= self.probability or not (self.mixup_alpha or self.cutmix_alpha):
            return None
        if self.cutmix_alpha and (not self.mixup_alpha or which < self.cutmix_probability):
            return v2.CutMix(alpha=float(self.cutmix_alpha), num_classes=self.num_classes)
        return v2.MixUp(alpha=float(self.mixup_alpha), num_classes=self.num_classes)
