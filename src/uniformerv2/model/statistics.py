"""Statistics of tokens: what a probe reads of a frozen image ViT, and a head beside the video token or without one.

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

from uniformerv2.model.config import StatisticName, UniFormerV2Config
from uniformerv2.model.embedding import VideoEmbedding
from uniformerv2.model.fusion import MultiStageFusion

__all__ = [
    *("KINDS", "ChannelStandardization", "DropoutBesideStatistics", "NormBesideStatistics", "StatisticKind"),
    *("TokenStatistics", "norm_and_dropout", "token_statistics"),
]

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
    return (x[:, 1:] - x[:, :-1]).abs().mean(dim=(1, 2)) if x.shape[1] > 1 else 0 * x.mean(dim=(1, 2))


def _ramp(x: Tensor) -> Tensor:
    """The slope over time, from -1 in the first frame to 1 in the last; 0 of one frame."""
    frames = x.mean(dim=2).unbind(dim=1)
    last = len(frames) - 1
    weighted = [(2 * place / last - 1 if last else 0.0) * frame for place, frame in enumerate(frames)]
    return torch.stack(weighted).mean(dim=0)


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

    def after(self, video_token: Tensor, tokens: Tensor) -> Tensor:
        """A video token, and the statistics of the tokens of one block: [B, C], [B, T, N, C] -> [B, C + F]."""
        return self.finish(self.step(0, video_token[:, None], tokens, (0, 0)))

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
    """Each channel made comparable with the others: where a layer norm would mix the statistics.

    Its numbers are constants, of the clips that a probe was fitted to: steps as large as a head needs would be many
    times as large as they are.

    Args:
        num_features: Channels F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.ones(num_features))
        self.bias = nn.Buffer(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """[..., F] -> [..., F]."""
        return x * self.weight + self.bias


class NormBesideStatistics(nn.LayerNorm):
    """A layer norm of the video token, and constants for the statistics that follow it.

    Args:
        dim: Channels C of the video token.
        num_statistics: Channels F of the statistics.
    """

    def __init__(self, dim: int, num_statistics: int) -> None:
        super().__init__(dim)
        self.statistics = ChannelStandardization(num_statistics)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C + F] -> [..., C + F]; also tokens alone, [..., C] -> [..., C]."""
        video, statistics = x.tensor_split(self.normalized_shape, dim=-1)
        video = super().forward(video)
        return torch.cat([video, self.statistics(statistics).to(video.dtype)], dim=-1) if statistics.numel() else video


class DropoutBesideStatistics(nn.Dropout):
    """Dropout of the video token alone: the weights of the statistics are regularised where a probe fits them.

    Args:
        p: Rate.
        dim: Channels C of the video token.
    """

    def __init__(self, p: float, dim: int) -> None:
        super().__init__(p)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """[..., C + F] -> [..., C + F]."""
        video, statistics = x.tensor_split([self.dim], dim=-1)
        return torch.cat([super().forward(video), statistics], dim=-1)


def token_statistics(config: UniFormerV2Config, embedding: VideoEmbedding) -> TokenStatistics:
    """The statistics of a configuration, for the tokens of an embedding."""
    return TokenStatistics(
        config.statistics,
        config.dim,
        num_prefix_tokens=embedding.num_prefix_tokens,
        has_class_token=embedding.has_class_token,
    )


def norm_and_dropout(config: UniFormerV2Config) -> tuple[nn.LayerNorm, nn.Dropout]:
    """What lies before the head: of the video token, which statistics may follow."""
    if not config.statistics:
        return nn.LayerNorm(config.dim), nn.Dropout(config.classifier_dropout)
    norm = NormBesideStatistics(config.dim, config.num_features - config.dim)
    return norm, DropoutBesideStatistics(config.classifier_dropout, config.dim)
