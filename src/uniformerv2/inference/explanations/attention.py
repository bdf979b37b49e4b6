"""How the video token reads: the weights of C_MHRA in each global block, and what they mean for one class.

With A the weights of a head (a row that sums to 1 over all tokens) and y the logit of a class:

    attention    A
    gradient     (A * dy/dA)+        what a token adds to the logit, to first order; nothing where it takes from it

Source:
    Chefer, Gur and Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers (2021), https://arxiv.org/abs/2103.15679, equation 5; the sum over stages is their rule for a query
    that reads again and again (equation 6 and what follows it), with the tokens of each stage in their own places.

Letters of this file: T time steps of tokens, H x W patches a step, P prefix tokens a step, N = P + H * W, K video
tokens among the keys, S stages, h heads, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uniformerv2.model.blocks import GlobalUniBlock
from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["Reading", "Tokens", "read_by_definition", "recorded_weights"]


@dataclass(frozen=True)
class Tokens:
    """A number for each token that each head of each stage reads.

    Attributes:
        patches: [S, h, T, H, W].
        prefix: Class token and registers [S, h, T, P].
        video: Video tokens of the stage before [S, h]; 0 but in the fusion "hierarchical_kv".
    """

    patches: Tensor
    prefix: Tensor
    video: Tensor


@dataclass(frozen=True)
class Reading:
    """One view, read.

    Attributes:
        logits: [num_classes].
        target: The class that was explained.
        weights: The weights A, the mean over the queries.
        relevance: The weights times their gradients, where positive, the sum over the queries.
        class_token_share: How much of the features is not what the video token read, but the mean class token (or
            patch) that the gate adds: by the norms of both parts, 0 to 1.
    """

    logits: Tensor
    target: int
    weights: Tokens
    relevance: Tokens
    class_token_share: float


@contextmanager
def recorded_weights(model: UniFormerV2) -> Iterator[list[Tensor]]:
    """While it lasts C_MHRA computes by its definition, and its weights are noted, [B, h, Q, tokens] for each stage.

    The kernels give no weights, as they never hold them all.

    Args:
        model: Any; no other thread computes with it meanwhile. The weights have gradients where the tokens do.
    """
    found: list[Tensor] = []

    def by_definition(cross: Any, inputs: tuple[Tensor, Tensor], options: dict[str, Any], _output: Tensor) -> Tensor:
        query, tokens = inputs
        norm = options.get("norm")
        output, weights = cross.with_weights(query, tokens if norm is None else norm(tokens))
        found.append(weights)
        result: Tensor = output
        return result

    crosses = [stage.cross for stage in model.fusion.stages if isinstance(stage, GlobalUniBlock)]
    hooks = [cross.register_forward_hook(by_definition, with_kwargs=True) for cross in crosses]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def read_by_definition(
    model: UniFormerV2, tokens: Sequence[Tensor], grid: tuple[int, int], *, target: int | None = None
) -> Reading:
    """What lies above the blocks, for one view, with its weights and their gradients.

    Args:
        model: In eval mode, with at least one global block.
        tokens: Of each of ``model.read_blocks``, [1, T, N, C], made without gradients.
        grid: Patches H, W.
        target: Number of a class; None: the most probable one.
    """
    num_prefix = tokens[0].shape[2] - grid[0] * grid[1]
    kind = model.norm.weight.dtype
    read = [x.detach().to(kind).requires_grad_() for x in tokens]  # the weights have gradients, whatever is frozen
    with torch.enable_grad(), recorded_weights(model) as weights:
        features = model.fuse_tokens(read, grid)
        logits = model.forward_head(features)[0]
        index = int(logits.argmax()) if target is None else target
        gradients = torch.autograd.grad(logits[index], weights)
    steps = tokens[0].shape[1]
    relevance = [(one * gradient).clamp(min=0) for one, gradient in zip(weights, gradients, strict=True)]

    def sorted_out(rows: list[Tensor]) -> Tokens:
        return _sorted_out([row.detach().float().cpu() for row in rows], steps, num_prefix, grid)

    return Reading(
        logits=logits.detach().float().cpu(),
        target=index,
        weights=sorted_out([one[0].mean(dim=1) for one in weights]),
        relevance=sorted_out([one[0].sum(dim=1) for one in relevance]),
        class_token_share=_class_token_share(model, features.detach(), read[-1].detach()),
    )


def _sorted_out(rows: Sequence[Tensor], steps: int, num_prefix: int, grid: tuple[int, int]) -> Tokens:
    """Rows [h, tokens] of each stage, as ``flatten`` made them: T times N tokens, then K video tokens."""
    num_tokens = steps * (num_prefix + grid[0] * grid[1])
    own = torch.stack([row[:, :num_tokens] for row in rows]).unflatten(-1, (steps, -1))  # [S, h, T, N]
    return Tokens(
        patches=own[..., num_prefix:].unflatten(-1, grid),
        prefix=own[..., :num_prefix],
        video=torch.stack([row[:, num_tokens:].sum(dim=-1) for row in rows]),
    )


@torch.no_grad()
def _class_token_share(model: UniFormerV2, features: Tensor, last: Tensor) -> float:
    """See ``Reading``: features = (1 - w) * video token + w * pooled, so that both parts are known."""
    if model.fusion_gate is None:
        return 0.0
    pooled = torch.sigmoid(model.fusion_gate) * model.embedding.pool(last)
    mixed = features[:, : pooled.shape[1]]  # statistics may follow
    parts = [part.float().norm().item() for part in (mixed - pooled, pooled)]
    return parts[1] / sum(parts) if sum(parts) else 0.0
