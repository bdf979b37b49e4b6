"""Videos made ready for a network that works on those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import torch

from uniformerv2.core.workers import available_cores
from uniformerv2.data.clips import VideoSample
from uniformerv2.media.decoding import VideoError

__all__ = ["FEW_CORES", "read_ahead"]

FEW_CORES: Final = 2
"""Up to so many, a thread that decodes takes more from a network on the CPU than it saves; see docs/performance.md."""

Video = TypeVar("Video")
Read = tuple[Video, VideoSample | VideoError]


def read_ahead(
    videos: Iterable[Video], read: Callable[[Video], VideoSample], *, device: torch.device
) -> Iterator[Read[Video]]:
    """Read videos in order, and the next ones while the network works.

    Beside a GPU a thread per core decodes (up to 8), one video each ahead; on a CPU, where the network needs the cores,
    one; on a CPU of two cores or one none, so that decoding and network take turns.

    Args:
        videos: What ``read`` takes.
        read: Gives the views of a video.
        device: Where the network computes.

    Yields:
        Each video with its views, or with the ``VideoError`` that it gave.
    """

    def read_or_fail(video: Video) -> VideoSample | VideoError:
        try:
            return read(video)
        except VideoError as error:
            return error

    cores = available_cores()
    if device.type == "cpu" and cores <= FEW_CORES:
        yield from ((video, read_or_fail(video)) for video in videos)
        return
    num_ahead = 1 if device.type == "cpu" else min(cores, 8)
    begun: deque[tuple[Video, Future[VideoSample | VideoError]]] = deque()
    with ThreadPoolExecutor(num_ahead, thread_name_prefix="decode") as decoder:
        for video in videos:
            begun.append((video, decoder.submit(read_or_fail, video)))
            if len(begun) > num_ahead:
                first, views = begun.popleft()
                yield first, views.result()
        for first, views in begun:
            yield first, views.result()
