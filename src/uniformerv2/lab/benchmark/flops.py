"""Multiply-adds of each part: PyTorch's counter on a real pass, against what ``summarize`` says of the model."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from uniformerv2.lab.benchmark.networks import TestClip
from uniformerv2.model.summary import summarize
from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["PARTS", "count_flops"]

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


def count_flops(model: UniFormerV2, clip: TestClip) -> list[dict[str, Any]]:
    """Compute one clip on the CPU, in float32, and count.

    Args:
        model: Is left in eval mode without gradients.
        clip: What it is shown.

    Returns:
        A row a part; then those of the whole: ``counted``, ``summarize``, and the ``published form``.
    """
    model.eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(clip.batch(1))
    by_module = {name: sum(flops.values()) / 2 for name, flops in counter.get_flop_counts().items()}
    macs = {part: _sum_of(by_module, names) for part, names in PARTS.items()}
    total = counter.get_total_flops() / 2
    summary = summarize(model, num_frames=clip.num_frames)
    rows = [{"part": part, "gmacs": value / 1e9, "share": value / total} for part, value in macs.items()]
    whole = {"counted": total, "summarize": summary.macs, "published form": summary.published_macs}
    return rows + [{"part": part, "gmacs": value / 1e9, "share": value / total} for part, value in whole.items()]


def _sum_of(by_module: dict[str, float], names: tuple[str, ...]) -> float:
    """Of the outermost modules whose path, behind the network's own name, has the names from its start on."""
    found: dict[str, float] = {}
    for path, macs in sorted(by_module.items()):
        words = [word for word in path.split(".")[1:] if not word.isdecimal() and word != "stages"]
        is_inside = any(path.startswith(f"{outer}.") for outer in found)
        if tuple(words[: len(names)]) == names and not is_inside:
            found[path] = macs
    return sum(found.values())
