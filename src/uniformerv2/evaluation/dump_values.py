"""Values of a dump, taken for what they are: nothing is made a number that the file does not hold as one."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.limits import get_limits

__all__ = ["Size", "number", "numbers", "shown", "whole"]

VIDEO_BYTES: Final = 4096
"""What a video counts besides its scores."""


class Size:
    """What a dump's videos take in memory, counted while they are read.

    Args:
        path: The dump.

    Raises:
        ValueError: The file is larger than the limit ``dump_bytes``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._num_bytes = 0
        get_limits().check("dump_bytes", path.stat().st_size, what=f"{path}: a file of this size")

    def add(self, *, videos: int = 0, values: int = 0) -> None:
        """Count some more.

        Raises:
            ValueError: The sum is above the limit ``dump_bytes``.
        """
        self._num_bytes += videos * VIDEO_BYTES + 4 * values
        get_limits().check("dump_bytes", self._num_bytes, what=f"{self._path}: {self._num_bytes} bytes of scores")


def numbers(values: Any, *, where: str) -> NDArray[Any]:
    """Numbers that a file holds, as an array: itself, or lists of them, at most one within the other.

    Args:
        values: What the file holds.
        where: Its name, for the message.

    Raises:
        ValueError: Anything else, which numpy would turn into numbers, or try to.
    """
    rows = values if isinstance(values, list) else [values]
    flat = [item for row in rows for item in (row if isinstance(row, list) else (row,))]
    if all(type(item) in {int, float} or isinstance(item, np.generic) for item in flat):
        values = np.array(values)
    elif isinstance(values, list) and all(isinstance(row, np.ndarray) for row in rows):
        values = np.stack(rows)
    if not isinstance(values, np.ndarray) or (values.size and values.dtype.kind not in "iufb"):
        raise ValueError(f"{where} is no list of numbers")
    return values


def number(value: Any, kind: type, what: str) -> Any:
    """A finite number of this type.

    Args:
        value: What a file holds.
        kind: ``int`` or ``float``.
        what: Its name, for the message.

    Raises:
        ValueError: It is none.
    """
    if kind is int:
        return whole(value, what)
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer) or not isfinite(value):
        raise ValueError(f"{what} is {shown(value)}, no finite number")
    return float(value)


def shown(value: Any) -> str:
    """A short value as it is, any other by its type: a list may be long, or hold itself."""
    return repr(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def whole(value: Any, what: str) -> int:
    """A whole number, of any type that numbers have in a file.

    Args:
        value: What a file holds.
        what: Its name, for the message.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer) or value % 1:
        raise ValueError(f"{what} is {shown(value)}, no whole number")
    return int(value)
