"""Make clips whose class is nothing but the direction of a motion over real pictures.

    python examples/motion_clips.py DATA OUT --clips 400 --val-clips 200

A disc cut out of one real frame comes into another, from any side, and rests; the same film backwards is a clip of the
other class::

    enter   o->|         |  ->o   |  o     |  o     |        a frame alone, or all frames in another order,
    leave      |  o     ||  o     ||  <-o   |<-o             tell nothing

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

SIDE, RADIUS, NUM_FRAMES, FPS = 112, 18, 16, 8


def picture(record: VideoRecord, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One frame of a video: RGB [H, W, 3], uint8."""
    with open_video(record.path) as video:
        return video.frames([int(rng.integers(len(video)))])[0].permute(1, 2, 0).numpy()


def enter(ground: NDArray[np.uint8], disc: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A disc of one picture comes into another within 8 to 12 frames and rests: [NUM_FRAMES, SIDE, SIDE, 3]."""
    frames = np.repeat(cut(ground, SIDE, rng)[None], NUM_FRAMES, axis=0)
    disc = cut(disc, 2 * RADIUS, rng)
    rest = rng.uniform(RADIUS, SIDE - RADIUS, size=2)
    angle = rng.uniform(0, 2 * np.pi)
    way = np.array([np.sin(angle), np.cos(angle)]) * (SIDE + RADIUS)  # ends outside wherever it starts
    left = np.maximum(0, 1 - np.arange(NUM_FRAMES) / rng.integers(8, 13))
    rows, columns = np.nonzero(np.hypot(*np.ogrid[0.5 - RADIUS : RADIUS, 0.5 - RADIUS : RADIUS]) < RADIUS)
    for frame, (row, column) in zip(frames, (rest + left[:, None] * way).round().astype(int), strict=True):
        at = row - RADIUS + rows, column - RADIUS + columns
        seen = (at[0] >= 0) & (at[0] < SIDE) & (at[1] >= 0) & (at[1] < SIDE)
        frame[at[0][seen], at[1][seen]] = disc[rows[seen], columns[seen]]
    return frames


def cut(image: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square of a picture."""
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


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
            ground, disc = (picture(records[int(number)], rng) for number in rng.integers(len(records), size=2))
            frames = enter(ground, disc, rng)
            for name, clip in (("enter", frames), ("leave", frames[::-1])):
                place = Path(split, name, f"{pair:04}.mp4")
                write(options.out / "motion" / place, clip)
                if split == "val":
                    write(options.out / "shuffled" / place, rng.permutation(clip))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=400, help="of the training, both classes together")
    parser.add_argument("--val-clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    make(parser.parse_args())
