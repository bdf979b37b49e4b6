"""Statistics of tokens: what a probe reads of a frozen image ViT, and the fusion that makes a network of it.

::

    class_mean, patch_mean, patch_max                 what is seen
    class_std, patch_std, class_step, patch_step      how much it changes, whichever way
    class_ramp, patch_ramp                            which way it changes: they turn their sign with the clip

Letters of this file: B videos, T time steps, P prefix tokens a step, N tokens a step with them, C channels,
S statistics, F channels of all statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import torch
from torch import Tensor, nn

from uniformerv2.model.config import StatisticName
from uniformerv2.model.fusion import MultiStageFusion

__all__ = ["KINDS", "ChannelStandardization", "StatisticKind", "TokenStatistics"]

StatisticKind = Literal["appearance", "motion", "order"]

KINDS: Final[Mapping[StatisticKind, tuple[StatisticName, ...]]] = {
    "appearance": ("class_mean", "patch_mean", "patch_max"),
    "motion": ("class_std", "patch_std", "class_step", "patch_step"),
    "order": ("class_ramp", "patch_ramp"),
}
"""Appearance is the same for the frames in any order, motion for the clip played backwards."""


def _std(x: Tensor) -> Tensor:
    """Over time, of each place; then the mean over the places."""
    return x.std(dim=1, correction=0).mean(dim=1)


def _step(x: Tensor) -> Tensor:
    """The mean absolute difference of neighbour frames; 0 of one frame."""
    return x.diff(dim=1).abs().mean(dim=(1, 2)) if x.shape[1] > 1 else x.new_zeros(x.shape[0], x.shape[3])


def _ramp(x: Tensor) -> Tensor:
    """The slope over time, from -1 in the first frame to 1 in the last; 0 of one frame."""
    weight = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype, device=x.device) if x.shape[1] > 1 else x.new_zeros(1)
    return (x.mean(dim=2) * weight[:, None]).mean(dim=1)


STATISTICS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "mean": lambda x: x.mean(dim=(1, 2)),
    "max": lambda x: x.amax(dim=(1, 2)),
    "std": _std,
    "step": _step,
    "ramp": _ramp,
}
"""What stands after ``class_`` or ``patch_`` in a name: [B, T, N, C] -> [B, C]."""


class TokenStatistics(MultiStageFusion):
    """Statistics of the tokens of every stage, computed in float32; nothing in it is learnt.

    Args:
        names: Which statistics.
        dim: Channels C.
        num_prefix_tokens: Tokens P before the patches.
        has_class_token: The first of them is the class token; else the mean of the patches takes its place.
    """

    def __init__(
        self, names: Sequence[StatisticName], dim: int, *, num_prefix_tokens: int, has_class_token: bool
    ) -> None:
        nn.Module.__init__(self)  # without the parts that global UniBlocks need
        self.stages = nn.ModuleList()
        self.names = tuple(names)
        self.num_prefix_tokens = num_prefix_tokens
        self.has_class_token = has_class_token
        self.register_buffer("video_token", torch.zeros(0, dim), persistent=False)

    def step(self, index: int, video: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, Q, C], [B, T, N, C] -> [B, Q + S, C]."""
        tokens = tokens.float()
        patches = tokens[:, :, self.num_prefix_tokens :]
        own = tokens[:, :, :1] if self.has_class_token else patches.mean(dim=2, keepdim=True)
        parts = {"class": own, "patch": patches}
        found = []
        for name in self.names:
            part, _, statistic = name.partition("_")
            found.append(STATISTICS[statistic](parts[part]))
        return torch.cat([video.float(), torch.stack(found, dim=1)], dim=1)

    def finish(self, video: Tensor) -> Tensor:
        """[B, Q, C] -> [B, F], a statistic after the other."""
        return video.flatten(1)


class ChannelStandardization(nn.Module):
    """Each channel made comparable with the others, by constants: where a layer norm would mix the statistics.

    Args:
        num_features: Channels F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """[..., F] -> [..., F]."""
        return x * self.weight + self.bias
