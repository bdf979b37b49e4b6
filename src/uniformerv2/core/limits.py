"""Limits on what a file may ask of this machine: one place that every reader asks, before it allocates or computes.

A file from a stranger can declare a frame of 16,000 x 16,000 pixels in 66 bytes, or a tensor of a gigabyte in a
megabyte of compressed zeros. The defaults are far above what an honest file needs: 8K video, networks from B/16 to
g/14, dumps of 20,000 videos with 400 classes and 12 views. Where one is met the error names it and how to raise it:
``--limit NAME=NUMBER`` on the command line, ``UNIFORMERV2_LIMITS=NAME=NUMBER,...`` in the environment,
``set_limits(name=number)`` in Python.

What a file declares to hold is summed and compared before anything is unpacked: a gzip, zip or Parquet file of a few
kilobytes can hold gigabytes of equal bytes; a text of many short items becomes Python objects that are 20 times as
large as their letters.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

__all__ = [
    *("ENVIRONMENT_VARIABLE", "ITEM_BYTES", "RECORD_BYTES"),
    *("Limits", "check_items", "check_parquet", "get_limits", "parse_limits", "read_bytes", "set_limits"),
]

ENVIRONMENT_VARIABLE: Final = "UNIFORMERV2_LIMITS"
"""Where worker processes find what was set; a user may set it too."""
ITEM_BYTES: Final = 32
"""What an item of a text counts besides its letters: an empty list or object of JSON takes 56 to 64 bytes."""

RECORD_BYTES: Final = 128
"""What a row of a list or table counts besides its values."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may ask for at most.

    Attributes:
        pixels_per_frame: Width times height of a video frame or an image; the default is 8192 x 8192, twice 8K.
        packets_per_file: Packets of all tracks of a container, as its tables declare them; the default is 15 hours of
            30 frames a second with sound.
        bytes_per_request: Decoded pixels that one request keeps at a time: the frames of a training clip at full size,
            the views of a tested video at the network's.
        seconds_per_video: Time to read what is needed of one video; a worker that takes longer is ended.
        checkpoint_bytes: Tensors of a checkpoint, as its header declares them.
        dump_bytes: Values of a dump of scores, once unpacked.
        text_bytes: A list, a configuration or another text file, once unpacked.
        download_bytes: One downloaded file.
        download_seconds: From the request to the last byte of one downloaded file.
        depth: Blocks of a network.
        width: Channels of a network, and rows of a head.
        image_size: Height or width of a network's input, in pixels.
        patches_per_frame: Tokens that a network makes of a frame.
        frames_per_video: Frames of a clip times clips times crops.
    """

    pixels_per_frame: int = 2**26
    packets_per_file: int = 2**22
    bytes_per_request: int = 2**30
    seconds_per_video: int = 60
    checkpoint_bytes: int = 32 * 2**30
    dump_bytes: int = 5 * 2**28
    text_bytes: int = 2**29
    download_bytes: int = 32 * 2**30
    download_seconds: int = 24 * 3600
    depth: int = 256
    width: int = 2**16
    image_size: int = 4096
    patches_per_frame: int = 2**16
    frames_per_video: int = 2**14

    def __post_init__(self) -> None:
        """Check that every limit is a whole number above 0.

        Raises:
            ValueError: One is not.
        """
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"The limit {item.name} must be a whole number of at least 1, got {value!r}.")

    def check(self, name: str, value: int, *, what: str) -> None:
        """Refuse what is above a limit.

        Args:
            name: The limit.
            value: What a file asks for.
            what: Its subject, for the message: "a frame of 16000 x 16000 pixels".

        Raises:
            ValueError: The value is above the limit.

        >>> Limits().check("depth", 10**9, what="a network of 1000000000 blocks")
        Traceback (most recent call last):
            ...
        ValueError: a network of 1000000000 blocks is above the limit depth=256; to allow it: --limit depth=1000000000
        """
        allowed = getattr(self, name)
        if value > allowed:
            raise ValueError(f"{what} is above the limit {name}={allowed}; to allow it: --limit {name}={value}")


_limits: Limits | None = None


def get_limits() -> Limits:
    """The limits in force: those of ``set_limits``, else of the environment, else the defaults.

    Raises:
        ValueError: The environment variable names no limit or no number.
    """
    if _limits is not None:
        return _limits
    return _limits_of(os.environ.get(ENVIRONMENT_VARIABLE, ""))


@cache
def _limits_of(text: str) -> Limits:
    return replace(Limits(), **parse_limits(text))


def parse_limits(text: str) -> dict[str, int]:
    """Limits as they are written on the command line and in the environment.

    Raises:
        ValueError: A word is not NAME=NUMBER, or no limit has this name.

    >>> parse_limits("depth=300,seconds_per_video=600")
    {'depth': 300, 'seconds_per_video': 600}
    """
    names = [item.name for item in fields(Limits)]
    found = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = word.partition("=")
        if name not in names or not number.isdecimal():
            raise ValueError(f"A limit is written NAME=NUMBER, got {word!r}; there are: {', '.join(names)}.")
        found[name] = int(number)
    return found


def set_limits(**changes: int) -> AbstractContextManager[Limits]:
    """Change limits for this process and the processes it starts; in a ``with`` statement until its end.

    Args:
        **changes: Fields of ``Limits``.

    Returns:
        A context manager that puts back what was in force before.

    Raises:
        ValueError: A value that no limit may have.

    Examples:
        >>> with set_limits(seconds_per_video=600) as limits:
        ...     limits.seconds_per_video
        600
    """
    global _limits
    before, before_text = _limits, os.environ.get(ENVIRONMENT_VARIABLE)
    _limits = replace(get_limits(), **changes)
    changed = [f"{item.name}={getattr(_limits, item.name)}" for item in fields(Limits)]
    os.environ[ENVIRONMENT_VARIABLE] = ",".join(changed)
    return _put_back(_limits, before, before_text)


@contextmanager
def _put_back(now: Limits, before: Limits | None, text: str | None) -> Iterator[Limits]:
    global _limits
    try:
        yield now
    finally:
        _limits = before
        if text is None:
            os.environ.pop(ENVIRONMENT_VARIABLE, None)
        else:
            os.environ[ENVIRONMENT_VARIABLE] = text


def read_bytes(path: Path, *, limit: str = "text_bytes") -> bytes:
    """A file whole, unpacked where its name ends with ``.gz``.

    Args:
        path: The file.
        limit: The field of ``Limits`` that holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger than the limit, or no regular file, or not a whole gzip file.
    """
    if not path.is_file():
        if path.exists():
            raise ValueError(f"{path} is no regular file.")
        raise FileNotFoundError(f"There is no file {path}.")
    allowed = getattr(get_limits(), limit)
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        get_limits().check(limit, size, what=f"{path}: {size} bytes")
        file.seek(0)
        if path.suffix != ".gz":
            return file.read(allowed)
        try:
            content = gzip.GzipFile(fileobj=file).read(allowed + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error}).") from error
        if len(content) > allowed:
            file.seek(-4, io.SEEK_END)  # a gzip file ends with its unpacked size
            size = max(len(content), struct.unpack("<I", file.read(4))[0])
            get_limits().check(limit, size, what=f"{path}: {size} bytes, unpacked,")
    return content


def check_items(text: str, *, where: Path | str) -> None:
    """Refuse a text that would become too many Python objects.

    Args:
        text: JSON or the like.
        where: The file, for the message.

    Raises:
        ValueError: Its letters and items are above the limit ``text_bytes``.
    """
    items = sum(map(text.count, ",[{"))
    size = len(text) + ITEM_BYTES * items
    get_limits().check("text_bytes", size, what=f"{where}: {items} items, which count {ITEM_BYTES} bytes each,")


def check_parquet(file: Any, *, limit: str, columns: Collection[str], where: Path | str) -> None:
    """Refuse a Parquet file whose columns are too large once they are unpacked.

    It is walked through first, without keeping anything: of a damaged file, what it says of its columns ends the
    process where pyarrow is asked for it before it has met the damage itself.

    Args:
        file: A ``pyarrow.parquet.ParquetFile``.
        limit: The field of ``Limits`` that holds.
        columns: The top-level columns that will be read.
        where: The file, for the message.

    Raises:
        ValueError: They are above the limit.
    """
    file.scan_contents()
    metadata = file.metadata
    size = RECORD_BYTES * metadata.num_rows
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for column in map(row_group.column, range(row_group.num_columns)):
            if column.path_in_schema.partition(".")[0] in columns:
                size += max(8 * column.num_values, column.total_uncompressed_size)
    get_limits().check(limit, size, what=f"{where}: {size} bytes of values, unpacked,")
