"""An explanation on top of its frames: pictures, and a video of them.

Letters of this file: T frames, H x W patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniformerv2.core.files import write_whole
from uniformerv2.inference.explanations.explanation import Explanation, ViewPlace

__all__ = ["COLOURS", "Overlay", "draw_overlays", "write_overlay_video"]

COLOURS: Final = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))
"""Five colours of matplotlib's "magma", from nothing to the most: their lightness grows evenly."""
STRONG: Final = 0.99
"""The quantile of the map that has the last colour; single patches above it would leave all others dark."""
COVER: Final = 0.85
"""How far that colour covers the frame."""
GREY: Final = 0.8
"""How far the frame under the map loses its own colours, which would be taken for the map's."""
OUTSIDE: Final = 0.4
"""Brightness of what lies outside the crop, which the network did not see."""
RATE: Final = 10
"""Frames per second of the video; players stumble over fewer."""
HOLD: Final = 6
"""Of these show the same picture."""


@dataclass(frozen=True)
class Overlay:
    """One frame.

    Attributes:
        plain: The frame, with what the network did not see darkened.
        shown: The same under the map.
    """

    plain: Image.Image
    shown: Image.Image


def draw_overlays(explanation: Explanation, frames: Sequence[Image.Image]) -> list[Overlay]:
    """The map on top of each frame; a colour means the same in all of them, the strongest a patch in a hundred.

    Args:
        explanation: Of a view.
        frames: Of that view, T pictures of one size, not cropped.

    Returns:
        As many as there are frames.
    """
    strong = float(np.quantile(explanation.map, STRONG)) or float(explanation.map.max()) or 1.0
    maps = [explanation.map[explanation.step_of(place)] / strong for place in range(len(frames))]
    return [_overlay(frame, step, explanation.view) for frame, step in zip(frames, maps, strict=True)]


def _overlay(frame: Image.Image, strength: NDArray[np.float32], view: ViewPlace) -> Overlay:
    """The map of one step, from 0, [H, W], stretched over its crop between the middles of the patches."""
    left, top, right, bottom = _corners(view, frame.size)
    pixels = np.asarray(frame.convert("RGB"), np.float32)
    plain = pixels * OUTSIDE
    plain[top:bottom, left:right] = pixels[top:bottom, left:right]
    shape = right - left, bottom - top
    heat = np.asarray(Image.fromarray(strength.clip(0, 1)).resize(shape, Image.Resampling.BICUBIC)).clip(0, 1)
    shown = (1 - GREY) * plain + GREY * plain.mean(axis=2, keepdims=True)
    cover = COVER * np.sqrt(heat)[..., None]
    shown[top:bottom, left:right] = (1 - cover) * shown[top:bottom, left:right] + cover * _coloured(heat)
    return Overlay(_picture(plain), _picture(shown))


def _corners(view: ViewPlace, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the crop in a picture of this width and height; at least a pixel large."""
    across, down = size[0] / view.frame_width, size[1] / view.frame_height
    top, left, height, width = view.box
    first = min(round(left * across), size[0] - 1), min(round(top * down), size[1] - 1)
    right = min(max(round((left + width) * across), first[0] + 1), size[0])
    return *first, right, min(max(round((top + height) * down), first[1] + 1), size[1])


def _coloured(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Numbers from 0 to 1 [...] -> colours [..., 3]."""
    places = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(heat, places, [colour[part] for colour in COLOURS]) for part in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _picture(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def write_overlay_video(path: Path, overlays: Sequence[Overlay]) -> None:
    """The frames that the network saw, one after the other, as H.264; whole or not at all.

    Args:
        path: The file, ``.mp4``.
        overlays: At least one.
    """
    width, height = (side - side % 2 or 2 for side in overlays[0].shown.size)

    def write(temporary: Path) -> None:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1
            for overlay in overlays:
                picture = (
                    overlay.shown.resize((width, height)) if overlay.shown.size != (width, height) else overlay.shown
                )
                for _ in range(HOLD):
                    container.mux(stream.encode(av.VideoFrame.from_image(picture)))
            container.mux(stream.encode(None))

    write_whole(path, write)
