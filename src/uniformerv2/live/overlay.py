"""OverlayVideo: what was watched as a video, with the classes burnt in.

Letters of this file: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Final, Self

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from uniformerv2.core.files import write_whole
from uniformerv2.core.terminal import harmless
from uniformerv2.live.ring import FrameRing
from uniformerv2.media.encoding import add_h264

__all__ = ["OverlayVideo", "draw_labels"]

RATE: Final = 10
TICKS: Final = 1000
LONGEST_GAP: Final = 1.0
"""Seconds for which a frame stands at most: where a source was lost the video goes on when it is back."""
WAITING: Final = 64
"""Frames between the watching and the encoder."""
LOOK_SECONDS: Final = 0.1
SHOWN_LETTERS: Final = 40


@dataclass(frozen=True, eq=False)
class _Shot:
    seconds: float
    picture: NDArray[np.uint8]
    labels: tuple[tuple[str, float], ...]
    num_frames: int = 1


class OverlayVideo:
    """Writes a video in a thread of its own; the file is there, whole, once it is closed. Use it with ``with``.

    Args:
        path: ``.mp4``.
        drops: Live: frames that the encoder cannot take in time are left out. Otherwise ``add`` waits.

    Attributes:
        num_written: Frames.
        error: Why nothing can be written any more; None where all is well.
    """

    def __init__(self, path: Path, *, drops: bool) -> None:
        self._path = path
        self._ring: FrameRing[_Shot] = FrameRing(WAITING)
        self._drops = drops
        self._is_closed = self._is_abandoned = False
        self.num_written = 0
        self.error: Exception | None = None
        self._thread = Thread(target=self._run, name="overlay", daemon=True)
        self._thread.start()

    def add(self, seconds: float, picture: NDArray[np.uint8], labels: Sequence[tuple[str, float]]) -> None:
        """The next frame.

        Args:
            seconds: When it was shown; increasing.
            picture: uint8 RGB [H, W, 3]; one of another size than the first is resized.
            labels: Names and scores, the best first.
        """
        shot = _Shot(seconds, picture, tuple(labels))
        while self._thread.is_alive() and not self._ring.put(shot, drops=self._drops, timeout=LOOK_SECONDS):
            pass

    def close(self) -> None:
        """Encode what waits, and give the file its name; closing twice is harmless."""
        self._is_closed = True
        self._thread.join()

    def abandon(self) -> None:
        """End at once, without a file."""
        self._is_closed = self._is_abandoned = True
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            shots = self._shots()
            first = next(shots, None)
            if first is not None:
                write_whole(self._path, lambda temporary: self._write(temporary, first, shots))
        except Exception as error:
            self.error = error

    def _shots(self) -> Iterator[_Shot]:
        while True:
            is_closed = self._is_closed
            found = self._ring.take(1, timeout=LOOK_SECONDS)
            if self._is_abandoned:
                raise InterruptedError("it was interrupted")
            yield from found
            if is_closed and not found:
                return

    def _write(self, path: Path, first: _Shot, shots: Iterator[_Shot]) -> None:
        height, width = first.picture.shape[:2]
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = add_h264(container, width=width - width % 2, height=height - height % 2, rate=RATE)
            stream.codec_context.time_base = Fraction(1, TICKS)
            before, ticks = first.seconds, 0
            for shot in chain([first], shots):
                gap = min(max(shot.seconds - before, 0.0), LONGEST_GAP)
                ticks, before = ticks + (max(round(gap * TICKS), 1) if self.num_written else 0), shot.seconds
                picture = Image.fromarray(shot.picture)
                if picture.size != (stream.width, stream.height):
                    picture = picture.resize((stream.width, stream.height))
                frame = VideoFrame.from_image(draw_labels(picture, shot.labels))
                frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
                container.mux(stream.encode(frame))
                self.num_written += 1
            container.mux(stream.encode(None))


def draw_labels(picture: Image.Image, labels: Sequence[tuple[str, float]]) -> Image.Image:
    """A picture with names, scores and a bar for each in its lower left corner.

    Args:
        picture: RGB.
        labels: Names and scores from 0 to 1, the best first.

    Returns:
        A picture of the same size.
    """
    size = max(9, min(picture.height // 16, 22))
    line, pad = round(1.45 * size), max(2, size // 4)
    shown = [(harmless(name)[:SHOWN_LETTERS], score) for name, score in labels][: max(1, picture.height // (2 * line))]
    if not shown:
        return picture
    font = _font(size)
    layer = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(layer)
    texts = [f"{name}  {score:.2f}" for name, score in shown]
    width = min(max(draw.textlength(text, font=font) for text in texts) + 4 * pad, picture.width)
    top = picture.height - line * len(texts) - pad
    draw.rectangle((0, top, width, picture.height), fill=(0, 0, 0, 150))
    for place, (text, (_, score)) in enumerate(zip(texts, shown, strict=True)):
        y = top + pad / 2 + place * line
        draw.rectangle((0, y, width * min(max(score, 0.0), 1.0), y + line - pad), fill=(60, 120, 200, 150))
        draw.text((2 * pad, y), text, font=font, fill=(255, 255, 255, 255))
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
