"""How fast, how large: one module a measurement, a table and a figure for each, and what can be asked for."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["FIGURE_SUFFIXES", "FRAMES", "PASSES", "PRECISIONS", "SIZES", "STRIDES", "Pass", "Precision"]

Pass = Literal["forward", "step"]
Precision = Literal["fp32", "bf16", "bf16-mixed"]
PASSES: Final[tuple[str, ...]] = get_args(Pass)
PRECISIONS: Final[tuple[str, ...]] = get_args(Precision)
FRAMES: Final = (4, 8, 16, 32, 64)
STRIDES: Final = (1, 2, 4)
"""Frames from window to window, a T-th of a window each."""
SIZES: Final = (112, 160, 224, 320, 448)
FIGURE_SUFFIXES: Final = (".png", ".svg", ".pdf")
