"""Multi-stage fusion: how the video tokens of several layers become one.

Source:
    Li et al., UniFormerV2 (2022), https://arxiv.org/abs/2211.09552, "Multi-Stage Fusion Block", with G_i the global
    UniBlock of stage i, X_i its video token, T_i the tokens of its layer and q_i a learnt query:

    =================  ==========================================  =============================
    sequential         X_i = G_i(X_{i-1}, T_i),  X_0 = q           the published models
    parallel           X_i = G_i(q_i, T_i)                         concatenated and projected
    hierarchical_kv    X_i = G_i(q_i, [T_i, X_{i-1}])
    hierarchical_q     X_i = G_i([X_{i-1}, q_i], T_i)              one query more each stage; their mean
    =================  ==========================================  =============================

Letters of this file: B videos, T frames, N tokens a frame, C channels, Q video tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from uniformerv2.model.blocks import GlobalUniBlock
from uniformerv2.model.config import FusionName

__all__ = [
    "FUSIONS",
    "HierarchicalKVFusion",
    "HierarchicalQFusion",
    "MultiStageFusion",
    "ParallelFusion",
    "SequentialFusion",
]


class MultiStageFusion(nn.Module):
    """What the four fusions share: the stages, the learnt video tokens, and the walk over the stages.

    The walk is open (``start``, ``step`` once per stage, ``finish``) so that a network need not keep the tokens of
    its layers; ``forward`` walks over tokens that are at hand, such as cached ones.

    Args:
        stages: One global UniBlock per stage.
        dim: Channels C.
    """

    def __init__(self, stages: Sequence[GlobalUniBlock], dim: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.video_token = nn.Parameter(torch.zeros(self._num_queries(len(stages)), dim))

    @staticmethod
    def _num_queries(num_stages: int) -> int:
        return num_stages

    def forward(self, stage_tokens: Iterable[Tensor], grid: tuple[int, int]) -> Tensor:
        """The tokens of every stage, each [B, T, N, C] -> [B, C].

        Args:
            stage_tokens: As many as there are stages.
            grid: Patches H, W.

        Raises:
            ValueError: There is no stage.
        """
        video: Tensor | None = None
        for index, tokens in enumerate(stage_tokens):
            video = self.start(tokens.shape[0]) if video is None else video
            video = self.step(index, video, tokens, grid)
        if video is None:
            raise ValueError("A fusion needs the tokens of at least one stage, got none.")
        return self.finish(video)

    def start(self, batch_size: int) -> Tensor:
        """Nothing yet, [B, 0, C]."""
        return self.video_token[:0].expand(batch_size, -1, -1)

    def step(self, index: int, video: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Stage ``index``: the video tokens so far [B, Q, C] and this layer's [B, T, N, C] -> [B, Q', C]."""
        raise NotImplementedError

    def finish(self, video: Tensor) -> Tensor:
        """[B, Q, C] -> [B, C]."""
        return video.squeeze(1)

    def _query(self, index: int, batch_size: int) -> Tensor:
        return self.video_token[index].expand(batch_size, 1, -1)


class SequentialFusion(MultiStageFusion):
    """One video token walks through the stages."""

    @staticmethod
    def _num_queries(num_stages: int) -> int:
        return 1

    def start(self, batch_size: int) -> Tensor:
        """The learnt token, [B, 1, C]."""
        return self._query(0, batch_size)

    def step(self, index: int, video: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, 1, C], [B, T, N, C] -> [B, 1, C]."""
        return self.stages[index](video, tokens, grid)


class ParallelFusion(MultiStageFusion):
    """Each stage asks with a query of its own; the answers are concatenated and projected."""

    def __init__(self, stages: Sequence[GlobalUniBlock], dim: int) -> None:
        super().__init__(stages, dim)
        self.proj = nn.Linear(len(stages) * dim, dim)

    def step(self, index: int, video: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, Q, C], [B, T, N, C] -> [B, Q + 1, C]."""
        answer = self.stages[index](self._query(index, tokens.shape[0]), tokens, grid)
        return torch.cat([video, answer], dim=1)

    def finish(self, video: Tensor) -> Tensor:
        """[B, Q, C] -> [B, C]."""
        return self.proj(video.flatten(1))


class HierarchicalKVFusion(MultiStageFusion):
    """Each stage asks with a query of its own; the previous answer joins the keys and values."""

    def step(self, index: int, video: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, Q, C], [B, T, N, C] -> [B, 1, C]."""
        return self.stages[index](self._query(index, tokens.shape[0]), tokens, grid, extra=video)


class HierarchicalQFusion(MultiStageFusion):
    """The previous answers join the queries; queries do not see each other, so all are kept and averaged."""

    def step(self, index: int, video: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, Q, C], [B, T, N, C] -> [B, Q + 1, C]."""
        query = torch.cat([video, self._query(index, tokens.shape[0])], dim=1)
        return self.stages[index](query, tokens, grid)

    def finish(self, video: Tensor) -> Tensor:
        """[B, Q, C] -> [B, C]."""
        return video.mean(dim=1)


FUSIONS: dict[FusionName, type[MultiStageFusion]] = {  # "statistics" has no global UniBlocks: see statistics.py
    "sequential": SequentialFusion,
    "parallel": ParallelFusion,
    "hierarchical_kv": HierarchicalKVFusion,
    "hierarchical_q": HierarchicalQFusion,
}
