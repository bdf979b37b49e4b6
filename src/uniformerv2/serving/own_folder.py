"""A folder for uploads: this process alone writes there, and what a killed one left is removed at the next start.

::

    /tmp/uniformerv2-serve-1000/     of this user alone
        .lock                        held while folders are made and removed
        3f9c.../.lock                held by a live process
        81d2.../                     of a process that is gone: removed by the next that starts
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from uniformerv2.core.files import FolderInUseError, lock_folder

__all__ = ["new_file", "own_folder"]


@contextmanager
def own_folder(base: Path | None = None) -> Iterator[Path]:
    """A folder for this process, empty; it is gone afterwards.

    Args:
        base: Where folders of services lie; None: one of this user in the system's folder for temporary files.

    Raises:
        ValueError: Another user could write there.
    """
    base = base or Path(tempfile.gettempdir()) / f"uniformerv2-serve-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_own(base)
    folder = base / secrets.token_hex(8)
    with ExitStack() as stack:
        with lock_folder(base, what="The start of a service", waits=True):
            _remove_abandoned(base)
            folder.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(lock_folder(folder, what="A service"))
        yield folder


def _check_own(base: Path) -> None:
    status = base.lstat()
    is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not stat.S_ISDIR(status.st_mode) or not is_own or stat.S_IMODE(status.st_mode) & 0o022:
        raise ValueError(f"{base} must be a folder that only this user may write to: choose another by --temp-folder.")


def _remove_abandoned(base: Path) -> None:
    for folder in base.iterdir():
        if not folder.is_dir() or folder.is_symlink() or len(folder.name) != 16:
            continue
        try:
            with lock_folder(folder, what="A service"):
                for item in folder.iterdir():
                    if item.name != ".lock":
                        item.unlink()
        except FolderInUseError:
            continue
        shutil.rmtree(folder, ignore_errors=True)


def new_file(folder: Path) -> tuple[Path, int]:
    """A new, empty file in a folder that only this user may read, and its descriptor for writing."""
    path = folder / secrets.token_hex(16)
    return path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)
