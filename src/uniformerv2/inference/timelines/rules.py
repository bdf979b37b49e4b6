"""How segments are cut from scores: the options of ``uniformerv2 timeline``, said once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from uniformerv2.core.options import option

__all__ = ["SegmentRules"]


@dataclass(frozen=True, kw_only=True)
class SegmentRules:
    """How segments are cut from scores.

    Attributes:
        on: A segment reaches at least this score.
        off: It lasts while its score is at least this.
        smooth_seconds: Width of the smoothing among windows that look alike, see ``segments.smoothed``; 0: none.
        min_seconds: A shorter segment is given to the neighbour that it touches, or left out where it touches none.
        merge_seconds: A shorter gap between two segments of one class is closed.

    Raises:
        ValueError: A field outside its range.
    """

    on: float = option("score that a segment must reach", 0.4, metavar="P")
    off: float = option("a segment lasts while its score is at least this", 0.2, metavar="P")
    smooth_seconds: float = option("width of the smoothing among windows that look alike; 0: none", 4.0, metavar="S")
    min_seconds: float = option("a shorter segment goes to its neighbour, or away", 1.0, metavar="S")
    merge_seconds: float = option("a shorter gap within a segment is closed", 1.0, metavar="S")

    def __post_init__(self) -> None:
        if not 0 < self.off <= self.on <= 1:
            raise ValueError(f"on and off are scores with 0 < off <= on <= 1, got on {self.on} and off {self.off}.")
        for name in ("smooth_seconds", "min_seconds", "merge_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
