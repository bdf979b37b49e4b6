"""Small real videos for tests, written by a real encoder."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path, *, num_frames: int = 24, size: tuple[int, int] = (48, 64), fps: int = 12, seed: int = 0
) -> Path:
    """A moving gradient with noise, H.264."""
    height, width = size
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(base, 2 * index, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
