"""LiveStream: a camera, a stream of a server, a file that grows or a pipe, read frame by frame as it comes.

``open_video`` reads what is whole and opens nothing but that file. This module alone opens an address, one that the
owner of the machine gave: RTSP, HTTP and HLS. What a server sends may name other addresses of the network (a playlist
does), but neither a file of this machine nor another protocol: FFmpeg gets a list of what it may open for each kind.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self, cast

import av
from av.container import Flags, InputContainer
from av.video.frame import VideoFrame

from uniformerv2.core.limits import get_limits
from uniformerv2.media.live_source import LiveSource, SourceKind
from uniformerv2.media.video_error import VideoError
from uniformerv2.media.video_file import CONTAINERS, decoder_of, first_video_stream

__all__ = ["LiveStream", "SourceError"]

PROTOCOLS: Final[dict[SourceKind, str]] = {
    "rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
    "http": "http,https,httpproxy,tcp,tls,crypto",
}
"""What FFmpeg may open for an address; for a file, a pipe and a device nothing else."""
FORMATS: Final[dict[SourceKind, str]] = {
    "rtsp": "rtsp,rtp,sdp,mpegts",
    "http": f"hls,mpjpeg,mjpeg,{CONTAINERS}",
}
LOOK_SECONDS: Final = 0.1
"""Between two looks at a pipe or a growing file, and at whether the reading was cancelled."""
PROBE_SECONDS: Final = 2.0
"""How much of a stream FFmpeg looks at before it gives the first frame; its own default is 5 s."""


class SourceError(Exception):
    """A source cannot be opened, or breaks off.

    Args:
        reason: What is wrong; without the address, which may hold a password.
        is_final: Trying again changes nothing.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


class LiveStream:
    """An open source, but for a plain file: its rate, and its frames as they come. Use it with ``with``.

    Opening and reading wait for the source; another thread may set ``is_cancelled``.

    Args:
        source: What is read.
        is_cancelled: Asked while a pipe or a file waits, and after each packet.
        open_seconds: How long a server or a device may take to answer.
        read_seconds: How long it may be silent.

    Attributes:
        fps: Frames per second, as the source says; 0.0 where it does not.
        has_end: A server says how long the video is: it ends, and is not taken up again.

    Raises:
        SourceError: It cannot be opened.
    """

    def __init__(
        self, source: LiveSource, *, is_cancelled: Callable[[], bool], open_seconds: float, read_seconds: float
    ) -> None:
        self.source = source
        self._is_cancelled = is_cancelled
        self._bytes = _WaitingBytes(source, is_cancelled) if source.kind in {"growing file", "pipe"} else None
        self._seconds = open_seconds, read_seconds
        self._container: InputContainer | None = None
        try:
            self._container = self._open()
            self._container.flags &= ~cast("int", Flags.gen_pts.value)  # it would read ahead
            self._stream = first_video_stream(self._container, Path(source.shown))
            self._decoder = decoder_of(self._stream)
            self._decoder.options = {"max_pixels": str(get_limits().pixels_per_frame)}
            self._decoder.thread_count, self._decoder.thread_type = 1, "SLICE"
        except (av.FFmpegError, OSError, ValueError) as error:  # FFmpeg's names the address
            self.close()
            raise self._error(error) from None
        except VideoError as error:
            self.close()
            raise SourceError(error.reason, is_final=not source.is_live) from None
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        self.has_end = source.kind == "http" and self._container.duration is not None

    def _open(self) -> InputContainer:
        kind = self.source.kind
        limits = {"max_pixels": str(get_limits().pixels_per_frame)}
        container: dict[str, str] = {"analyzeduration": str(int(PROBE_SECONDS * 1e6))}
        more: dict[str, Any] = {}
        if self._bytes is not None:
            container |= {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
        elif kind == "device":
            more["format"] = "v4l2"
        else:
            container |= {"format_whitelist": FORMATS[kind], "protocol_whitelist": PROTOCOLS[kind]}
        if kind == "rtsp":
            container |= {"rtsp_transport": "tcp", "timeout": str(int(self._seconds[1] * 1e6))}
        elif kind == "http":
            container |= {"rw_timeout": str(int(self._seconds[1] * 1e6))}
        what = self.source.address if self._bytes is None else self._bytes
        return av.open(
            what,
            "r",
            options=limits,
            container_options=container,
            metadata_errors="replace",
            timeout=self._seconds,
            **more,
        )

    def frames(self) -> Iterator[tuple[float | None, VideoFrame]]:
        """The frames as they come; what cannot be decoded is left out.

        Yields:
            Seconds by the source's own clock, None where it tells none, and the frame.

        Raises:
            SourceError: The source breaks off.
        """
        assert self._container is not None
        tick = float(self._stream.time_base or 0)
        packets = self._container.demux(self._stream)
        while not self._is_cancelled():
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError, ValueError) as error:
                raise self._error(error) from None
            if packet is None:
                return
            try:
                frames = self._decoder.decode(packet)
            except av.FFmpegError:
                continue
            for frame in frames:
                yield (None if frame.pts is None else frame.pts * tick), frame

    def close(self) -> None:
        """Free what is open; closing twice is harmless."""
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._bytes is not None:
            self._bytes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _error(self, error: Exception) -> SourceError:
        """The reason without the address that FFmpeg puts behind it."""
        if isinstance(error, av.error.ExitError):
            return SourceError(f"nothing came for {self._seconds[1]:g} s")
        reason = getattr(error, "strerror", None) or type(error).__name__
        hint = ""
        if self._bytes is not None and not self._bytes.num_read:
            reason = "not one byte came" + ("; --end-after may be longer" if self.source.end_after_seconds else "")
        elif self._bytes is not None and isinstance(error, av.error.InvalidDataError):
            hint = "; a file or pipe is read from its beginning on: MPEG-TS, Matroska or MP4 in fragments"
        return SourceError(f"{reason}{hint}", is_final=not self.source.is_live)


class _WaitingBytes:
    """The bytes of a pipe or of a file that grows, for FFmpeg: a read waits for more, and ends when it is cancelled."""

    def __init__(self, source: LiveSource, is_cancelled: Callable[[], bool]) -> None:
        self._end_after = source.end_after_seconds
        self._is_cancelled = is_cancelled
        self._grew = time.monotonic()
        self.num_read = 0
        is_pipe = source.kind == "pipe"
        try:
            self._number = os.dup(sys.stdin.fileno()) if is_pipe else os.open(source.address, os.O_RDONLY)
        except (OSError, ValueError, AttributeError) as error:  # no stdin
            raise SourceError(str(getattr(error, "strerror", None) or "stdin is closed"), is_final=True) from None

    def read(self, size: int) -> bytes:
        """Some bytes; none at the end, or where the reading was cancelled."""
        while not self._is_cancelled():
            if select.select([self._number], [], [], LOOK_SECONDS)[0]:
                some = os.read(self._number, size)
                self.num_read += len(some)
                if some:
                    self._grew = time.monotonic()
                if some or self._end_after is None or time.monotonic() - self._grew >= self._end_after:
                    return some
                time.sleep(LOOK_SECONDS)
        return b""

    def close(self) -> None:
        """Free the file."""
        if self._number >= 0:
            os.close(self._number)
            self._number = -1
