"""Import an optional package, or say which extra brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["require"]


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``, which the extra ``uniformerv2[extra]`` brings.

    Args:
        module: Dotted name, for instance ``"lightning.pytorch"``.
        extra: The extra that installs it.

    Returns:
        The imported module.

    Raises:
        ModuleNotFoundError: The package is not installed; the message gives the command that installs it.

    >>> require("math", extra="train").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        message = f"{top} is needed here: pip install 'uniformerv2[{extra}]'"
        raise ModuleNotFoundError(message, name=error.name) from error
