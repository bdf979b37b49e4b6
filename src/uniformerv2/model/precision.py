"""Where bfloat16 pays."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["computes_bf16", "gains_from_bf16"]

SMALLEST_GAIN = 10_000_000
"""Parameters under which bfloat16 gains nothing on a CPU: what surrounds the matrix products costs more than they."""


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices, not by way of float32.

    Args:
        device: Where the network runs.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def gains_from_bf16(model: nn.Module | int, device: torch.device) -> bool:
    """Whether a network is faster under bfloat16 autocast.

    Args:
        model: Counted by its parameters; or their number.
        device: Where it runs.
    """
    count = model if isinstance(model, int) else sum(weight.numel() for weight in model.parameters())
    is_tiny = device.type == "cpu" and count < SMALLEST_GAIN
    return computes_bf16(device) and not is_tiny
