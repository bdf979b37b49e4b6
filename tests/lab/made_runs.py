"""Things to time and to weigh, importable in another process."""

from __future__ import annotations

import torch

MEBIBYTE = 2**20


def make_heavy_to_call():
    """Needs 300 MiB for a while, keeps 50, and takes 100 more in each call."""
    torch.ones(300 * MEBIBYTE, dtype=torch.uint8)
    kept = torch.ones(50 * MEBIBYTE, dtype=torch.uint8)

    def run():
        return kept.max(), torch.ones(100 * MEBIBYTE, dtype=torch.uint8)

    return run


def fail():
    """What cannot be made."""
    raise ValueError("no such network")
