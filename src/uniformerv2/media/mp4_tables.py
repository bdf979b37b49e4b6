"""The tables of an MP4 or QuickTime file: how many packets they declare, and when each sample of a track is shown.

The first is asked before FFmpeg makes an index of them: a table can say "50 million samples of 256 bytes" in 20 bytes,
and FFmpeg then makes an entry for each (24 bytes).
Source: ISO/IEC 14496-12, Information technology: ISO base media file format (2022); the names are those of its boxes.

::

    moov                                      moof
      trak                                      traf
        edts elst            edits                trun        samples
        mdia hdlr            picture or sound
          minf stbl stsz     samples
                    ctts     from decoding to presentation time, in runs
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["EmptyBoxesError", "composition_offsets", "declared_packets"]

_INSIDE: Final = frozenset({b"trak", b"edts", b"mdia", b"minf", b"stbl", b"traf"})
_LARGEST_HEADER: Final = 2**26
"""Bytes of a compressed ``moov`` (QuickTime's ``cmov``) once unpacked; a larger one counts as so many packets."""


_MOST_EMPTY: Final = 10_000
"""Boxes of a header alone beside each other; a writer leaves a few, and millions of them cost seconds to pass over."""


class EmptyBoxesError(ValueError):
    """There are more boxes without content than any writer leaves."""


def declared_packets(file: BinaryIO) -> int:
    """Packets of all tracks; 0 where the file is of another kind.

    Args:
        file: Read from its beginning; left anywhere.

    Raises:
        EmptyBoxesError: It is of little else.
    """
    end = file.seek(0, io.SEEK_END)
    return sum(_packets(file, name, start, stop) for name, start, stop in _boxes(file, 0, end) if name in _COUNTED)


_COUNTED: Final = frozenset({b"moov", b"moof"})


def _packets(file: BinaryIO, name: bytes, start: int, stop: int) -> int:
    """Packets of one ``moov`` or ``moof``."""
    total = 0
    for inner, first, last in _boxes(file, start, stop):
        if inner in {b"trak", b"traf"}:
            total += _packets_of_track(file, first, last)
        elif inner == b"cmov":
            total += _packets_of_compressed(file, first, last)
    return total


def _packets_of_track(file: BinaryIO, start: int, stop: int) -> int:
    found: dict[bytes, tuple[int, int]] = {}
    handlers, runs = set(), 0
    waiting = [(start, stop)]
    while waiting:
        for name, first, last in _boxes(file, *waiting.pop()):
            if name in _INSIDE:
                waiting.append((first, last))
            elif name == b"hdlr":
                handlers.add(_number(file, first + 8).to_bytes(4, "big"))
            elif name == b"trun":
                runs += _number(file, first + 4)
            else:
                found[name] = (first, last)

    def at(name: bytes, offset: int) -> int:
        return _number(file, found[name][0] + offset) if name in found else 0

    edits = max(1, at(b"elst", 4))
    # FFmpeg takes sound without compression, all of whose samples last one tick, in pieces of 1024.
    if b"vide" not in handlers and (at(b"stts", 4), at(b"stts", 12)) == (1, 1):
        chunks = max(at(b"stco", 4), at(b"co64", 4))
        return runs + edits * chunks * (1 + _most_samples_of_chunk(file, *found.get(b"stsc", (0, 0))) // 1024)
    return runs + edits * max(at(b"stsz", 8), at(b"stz2", 8))


def _most_samples_of_chunk(file: BinaryIO, start: int, stop: int) -> int:
    file.seek(start + 8)
    table = file.read(max(stop - start - 8, 0))
    return max((int.from_bytes(table[place + 4 : place + 8], "big") for place in range(0, len(table), 12)), default=0)


def _packets_of_compressed(file: BinaryIO, start: int, stop: int) -> int:
    for name, first, last in _boxes(file, start, stop):
        if name == b"cmvd":
            file.seek(first + 4)
            packed = file.read(min(max(last - first - 4, 0), _LARGEST_HEADER))
            try:
                header = zlib.decompressobj().decompress(packed, _LARGEST_HEADER)
            except zlib.error:  # FFmpeg cannot read it either
                return 0
            declared = _number(file, first)
            if declared > _LARGEST_HEADER or b"cmov" in header:
                return _LARGEST_HEADER
            return declared_packets(io.BytesIO(header))
    return 0


def _number(file: BinaryIO, position: int) -> int:
    file.seek(position)
    return int.from_bytes(file.read(4), "big")


def _boxes(file: BinaryIO, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and one past its last, of each box between two places.

    Raises:
        EmptyBoxesError: Too many of them have none.
    """
    num_empty = 0
    while position + 8 <= end:
        file.seek(position)
        header = file.read(16)
        length, start = int.from_bytes(header[:4], "big"), position + 8
        if length == 1:
            length, start = int.from_bytes(header[8:16], "big"), position + 16
        stop = position + length if length else end
        if stop < start:
            return
        num_empty += stop == start
        if num_empty > _MOST_EMPTY:
            raise EmptyBoxesError(f"it holds more than {_MOST_EMPTY} empty boxes")
        yield header[4:8], start, min(stop, end)
        position = stop


def composition_offsets(file: BinaryIO, track_id: int) -> NDArray[np.int64] | None:
    """From the decoding to the presentation time of each sample of a track, in ticks; zeros where there is no ``ctts``.

    Args:
        file: Read from its beginning; left anywhere.
        track_id: As ``tkhd`` has it.

    Returns:
        An offset per sample; None where the file has no such track, is in fragments, is encrypted, or contradicts
        itself.
    """
    end = file.seek(0, io.SEEK_END)
    outer = list(_boxes(file, 0, end))
    if any(name == b"moof" for name, _, _ in outer):
        return None
    for name, start, stop in outer:
        if name == b"moov":
            for inner, first, last in _boxes(file, start, stop):
                tables = _tables_of_track(file, first, last) if inner == b"trak" else {}
                if b"tkhd" in tables and _track_id(file, tables[b"tkhd"][0]) == track_id:
                    return _offsets(file, tables)
    return None


def _tables_of_track(file: BinaryIO, start: int, stop: int) -> dict[bytes, tuple[int, int]]:
    """Where the content of each box of a track starts and ends."""
    found: dict[bytes, tuple[int, int]] = {}
    waiting = [(start, stop)]
    while waiting:
        for name, first, last in _boxes(file, *waiting.pop()):
            if name in _INSIDE:
                waiting.append((first, last))
            else:
                found[name] = (first, last)
    return found


def _track_id(file: BinaryIO, start: int) -> int:
    is_long = _number(file, start) >> 24 == 1  # the version, then two times
    return _number(file, start + (20 if is_long else 12))


def _offsets(file: BinaryIO, tables: dict[bytes, tuple[int, int]]) -> NDArray[np.int64] | None:
    if b"stsz" not in tables or b"stsd" not in tables:
        return None
    file.seek(tables[b"stsd"][0])
    described = file.read(2**16)
    if b"sinf" in described or b"encv" in described:
        return None
    num_samples = _number(file, tables[b"stsz"][0] + 8)
    if b"ctts" not in tables:
        return np.zeros(num_samples, np.int64)
    start, stop = tables[b"ctts"]
    num_runs = _number(file, start + 4)
    file.seek(start + 8)
    runs = np.frombuffer(file.read(min(8 * num_runs, max(stop - start - 8, 0))), dtype=">i4")
    if len(runs) != 2 * num_runs:
        return None
    counts, offsets = runs[0::2].astype(np.int64), runs[1::2].astype(np.int64)
    if (counts < 0).any() or int(counts.sum()) != num_samples:
        return None
    return np.repeat(offsets, counts)
