"""Words that many messages share: the nearest known name, and the first few of many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final

__all__ = ["did_you_mean", "first_few"]

SHOWN: Final = 10


def did_you_mean(word: object, known: Iterable[object], *, cutoff: float = 0.6) -> str:
    """A question that names the nearest of the known words, after a blank; empty where none is near.

    >>> did_you_mean("uniformr", ["uniformer", "timm"]), did_you_mean("x", ["uniformer"])
    (" Did you mean 'uniformer'?", '')
    """
    near = get_close_matches(str(word), list(map(str, known)), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near else ""


def first_few(names: Sequence[str], *, shown: int = SHOWN) -> str:
    """The first names, and how many more there are.

    >>> first_few(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
