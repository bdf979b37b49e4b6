"""Small real videos whose pixels say which clip and which frame they are."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from uniformerv2.data.annotations import VideoRecord

FPS = 10
STEP = 8
"""Grey levels from one frame to the next."""


def write_clip(path: Path, *, num_frames: int = 20, height: int = 48, width: int = 64, base: int = 20) -> Path:
    """A video of flat grey frames: frame k has the level ``base + STEP * k``; its left half is 40 darker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 5
        stream.codec_context.qmin = stream.codec_context.qmax = 1
        for number in range(num_frames):
            pixels = np.full((height, width, 3), min(base + STEP * number, 255), np.uint8)
            pixels[:, : width // 2] -= min(40, base)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def frame_number(pixels, *, base: int = 20) -> int:
    """Which frame it is, from its right half [C, H, W]."""
    return round((float(pixels[..., pixels.shape[-1] * 3 // 4 :].float().mean()) - base) / STEP)


def write_folder(root: Path, *, num_classes: int = 2, per_class: int = 4) -> list[VideoRecord]:
    """``root/class/clip.mp4``; each clip has a brightness of its own."""
    return [
        VideoRecord(
            str(write_clip(root / f"class{label}" / f"clip{number}.mp4", base=20 + 5 * number + 30 * label)),
            label=label,
            label_name=f"class{label}",
        )
        for label in range(num_classes)
        for number in range(per_class)
    ]
