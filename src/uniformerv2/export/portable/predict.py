"""Classify videos with the ``model.onnx`` beside this file: no PyTorch, three packages (numpy, av, onnxruntime).

    python predict.py clip.mp4 more.mp4          a line of JSON per video
    python predict.py clip.mp4 --clips 4 --crops 3

Letters: K clips, T frames, H x W pixels of a frame, h x w of the network's input, V views (K times crops). A video that
cannot be read is a line with "error", and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import stat
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime

Spec = dict[str, Any]  # the preprocessing, as model.json has it

HERE = Path(__file__).resolve().parent
# Containers that hold their media themselves. Playlists and image patterns, which open other files, stay out.
CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,nut,rm,dv,ivf,obu,av1,h263,h264,hevc,m4v,mpegvideo,vc1,"
    "yuv4mpegpipe"
)
MOST_PIXELS = 2**26  # of a frame
MOST_PACKETS = 2**22  # of a file
MOST_SECONDS = 60  # to read a video
MOST_BYTES = 8 * 2**30  # of memory that this process may take, whatever a file declares


def frames_of_clips(length: int, spec: Spec, num_clips: int) -> list[list[int]]:
    """Which frames to look at: K lists of T numbers of a video of ``length`` frames."""
    size, last = spec["num_frames"], length - 1
    if spec["sampling"] == "segments":  # clip k takes the frame (k + 1) / (K + 1) of the way in each of T segments
        segment = last / size
        shifts = [int(segment / (num_clips + 1) * (clip + 1)) for clip in range(num_clips)]
        return [[min(round(segment * i) + shift, last) for i in range(size)] for shift in shifts]
    stride = spec["frame_stride"]
    slack = max(last - (size - 1) * stride, 0)
    starts = [slack // 2] if num_clips == 1 else [round(slack / (num_clips - 1) * clip) for clip in range(num_clips)]
    return [[min(start + i * stride, last) for i in range(size)] for start in starts]


class Video:
    """Frames of a file by number, exact, in presentation order; a file can reach no other file."""

    def __init__(self, path: str) -> None:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for ever
            raise ValueError("it is no regular file")
        self.file, self.deadline = Path(path).open("rb"), time.monotonic() + MOST_SECONDS  # noqa: SIM115
        self.container: Any = None
        self.start()
        packets = [(p.pts, p.is_keyframe) for p in self.packets() if p.size and not p.is_discard]
        pts = [moment for moment, _ in packets if moment is not None]
        self.is_timed = bool(pts) and len(set(pts)) == len(packets)  # else frames are counted from the start
        self.moments = sorted(pts) if self.is_timed else []
        self.keys = sorted(moment for moment, is_key in packets if is_key) if self.is_timed else []
        if not self.is_timed or self.keys[:1] != self.moments[:1]:
            self.start()
            self.is_timed, self.keys, self.moments = False, [0], list(range(sum(1 for _ in self.decode())))
        if not self.moments:
            raise ValueError("no frame can be decoded")

    def start(self) -> None:
        """Open the container anew, at its first packet.

        Raises:
            ValueError: There is no video in it, or too large a one.
        """
        if self.container is not None:
            self.container.close()
        self.file.seek(0)
        limits = {"max_pixels": str(MOST_PIXELS)}
        known = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
        self.container = av.open(self.file, options=limits, container_options=known, metadata_errors="replace")
        pictures = av.stream.Disposition.attached_pic
        streams = [one for one in self.container.streams.video if not one.disposition & pictures]
        if not streams or streams[0].codec_context is None or not streams[0].codec_context.width:
            raise ValueError("it has no video that can be decoded, or its frames are too large")
        self.stream = streams[0]
        if self.stream.codec_context.width * self.stream.codec_context.height > MOST_PIXELS:
            raise ValueError("its frames are too large")

    def packets(self) -> Iterator[Any]:
        """From here to the end.

        Raises:
            ValueError: They are too many, or take too long.
        """
        for number, packet in enumerate(self.container.demux(self.stream)):
            if number > MOST_PACKETS or time.monotonic() > self.deadline:
                raise ValueError("it has too many packets, or takes too long")
            yield packet

    def decode(self) -> Iterator[tuple[float, Any]]:
        """(moment, frame) from here to the end."""
        count = 0
        for packet in self.packets():
            for frame in packet.decode():
                yield (frame.pts if self.is_timed else count), frame
                count += 1

    def frames(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """Increasing numbers -> RGB frames [H, W, 3], upright.

        Raises:
            ValueError: One cannot be decoded.
        """
        decoded: Iterator[tuple[float, Any]] = iter(())
        now, size = -math.inf, None
        is_new = True
        for number in numbers:
            target = self.moments[number]
            key = self.keys[bisect_right(self.keys, target) - 1]
            if is_new or (self.is_timed and key > now):
                if self.is_timed and number:
                    self.container.seek(key, stream=self.stream)
                else:
                    self.start()
                decoded, is_new = self.decode(), False
            now, frame = next((pair for pair in decoded if pair[0] >= target), (math.inf, None))
            if now != target or frame is None:
                raise ValueError(f"frame {number} of {len(self.moments)} cannot be decoded")
            size = size or (frame.width, frame.height)
            rgb = frame.reformat(*size, format="rgb24", interpolation="BICUBIC", threads=1)
            yield np.rot90(rgb.to_ndarray(), round(frame.rotation / 90) % 4)


def resize(frame: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    """[H, W, 3] uint8 -> [*size, 3]; uint8 unless the protocol does not round."""
    if frame.shape[:2] == size:
        return frame.astype(np.float32) if how == "bilinear_float" else frame
    if how == "bicubic_antialias":  # as Pillow: one side after the other, in integers, rounded after each
        return _filtered(_filtered(frame, size[1], axis=1), size[0], axis=0)
    (top, bottom, low), (left, right, near) = (
        _neighbours(*sides, how) for sides in zip(frame.shape, size, strict=False)
    )
    if how == "bilinear_float":
        rows = frame[top] * (1 - low)[:, None, None] + frame[bottom] * low[:, None, None]
        return (rows[:, left] * (1 - near)[:, None] + rows[:, right] * near[:, None]).astype(np.float32)
    far_low, far_near = 2048 - low, 2048 - near  # OpenCV's weights, out of 2048
    rows = [
        (frame[side][:, left] * far_near[:, None] + frame[side][:, right] * near[:, None]) >> 4
        for side in (top, bottom)
    ]
    upper, lower = (rows[0] * far_low[:, None, None]) >> 16, (rows[1] * low[:, None, None]) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _neighbours(side: int, new_side: int, how: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each new pixel: the two that it lies between, and the weight of the second."""
    if how == "bilinear_float":  # in single precision, as PyTorch
        steps = np.arange(new_side, dtype=np.float32) + np.float32(0.5)
        centre = (steps * np.float32(side / new_side) - np.float32(0.5)).clip(0)
        first = np.minimum(centre.astype(int), side - 1)
        return first, np.minimum(first + 1, side - 1), (centre - first).astype(np.float32)
    centre = ((np.arange(new_side) + 0.5) * (side / new_side) - 0.5).astype(np.float32)
    first = np.floor(centre)
    share = np.where((first < 0) | (first >= side - 1), np.float32(0), centre - first)
    first = first.clip(0, side - 1).astype(int)
    return first, np.minimum(first + 1, side - 1), np.round(share * np.float32(2048)).astype(np.int32)


