"""Every sample of a video track from the tables of its container, without reading the samples.

FFmpeg makes an index of an MP4 or QuickTime file when it opens it: decoding time, place, size and key flag of each
sample, edit lists applied. What the index lacks, the time from decoding to presentation, stands in the file's ``ctts``
table. Reading all packets of a film of 99 minutes through Python takes seconds; this takes a tenth of one.

The table is believed where packets at the beginning, in the middle and at the end agree with it, sample by sample.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from uniformerv2.media.mp4_tables import composition_offsets

__all__ = ["CODECS", "CONTAINER", "SampleTable", "read_sample_table"]

CODECS: Final = frozenset(
    {"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "h263", "mjpeg", "prores"}
)
"""Those whose packets are frames, all of them shown, and bring no colours of their own."""
CONTAINER: Final = "mov"
"""MP4 and QuickTime, as FFmpeg calls them: its tables are read, and only there a packet says that it is encrypted."""
PROBED: Final = 40
"""Packets that are read at each of three places."""
KEYFRAME, DISCARD = 1, 2
"""Flags of an entry (AVINDEX_KEYFRAME, AVINDEX_DISCARD_FRAME)."""


@dataclass(frozen=True)
class SampleTable:
    """The samples of a track in decoding order.

    Attributes:
        times: When each is shown, in ticks, all of them shifted alike.
        is_key: Decoding can start there.
        is_shown: It is not only there for others that need it.
        positions: Its first byte in the file.
        is_cut: The file ends before the track does; these are the samples before the first that is not whole.
    """

    times: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    is_shown: NDArray[np.bool_]
    positions: NDArray[np.int64]
    is_cut: bool

    def shift(self, packets_from: Callable[[int | None], Iterable[Packet[VideoStream]]]) -> int | None:
        """What its times lack; None where packets at the beginning, in the middle or at the end are not as it says.

        Args:
            packets_from: The packets from the keyframe at a time on; None: from the first packet on.
        """
        points = np.flatnonzero(self.is_key)
        first = next((packet for packet in packets_from(None) if packet.size), None)
        place = None if first is None else self._place(first)
        if first is None or first.pts is None or place is None or not len(points):
            return None
        shift = first.pts - int(self.times[place])
        looked_at = sorted({int(points[0]), int(points[len(points) // 2]), int(points[-1])})
        probes = (packets_from(int(self.times[point]) + shift) for point in looked_at)
        return shift if all(self._agrees(islice(packets, PROBED), shift) for packets in probes) else None

    def _agrees(self, packets: Iterable[Packet[VideoStream]], shift: int) -> bool:
        """Whether the table has these packets, one after the other, as they are."""
        expected: int | None = None
        for packet in packets:
            if not packet.size:
                continue
            place = self._place(packet)
            if place is None and self.is_cut and expected == len(self.times):
                return True
            if place is None or packet.pts is None or (expected is not None and place != expected):
                return False
            said = packet.pts - shift, packet.is_keyframe, not packet.is_discard
            if said != (int(self.times[place]), bool(self.is_key[place]), bool(self.is_shown[place])):
                return False
            if packet.is_corrupt or packet.has_sidedata("palette") or packet.has_sidedata("encryption_info"):
                return False
            expected = place + 1
        return True

    def _place(self, packet: Packet[VideoStream]) -> int | None:
        places = np.flatnonzero(self.positions == (-1 if packet.pos is None else packet.pos))
        return int(places[0]) if len(places) == 1 else None


def read_sample_table(
    file: BinaryIO, stream: VideoStream, container_name: str, *, allow_truncated: bool
) -> SampleTable | None:
    """The samples of a stream; None where the container does not tell all of them, or a sample is not whole.

    Args:
        file: Left where it was, as FFmpeg reads on from there.
        stream: Of the same file, opened by FFmpeg.
        container_name: FFmpeg's name.
        allow_truncated: Take the samples before the first that is not whole, at least one.
    """
    if container_name != CONTAINER or stream.codec_context.codec.canonical_name not in CODECS:
        return None
    entries = stream.index_entries
    place = file.tell()
    offsets = composition_offsets(file, stream.id) if len(entries) else None
    file.seek(place)
    if offsets is None or len(offsets) != len(entries):
        return None
    rows = [(entry.timestamp, entry.flags, entry.pos, entry.size) for entry in entries]
    decoded, flags, positions, sizes = np.array(rows, dtype=np.int64).T
    is_whole = (sizes > 0) & (positions >= 0) & (positions + sizes <= os.fstat(file.fileno()).st_size)
    num_whole = len(is_whole) if is_whole.all() else int(is_whole.argmin()) if allow_truncated else 0
    if not num_whole:
        return None
    whole = slice(num_whole)
    return SampleTable(
        times=(decoded + offsets)[whole],
        is_key=(flags[whole] & KEYFRAME) > 0,
        is_shown=(flags[whole] & DISCARD) == 0,
        positions=positions[whole],
        is_cut=num_whole < len(is_whole),
    )
