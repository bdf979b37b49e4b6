"""Files that are written whole or not at all, and folders that one process at a time writes to."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["FolderInUseError", "lock_folder", "remove_leftovers", "write_text", "write_whole"]

RANDOM_BYTES: Final = 4
"""Of the name that a file has while it is written."""


class FolderInUseError(ValueError):
    """Another process writes to the folder."""


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name, put it on the disk, then give it its name; on failure nothing is left.

    Args:
        path: Its folder is made where it does not exist.
        write: Writes the file whose path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(RANDOM_BYTES)}.part")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the umask applies, as to any file
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes had begun and not finished of a file; only where nobody else writes it now."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 2 * RANDOM_BYTES}.part"):
        leftover.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def lock_folder(folder: Path, *, what: str) -> Iterator[None]:
    """Hold a folder for this process alone; the lock ends with the process, however it ends.

    Args:
        folder: Made where it does not exist.
        what: Who holds it, for the other's message: "A training".

    Raises:
        FolderInUseError: Another process holds it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        message = f"{what} is running in {folder}: wait until it ends, or choose another folder."
        raise FolderInUseError(message) from error
    try:
        yield
    finally:
        lock.release()
