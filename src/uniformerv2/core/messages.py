"""What messages share: the error of a wrong call, "did you mean", "and 7 more", seconds in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Final

__all__ = [
    *(
        "UsageError",
        "counted",
        "did_you_mean",
        "duration",
        "first_few",
        "pace",
        "seconds_of",
        "time_left",
        "time_range",
    ),
    "usage_errors",
]

SHOWN: Final = 10
QUICKER: Final = 0.85
SLOWER: Final = 1.3
"""How far off an estimate usually is: other programs slow a training down more often than they quicken it."""
COARSE: Final = ((10, 1), (60, 5), (120, 10), (600, 30), (7200, 60))
"""A time left below so many seconds is rounded to so many; a longer one to six minutes."""
ROUND: Final = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


class UsageError(ValueError):
    """What was asked for cannot be done, and nothing was done; the command line ends with exit code 2."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Everything that is refused in this block is a wrong call: what is absent, cannot be used, or does not fit.

    Raises:
        UsageError: In place of a ``ValueError``, ``FileNotFoundError`` or ``ModuleNotFoundError``.
    """
    try:
        yield
    except UsageError:
        raise
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        raise UsageError(str(error)) from error


def did_you_mean(word: object, known: Iterable[object], *, cutoff: float = 0.6) -> str:
    """A question that names the nearest of the known words, after a blank; empty where none is near.

    >>> did_you_mean("uniformr", ["uniformer", "timm"]), did_you_mean("x", ["uniformer"])
    (" Did you mean 'uniformer'?", '')
    """
    near = get_close_matches(str(word), list(map(str, known)), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near else ""


def first_few(names: Sequence[object], *, shown: int = SHOWN, separator: str = ", ") -> str:
    """The first names, and how many more there are.

    A single one more is named too, as its name is hardly longer.

    >>> first_few("abc", shown=2), first_few("abcd", shown=2), first_few("abcd", shown=2, separator="; ")
    ('a, b, c', 'a, b and 2 more', 'a; b; and 2 more')
    """
    if len(names) <= shown + 1:
        return separator.join(map(str, names))
    link = " and" if separator == ", " else f"{separator}and"
    return f"{separator.join(map(str, names[:shown]))}{link} {len(names) - shown} more"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is one.

    >>> counted(1, "training video"), counted(0, "class"), counted(2, "pass of it")
    ('1 training video', '0 classes', '2 passes of it')
    """
    if number == 1:
        return f"{number} {noun}"
    word, blank, rest = noun.partition(" of ")
    return f"{number} {word}{'es' if word.endswith(('s', 'x')) else 's'}{blank}{rest}"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that makes sense.

    >>> duration(42), duration(200), duration(9000)
    ('42 s', '3.3 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def seconds_of(text: str) -> float:
    """What a user calls a time: numbers with h, m or s.

    Raises:
        UsageError: It is none, or is 0.

    >>> seconds_of("30m"), seconds_of("1h30m"), seconds_of("90 s"), seconds_of("1.5h")
    (1800.0, 5400.0, 90.0, 5400.0)
    """
    parts = re.findall(r"\s*(\d+(?:\.\d+)?)\s*([hms])", text)
    seconds = sum(float(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
    if "".join(f"{number}{unit}" for number, unit in parts) != re.sub(r"\s", "", text) or not seconds:
        raise UsageError(f"A time is written 30m, 2h, 1h30m or 90s, got {text!r}.")
    return float(seconds)


def time_left(seconds: float) -> str:
    """What a run will take yet, rounded up, as coarse as such an estimate is.

    >>> time_left(3.2), time_left(42), time_left(86), time_left(200), time_left(9000)
    ('about 4 s left', 'about 45 s left', 'about 90 s left', 'about 3.5 min left', 'about 2.5 h left')
    """
    step = next((step for below, step in COARSE if seconds <= below), 360)
    return f"about {duration(max(1, math.ceil(seconds / step) * step))} left"


def pace(seconds_each: float) -> str:
    """How fast things are done: a rate, or for slow ones the time that each takes.

    >>> pace(0.004), pace(0.5), pace(1.6), pace(24.2)
    ('250 a second', '2.0 a second', '1.6 s each', '24 s each')
    """
    if seconds_each < 1:
        return f"{1 / seconds_each:.{0 if seconds_each < 0.1 else 1}f} a second"
    return f"{seconds_each:.1f} s each" if seconds_each < 10 else f"{duration(seconds_each)} each"


def time_range(seconds: float) -> str:
    """An estimate as far as it can be trusted, rounded outwards.

    >>> time_range(42), time_range(200), time_range(9000)
    ('30 to 60 s', '2.5 to 5 min', '2 to 4 h')
    """
    low, high = QUICKER * seconds, SLOWER * seconds
    size, unit = next(((size, unit) for size, unit in ((3600, "h"), (60, "min")) if high > 2 * size), (1, "s"))
    return f"{_rounded(low / size, up=False):g} to {_rounded(high / size, up=True):g} {unit}"


def _rounded(number: float, *, up: bool) -> float:
    """To the next round number."""
    number = max(number, 1e-3)
    power = 10.0 ** math.floor(math.log10(number))
    if up:
        return power * next(step for step in ROUND if step * power >= number)
    return power * max((step for step in ROUND if step * power <= number), default=1)
