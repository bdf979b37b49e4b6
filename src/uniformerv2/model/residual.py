"""One residual step, and the stochastic depth that may leave it out.

Source:
    Huang et al., Deep Networks with Stochastic Depth (2016), https://arxiv.org/abs/1603.09382.

Letters of this file: B videos, T frames, N tokens a frame, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["DropPath", "Residual", "cheaply_kept", "recomputed"]


class DropPath(nn.Module):
    """Stochastic depth: a residual step is left out at random in training.

    Args:
        rate: Probability of leaving it out, in [0, 1).
        own_dim: The dimension along which each index has a draw of its own; the others share it. 0 draws once per
            video, as the field means it. The published code keeps the tokens in front and so draws per token
            position: 2 for [B, T, N, C], and 1 for the video token [B, 1, C], that is once per batch.

    Raises:
        ValueError: The rate is outside [0, 1).
    """

    def __init__(self, rate: float = 0.0, own_dim: int = 0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"A drop path rate lies in [0, 1), got {rate}.")
        self.rate = rate
        self.own_dim = own_dim

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        if not self.training or self.rate == 0:
            return x
        shape = [size if dim == self.own_dim else 1 for dim, size in enumerate(x.shape)]
        keep = x.new_empty(shape).bernoulli_(1 - self.rate)
        return x * keep.div_(1 - self.rate)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.rate:.3f}"


class Residual(nn.Module):
    """One residual step, ``x + drop_path(scale(fn(norm(x))))``."""

    def __init__(
        self,
        fn: nn.Module,
        norm: nn.Module | None = None,
        scale: nn.Module | None = None,
        drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.fn = fn
        self.scale = scale or nn.Identity()
        self.drop_path = drop_path or nn.Identity()

    def forward(self, x: Tensor, *context: tuple[int, int]) -> Tensor:
        """[B, T, N, C] -> [B, T, N, C]; what ``fn`` needs beside the tokens follows them."""
        return x + self.drop_path(self.scale(self.fn(self.norm(x), *context)))


def recomputed(block: nn.Module, *inputs: Any) -> Tensor:
    """``block(*inputs)``, of which only the inputs are kept; running statistics see the batch once, as without it."""
    norms = [norm for norm in block.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    counts_twice = norms and not torch.compiler.is_compiling()  # a compiled graph writes a buffer once
    again: dict[str, Any] = {"context_fn": lambda: (nullcontext(), _uncounted(norms))} if counts_twice else {}
    result: Tensor = checkpoint(block, *inputs, use_reentrant=False, **again)
    return result


def cheaply_kept(step: Callable[[Tensor], Tensor], x: Tensor, *, training: bool, is_random: bool = False) -> Tensor:
    """``step(x)``, of which a training step keeps ``x`` alone; its last linear map is not computed a second time."""
    if training and torch.is_grad_enabled():
        return checkpoint(step, x, use_reentrant=False, preserve_rng_state=is_random)
    return step(x)


@contextmanager
def _uncounted(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Batch norms compute as in training, and leave their running statistics alone."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
