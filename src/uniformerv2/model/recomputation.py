"""What a training step computes again in its backward pass, so as to keep less until then.

Source:
    Chen et al., Training Deep Nets with Sublinear Memory Cost (2016), https://arxiv.org/abs/1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["cheaply_kept", "recomputed"]


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
