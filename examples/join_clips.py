"""Long videos whose truth is known: clips of several classes, joined in random order, and where each begins and ends.

    python examples/join_clips.py ../shared/data/ucf101_6class joined
    uniformerv2 timeline joined/*.mp4 --model models/demo --activitynet found.json
    uniformerv2 evaluate found.json --truth joined/truth.json

The truth is written in ActivityNet's form. No two neighbours are of one class, so that every border is one.
"""

from __future__ import annotations

import argparse
import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from uniformerv2.core.files import write_text
from uniformerv2.data.annotations import VideoRecord, read_records
from uniformerv2.media.decoding import open_video

FPS = 25
HEIGHT, WIDTH = 240, 320


def main() -> None:
    """Join the clips of one split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder or list of clips with classes")
    parser.add_argument("out", type=Path, help="folder of the videos and of truth.json")
    parser.add_argument("--split", default="val", help="which clips (default: val)")
    parser.add_argument("--clips-per-video", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    records = [record for record in read_records(options.data) if record.split == options.split]
    order = mixed(records, random.Random(options.seed))
    options.out.mkdir(parents=True, exist_ok=True)
    database: dict[str, Any] = {}
    for number, first in enumerate(range(0, len(order), options.clips_per_video)):
        name = f"joined_{number:02}"
        part = order[first : first + options.clips_per_video]
        database[name] = join(part, options.out / f"{name}.mp4")
        print(f"{name}: {len(part)} clips, {database[name]['duration']:.1f} s")
    write_text(options.out / "truth.json", json.dumps({"database": database}, indent=1) + "\n")


def mixed(records: list[VideoRecord], rng: random.Random) -> list[VideoRecord]:
    """The records in random order, each of another class than the one before, as far as there are any."""
    left, order = list(records), []
    rng.shuffle(left)
    while left:
        before = order[-1].label if order else None
        others = [record for record in left if record.label != before] or left
        # the class with most clips left comes first, else its clips would stand beside each other at the end
        counts = {record.label: sum(one.label == record.label for one in left) for record in others}
        most = max(counts.values())
        order.append(next(r for r in others if counts[r.label] == most or rng.random() < 0.5))
        left.remove(order[-1])
    return order


def join(records: list[VideoRecord], path: Path) -> dict[str, Any]:
    """Write one video; what ActivityNet's annotation says of it."""
    annotations, count = [], 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for record in records:
            begin = count
            with open_video(record.path) as video:
                num_frames = round(video.info.duration_seconds * FPS)
                numbers = [min(k * len(video) // num_frames, len(video) - 1) for k in range(num_frames)]
                for places, pixels in video.stream(numbers):
                    picture = av.VideoFrame.from_ndarray(pixels[0].permute(1, 2, 0).numpy(), format="rgb24")
                    for _ in places:
                        resized = picture.reformat(WIDTH, HEIGHT, "yuv420p")
                        resized.pts, resized.time_base = count, Fraction(1, FPS)
                        container.mux(stream.encode(resized))
                        count += 1
            annotations.append({"label": record.label_name, "segment": [begin / FPS, count / FPS]})
        container.mux(stream.encode(None))
    return {"subset": "validation", "duration": count / FPS, "annotations": annotations}


if __name__ == "__main__":
    main()
