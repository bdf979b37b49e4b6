"""NumPy's file of a matrix, written row by row: memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["write_rows"]


def write_rows(path: Path, rows: Iterable[NDArray[np.float32]], dim: int) -> None:
    """Write float32 [rows, dim]. The header, whose length does not depend on their number, is written twice.

    Args:
        path: The file.
        rows: Each [dim].
        dim: Numbers of a row.
    """
    with path.open("wb") as file:
        _write_header(file, 0, dim)
        count = 0
        for row in rows:
            file.write(row.astype("<f4").tobytes())
            count += 1
        file.seek(0)
        _write_header(file, count, dim)


def _write_header(file: BinaryIO, count: int, dim: int) -> None:
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)})
