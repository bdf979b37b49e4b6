"""What the Python processes that we start may import: what this process may, and nothing of the current folder.

Workers are started with ``python -c``, which looks for modules in the current folder first: where that is a folder of
data, a file ``random.py`` or ``grp.py`` in it would be run. ``PYTHONSAFEPATH`` (Python's option ``-P``) prevents it.
Workers then take over the path of the process that started them, so that they find the modules of a user's script.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["SAFE_PATH", "nothing_from_here"]

SAFE_PATH: Final = "PYTHONSAFEPATH"


@contextmanager
def nothing_from_here() -> Iterator[None]:
    """Python processes that are started meanwhile import nothing because it lies in the current folder."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(SAFE_PATH, None)
        else:
            os.environ[SAFE_PATH] = before
