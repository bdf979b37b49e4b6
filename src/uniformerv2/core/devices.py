"""Processor or GPU: which one computes, whether it is there, and whether its memory was enough. Imports torch late."""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

__all__ = ["best_device", "existing_device", "is_out_of_memory", "memory_bytes", "processor_name"]

SAID: Final = ("out of memory", "can't allocate memory", "cannot allocate memory", "failed to allocate")
"""PyTorch's allocators raise a ``RuntimeError``; this is what it says on a GPU and on a CPU, and what FFmpeg says."""


def best_device(*, takes_mps: bool = False) -> torch.device:
    """A CUDA GPU where there is one, else the processor.

    Args:
        takes_mps: Apple's GPU is taken too, where there is one.
    """
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if takes_mps and torch.backends.mps.is_available() else "cpu")


def existing_device(device: str | torch.device) -> torch.device:
    """The device, if this machine has it.

    Raises:
        ValueError: PyTorch knows no such device, or this machine has none.
    """
    import torch

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch without CUDA
        reason = str(error).strip().partition("\n")[0]
        allowed = "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        raise ValueError(f"device is {allowed}, got {str(device)!r}: {reason}") from error


def memory_bytes() -> float:
    """The memory of the machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def processor_name() -> str:
    """The processor of this machine as its maker calls it, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family)\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE))
    if "model name" not in found:
        return platform.machine()
    return found["model name"].strip() + (f", family {found['cpu family']}" if "cpu family" in found else "")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of this machine or of its GPU was not enough.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("not enough videos"))
    (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in SAID)
