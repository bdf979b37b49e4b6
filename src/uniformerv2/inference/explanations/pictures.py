"""An explanation on top of its frames: pictures, and a video of them.

Letters of this file: T frames, H x W patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniformerv2.core.files import write_whole
from uniformerv2.inference.explanations.explanation import Explanation
from uniformerv2.inference.explanations.view import ViewPlace
from uniformerv2.media.encoding import add_h264

__all__ = ["COLOURS", "Overlay", "draw_overlays", "overlay_sheet", "overlay_video", "write_overlay_video"]

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
    write_whole(path, lambda temporary: _encode(str(temporary), overlays, [HOLD] * len(overlays), rate=RATE))


def overlay_video(overlays: Sequence[Overlay], *, seconds: Sequence[float] | None = None) -> bytes:
    """What ``write_overlay_video`` writes, in memory.

    Args:
        overlays: At least one.
        seconds: Of how long each is shown, so that the video keeps time with the one that was explained; None: each
            equally long.
    """
    file = BytesIO()
    if seconds is None:
        _encode(file, overlays, [HOLD] * len(overlays), rate=RATE)
    else:
        _encode(file, overlays, [max(1, round(1000 * one)) for one in seconds], rate=1000, is_held=True)
    return file.getvalue()


def _encode(
    file: str | BytesIO, overlays: Sequence[Overlay], ticks: Sequence[int], *, rate: int, is_held: bool = False
) -> None:
    """H.264 in MP4; a picture that is held is one frame that lasts its ticks, otherwise a frame for each tick."""
    width, height = (side - side % 2 or 2 for side in overlays[0].shown.size)
    flags = {"movflags": "+faststart"} if isinstance(file, str) else {}  # which opens the file a second time, by name
    with av.open(file, "w", format="mp4", options=flags) as container:
        stream = add_h264(container, width=width, height=height, rate=rate)
        if is_held:  # a player that seeks finds each picture by itself
            stream.codec_context.gop_size = 1
        clock, lasts, packets = 0, {}, []
        for overlay, count in zip(overlays, ticks, strict=True):
            shown = overlay.shown
            picture = shown.resize((width, height)) if shown.size != (width, height) else shown
            for tick in range(0, count, count if is_held else 1):
                frame = av.VideoFrame.from_image(picture)
                frame.pts, frame.time_base = clock + tick, Fraction(1, rate)
                lasts[frame.pts] = count if is_held else 1
                packets += stream.encode(frame)
            clock += count
        packets += stream.encode(None)
        for packet in packets:
            packet.duration = lasts[packet.pts]  # of the last one nothing else tells it
            container.mux(packet)


def overlay_sheet(overlays: Sequence[Overlay]) -> Image.Image:
    """All frames in one picture: rows from left to right, as many columns as rows or a few more."""
    width, height = overlays[0].shown.size
    columns = math.ceil(math.sqrt(len(overlays)))
    rows = math.ceil(len(overlays) / columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for place, overlay in enumerate(overlays):
        row, column = divmod(place, columns)
        sheet.paste(overlay.shown, (column * width, row * height))
    return sheet
