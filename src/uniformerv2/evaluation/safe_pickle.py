"""Read a pickle that may come from a stranger: plain values and numpy arrays, and nothing that could run code.

A pickle is a program for a small machine. Here it is looked through first: sizes that it declares must be there, and
cells of the machine's memory are numbered without gaps. While it runs, it finds stand-ins in the place of numpy's own
functions, whose ``__setstate__`` believes what it is told: a dtype is a plain code (``<f4``), and an array is made of
bytes that are as many as its shape needs.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from uniformerv2.core.limits import get_limits

__all__ = ["read_pickle"]

PLAIN_CODE: Final = re.compile(r"([<>|=]?)([biufSU])([0-9]{1,9})")
"""Byte order, kind and size of a dtype; objects, records and dates are left out."""


class _Marker:
    """Stands for ``numpy.ndarray``, which is named in a pickle and never called."""

    def __init__(self, *_: Any) -> None:
        raise pickle.UnpicklingError("it makes an array in another way than numpy")


class _Dtype:
    """``numpy.dtype`` of a plain code."""

    def __init__(self, code: str, *_: bool) -> None:
        if not isinstance(code, str) or not (found := PLAIN_CODE.fullmatch(code)):
            raise pickle.UnpicklingError(f"it holds numbers of the type {str(code)[:40]!r}")
        self.order, self.kind, self.size = found[1], found[2], int(found[3])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, order, *_ = state
        if version != 3 or order not in {"<", ">", "|", "="} or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("it holds numbers of a type with parts")
        self.order = order
        if self.kind in "SU":  # numpy names them U0 and gives their size in bytes here
            self.size = int(state[5]) // (4 if self.kind == "U" else 1)

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order}{self.kind}{self.size}")


class _Array:
    """A numpy array that is filled after it is made."""

    array: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray[Any, Any]:
    """The array of these bytes, if they are as many as its shape needs; with ``axes`` it is transposed then.

    Raises:
        UnpicklingError: They are not, or the parts are none of an array.
    """
    if order == "K":
        return _array(data, dtype, shape, "C").transpose(axes)
    if isinstance(data, str):
        data = data.encode("latin-1")  # bytes of Python 2
    is_whole = isinstance(dtype, _Dtype) and isinstance(data, bytes | bytearray) and isinstance(shape, tuple)
    if not is_whole or order not in {"C", "F"} or not all(type(side) is int and side >= 0 for side in shape):
        raise pickle.UnpicklingError("it holds an array of other parts than bytes, a plain type and a shape")
    numpy = dtype.numpy
    if numpy.itemsize == 0 or math.prod(shape) * numpy.itemsize != len(data):
        raise pickle.UnpicklingError(f"it holds an array of shape {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype=numpy).reshape(shape, order=order)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _Marker or shape != (0,):
        raise pickle.UnpicklingError("it makes an array in another way than numpy")
    return _Array()


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return _array(data, dtype, (1,), "C")[0]


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        raise pickle.UnpicklingError("it writes bytes in another way than Python")
    return text.encode("latin-1")


STAND_INS: Final[Mapping[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): _Marker,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,  # how old pickles write bytes
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _array),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in STAND_INS:
            return STAND_INS[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(path: Path) -> Any:
    """The content of a pickle.

    Args:
        path: The file.

    Returns:
        Lists, dictionaries, texts, numbers, numpy arrays (which can't be written to).

    Raises:
        ValueError: It holds anything else (which is not made, so no code runs), or it is damaged, or larger than the
            limit ``dump_bytes``.
    """
    get_limits().check("dump_bytes", path.stat().st_size, what=f"{path}: a pickle of this size in bytes")
    data = path.read_bytes()
    try:
        _check_program(data)
        return _finished(_Unpickler(io.BytesIO(data)).load(), {})
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no pickle of plain values and numpy arrays: {error}. Other objects could run code, so they "
            "are not read; tensors must be made arrays first, by the program that wrote them."
        ) from error
    except (ArithmeticError, AttributeError, EOFError, ImportError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no pickle: {error}") from error
    except (MemoryError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no pickle: it asks for too much") from error


def _check_program(data: bytes) -> None:
    """Refuse what makes the unpickler ask for memory that no byte of the file fills.

    ``genops`` itself refuses texts and bytes that are longer than the file.

    Raises:
        UnpicklingError: A cell of the memory has a number that no pickler gives.
    """
    for operation, argument, position in pickletools.genops(data):
        if operation.name in {"PUT", "BINPUT", "LONG_BINPUT"} and int(argument or 0) > (position or 0):
            raise pickle.UnpicklingError(f"it asks for {argument} cells of memory")


def _finished(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """The value with arrays in the place of stand-ins; what stands in it twice is looked at once.

    Raises:
        UnpicklingError: An array was never filled, or a stand-in is left over.
    """
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("it holds an array without values")
        return value.array
    if isinstance(value, _Dtype) or callable(value):
        raise pickle.UnpicklingError("it holds a type in the place of a value")
    if isinstance(value, list | dict):
        seen[id(value)] = value, value  # changed in place, so that one that holds itself has an end
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            value[key] = _finished(item, seen)
        return value
    if isinstance(value, tuple):
        found = tuple(_finished(item, seen) for item in value)
        seen[id(value)] = value, found  # the first is kept alive, or another object could take its number
        return found
    return value
