"""H.264 for people: how videos that this package writes are encoded."""

from __future__ import annotations

from av.container import OutputContainer
from av.video.stream import VideoStream

__all__ = ["add_h264"]


def add_h264(container: OutputContainer, *, width: int, height: int, rate: int) -> VideoStream:
    """A stream that every player plays.

    Args:
        container: Where it goes.
        width: Even.
        height: Even.
        rate: Frames per second.
    """
    stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1
    return stream
