"""The MHRA family, the position encoding and the two blocks of UniFormerV2.

Source:
    Li et al., UniFormerV2 (2022), https://arxiv.org/abs/2211.09552, "Local UniBlock" and "Global UniBlock".

Letters of this file: B videos, T frames, H x W patches a frame, P prefix tokens a frame (class and registers),
N = P + H * W tokens a frame, C channels, Q queries, S keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2.model.residual import Residual, cheaply_kept
from uniformerv2.ops import dispatch
from uniformerv2.ops import functional as ops

__all__ = [
    "DynamicPositionEncoding",
    "FeedForward",
    "GlobalCrossMHRA",
    "GlobalSpatialMHRA",
    "GlobalUniBlock",
    "LocalTemporalMHRA",
    "LocalUniBlock",
    "QuickGELU",
]


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is its weight and its bias and nothing else: no subclass, no hook, no other ``forward``.

    Only then may its weight be used without calling it. Adapters such as LoRA, quantised layers and observers stand in
    a layer's place or hang on it, accelerate puts a function in the place of its ``forward``; all of them have an
    effect only where the layer is called.

    >>> is_plain(nn.Linear(2, 2)), is_plain(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    (True, False)
    """
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) in {nn.Linear, nn.BatchNorm1d, nn.LayerNorm} and "forward" not in vars(layer) and not any(hooks)


class QuickGELU(nn.Module):
    """The sigmoid form of GELU that CLIP was trained with: ``x * sigmoid(FACTOR * x)``.

    Computed as ``silu(FACTOR * x) / FACTOR``, whose backward pass has one tensor to keep and half the steps.
    """

    FACTOR: Final = 1.702

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        return F.silu(self.FACTOR * x) / self.FACTOR


