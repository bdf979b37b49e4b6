"""An explanation as one page that needs no network: the frames under the map, what each step has, and the numbers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from uniformerv2.core.files import write_bytes
from uniformerv2.evaluation.page import page_environment
from uniformerv2.inference.explanations.explanation import Explanation
from uniformerv2.inference.explanations.pictures import COLOURS, Overlay

__all__ = ["write_explanation_page"]

PAGE_SIDE: Final = 640
"""Pixels of the longer side of a frame in the page; the pictures beside it are larger."""


@dataclass(frozen=True)
class ShownFrame:
    """One frame of the page.

    Attributes:
        plain: The frame as an address.
        shown: The same under the map.
        number: Of the frame in the video.
        seconds: Its time; None where there is none.
        share: What its step has of the map, 0 to 1.
        bar: The same, in percent of the largest.
    """

    plain: str
    shown: str
    number: int
    seconds: float | None
    share: float
    bar: float


def write_explanation_page(path: Path, explanation: Explanation, overlays: Sequence[Overlay], *, model: str) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The file.
        explanation: Of a view.
        overlays: Of its T frames.
        model: What to call the model.
    """
    environment = page_environment("uniformerv2.inference.explanations")
    html = environment.get_template("explanation.html").render(
        found=explanation,
        frames=_frames(explanation, overlays),
        shares=explanation.to_dict()["stage_shares"],
        colours=", ".join(f"rgb{colour}" for colour in COLOURS),
        model=model,
    )
    write_bytes(path, html.lstrip().encode("utf-8", errors="replace"))


def _frames(explanation: Explanation, overlays: Sequence[Overlay]) -> list[ShownFrame]:
    curve, view = explanation.time_curve, explanation.view
    most = float(curve.max()) or 1.0
    frames = []
    for place, (overlay, number) in enumerate(zip(overlays, view.frame_indices, strict=True)):
        seconds = None if view.frame_seconds is None else view.frame_seconds[place]
        share = float(curve[explanation.step_of(place)])
        frames.append(
            ShownFrame(_address(overlay.plain), _address(overlay.shown), number, seconds, share, 100 * share / most)
        )
    return frames


def _address(picture: Image.Image) -> str:
    small, file = picture.copy(), BytesIO()
    small.thumbnail((PAGE_SIDE, PAGE_SIDE))
    small.save(file, format="WEBP", quality=70, method=2)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
