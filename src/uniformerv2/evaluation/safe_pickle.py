"""Read a pickle that may come from a stranger: plain values and numpy arrays, and nothing that could run code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Final

__all__ = ["read_pickle"]

ALLOWED: Final = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # how old pickles write bytes
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    }
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return super().find_class(module.replace("numpy.core.", "numpy._core."), name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(path: Path) -> Any:
    """The content of a pickle.

    Args:
        path: The file.

    Returns:
        Lists, dictionaries, texts, numbers, numpy arrays.

    Raises:
        ValueError: It holds anything else (which is not made, so no code runs), or it is damaged.
    """
    with path.open("rb") as file:
        try:
            return _Unpickler(file).load()
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} is no pickle of plain values and numpy arrays: {error}. Other objects could run code, so they "
                "are not read; tensors must be made arrays first, by the program that wrote them."
            ) from error
        except (EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged or no pickle: {error}") from error