class LocalTemporalMHRA(nn.Module):
    """LT_MHRA: each patch mixes with the same patch of the neighbour frames, through a bottleneck.

    Linear from end to end: batch norm, ``value``, ``affinity`` (a depth-wise convolution along time), ``proj``.
    Starts as zero, so that an image model is unchanged on the first step.

    Args:
        dim: Channels C.
        reduction: C divided by the channels of the bottleneck.
        kernel_size: Frames that one patch sees; odd.

    Raises:
        ValueError: The kernel is even, or the bottleneck has no channel.
    """

    def __init__(self, dim: int, *, reduction: float = 1.5, kernel_size: int = 3) -> None:
        super().__init__()
        hidden = int(dim // reduction)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that a frame is the centre of its own, got {kernel_size}.")
        if hidden < 1:
            raise ValueError(f"reduction must leave at least one of the {dim} channels, got {reduction}.")
        self.norm: nn.BatchNorm1d | nn.Identity = nn.BatchNorm1d(dim)
        self.value = nn.Linear(dim, hidden)
        self.affinity = TemporalAffinity(hidden, kernel_size)
        self.proj = nn.Linear(hidden, dim)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H * W, C] -> [B, T, H * W, C]."""
        return self.proj(self.affinity(self._normed_value(x)))

    def _normed_value(self, x: Tensor) -> Tensor:
        norm = self.norm
        if isinstance(norm, nn.Identity):
            return self.value(x)
        if norm.training or not (is_plain(norm) and is_plain(self.value)):
            return self.value(norm(x.flatten(0, 2)).view(x.shape))
        return F.linear(x, *self._folded(norm))

    def _folded(self, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
        return ops.fold_batch_norm(
            self.value.weight,
            self.value.bias,
            mean=norm.get_buffer("running_mean"),
            variance=norm.get_buffer("running_var"),
            scale=norm.weight,
            shift=norm.bias,
            eps=norm.eps,
        )

    @torch.no_grad()
    def merge_linear(self) -> None:
        """Make batch norm and ``value`` one linear map, for good; layers that are not plain stay as they are."""
        if is_plain(self.norm) and is_plain(self.value) and isinstance(self.norm, nn.BatchNorm1d):
            for parameter, folded in zip((self.value.weight, self.value.bias), self._folded(self.norm), strict=True):
                parameter.copy_(folded)
            self.norm = nn.Identity()


class TemporalAffinity(nn.Module):
    """The learnt affinity of LT_MHRA: one weight per channel and frame offset.

    Args:
        dim: Channels D.
        kernel_size: Frame offsets; odd.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        bound = kernel_size**-0.5  # the bound of nn.Conv3d with one input channel a group
        self.weight = nn.Parameter(torch.empty(dim, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H * W, D] -> [B, T, H * W, D]."""
        return dispatch.temporal_conv(x, self.weight, self.bias)


class GlobalSpatialMHRA(nn.Module):
    """GS_MHRA: the tokens of one frame attend to one another.

    Args:
        dim: Channels C.
        num_heads: Divides C.

    Raises:
        ValueError: ``dim`` is no multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C]."""
        qkv = self.qkv(x).flatten(0, 1).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # [B * T, heads, N, C / heads]
        y = ops.frame_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(y).view(x.shape)


class FeedForward(nn.Module):
    """FFN: linear, activation, dropout, linear.

    In training what lies between the linear maps is computed again in the backward pass: a third to a half of what an
    FFN would keep for it, for one percent of the time of a step. Where there are more tokens than channels,
    QuickGELU's two factors are applied to the weights around it instead of to the hidden tokens.

    Args:
        dim: Channels C.
        ratio: Hidden channels divided by C.
        activation: Makes the activation module.
        dropout: Rate after the activation.
    """

    def __init__(
        self, dim: int, *, ratio: float = 4.0, activation: Callable[[], nn.Module] = QuickGELU, dropout: float = 0.0
    ) -> None:
        super().__init__()
        hidden = round(ratio * dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = activation()
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        if isinstance(self.act, QuickGELU) and self._are_plain() and x.numel() > x.shape[-1] ** 2:
            hidden, then = F.linear(x, *_scaled(self.fc1, QuickGELU.FACTOR)), self._after_scaled
        else:
            hidden, then = self.fc1(x), self._after_first
        return cheaply_kept(then, hidden, training=self.training, is_random=self.drop.p > 0)

    def _are_plain(self) -> bool:
        return is_plain(self.fc1) and is_plain(self.fc2)

    def _after_first(self, hidden: Tensor) -> Tensor:
        return self.fc2(self.drop(self.act(hidden)))

    def _after_scaled(self, hidden: Tensor) -> Tensor:
        return F.linear(self.drop(F.silu(hidden)), self.fc2.weight / QuickGELU.FACTOR, self.fc2.bias)

    @torch.no_grad()
    def merge_linear(self) -> None:
        """Put QuickGELU's two factors into the linear maps around it, for good, where those are plain."""
        if isinstance(self.act, QuickGELU) and self._are_plain():
            self.fc1.weight.mul_(QuickGELU.FACTOR)
            self.fc1.bias.mul_(QuickGELU.FACTOR)
            self.fc2.weight.div_(QuickGELU.FACTOR)
            self.act = nn.SiLU()


