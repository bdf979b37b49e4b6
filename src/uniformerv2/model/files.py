"""Checkpoint files: read every container safely, write ours atomically."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from uniformerv2.core.files import write_text, write_whole

__all__ = ["naming", "read_checkpoint", "read_json", "to_json", "write_json", "write_tensors"]

END_OF_ZIP: Final = 22
"""Bytes of the last record of a zip archive without a comment."""

REMEDY: Final = "Where you trust the file, save its state dict alone with the code that wrote it."


class _TorchScriptError(Exception):
    """An archive that is not read; says why."""


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
        ValueError: It is damaged, or none of these formats, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    is_pytorch = _is_pytorch(path)  # a file that may not be read is an OSError here; one below is damage
    try:
        if _is_torchscript(path):
            return _read_torchscript(path)
        content = torch.load(path, map_location="cpu", weights_only=True) if is_pytorch else load_file(path)
    except _TorchScriptError as error:
        raise ValueError(f"{path} is a TorchScript archive {error}. {REMEDY}") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise ValueError(
            f"{path} holds more than tensors and plain values{what}, which only code of its own could read. {REMEDY}"
        ) from error
    except Exception as error:  # what a damaged pickle raises has no end: KeyError, IndexError, AssertionError, ...
        detail = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"{path} is damaged or no checkpoint (safetensors, PyTorch): {detail}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a mapping of names to tensors.")
    return dict(content)


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
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{path} holds values or tensors that no network has: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object a JSON file holds.

    Args:
        path: The file.

    Raises:
        ValueError: It is not JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
    write_whole(path, lambda temporary: save_file(plain, temporary, metadata={"format": "pt"}))


def _is_pytorch(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2)
    return start == b"PK" or start[:1] == b"\x80"  # a zip archive, or a bare pickle (before PyTorch 1.6)


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    _check_runs_nothing(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, but nothing else reads these files
        return dict(torch.jit.load(path, map_location="cpu").state_dict())


def _check_runs_nothing(path: Path) -> None:
    """Refuse a TorchScript archive with code that PyTorch runs while it loads: a ``__setstate__`` of its own.

    Raises:
        _TorchScriptError: It has some, or its directory could be read in two ways.
    """
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, END_OF_ZIP), os.SEEK_END)
        end = file.read()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        is_plain = end[:4] == b"PK\x05\x06" and end[-2:] == b"\0\0" and len(set(names)) == len(names)
        code = [name for name in names if not re.search(r"/(data|constants)/\d+$", name)]
        if not is_plain:
            raise _TorchScriptError("whose directory could be read in two ways: PyTorch writes none like it")
        if any(b"__setstate__" in archive.read(name) for name in code):
            raise _TorchScriptError("with code that would run while it is read (__setstate__)")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
