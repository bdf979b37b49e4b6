"""Room on a disk: asked before long work starts, and one error where there is none left."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["NO_ROOM", "DiskFullError", "check_room", "free_bytes", "in_words", "telling_full_disk"]

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says of a full disk, a full quota, and a file above what is allowed."""


class DiskFullError(OSError):
    """The disk has no room for what is to be written."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


def free_bytes(path: Path) -> int:
    """Of the disk on which a file or folder is, or will be."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def check_room(path: Path, needed: int, *, what: str) -> None:
    """Refuse work whose result the disk has no room for, before it starts.

    Args:
        path: Where it will be written; may be absent.
        needed: Bytes.
        what: What needs them, for the message: "The model".

    Raises:
        DiskFullError: There are fewer.
    """
    free = free_bytes(path)
    if needed > free:
        raise DiskFullError(
            f"{what} needs about {in_words(needed)}, and the disk of {path} has {in_words(free)} free: make room, or "
            "choose another place."
        )


def in_words(num_bytes: int) -> str:
    """Bytes in the unit that fits.

    >>> in_words(3_000_000), in_words(5 * 2**30)
    ('2.9 MiB', '5.0 GiB')
    """
    unit, size = ("GiB", 2**30) if num_bytes >= 2**30 else ("MiB", 2**20)
    return f"{num_bytes / size:.1f} {unit}"


@contextmanager
def telling_full_disk(path: Path) -> Iterator[None]:
    """Name the file, and what to do, where the disk becomes full while it is written.

    Args:
        path: The file or folder.

    Raises:
        DiskFullError: The disk is full, or the quota.
        OSError: Any other, as it came.
    """
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if error.errno in NO_ROOM:
            reason = os.strerror(error.errno)
            raise DiskFullError(
                f"{path} could not be written ({reason}): make room on the disk, and try again."
            ) from error
        raise