def _filtered(frame: np.ndarray, new_side: int, axis: int) -> np.ndarray:
    """One axis of a uint8 frame, by the antialiased cubic (a = -0.5) in fixed-point numbers."""
    side = frame.shape[axis]
    if side == new_side:
        return frame
    scale = side / new_side
    reach = 2 * max(scale, 1.0)
    taps = []
    for i in range(new_side):
        centre = (i + 0.5) * scale
        first, stop = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), side)
        x = np.abs((np.arange(first, stop) - centre + 0.5) / max(scale, 1.0))
        w = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0))
        taps.append((first, w / w.sum()))
    bits, largest = 0, max(w.max() for _, w in taps)
    while bits < 22 and int(0.5 + largest * 2 ** (bits + 1)) < 2**15:
        bits += 1
    source = np.moveaxis(frame, axis, 0).astype(np.int32)
    rows = []
    for first, w in taps:
        whole = np.trunc(w * 2**bits + np.where(w < 0, -0.5, 0.5)).astype(np.int32)
        total = np.tensordot(whole, source[first : first + len(w)], axes=1) + (1 << (bits - 1))
        rows.append((total >> bits).clip(0, 255))
    return np.moveaxis(np.stack(rows).astype(np.uint8), 0, axis)


def crops_of(frame: np.ndarray, spec: Spec, num_crops: int) -> np.ndarray:
    """[H, W, 3] -> crops [num_crops, 3, h, w], resized so that they just cover h x w."""
    size = spec["image_size"]
    height, width = size if isinstance(size, list) else (size, size)

    def other(side: int, fits_from: int, fits_to: int) -> int:
        if spec["long_side"] == "floor":
            return math.floor(side / fits_from * fits_to)
        return int(side * (fits_to / fits_from) + 0.5)

    tall, wide = frame.shape[:2]
    fits_height = wide * height >= tall * width
    covering = (
        (height, max(other(wide, tall, height), width))
        if fits_height
        else (max(other(tall, wide, width), height), width)
    )
    frame = resize(frame, covering, spec["resize"])
    slack = [covering[0] - height, covering[1] - width]
    middle = [amount // 2 if spec["crop_offset"] == "floor" else -(-amount // 2) for amount in slack]
    boxes = [tuple(middle)]
    if num_crops == 3:
        axis = 0 if slack[0] > slack[1] else 1
        last = 2 * middle[axis] if spec["crop_offset"] == "floor" else slack[axis]
        along = [0, middle[axis], last] if spec["crop_order"] == "first_middle_last" else [0, last, middle[axis]]
        boxes = [(offset, middle[1]) if axis == 0 else (middle[0], offset) for offset in along]
    return np.stack([frame[top : top + height, left : left + width].transpose(2, 0, 1) for top, left in boxes])


def views_of(path: str, spec: Spec, num_clips: int, num_crops: int) -> tuple[np.ndarray, float]:
    """A file -> views [V, T, 3, h, w], the crops of the first clip first; and the seconds of resizing."""
    video, seconds = Video(path), 0.0
    clips = frames_of_clips(len(video.moments), spec, num_clips)
    wanted = sorted({number for clip in clips for number in clip})
    crops = {}
    for number, frame in zip(wanted, video.frames(wanted), strict=True):
        begin = time.perf_counter()
        crops[number] = crops_of(frame, spec, num_crops)
        seconds += time.perf_counter() - begin
    views = np.stack([[crops[number] for number in clip] for clip in clips])  # [K, T, crops, 3, h, w]
    return np.ascontiguousarray(views.swapaxes(1, 2).reshape(-1, spec["num_frames"], *views.shape[3:])), seconds


def say(line: dict[str, Any]) -> None:
    """Print a line of JSON at once."""
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Classify; 1 where a video could not be read."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--topk", type=int, default=5)
    parser.add_argument("--clips", type=int, help="clips per video (default: the model's)")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="crops per clip (default: the model's)")
    options = parser.parse_args()
    about = json.loads((HERE / "model.json").read_text("utf-8"))
    spec = about["preprocessing"]
    views = options.clips or spec["num_clips"], options.crops or spec["num_crops"]
    names = about["class_names"] or list(map(str, range(about["num_classes"])))
    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, ValueError, OSError):
        pass  # not on this system
    failures = 0
    for path in options.videos:
        begin = time.perf_counter()
        try:
            pixels, resizing = views_of(path, spec, *views)
        except (OSError, ValueError, MemoryError, av.FFmpegError) as error:
            failures += 1
            say({"video": path, "error": str(error) or type(error).__name__})
            continue
        read = time.perf_counter()
        scores = np.concatenate([session.run(["scores"], {"video": view[None]})[0] for view in pixels]).mean(axis=0)
        timings = {"decode_seconds": read - begin - resizing, "preprocess_seconds": resizing}
        timings["compute_seconds"] = time.perf_counter() - read
        best = np.argsort(-scores, kind="stable")[: options.topk]
        top = [{"name": names[i], "index": int(i), "score": round(float(scores[i]), 6)} for i in best]
        line = {"video": path, "top": top, "scores": [round(float(score), 6) for score in scores]}
        line |= {"num_views": len(pixels), "timings": timings}
        say(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
