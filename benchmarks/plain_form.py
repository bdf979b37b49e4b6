"""The plain form of the network: the same function, computed the way the published code computes it.

Source:
    Li et al., UniFormerV2 (2022), https://arxiv.org/abs/2211.09552. Tokens lie as [N, B T, C]; each local temporal step
    copies them to [B, C, T, H, W] for 3-D convolutions and back; the cross attention projects every key and value.

What ours is measured against. It takes its weights from one of our models, and a test holds both to the same numbers.

Letters of this file: B videos, T frames, H x W patches a frame, N = 1 + H * W tokens a frame, C channels.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from uniformerv2.model.blocks import GlobalCrossMHRA, GlobalUniBlock, LocalTemporalMHRA, LocalUniBlock
from uniformerv2.model.residual import Residual
from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["PlainUniFormerV2"]

Plain = TypeVar("Plain", bound=nn.Module)


class PlainUniFormerV2(nn.Module):
    """The plain form of one of our models that arms CLIP's ViT, with sequential fusion and without stochastic depth.

    Args:
        model: Where the weights come from; they are copied.
    """

    def __init__(self, model: UniFormerV2) -> None:
        super().__init__()
        model = copy.deepcopy(model)
        self.stages = model.config.fusion_stages
        self.embedding = model.embedding
        self.blocks = nn.ModuleList(PlainLocalUniBlock(block) for block in model.blocks)
        self.fusion = nn.ModuleList(PlainGlobalUniBlock(stage) for stage in model.fusion.stages)
        self.video_token = model.fusion.video_token
        self.gate = model.fusion_gate
        self.head = nn.Sequential(model.norm, model.head_drop, model.head)

    def forward(self, video: Tensor) -> Tensor:
        """[B, T, 3, height, width] -> [B, num_classes]."""
        grid = self.embedding.grid(video)
        x = self.embedding(video)
        shape = (x.shape[0], x.shape[1], *grid)
        x = x.flatten(0, 1).transpose(0, 1)
        token = self.video_token.expand(shape[0], -1).unsqueeze(0)
        for index, block in enumerate(self.blocks):
            x = block(x, shape)
            if index in self.stages:
                token = self.fusion[self.stages.index(index)](token, x, shape)
        token = token.squeeze(0)
        if self.gate is not None:
            weight = self.gate.sigmoid()
            token = (1 - weight) * token + weight * x[0].unflatten(0, shape[:2]).mean(1)
        return self.head(token)


class PlainLocalUniBlock(nn.Module):
    """A local UniBlock on [N, B T, C].

    Args:
        block: Ours.
    """

    def __init__(self, block: LocalUniBlock) -> None:
        super().__init__()
        self.local = nn.ModuleList(_convolutions(step) for step in block.local)
        self.norm = block.spatial.norm
        attention = block.spatial.fn
        self.attention = _attention(
            attention.qkv.weight, attention.qkv.bias, attention.proj, num_heads=attention.num_heads
        )
        self.ffn = _feed_forward(block.ffn)

    def forward(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """[N, B T, C] -> [N, B T, C], with B, T, H, W = shape."""
        x = self._mix_frames(x, shape, step=0)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = self._mix_frames(x, shape, step=1)
        return x + self.ffn(x)

    def _mix_frames(self, x: Tensor, shape: tuple[int, ...], step: int) -> Tensor:
        if step >= len(self.local):
            return x
        mixed = self.local[step](_to_volume(x[1:], shape))
        patches = x[1:] + mixed.permute(3, 4, 0, 2, 1).reshape(x[1:].shape)
        return torch.cat([x[:1], patches], dim=0)


class PlainGlobalUniBlock(nn.Module):
    """A global UniBlock that projects keys and values.

    Args:
        stage: Ours.
    """

    def __init__(self, stage: GlobalUniBlock) -> None:
        super().__init__()
        dim = stage.position.weight.shape[0]
        self.position = _loaded(nn.Conv3d(dim, dim, 3, padding=1, groups=dim), stage.position)
        self.norm_query, self.norm_tokens = stage.norm_query, stage.norm_tokens
        self.attention = _cross_attention(stage.cross)
        self.ffn = _feed_forward(stage.ffn)

    def forward(self, token: Tensor, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Token [1, B, C], tokens [N, B T, C] -> [1, B, C], with B, T, H, W = shape."""
        volume = _to_volume(x[1:], shape)
        volume = volume + self.position(volume)
        patches = volume.flatten(2).permute(2, 0, 1)  # [T H W, B, C]
        frames = x[0].unflatten(0, shape[:2]).transpose(0, 1)  # [T, B, C]
        keys = self.norm_tokens(torch.cat([frames, patches], dim=0))
        token = token + self.attention(self.norm_query(token), keys, keys, need_weights=False)[0]
        return token + self.ffn(token)


class PlainQuickGELU(nn.Module):
    """The sigmoid form of GELU, as written."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        return x * torch.sigmoid(1.702 * x)


def _feed_forward(step: Residual) -> nn.Sequential:
    return nn.Sequential(step.norm, step.fn.fc1, PlainQuickGELU(), step.fn.drop, step.fn.fc2)


def _to_volume(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[H W, B T, C] -> [B, C, T, H, W]."""
    videos, frames, height, width = shape
    return x.reshape(height, width, videos, frames, -1).permute(2, 4, 3, 0, 1).contiguous()


def _convolutions(step: LocalTemporalMHRA) -> nn.Sequential:
    hidden, dim = step.value.weight.shape
    taps = step.affinity.weight.shape[1]
    plain = nn.Sequential(
        nn.BatchNorm3d(dim),
        nn.Conv3d(dim, hidden, 1),
        nn.Conv3d(hidden, hidden, (taps, 1, 1), padding=(taps // 2, 0, 0), groups=hidden),
        nn.Conv3d(hidden, dim, 1),
    )
    return _loaded(plain, step)


def _cross_attention(cross: GlobalCrossMHRA) -> nn.MultiheadAttention:
    weight = torch.cat([cross.q.weight, cross.k.weight, cross.v.weight])
    bias = torch.cat([cross.q.bias, torch.zeros_like(cross.q.bias), cross.v.bias])
    return _attention(weight, bias, cross.proj, num_heads=cross.num_heads)


def _attention(weight: Tensor, bias: Tensor, proj: nn.Linear, *, num_heads: int) -> nn.MultiheadAttention:
    plain = nn.MultiheadAttention(proj.in_features, num_heads)
    state = {"in_proj_weight": weight, "in_proj_bias": bias, "out_proj.weight": proj.weight, "out_proj.bias": proj.bias}
    plain.load_state_dict(state)
    return plain


def _loaded(plain: Plain, ours: nn.Module) -> Plain:
    """The plain module with our weights: the same tensors in the same order, some with dimensions of size 1 more."""
    state = plain.state_dict()
    pairs = zip(state.items(), ours.state_dict().values(), strict=True)
    plain.load_state_dict({name: value.view(old.shape) for (name, old), value in pairs})
    return plain
