"""PyTorch's checkpoint files, looked through before PyTorch reads them: what they declare, call and compress.

PyTorch stores tensors uncompressed, so that a file is about as large as what it holds. One that compresses them, or
asks in its pickle for memory that no byte of it fills, was made by hand.
"""

from __future__ import annotations

import os
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, Final, Literal

from uniformerv2.core.declared import sum_of_zip
from uniformerv2.core.limits import get_limits

__all__ = ["ArchiveError", "check_archive", "check_bare_pickle"]

END_OF_ZIP: Final = 22
"""Bytes of the last record of a zip archive without a comment."""

CODE_BYTES: Final = 2**24
"""TorchScript's code; that of OpenAI's CLIP is a tenth of it."""

OLD_PICKLES: Final = 5
"""A file of before PyTorch 1.6: magic number, version, machine, content, names of the storages."""

ALLOCATES: Final = frozenset({"builtins bytearray", "__builtin__ bytearray"})
"""What PyTorch's restricted unpickler calls with a size, and fills; tensors of a size stay empty, and are refused."""


class ArchiveError(Exception):
    """A file that is not read; the message goes on from "FILE is"."""


def check_archive(path: Path) -> Literal["TorchScript", "PyTorch"]:
    """Refuse an archive that unpacks to more than it is, that two readers may read in two ways, or that runs code.

    Args:
        path: A zip archive.

    Returns:
        What it is.

    Raises:
        ArchiveError: It is refused; says why.
        ValueError: It declares more than the limit ``checkpoint_bytes``.
    """
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, END_OF_ZIP), os.SEEK_END)
        end = file.read()
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        is_script = any(name.endswith("/constants.pkl") for name in names)
        kind: Literal["TorchScript", "PyTorch"] = "TorchScript" if is_script else "PyTorch"
        if end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0" or len(set(names)) != len(names):
            raise ArchiveError(
                f"a {kind} archive whose directory could be read in two ways: PyTorch writes none like it"
            )
        get_limits().check(
            "checkpoint_bytes", sum_of_zip(archive), what=f"{path}: {sum_of_zip(archive)} bytes of tensors"
        )
        tensors = re.compile(r"/(data|constants)/\d+$" if is_script else "")
        for member in members:
            if tensors.search(member.filename) and member.compress_type != zipfile.ZIP_STORED:
                raise ArchiveError(
                    f"a {kind} archive with {member.filename} compressed, from {member.compress_size} to "
                    f"{member.file_size} bytes: PyTorch stores tensors as they are"
                )
        rest = [member for member in members if not tensors.search(member.filename)] if is_script else []
        if sum(member.file_size for member in rest) > CODE_BYTES:
            raise ArchiveError(f"a {kind} archive with more than {CODE_BYTES} bytes of code")
        if any(b"__setstate__" in archive.read(member) for member in rest):
            raise ArchiveError(f"a {kind} archive with code that would run while it is read (__setstate__)")
        for name in names:
            if not is_script and name.endswith("/data.pkl"):
                with archive.open(name) as pickle:
                    _check_calls(pickle)
    return kind


def check_bare_pickle(path: Path) -> None:
    """Refuse a PyTorch file of before 1.6 whose pickles call what takes a size.

    Args:
        path: The file.

    Raises:
        ArchiveError: They do.
    """
    with path.open("rb") as file:
        for _ in range(OLD_PICKLES):
            _check_calls(file)


def _check_calls(file: Any) -> None:
    """Look through one pickle.

    Raises:
        ArchiveError: It names a function that takes a size, or a cell of memory that no pickler numbers so.
    """
    for operation, argument, position in pickletools.genops(file):
        if operation.name == "GLOBAL" and argument in ALLOCATES:
            raise ArchiveError("a file that holds more than tensors and plain values (bytearray)")
        if operation.name in {"PUT", "BINPUT", "LONG_BINPUT"} and int(argument or 0) > (position or 0):
            raise ArchiveError(f"a file that asks for {argument} cells of memory")
