"""How many packets the tables of an MP4 or QuickTime file declare, before FFmpeg makes an index of them.

A table can say "50 million samples of 256 bytes" in 20 bytes, and FFmpeg then makes an entry for each (24 bytes).
Source: ISO/IEC 14496-12, Information technology: ISO base media file format (2022); the names are those of its boxes.

::

    moov                                      moof
      trak                                      traf
        edts elst            edits                trun        samples
        mdia hdlr            picture or sound
          minf stbl stsz     samples
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

__all__ = ["EmptyBoxesError", "declared_packets"]

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
