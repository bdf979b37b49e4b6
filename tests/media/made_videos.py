"""Videos made by the tests: moving noise under a bright square, so that no two frames are alike."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def make_video(path: Path, *, frames=30, size=(64, 48), gop=250, fps=25, ticks=None, audio=False) -> Path:
    """H.264; ``ticks``: the times of the frames in milliseconds, for a variable rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    coarse = np.random.default_rng(frames).integers(60, 180, (-(-height // 8), -(-width // 4), 3), np.uint8)
    noise = coarse.repeat(8, axis=0)[:height].repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        if ticks is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=8000) if audio else None
        for number in range(frames):
            pixels = noise[:, number % width : number % width + width].copy()
            pixels[: height // 2, : width // 2] = (number * 7) % 256
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if ticks is None else ticks[number]
            frame.time_base = Fraction(1, fps) if ticks is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            tone.rate, tone.pts = 8000, 0
            container.mux(sound.encode(tone))
            container.mux(sound.encode(None))
    return path
