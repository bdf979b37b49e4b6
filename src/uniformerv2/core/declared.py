"""What a file declares to hold, summed and compared with the limits before anything is unpacked.

A gzip, zip or Parquet file of a few kilobytes can hold gigabytes of equal bytes; a text of many short items becomes
Python objects that are 20 times as large as their letters.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.limits import get_limits

__all__ = ["ITEM_BYTES", "RECORD_BYTES", "check_items", "check_parquet", "read_bytes", "sum_of_zip"]

ITEM_BYTES: Final = 32
"""What an item of a text counts besides its letters: an empty list or object of JSON takes 56 to 64 bytes."""

RECORD_BYTES: Final = 128
"""What a row of a list or table counts besides its values."""


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


def sum_of_zip(archive: zipfile.ZipFile) -> int:
    """Bytes of all members, unpacked; ``zipfile`` gives no more of a member than it declares."""
    return sum(member.file_size for member in archive.infolist())