class LocalUniBlock(nn.Module):
    """An image ViT block, armed: LT_MHRA, GS_MHRA, FFN, each a residual step.

    The published code may add a second LT_MHRA after GS_MHRA; the paper's equations have one.

    Args:
        spatial: The image block's attention step, called with the tokens and the grid.
        ffn: The image block's feed-forward step.
        local: Zero, one or two local temporal relations: before the attention, then after it.
        drop_path: Stochastic depth of the local temporal steps.
    """

    def __init__(
        self,
        spatial: Residual,
        ffn: Residual,
        *,
        local: tuple[LocalTemporalMHRA, ...] = (),
        drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.local = nn.ModuleList(local)
        self.spatial = spatial
        self.ffn = ffn
        self.local_drop_path = drop_path or nn.Identity()

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C], with H, W = grid."""
        x = self._mix_frames(x, grid, step=0)
        x = self.spatial(x, grid)
        x = self._mix_frames(x, grid, step=1)
        return self.ffn(x)

    def _mix_frames(self, x: Tensor, grid: tuple[int, int], step: int) -> Tensor:
        if step >= len(self.local):
            return x
        prefix, patches = x.tensor_split([x.shape[2] - grid[0] * grid[1]], dim=2)
        patches = patches + self.local_drop_path(self.local[step](patches))
        return torch.cat([prefix, patches], dim=2)


class DynamicPositionEncoding(nn.Module):
    """DPE: a depth-wise 3 x 3 x 3 convolution over the patches, added to its own input.

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        bound = 27**-0.5  # the bound of nn.Conv3d with one input channel a group
        self.weight = nn.Parameter(torch.empty(dim, 1, 3, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C], with H, W = grid; prefix tokens pass unchanged."""
        return dispatch.position_encoding(x, self.weight, self.bias, grid)


class GlobalCrossMHRA(nn.Module):
    """C_MHRA: the video token asks, every token of every frame answers.

    Starts as zero. The keys have no bias: it would cancel in the softmax.

    Args:
        dim: Channels C.
        num_heads: Divides C.

    Raises:
        ValueError: ``dim`` is no multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        for linear in (self.q, self.k, self.v):
            bound = (6 / (dim + 3 * dim)) ** 0.5  # Xavier's bound for the published joint projection [3 C, C]
            nn.init.uniform_(linear.weight, -bound, bound)
        for bias in (self.q.bias, self.v.bias, self.proj.bias, self.proj.weight):
            nn.init.zeros_(bias)

    def forward(self, query: Tensor, tokens: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """Query [B, Q, C], tokens [B, S, C] -> [B, Q, C]; the norm of the tokens may be left to the operation."""
        if norm is not None and not is_plain(norm):
            tokens, norm = norm(tokens), None
        if not (is_plain(self.k) and is_plain(self.v)):
            return self.proj(self._projected(self.q(query), tokens if norm is None else norm(tokens)))
        mixed = dispatch.cross_mhra(
            self.q(query),
            tokens,
            norm=norm,
            key_weight=self.k.weight,
            value_weight=self.v.weight,
            value_bias=self.v.bias,
            num_heads=self.num_heads,
        )
        return self.proj(mixed)

    def with_weights(self, query: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As the paper writes it: query [B, Q, C], normed tokens [B, S, C] -> [B, Q, C], weights [B, heads, Q, S]."""
        q, k, v = self._heads(self.q(query), tokens)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2)), weights

    def _projected(self, query: Tensor, tokens: Tensor) -> Tensor:
        """``forward`` with keys and values, for layers that have to be called."""
        q, k, v = self._heads(query, tokens)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def _heads(self, query: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """Query, keys and values, [B, heads, Q or S, C / heads]."""
        parts = (query, self.k(tokens), self.v(tokens))
        return tuple(part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)


class GlobalUniBlock(nn.Module):
    """DPE, C_MHRA, FFN: one stage of the video token.

    Args:
        dim: Channels C.
        num_heads: Heads of the cross attention; divides C.
        ratio: Hidden channels of the FFN divided by C.
        dropout: Rate inside the FFN.
        drop_path: Stochastic depth of both residual steps.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.position = DynamicPositionEncoding(dim)
        self.norm_query = nn.LayerNorm(dim)
        self.norm_tokens = nn.LayerNorm(dim)
        self.cross = GlobalCrossMHRA(dim, num_heads)
        self.cross_drop_path = drop_path or nn.Identity()
        ffn = FeedForward(dim, ratio=ratio, dropout=dropout)
        nn.init.xavier_uniform_(ffn.fc1.weight)
        nn.init.zeros_(ffn.fc2.weight)
        nn.init.zeros_(ffn.fc2.bias)
        self.ffn = Residual(ffn, nn.LayerNorm(dim), drop_path=self.cross_drop_path)

    def forward(self, query: Tensor, x: Tensor, grid: tuple[int, int], extra: Tensor | None = None) -> Tensor:
        """Query [B, Q, C], x [B, T, N, C] (and extra keys [B, K, C]) -> [B, Q, C]."""
        tokens = self.position(x, grid).flatten(1, 2)
        if extra is not None:
            tokens = torch.cat([tokens, extra], dim=1)
        query = query + self.cross_drop_path(self.cross(self.norm_query(query), tokens, norm=self.norm_tokens))
        return self.ffn(query)


def _scaled(linear: nn.Linear, factor: float) -> tuple[Tensor, Tensor]:
    return linear.weight * factor, linear.bias * factor


def _check_heads(dim: int, num_heads: int) -> None:
    if dim % num_heads:
        raise ValueError(f"dim must be a multiple of num_heads, got {dim = } and {num_heads = }.")
