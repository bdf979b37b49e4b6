"""Checkpoint files: read every container safely, write ours atomically."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from uniformerv2.core.files import write_text, write_whole
from uniformerv2.core.limits import check_items, get_limits, read_bytes

__all__ = [
    "ArchiveError",
    "check_archive",
    "check_bare_pickle",
    "is_finite",
    "naming",
    "read_checkpoint",
    "read_json",
    "to_json",
    "write_json",
    "write_tensors",
]

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
        size = sum(member.file_size for member in members)  # zipfile gives no more of one than it declares
        get_limits().check("checkpoint_bytes", size, what=f"{path}: {size} bytes of tensors")
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


TIMES_SHARED: Final = 8
"""Tied weights are stored once; no network ties as many."""

REMEDY: Final = "Where you trust the file, save its state dict alone with the code that wrote it."


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint file holds: a state dict, or a container with one inside.

    safetensors, PyTorch files (by the restricted unpickler, which runs no code of the file), and TorchScript archives
    such as OpenAI's CLIP (only their tensors are taken; one whose code would run while it is read is refused).
    Recognised by content, not by name.

    Args:
        path: The file.

    Returns:
        The mapping the file holds, tensors on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or none of these formats, or holds more than tensors and plain values, or declares
            more than the limit ``checkpoint_bytes``.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    get_limits().check("checkpoint_bytes", path.stat().st_size, what=f"{path}: a file of this size in bytes")
    is_pytorch = _is_pytorch(path)  # a file that may not be read is an OSError here; one below is damage
    try:
        is_archive = zipfile.is_zipfile(path)
        if is_archive and check_archive(path) == "TorchScript":
            return _read_torchscript(path)
        if is_pytorch and not is_archive:
            check_bare_pickle(path)
        content = torch.load(path, map_location="cpu", weights_only=True) if is_pytorch else load_file(path)
    except ArchiveError as error:
        raise ValueError(f"{path} is {error}. {REMEDY}") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise ValueError(
            f"{path} holds more than tensors and plain values{what}, which only code of its own could read. {REMEDY}"
        ) from error
    except SafetensorError as error:
        detail = f": {error}" if path.suffix == ".safetensors" else ", and has the form of neither"
        raise ValueError(f"{path} is damaged or no checkpoint (safetensors, PyTorch){detail}.") from error
    except Exception as error:  # what a damaged pickle raises has no end: KeyError, IndexError, AssertionError, ...
        detail = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"{path} is damaged or no checkpoint (safetensors, PyTorch): {detail}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a mapping of names to tensors.")
    _check_tensors(content, path)
    return dict(content)


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; one pass that keeps nothing."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(bool(end.isfinite()) for end in torch.aminmax(tensor.detach()))  # NaN is the least and the greatest


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in what its values and tensors raise.

    Args:
        path: The file.

    Raises:
        ValueError: They are of a wrong type or shape.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{path} holds values or tensors that no network has: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object a JSON file holds.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, or no object, or larger than the limit ``text_bytes``.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
        check_items(text, where="it")
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path} is no configuration: it is nested too deeply.") from error
    except ValueError as error:  # a number of thousands of digits is one too
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, got {type(content).__name__}.")
    return content


def to_json(content: Mapping[str, Any]) -> str:
    """JSON for people to read."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, to_json(content))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, lambda temporary: _save(plain, temporary))


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if found := re.search(r"os error (\d+)", str(error)):  # it hides what the system said
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise


def _is_pytorch(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2)
    return start == b"PK" or start[:1] == b"\x80"  # a zip archive, or a bare pickle (before PyTorch 1.6)


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, but nothing else reads these files
        return dict(torch.jit.load(path, map_location="cpu").state_dict())


def _check_tensors(content: Mapping[Any, Any], path: Path) -> None:
    """Refuse tensors that are more than the bytes that they lie in: strides of 0 make a terabyte of one number.

    Raises:
        ValueError: A tensor is, or all of them together are many times as large as the file.
    """
    total, waiting, seen = 0, [content], {id(content)}
    while waiting:
        mapping = waiting.pop()
        for key, value in mapping.items():
            if isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                waiting.append(value)
            elif isinstance(value, Tensor):
                is_plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
                size = value.numel() * value.element_size()
                if not is_plain or size > value.untyped_storage().nbytes():
                    raise ValueError(f"{path}: the tensor {key} of shape {tuple(value.shape)} is none that is stored.")
                total += size
    if total > TIMES_SHARED * path.stat().st_size:
        raise ValueError(f"{path}: its tensors share memory and are {total} bytes, many times as large as the file.")
