"""Which form of an operation runs: its definition in PyTorch, or the Triton kernel that computes the same.

``functional.py`` defines; the blocks of the network call the functions of this file, which choose::

    "auto"     the kernels on the GPUs on which they were measured (``MEASURED``), else the definition  (as it starts)
    "torch"    the definition, everywhere
    "triton"   the kernels, also where they need Triton's interpreter (TRITON_INTERPRET=1, for tests on a CPU)

There are kernels for float32 and bfloat16. The first time that "auto" meets a device, type and number of channels, all
are tried against the definitions, on tokens that cross every tile. Where Triton is missing, or a kernel fails or is
wrong, one warning says so, and the definitions run. docs/performance.md has what was measured.

Letters of this file: B videos, T frames, L patches a frame, N tokens a frame, S tokens in all, Q queries, R = Q * heads
rows, C and D channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2.ops import functional

__all__ = ["Impl", "cross_mhra", "position_encoding", "set_impl", "temporal_conv"]

Impl = Literal["auto", "torch", "triton"]

DTYPES = (torch.float32, torch.bfloat16)
EPS = 1e-5
MEASURED = frozenset({9})  # compute capabilities, without what follows the point: Hopper (H100)
TRIAL_TOLERANCE = {
    torch.float32: 1e-4,
    torch.bfloat16: 0.03,
}  # relative; the definitions in bfloat16 are 0.002 to 0.01 away
TRIAL_SHAPE = (2, 9, 1 + 9 * 8)  # B, T, N; no tile holds as many frames, tokens of a frame, or tokens of a video
TRIAL_GRID = (9, 8)
MAX_CHANNELS = 1024  # of a token, all of which the attention kernel holds in shared memory
MAX_ROWS = 16  # rows of a query that the attention kernel takes at once

_impl: Impl = "auto"
_tried: dict[tuple[str, torch.dtype, int], bool] = {}


def set_impl(impl: Impl) -> AbstractContextManager[None]:
    """Choose the form of every operation, for the process; in a ``with`` statement until its end.

    Args:
        impl: "auto", "torch" or "triton".

    Returns:
        A context manager that puts back what was chosen before.

    Raises:
        ValueError: Another word.

    Examples:
        >>> with set_impl("torch"):
        ...     pass  # here the definitions run, on every device
    """
    global _impl
    if impl not in get_args(Impl):
        raise ValueError(f"impl is one of {', '.join(map(repr, get_args(Impl)))}, got {impl!r}.")
    before, _impl = _impl, impl
    return _put_back(before)


@contextmanager
def _put_back(impl: Impl) -> Iterator[None]:
    try:
        yield
    finally:
        set_impl(impl)


def temporal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``functional.temporal_conv``: tokens [B, T, L, D], taps [D, kernel], bias [D] -> [B, T, L, D]."""
    if weight.shape[1] == 3 and _kernel_dtype(x) is not None:
        return torch.ops.uniformerv2.temporal_mix(x, weight, bias)
    return functional.temporal_conv(x, weight, bias)


def position_encoding(x: Tensor, weight: Tensor, bias: Tensor, grid: tuple[int, int]) -> Tensor:
    """``functional.position_encoding``: [B, T, N, C] -> [B, T, N, C]; the kernel's result has autocast's type."""
    dtype = _kernel_dtype(x)
    if dtype is not None:
        return torch.ops.uniformerv2.position_encoding(x, weight, bias, *grid, dtype)
    return functional.position_encoding(x, weight, bias, grid)


def cross_mhra(
    query: Tensor,
    tokens: Tensor,
    *,
    norm: nn.LayerNorm | None,
    key_weight: Tensor,
    value_weight: Tensor,
    value_bias: Tensor,
    num_heads: int,
) -> Tensor:
    """``functional.cross_mhra`` on normed tokens: query [B, Q, C], tokens [B, S, C] -> [B, Q, C].

    Float32 tokens and more than ``MAX_CHANNELS`` channels are left to the definition: their tiles would not fit into a
    processor's shared memory.

    Args:
        query: Projected.
        tokens: Before ``norm``.
        norm: LayerNorm of the tokens; none where they come normed.
        key_weight: [C, C].
        value_weight: [C, C].
        value_bias: [C].
        num_heads: Divides C.

    Returns:
        The heads' outputs side by side, before the output projection.
    """
    cross = partial(
        functional.cross_mhra,
        key_weight=key_weight,
        value_weight=value_weight,
        value_bias=value_bias,
        num_heads=num_heads,
    )
    dtype = _kernel_dtype(tokens)
    if norm is not None and dtype is not None and _attends(dtype, tokens.shape[-1]):
        return cross(query, tokens.to(dtype), pool=partial(_pool_unnormed, norm=norm))
    return cross(query, tokens if norm is None else norm(tokens))


