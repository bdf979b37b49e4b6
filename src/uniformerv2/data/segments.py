"""Which part of a video a record means: in frames, and how long it lasts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.media.decoding import VideoError, VideoReader

__all__ = ["segment_frames", "segment_seconds"]

ROUNDING_SECONDS: Final = 1e-4
"""Lists round their times; a frame that starts so little after a segment's bound counts as on it."""


def segment_frames(record: VideoRecord, reader: VideoReader) -> tuple[int, int]:
    """First frame of the record's segment, and one past its last; what reaches beyond the video is cut off.

    Seconds become frames by the video's own timestamps: the first is the one on the screen at the start::

        frames at    0.0   0.4   0.8   1.2   1.6
        segment          [ 0.5 ....... 1.2 )           ->  1, 3

    Args:
        record: With the segment in seconds or in frames, or without one.
        reader: The open video.

    Returns:
        Two numbers, the second the larger.

    Raises:
        VideoError: The segment starts after the end, or is in seconds where the frames have no times.
    """
    start, stop = record.start_frame or 0, len(reader) if record.end_frame is None else record.end_frame
    if record.start_seconds is not None or record.end_seconds is not None:
        times = reader.timestamps
        if not times:
            detail = "its segment is given in seconds, and its frames have no times: give start_frame and end_frame"
            raise VideoError(reader.path, "unsupported", detail)
        if record.start_seconds is not None:
            start = max(bisect_right(times, record.start_seconds + ROUNDING_SECONDS) - 1, 0)
            if record.start_seconds >= reader.info.duration_seconds:
                start = len(reader)
        if record.end_seconds is not None:
            stop = bisect_left(times, record.end_seconds - ROUNDING_SECONDS)
    if start >= len(reader):
        bound = f"{record.start_seconds} s" if record.start_seconds is not None else f"frame {start}"
        has = f"{len(reader)} frames, {reader.info.duration_seconds:.2f} s"
        raise VideoError(reader.path, "truncated", f"its segment starts at {bound}, the video has {has}")
    return start, max(min(stop, len(reader)), start + 1)


def segment_seconds(record: VideoRecord, reader: VideoReader) -> float | None:
    """How long the record's segment lasts; None where nothing tells.

    Args:
        record: With the segment in seconds or in frames, or without one.
        reader: The open video.
    """
    if record.start_seconds is not None and record.end_seconds is not None:
        return record.end_seconds - record.start_seconds
    fps, whole = reader.fps, reader.info.duration_seconds
    if record.start_frame is not None and record.end_frame is not None and fps:
        return (record.end_frame - record.start_frame) / fps
    start, end = record.start_seconds or 0.0, record.end_seconds
    return ((whole if end is None else min(end, whole)) - start if whole else None) or None
