"""What a pass computes: its matrix products, recorded while it runs and computed alone; the multiply-adds of its parts.

What a pass costs beyond them is overhead; how fast they are is what this machine gives to products of these shapes. The
two products of fused attention are recorded as batched products, four more of its backward pass; depth-wise
convolutions are no matrix products and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from uniformerv2.model.summary import summarize
from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["PARTS", "MatrixProducts", "count_flops", "record_products", "square_product"]

aten: Final[Any] = torch.ops.aten

_PRODUCTS: Final = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm}
_CONVOLUTIONS: Final = {aten.convolution, aten.convolution_backward}
_GROUPS: Final = {aten.convolution: 8, aten.convolution_backward: 9}
"""Where the number of groups stands in the arguments."""
_ATTENTION: Final = {
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
}
_ATTENTION_BACKWARD: Final = {
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
    aten._scaled_dot_product_flash_attention_backward,
    aten._scaled_dot_product_efficient_attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward,
}

SQUARE: Final = {"cpu": 2048, "cuda": 8192}
"""Side of the large product that stands for the most a device gives."""


@dataclass(frozen=True)
class MatrixProducts:
    """The matrix products of one call, on random numbers.

    Attributes:
        calls: One each, in the order of the pass.
        flops: Of all of them; a multiply-add counts as two.
    """

    calls: tuple[Callable[[], object], ...]
    flops: int

    def __call__(self) -> None:
        """Compute all of them."""
        with torch.no_grad():
            for call in self.calls:
                call()


def record_products(run: Callable[[], object]) -> MatrixProducts:
    """Call ``run`` once, eagerly, and note its matrix products, those of a backward pass too.

    Args:
        run: What to look at; inference mode inside of it hides products, ``torch.no_grad`` does not.
    """
    with _Recorder() as recorder:
        run()
    return MatrixProducts(tuple(recorder.calls), recorder.flops)


def square_product(dtype: torch.dtype, device: torch.device | str) -> MatrixProducts:
    """One product of two large square matrices."""
    side = SQUARE.get(torch.device(device).type, SQUARE["cpu"])
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    return MatrixProducts((partial(torch.mm, left, right),), 2 * side**3)


class _Recorder(TorchDispatchMode):
    """Calls with tensors of the same shapes share them: a training step's would not fit into the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []
        self.flops = 0
        self._tensors: dict[Any, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        if kind in _PRODUCTS or (kind in _CONVOLUTIONS and args[_GROUPS[kind]] == 1):
            like = [self._like(value, position) for position, value in enumerate(args)]
            self.calls.append(partial(func, *like, **(kwargs or {})))
            self.flops += flop_registry[kind](*args, **(kwargs or {}), out_val=out)
        elif kind in _ATTENTION:
            self._add_batched(_attention_products(*args[:3]))
        elif kind in _ATTENTION_BACKWARD:
            self._add_batched(_attention_gradients(*args[1:4]))
        return out

    def _like(self, value: Any, position: int) -> Any:
        """Random numbers laid out in memory as the tensor is; other values as they are."""
        if not isinstance(value, Tensor):
            return value
        key = (value.shape, value.stride(), value.dtype, position)
        if key not in self._tensors:
            is_expanded = 0 in value.stride()
            like = torch.empty(value.shape) if is_expanded else torch.empty_strided(value.shape, value.stride())
            self._tensors[key] = like.normal_().to(value.device, value.dtype)
        return self._tensors[key]

    def _add_batched(self, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
        for left, right in pairs:
            self.calls.append(partial(torch.bmm, self._like(left, 0), self._like(right, 1)))
            self.flops += 2 * left.numel() * right.shape[-1]


def _attention_products(q: Tensor, k: Tensor, v: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """[..., N, D] of each: scores, and their mean of the values."""
    q, k, v, weights = _flat(q, k, v)
    yield q, k.transpose(1, 2)
    yield weights, v


def _attention_gradients(q: Tensor, k: Tensor, v: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Gradients of values, weights, queries, keys."""
    q, k, v, weights = _flat(q, k, v)
    yield weights.transpose(1, 2), q
    yield q, v.transpose(1, 2)
    yield weights, k
    yield weights.transpose(1, 2), q


def _flat(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous [M, N, D] of each, and [M, N, N]; only shapes count."""
    flat = [torch.empty(tensor.shape, dtype=q.dtype, device=q.device).flatten(0, -3) for tensor in (q, k, v)]
    weights = torch.empty(len(flat[0]), q.shape[-2], k.shape[-2], dtype=q.dtype, device=q.device)
    return flat[0], flat[1], flat[2], weights


PARTS: Final = {
    "patch embedding": ("embedding",),
    "LT_MHRA": ("blocks", "local"),
    "GS_MHRA": ("blocks", "spatial"),
    "FFN of the blocks": ("blocks", "ffn"),
    "DPE": ("fusion", "position"),
    "C_MHRA": ("fusion", "cross"),
    "FFN of the stages": ("fusion", "ffn"),
    "head": ("head",),
}
"""Part -> names of modules on the way to it, from the outside in."""


def count_flops(model: UniFormerV2, video: Tensor) -> list[dict[str, Any]]:
    """Compute one clip on the CPU, in float32, and count.

    Args:
        model: Is left in eval mode without gradients.
        video: One clip.

    Returns:
        A row per part; then those of the whole: ``counted``, ``summarize``, and the ``published form``.
    """
    model.eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(video)
    by_module = {name: sum(flops.values()) / 2 for name, flops in counter.get_flop_counts().items()}
    total = counter.get_total_flops() / 2
    summary = summarize(model, num_frames=video.shape[1])
    macs = {
        **{part: _sum_of(by_module, names) for part, names in PARTS.items()},
        **{"counted": total, "summarize": summary.macs, "published form": summary.published_macs},
    }
    return [{"part": part, "gmacs": value / 1e9, "share": value / total} for part, value in macs.items()]


def _sum_of(by_module: dict[str, float], names: tuple[str, ...]) -> float:
    """Sum over the outermost modules whose path, behind the network's own name, starts with the names."""
    found: dict[str, float] = {}
    for path, macs in sorted(by_module.items()):
        words = [word for word in path.split(".")[1:] if not word.isdecimal() and word != "stages"]
        is_inside = any(path.startswith(f"{outer}.") for outer in found)
        if tuple(words[: len(names)]) == names and not is_inside:
            found[path] = macs
    return sum(found.values())