def _attends(dtype: torch.dtype, dim: int) -> bool:
    """Whether the attention kernel takes tokens of this type and so many channels."""
    return dtype == torch.bfloat16 and dim <= MAX_CHANNELS


def _pool_unnormed(rows: Tensor, tokens: Tensor, *, norm: nn.LayerNorm) -> Tensor:
    """``functional.pool_tokens(rows, norm(tokens))``: the norm's shift cancels in the softmax, its scale moves."""
    scaled = (rows * norm.weight).to(tokens.dtype)
    mixed = [torch.ops.uniformerv2.attend(tokens, part, norm.eps)[0] for part in scaled.split(MAX_ROWS, dim=1)]
    return torch.addcmul(norm.bias, torch.cat(mixed, dim=1), norm.weight).to(rows.dtype)


def _kernel_dtype(x: Tensor) -> torch.dtype | None:
    """The type that a kernel computes in: autocast's, else that of x; none where the definition runs."""
    device = x.device.type
    if _impl == "torch" or device not in {"cuda", "cpu"} or (_impl == "auto" and device == "cpu"):
        return None
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    if dtype not in DTYPES or x.dtype not in DTYPES:
        return None
    works = _load_kernels() if _impl == "triton" else _kernels_work(str(x.device), dtype, x.shape[-1])
    return dtype if works else None


def _constant(function: Callable[..., bool]) -> Callable[..., bool]:
    """What ``torch.compiler.assume_constant_result`` does, which imports the whole compiler, and Triton, at once."""
    vars(function)["_dynamo_marked_constant"] = True
    return function


@_constant
def _load_kernels() -> bool:
    import_module("uniformerv2.ops.triton_kernels")
    return True


@_constant
def _kernels_work(device: str, dtype: torch.dtype, dim: int) -> bool:
    """Whether they were measured on such a device and ran in a trial, which happens once; a warning says why not."""
    if device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] not in MEASURED:
        return False
    key = (device, dtype, dim)
    if key not in _tried:
        try:
            _load_kernels()
            _try_kernels(*key)
            _tried[key] = True
        except Exception as error:  # import, compiler, driver, memory: whatever it is, PyTorch remains
            if all(_tried.values()):
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(
                    f"Triton's kernels do not run on {device}, PyTorch's slower forms take over "
                    f"({type(error).__name__}: {reason}). uniformerv2.ops.set_impl('torch') keeps this quiet.",
                    stacklevel=2,
                )
            _tried[key] = False
    return _tried[key]


def _try_kernels(device: str, dtype: torch.dtype, dim: int) -> None:
    """Every kernel, forward and backward, against the definitions in float32 on the same numbers.

    Raises:
        RuntimeError: A result or a gradient is another.
    """
    autocast = torch.autocast(torch.device(device).type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast:
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randn(*TRIAL_SHAPE, dim, generator=draw).to(device, dtype)
        taps = (torch.randn(dim, 1, 3, 3, 3, generator=draw) / 4).to(device, dtype)
        attends = _attends(dtype, dim)
        found = _trial(tokens, taps, attends=attends, kernels=torch.ops.uniformerv2)
        wanted = _trial(tokens.float(), taps.float(), attends=attends)
    for name, ours, definition in zip(("result", "gradient"), found, wanted, strict=True):
        error = ((ours.float() - definition).norm() / definition.norm()).item()
        if not error < TRIAL_TOLERANCE[dtype]:
            raise RuntimeError(f"the {name} of the trial is {error:.2g} away from the definition's")


def _trial(tokens: Tensor, taps: Tensor, *, attends: bool, kernels: Any = None) -> tuple[Tensor, Tensor]:
    """All operations one after the other, and the gradient of their tokens; without kernels the definitions."""
    x, temporal_taps, bias = tokens.clone().requires_grad_(), taps[:, 0, 0, 0], taps[:, 0, 0, 0, 0]
    rows = x[:, 0, :5] * x.shape[-1] ** -0.5
    if kernels is None:
        y = functional.position_encoding(x, taps, bias, TRIAL_GRID)
        y = functional.temporal_conv(y[:, :, 1:], temporal_taps, bias).flatten(1, 2)
        y = functional.pool_tokens(rows, F.layer_norm(y, y.shape[-1:], eps=EPS)) if attends else y
    else:
        y = kernels.position_encoding(x, taps, bias, *TRIAL_GRID, x.dtype)
        y = kernels.temporal_mix(y[:, :, 1:], temporal_taps, bias).flatten(1, 2)
        y = kernels.attend(y, rows, EPS)[0] if attends else y
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return y, torch.autograd.grad(y, x, upstream)[0]
