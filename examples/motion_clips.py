"""Make clips whose class is nothing but the direction of a motion over real pictures.

    python examples/motion_clips.py DATA OUT --clips 1200 --val-clips 200

The camera pans over one real frame, at a speed of its own, to the right or to the left; either class is the other
played backwards, so that a frame alone, or all frames in another order, tell nothing.

DATA is what ``uniformerv2.data.annotations.read_records`` reads: its training videos give the pictures of the training
clips, its validation videos those of the others. OUT gets ``motion`` (folders ``train`` and ``val``, each with a folder
per class) and ``shuffled``, the validation clips with their frames in random order, on which no network can be right
more often than by chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from uniformerv2 import open_video
from uniformerv2.data.annotations import VideoRecord, read_records

SIDE, NUM_FRAMES, FPS = 112, 16, 8
SPEEDS = (2.0, 7.0)
"""Slowest and fastest pan: pixels a frame."""


def picture(record: VideoRecord, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One frame of a video: RGB [H, W, 3], uint8."""
    with open_video(record.path) as video:
        return video.frames([int(rng.integers(len(video)))])[0].permute(1, 2, 0).numpy()


def pan_right(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A window that moves to the right over a picture: [NUM_FRAMES, SIDE, SIDE, 3], uint8.

    Raises:
        ValueError: The picture is too small for the fastest pan.
    """
    offsets = (np.arange(NUM_FRAMES) * rng.uniform(*SPEEDS)).round().astype(int)
    room = image.shape[0] - SIDE, image.shape[1] - SIDE - offsets[-1]
    if min(room) < 0:
        raise ValueError(f"A picture of {image.shape[1]} x {image.shape[0]} pixels is too small to pan over.")
    top, left = (int(rng.integers(places + 1)) for places in room)
    return np.stack([image[top : top + SIDE, left + offset : left + offset + SIDE] for offset in offsets])


def write(path: Path, frames: NDArray[np.uint8]) -> None:
    """Frames [T, H, W, 3] as H.264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def make(options: argparse.Namespace) -> None:
    """Write all clips."""
    for split, num_clips in (("train", options.clips), ("val", options.val_clips)):
        rng = np.random.default_rng((options.seed, len(split)))
        records = read_records(options.data, split=split)
        for pair in track(range(num_clips // 2), f"{split} clips"):
            frames = pan_right(picture(records[int(rng.integers(len(records)))], rng), rng)
            for name, clip in (("right", frames), ("left", frames[::-1])):
                place = Path(split, name, f"{pair:04}.mp4")
                write(options.out / "motion" / place, clip)
                if split == "val":
                    write(options.out / "shuffled" / place, rng.permutation(clip))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=1200, help="of the training, both classes together")
    parser.add_argument("--val-clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    make(parser.parse_args())
