"""How ``data prepare`` re-encodes videos: the choices, without what carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ENCODER", "PrepareSettings"]

ENCODER: Final = "libx264"


@dataclass(frozen=True)
class PrepareSettings:
    """How videos are re-encoded.

    Attributes:
        short_side: Pixels, even; a smaller video keeps its size (made even).
        fps: Frames per second of the result; None: every frame at its own time.
        gop_length: Frames from one keyframe to the next.
        crf: x264's constant rate factor: 0 is lossless, 18 is hard to tell from the source, 23 is x264's default.
    """

    short_side: int = 256
    fps: float | None = None
    gop_length: int = 8
    crf: int = 23

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.short_side % 2:
            raise ValueError(f"short_side is {self.short_side}; an even number from 16 is needed.")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps is {self.fps}; above 0 and up to 1000 is needed.")
        if self.gop_length < 1:
            raise ValueError(f"gop_length is {self.gop_length}; it is at least 1.")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf is {self.crf}; 0 to 51 is allowed.")

    def __str__(self) -> str:
        rate = "own rate" if self.fps is None else f"{self.fps:g} fps"
        return f"short side {self.short_side}, {rate}, GOP {self.gop_length}, {ENCODER} crf {self.crf}"
