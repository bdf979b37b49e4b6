"""One video re-encoded for training: the same frames at the same times, smaller, upright, H.264 with many keyframes.

`measure_sparse_decoding` measures what that brings.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from uniformerv2.data.prepared_video import PreparedVideo, PrepareSettings
from uniformerv2.media.decoding import VideoError, VideoInfo, VideoReader, open_video
from uniformerv2.media.video_file import VideoFile

__all__ = ["SparseDecoding", "measure_sparse_decoding", "reencode"]

_TICK: Final = Fraction(1, 90_000)
_RATE_OF_IMAGES: Final = 25.0


@dataclass(frozen=True)
class _Timing:
    """Which source frame each new frame shows, and when, in ticks."""

    numbers: Sequence[int]
    ticks: Sequence[int]
    tick: Fraction
    rate: Fraction


def _timing(info: VideoInfo, timestamps: Sequence[float], fps: float | None) -> _Timing:
    count = info.num_frames
    if fps is not None and timestamps:
        num_new = max(1, round(info.duration_seconds * fps))
        numbers = [_nearest(timestamps, number / fps) for number in range(num_new)]
        return _constant(numbers, fps)
    if not timestamps or _is_constant(info, timestamps):
        return _constant(range(count), fps or info.fps or _RATE_OF_IMAGES)
    ticks = [round(seconds / _TICK) for seconds in timestamps]
    for number, (before, after) in enumerate(pairwise(ticks), start=1):
        ticks[number] = max(after, before + 1)
    return _Timing(range(count), ticks, _TICK, _fraction(info.fps))


def _constant(numbers: Sequence[int], fps: float) -> _Timing:
    rate = _fraction(fps)
    return _Timing(numbers, range(len(numbers)), 1 / rate, rate)


def _is_constant(info: VideoInfo, timestamps: Sequence[float]) -> bool:
    """At a constant rate, and at the one that the container tells."""
    return info.constant_rate and abs((info.num_frames - 1) / info.fps - timestamps[-1]) < 0.5 / info.fps


def _fraction(fps: float) -> Fraction:
    return max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))  # 29.97 as it is meant: 30000/1001


def _nearest(timestamps: Sequence[float], seconds: float) -> int:
    after = bisect_left(timestamps, seconds)
    if after == 0 or (after < len(timestamps) and timestamps[after] - seconds < seconds - timestamps[after - 1]):
        return after
    return after - 1


def reencode(video: VideoReader, part: Path, settings: PrepareSettings) -> int:
    """Write the video to ``part``; returns how many frames were written."""
    timing = _timing(video.info, video.timestamps, settings.fps)
    width, height = _size(video.width, video.height, settings.short_side)
    with (
        av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container,
        closing(_source_frames(video)) as frames,
    ):
        stream = _stream(container, timing, settings)
        stream.width, stream.height = width, height
        shown, frame = 0, next(frames)
        colours = _colours(frame)
        stream.codec_context.colorspace, stream.codec_context.color_range = colours
        for number, ticks in zip(timing.numbers, timing.ticks, strict=True):
            while shown < number:
                shown, frame = shown + 1, next(frames)
            new = _converted(frame, colours, video.info, width=width, height=height)
            new.pts, new.time_base = ticks, timing.tick
            container.mux(stream.encode(new))
        container.mux(stream.encode(None))
    return len(timing.numbers)


def _stream(container: OutputContainer, timing: _Timing, settings: PrepareSettings) -> VideoStream:
    # fastdecode: no deblocking and no arithmetic coding, twice as fast to decode for 5 % more bytes.
    options = {"crf": str(settings.crf), "preset": "veryfast", "tune": "fastdecode", "bf": "0", "sc_threshold": "0"}
    stream: VideoStream = container.add_stream(settings.encoder, rate=timing.rate, options=options)
    context = stream.codec_context
    context.pix_fmt = "yuv420p"
    context.gop_size = settings.gop_length
    context.time_base = stream.time_base = timing.tick
    context.thread_count = 1
    return stream


def _colours(frame: VideoFrame) -> tuple[int, int]:
    """Matrix and range for the new file: those of the source, as every conversion costs up to two levels of grey."""
    if frame.format.is_rgb or frame.format.has_palette:
        return Colorspace.ITU601.value, ColorRange.MPEG.value
    is_full = frame.color_range == ColorRange.JPEG.value or frame.format.name.startswith("yuvj")
    return frame.colorspace, ColorRange.JPEG.value if is_full else ColorRange.MPEG.value


def _source_frames(video: VideoReader) -> Generator[VideoFrame]:
    """All frames, as they are stored: through RGB each of them would lose a level of brightness.

    Raises:
        VideoError: A frame cannot be decoded.
    """
    if video.decoder == "images":
        for number in range(len(video)):
            pixels = video.frames([number])[0].permute(1, 2, 0).contiguous().numpy()
            yield VideoFrame.from_ndarray(pixels, format="rgb24")
        return
    with closing(VideoFile(video.path, num_threads=1)) as file:
        index, frames = file.index()
        for number, key in enumerate(index.keys):
            frame = next(frames, None)
            while index.timed and frame is not None and (frame.pts is None or frame.pts < key):
                frame = next(frames, None)
            if frame is None or (index.timed and frame.pts != key):
                raise VideoError(video.path, "corrupt", f"frame {number} of {len(video)} cannot be decoded")
            yield frame


def _converted(frame: VideoFrame, colours: tuple[int, int], info: VideoInfo, *, width: int, height: int) -> VideoFrame:
    """The frame in 8 bits, of this size, turned upright."""
    turns = info.rotation // 90 % 4
    matrix, value_range = colours
    is_rgb = frame.format.is_rgb or frame.format.has_palette
    stored = frame.reformat(
        width=height if turns % 2 else width,
        height=width if turns % 2 else height,
        format="yuv420p",
        dst_colorspace=Colorspace(matrix) if is_rgb else None,
        src_color_range=None if is_rgb else ColorRange(value_range),
        dst_color_range=ColorRange(value_range),
        interpolation=Interpolation.BICUBIC,
        threads=1,
    )
    upright = VideoFrame(width, height, "yuv420p")
    for plane, new in zip(stored.planes, upright.planes, strict=True):
        samples = _samples(plane)
        _samples(new)[:] = np.rot90(samples[:, ::-1] if info.mirrored else samples, -turns)
    return upright


def _samples(plane: VideoPlane) -> NDArray[np.uint8]:
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Even numbers, the aspect kept, never larger than the source (but at least 2)."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


@dataclass(frozen=True)
class SparseDecoding:
    """Opening a video and decoding a few evenly spread frames, before and after.

    Attributes:
        num_videos: Videos that were measured.
        num_frames: Frames that were decoded of each.
        before_seconds: A source, in the mean.
        after_seconds: A prepared video, in the mean.
    """

    num_videos: int
    num_frames: int
    before_seconds: float
    after_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.num_frames} evenly spread frames of a video: {1000 * self.before_seconds:.1f} ms before, "
            f"{1000 * self.after_seconds:.1f} ms now, {self.before_seconds / self.after_seconds:.1f} times faster "
            f"(mean of {self.num_videos})"
        )


def measure_sparse_decoding(
    prepared: Sequence[PreparedVideo], *, num_frames: int = 8, num_videos: int = 8
) -> SparseDecoding | None:
    """Measure what preparing has brought, on videos evenly spread over those that are ok; None where none is."""
    good = [each for each in prepared if each.status == "ok"]
    if not good:
        return None
    sample = good[:: max(1, len(good) // num_videos)][:num_videos]
    before = sum(_sparse_seconds(each.source, num_frames) for each in sample) / len(sample)
    after = sum(_sparse_seconds(each.output, num_frames) for each in sample) / len(sample)
    return SparseDecoding(len(sample), num_frames, before, after)


def _sparse_seconds(path: str, num_frames: int) -> float:
    """The better of two: the first also brings the file into memory."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        with open_video(path) as video:
            video.frames([(2 * place + 1) * len(video) // (2 * num_frames) for place in range(num_frames)])
        seconds.append(time.perf_counter() - start)
    return min(seconds)
