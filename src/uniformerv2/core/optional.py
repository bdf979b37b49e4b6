"""Import an optional package, or say which extra brings it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

__all__ = ["check_installed", "require"]


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
        raise ModuleNotFoundError(_advice(top, extra), name=error.name) from error


def check_installed(*packages: str, extra: str) -> None:
    """Find out whether packages of an extra are there, before anything that takes seconds; imports none of them.

    Args:
        packages: Top-level names.
        extra: The extra that installs them.

    Raises:
        ModuleNotFoundError: One is not installed; the message gives the command that installs it.

    >>> check_installed("math", "json", extra="train")
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(_advice(package, extra), name=package)


def _advice(package: str, extra: str) -> str:
    install = f"pip install 'uniformerv2[{extra}]', or in a clone: pip install -c constraints.txt '.[{extra}]'"
    return f"{package} is needed here: {install}"
