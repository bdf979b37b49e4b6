"""Tell running out of memory from other errors, whoever raises it."""

from __future__ import annotations

from typing import Final

__all__ = ["is_out_of_memory"]

SAID: Final = ("out of memory", "can't allocate memory", "cannot allocate memory", "failed to allocate")
"""PyTorch's allocators raise a ``RuntimeError``; this is what it says on a GPU and on a CPU, and what FFmpeg says."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of this machine or of its GPU was not enough.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("not enough videos"))
    (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in SAID)
