"""A video file for PyAV: opened safely, its frames indexed.

A file from a stranger must not reach another file or the network. It is opened here and FFmpeg sees only its bytes,
containers that name other files (playlists) are not among ``CONTAINERS``, and no protocol may be opened from inside
a container. Nor may it ask for more memory than ``core.limits`` allow: what its tables declare is added up before
FFmpeg sees them, and FFmpeg decodes no frame above ``pixels_per_frame``.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO, cast

import av
from av.container import Flags, InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from uniformerv2.core.limits import get_limits
from uniformerv2.media.frame_index import FrameIndex, timed_index
from uniformerv2.media.index_cache import INDEXES
from uniformerv2.media.mp4_tables import EmptyBoxesError, declared_packets
from uniformerv2.media.sample_table import CODECS, CONTAINER, read_sample_table
from uniformerv2.media.video_error import (
    TRUNCATED,
    VideoError,
    VideoErrorKind,
    check_limit,
    missing_bytes,
    why_no_packets,
    why_not_opened,
)

__all__ = ["CONTAINERS", "VideoFile", "decoder_of", "first_video_stream", "open_regular"]

# Containers that hold their media themselves, video first; the sound formats are named so that a sound file is told
# from noise. Playlists (hls, dash, concat, ...) and image patterns stay out: they open other files.
CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,nut,rm,dv,ivf,obu,av1,h263,h264,hevc,m4v,mpegvideo,vc1,"
    "yuv4mpegpipe,mp3,wav,flac,aac,ac3,amr,aiff"
)


class VideoFile:
    """An open container and its first video stream, with a decoder of a bounded number of threads.

    Args:
        path: A file.
        num_threads: Decoder threads.
        allow_truncated: Open also a file whose end is missing, as far as it goes.

    Attributes:
        missing_bytes: What its header promises beyond its end.
        stream: The video stream that is read: the first that is not a cover picture.
        is_damaged: Something could not be read or decoded since it was opened or restarted.

    Raises:
        VideoError: The file cannot be opened as a video.
    """

    def __init__(self, path: Path, *, num_threads: int, allow_truncated: bool = False) -> None:
        self.path = path
        self._num_threads = num_threads
        self._failure: av.FFmpegError | None = None
        self.is_damaged = False
        self._container: InputContainer | None = None
        self._file = open_regular(path)
        try:
            self._check_packets(self._declared_packets())
            self.missing_bytes = missing_bytes(self._file)
            self.restart()
            if self.missing_bytes and not allow_truncated:
                raise VideoError(path, "truncated", TRUNCATED.format(self.missing_bytes))
        except BaseException:
            self.close()
            raise

    def restart(self) -> None:
        """Open the container anew, at its first packet.

        Raises:
            VideoError: FFmpeg finds no video that it can decode.
        """
        self._close_container()
        for_decoder = {"max_pixels": str(get_limits().pixels_per_frame)}
        container, stream = self._open(for_decoder)
        if not stream.codec_context.width:  # FFmpeg forgets the size of what it may not decode, and tells it otherwise
            container.close()
            container, stream = self._open({"skip_frame": "all"})
            self._check_size(stream)
            container.close()
            container, stream = self._open(for_decoder)
        self._check_size(stream)
        self._container, self.stream = container, stream
        self._decoder = decoder_of(stream)
        self._decoder.options = for_decoder
        self._decoder.thread_count = self._num_threads
        self._decoder.thread_type = "AUTO" if self._num_threads > 1 else "SLICE"
        self.is_damaged = False

    def _open(self, for_decoder: dict[str, str]) -> tuple[InputContainer, VideoStream]:
        self._file.seek(0)
        for_container = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
        try:
            container = av.open(
                self._file, "r", metadata_errors="replace", options=for_decoder, container_options=for_container
            )
        except av.FFmpegError as error:
            raise VideoError(self.path, *why_not_opened(self._file, str(error.strerror))) from error
        except OSError as error:
            raise VideoError(self.path, "unreadable", str(error.strerror)) from error
        # A timestamp that FFmpeg makes up where the file has none does not identify a frame.
        container.flags &= ~cast("int", Flags.gen_pts.value)
        return container, first_video_stream(container, self.path)

    def close(self) -> None:
        """Free the decoder with its threads, and the file."""
        self._close_container()
        self._file.close()

    def _close_container(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
            del self.stream, self._decoder  # the last reference to the decoder: its threads end here

    @property
    def codec_name(self) -> str:
        """FFmpeg's name of the codec, whatever library decodes it."""
        return self.stream.codec_context.codec.canonical_name

    @property
    def container_name(self) -> str:
        """The first of FFmpeg's names for the container."""
        return self._reading.format.name.partition(",")[0]

    @property
    def _reading(self) -> InputContainer:
        if self._container is None:
            raise ValueError(f"{self.path} was closed; open it again")
        return self._container

    def seek(self, timestamp: int) -> None:
        """Go to the last keyframe at or before ``timestamp`` in ticks, or to the start where that is impossible."""
        try:
            self._reading.seek(timestamp, stream=self.stream)
            if self._decoder is not self.stream.codec_context:  # which PyAV has flushed
                self._decoder.flush_buffers()
        except av.FFmpegError:
            self.restart()

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the stream from here to the end; the last is empty and flushes the decoder.

        Yields:
            Packets in decoding order.

        Raises:
            VideoError: The disk fails.
        """
        try:
            yield from self._reading.demux(self.stream)
        except av.FFmpegError as error:
            self._failure, self.is_damaged = error, True  # the rest is out of reach; what came before it counts
        except OSError as error:
            raise VideoError(self.path, "unreadable", str(error.strerror)) from error

    def decode(self) -> Iterator[VideoFrame]:
        """The frames from here to the end; what cannot be decoded is left out, as FFmpeg's own tools do.

        Yields:
            Frames in presentation order.
        """
        for packet in self.packets():
            try:
                yield from self._decoder.decode(packet)
            except av.FFmpegError as error:
                self._failure, self.is_damaged = error, True

    def index(self) -> tuple[FrameIndex, Iterator[VideoFrame]]:
        """By the container's tables, else by all packets; where neither tells the frames, decode once and count.

        Returns:
            The index, of at least one frame, and all frames from the first on.
        """
        index = INDEXES.get(self._file)
        if index is not None:
            self._check_packets(len(index))
        index = index or self._index_samples() or self._index_packets()
        if index is not None and index.timed:
            self.seek(index.seek_points[0])
            frames = self.decode()
            first = next(frames, None)
            if first is not None and first.pts == index.keys[0]:
                INDEXES.put(self._file, index)
                return index, chain([first], frames)
        if index is None or index.timed:
            index = self._index_frames()
            INDEXES.put(self._file, index)
        self.restart()
        return index, self.decode()

    def _index_samples(self) -> FrameIndex | None:
        table = read_sample_table(self._file, self.stream, self.container_name, allow_truncated=self.missing_bytes > 0)
        shift = None if table is None else table.shift(self._packets_from)
        if table is not None and shift is not None and not self._failure:
            times = table.times + shift
            index = timed_index(times[table.is_shown].tolist(), set(times[table.is_key].tolist()))
            if index is not None:
                return index
        if table is not None:
            self.restart()
        return None

    def _packets_from(self, timestamp: int | None) -> Iterator[Packet[VideoStream]]:
        if timestamp is not None:
            self.seek(timestamp)
        return self.packets()

    def _index_packets(self) -> FrameIndex | None:
        shown: list[int | None] = []
        seek_points: set[int] = set()
        num_packets = num_corrupt = 0
        most = get_limits().packets_per_file
        has_hidden = self.stream.codec_context.name == "vp8"
        may_be_encrypted = self.container_name == CONTAINER  # elsewhere the stream says so
        may_have_palette = self.codec_name not in CODECS
        for packet in self.packets():
            if not packet.size:
                continue
            if may_be_encrypted and packet.has_sidedata("encryption_info"):
                raise VideoError(self.path, "encrypted", "its video packets need a key")
            if may_have_palette and packet.has_sidedata(
                "palette"
            ):  # only some packets bring the colours: after a seek they are black
                return None
            num_packets += 1
            if num_packets > most:
                self._check_packets(num_packets)
            num_corrupt += packet.is_corrupt
            if packet.is_keyframe and packet.pts is not None:
                seek_points.add(packet.pts)
            if not packet.is_discard and not (has_hidden and _is_hidden_vp8(packet)):
                shown.append(packet.pts)
        if not num_packets:
            raise VideoError(self.path, *why_no_packets(self._file))
        return None if num_corrupt or self._failure else timed_index(shown, seek_points)

    def _declared_packets(self) -> int:
        try:
            return declared_packets(self._file)
        except EmptyBoxesError as error:
            raise VideoError(self.path, "corrupt", str(error)) from error

    def _check_size(self, stream: VideoStream) -> None:
        width, height = stream.codec_context.width, stream.codec_context.height
        check_limit(self.path, "pixels_per_frame", width * height, what=f"a frame of {width} x {height} pixels")

    def _check_packets(self, count: int) -> None:
        check_limit(self.path, "packets_per_file", count, what=f"a file of {count} packets")

    def _index_frames(self) -> FrameIndex:
        self.restart()
        frames = []
        most = get_limits().packets_per_file
        for frame in self.decode():
            frames.append((frame.pts, frame.key_frame))
            if len(frames) > most:
                self._check_packets(len(frames))
        if not frames:
            kind: VideoErrorKind = "unsupported" if isinstance(self._failure, av.error.PatchWelcomeError) else "corrupt"
            reason = str(self._failure.strerror) if self._failure else "the decoder gives no reason"
            raise VideoError(self.path, kind, f"no frame can be decoded ({reason})")
        times = tuple(pts for pts, _ in frames if pts is not None)
        if len(times) < len(frames) or any(after <= before for before, after in pairwise(times)):
            times = ()
        keyframes = tuple(number for number, (_, is_key) in enumerate(frames) if is_key or not number)
        return FrameIndex(tuple(range(len(frames))), times, (0,), keyframes, timed=False)


def open_regular(path: Path, *, folder: Path | None = None) -> BinaryIO:
    """Open a file that holds something, without waiting.

    Args:
        path: A file.
        folder: The folder of frames that it is in, which the error is then about.

    Raises:
        VideoError: There is none, it is empty, or it may not be read.
    """
    subject, it = (path, "it") if folder is None else (folder, path.name)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise VideoError(subject, "unreadable", f"{it} is neither a regular file nor a folder")
        if not status.st_size:
            raise VideoError(subject, "empty", f"{it} has 0 bytes")
        return path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a path with a null byte
        raise VideoError(subject, "missing", f"there is no such file{f': {it}' if folder else ''}") from error
    except OSError as error:
        raise VideoError(subject, "unreadable", f"{f'{it}: ' if folder else ''}{error.strerror}") from error


def first_video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is no cover picture; of the others nothing is read.

    Raises:
        VideoError: There is none, or it cannot be decoded.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(path, "no video", f"it holds {found}, no video stream")
    stream = streams[0]
    if "enc_key_id" in stream.metadata:
        raise VideoError(path, "encrypted", "its video track needs a key")
    if stream.codec_context is None:
        raise VideoError(path, "unsupported", "there is no decoder for its video codec")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """What decodes the stream: of VP8 the reference decoder, where there is one.

    FFmpeg's own leaves what damage makes unreadable as it was in the memory that it takes for the picture, and says
    nothing. Both give the same pixels of an intact stream, in the same time; of transparency only FFmpeg's knows none.
    """
    context = stream.codec_context
    if context.name != "vp8" or "libvpx" not in av.codecs_available or stream.metadata.get("alpha_mode") == "1":
        return context
    decoder = av.CodecContext.create("libvpx", "r")
    for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
        setattr(decoder, name, getattr(context, name))
    return decoder


def _is_hidden_vp8(packet: Packet[VideoStream]) -> bool:
    """A VP8 packet that is decoded but not shown: bit 4 of the frame tag (RFC 6386, section 9.1) is 0."""
    return not memoryview(packet)[0] & 0x10
