"""Files that are written whole or not at all, folders that one process at a time writes to, and room on the disk."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

__all__ = [
    "NO_ROOM",
    "DiskFullError",
    "FolderInUseError",
    "cache_home",
    "check_room",
    "free_bytes",
    "in_words",
    "lock_file",
    "lock_folder",
    "refuse_held",
    "remove_leftovers",
    "staged_beside",
    "telling_full_disk",
    "write_bytes",
    "write_text",
    "write_whole",
]

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says of a full disk, a full quota, and a file above what is allowed."""


class DiskFullError(OSError):
    """The disk has no room for what is to be written."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


def cache_home() -> Path:
    """Where downloads and indexes of long videos are kept: ``UNIFORMERV2_HOME``, or ``~/.cache/uniformerv2``."""
    home = os.environ.get("UNIFORMERV2_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "uniformerv2"


def free_bytes(path: Path) -> int:
    """Free bytes of the disk on which a file or folder is, or will be."""
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


logger = logging.getLogger(__name__)

LOCK: Final = ".lock"
RANDOM_BYTES: Final = 4
"""Of the name that a file has while it is written."""


class FolderInUseError(ValueError):
    """Another process writes to the folder, or to the file."""


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name, put it on the disk, then give it its name; on failure nothing is left.

    Args:
        path: Its folder is made where it does not exist.
        write: Writes the file whose path it is given.

    Raises:
        DiskFullError: The disk has no room for it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(RANDOM_BYTES)}.part")
    with telling_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, temporary, write)


def _write(path: Path, temporary: Path, write: Callable[[Path], Any]) -> None:
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the umask applies, as to any file
        mode = stat.S_IMODE(temporary.stat().st_mode)
        write(temporary)
        temporary.chmod(mode)  # safetensors puts a file of its own in its place, which others may not read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_beside(path: Path) -> Iterator[Path]:
    """A folder beside a file or folder, for what is made and tried before it gets that name; gone at the end.

    Args:
        path: What will be written; its folder is made where it does not exist.

    Yields:
        The folder, empty; on the same disk, so that renaming what is in it is enough.

    Raises:
        DiskFullError: The disk has no room for what was made.
    """
    path = path.absolute()
    stage = path.with_name(f".{path.name}.{secrets.token_hex(RANDOM_BYTES)}.part")
    with telling_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stage.mkdir()
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove what killed processes had begun and not finished of a file; only where nobody else writes it now.

    Args:
        folder: Where the file is.
        name: Of the file, or a pattern such as ``"*.ckpt"``.
    """
    for leftover in folder.glob(f".{name}.{'[0-9a-f]' * 2 * RANDOM_BYTES}.part"):
        leftover.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all; bytes of a file name that are no text are spelled out."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_bytes(content))


@contextmanager
def lock_folder(folder: Path, *, what: str, waits: bool = False) -> Iterator[None]:
    """Hold a folder for this process alone; the lock ends with the process, however it ends.

    Who holds it may ask for it again, in the same thread.

    Args:
        folder: Made where it does not exist.
        what: Who holds it, for the other's message: "A training".
        waits: Say so and wait where another process holds it, instead of raising.

    Raises:
        FolderInUseError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / LOCK, f"{what} is running in {folder}", waits=waits):
        yield


@contextmanager
def lock_file(path: Path, *, what: str) -> Iterator[None]:
    """Hold a file that is written for a long time, as ``lock_folder`` does a folder.

    Args:
        path: Its folder is made where it does not exist.
        what: Who holds it, for the other's message: "A check".

    Raises:
        FolderInUseError: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(_lock_of(path), f"{what} that writes {path} is running"):
        yield


def refuse_held(path: Path, *, what: str) -> None:
    """Make sure that no other process holds a folder or file now, before it is looked at; nothing is written.

    Args:
        path: Of ``lock_folder`` or ``lock_file``; may be absent.
        what: As there.

    Raises:
        FolderInUseError: Another process holds it.
    """
    if (path / LOCK).exists():
        with lock_folder(path, what=what):
            pass
    elif _lock_of(path).exists():
        with lock_file(path, what=what):
            pass


def _lock_of(path: Path) -> Path:
    path = path.resolve()  # "." has no name
    return path.with_name(f".{path.name}{LOCK}")


@contextmanager
def _held(place: Path, is_running: str, *, waits: bool = False) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(place.parent.resolve() / place.name, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        if not waits:
            raise FolderInUseError(f"{is_running}: wait until it ends, or choose another place.") from error
        logger.warning("%s; this one waits until it ends.", is_running)
        lock.acquire()
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # where an open file cannot be removed it stays, empty
                place.unlink()
        lock.release()
