"""``Journal``: what a long run has done so far, a line of JSON each, safe on disk; a stopped run continues from it.

::

    {"checkpoint": "a1", "num_clips": 4}      the head: which run the lines belong to
    {"index": 0, ...}                         an entry, appended as soon as the work is done
    {"index": 1, .                            half a line, left by a killed process: dropped
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Self

from uniformerv2.core.files import telling_full_disk, write_bytes

__all__ = ["Journal"]

SYNC_ENTRIES: Final = 32
"""Entries from one ``fsync`` to the next: a power cut costs no more of them. A killed process loses none."""


class Journal:
    """A file that grows while a run goes on. Entries are added from ``with`` on.

    Args:
        path: The file; may be absent.
        head: Plain values that tell this run from others, a list or a mapping; the first line.
    """

    def __init__(self, path: Path, head: Any) -> None:
        self.path = path
        self.head = json.loads(json.dumps(head))
        self._num_waiting = 0

    def found_head(self) -> Any:
        """The head that the file has; None where there is no file or no whole line.

        Raises:
            ValueError: The first line is no such head.
        """
        for head in self._lines():
            if not isinstance(head, type(self.head)):
                raise ValueError(f"{self.path} is no journal of this kind: its first line is another.")
            return head
        return None

    def entries(self) -> Iterator[Any]:
        """The entries that the file has.

        Raises:
            ValueError: A line is not JSON.
        """
        lines = self._lines()
        next(lines, None)
        return lines

    def restart(self, entries: Iterable[Any] = ()) -> None:
        """Write the file anew, with these entries alone, whole or not at all."""
        write_bytes(self.path, b"".join(map(_line, (self.head, *entries))))

    def add(self, entry: Any) -> None:
        """Append one entry, plain values.

        Raises:
            DiskFullError: The disk has no room for it.
        """
        with telling_full_disk(self.path):
            self._file.write(_line(entry))
            self._file.flush()
            self._num_waiting += 1
            if self._num_waiting >= SYNC_ENTRIES:
                os.fsync(self._file.fileno())
                self._num_waiting = 0

    def __enter__(self) -> Self:
        size = sum(map(len, _whole_lines(self.path)))
        if not size:
            self.restart()
        self._file: IO[bytes] = self.path.open("ab")
        if size:
            self._file.truncate(size)
        return self

    def __exit__(self, *_: object) -> None:
        with telling_full_disk(self.path):
            self._file.close()  # which writes again what could not be written

    def _lines(self) -> Iterator[Any]:
        for line in _whole_lines(self.path):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"{self.path} is no journal of a run: a line is not JSON.") from error


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _whole_lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
