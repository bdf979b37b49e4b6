"""What a preparation is told and what it says: PrepareSettings, and a PreparedVideo for each video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = ["PrepareSettings", "PreparedVideo"]


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
    encoder: ClassVar[Literal["libx264"]] = "libx264"

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
        return f"short side {self.short_side}, {rate}, GOP {self.gop_length}, {self.encoder} crf {self.crf}"


@dataclass(frozen=True)
class PreparedVideo:
    """One video and what became of it; the fields are the columns of the manifest.

    Attributes:
        source: The file or folder of frames.
        output: The new file; empty where there is none.
        status: ``"ok"``, or as in ``VideoCheck``; ``"unfinished"`` in the journal of a run, before the work.
        detail: What was wrong.
        settings: How it was encoded, in words.
        source_bytes: Size of the source; with ``source_modified_ns`` it tells a changed one.
        source_modified_ns: When the source was written.
        output_bytes: Size of the new file.
        frames: Number of frames in the new file.
        width: Width of the new file in pixels.
        height: Height of the new file in pixels.
    """

    source: str
    output: str
    status: str
    detail: str = ""
    settings: str = ""
    source_bytes: int | None = None
    source_modified_ns: int | None = None
    output_bytes: int | None = None
    frames: int | None = None
    width: int | None = None
    height: int | None = None
