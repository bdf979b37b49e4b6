"""Limits on what a file may ask of this machine: one place that every reader asks, before it allocates or computes.

A file from a stranger can declare a frame of 16,000 x 16,000 pixels in 66 bytes, or a tensor of a gigabyte in a
megabyte of compressed zeros. The defaults are far above what an honest file needs: 8K video, networks from B/16 to
g/14, dumps of 20,000 videos with 400 classes and 12 views. Where one is met the error names it and how to raise it:
``--limit NAME=NUMBER`` on the command line, ``UNIFORMERV2_LIMITS=NAME=NUMBER,...`` in the environment,
``set_limits(name=number)`` in Python.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Final

__all__ = ["ENVIRONMENT_VARIABLE", "Limits", "get_limits", "parse_limits", "set_limits"]

ENVIRONMENT_VARIABLE: Final = "UNIFORMERV2_LIMITS"
"""Where worker processes find what was set; a user may set it too."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may ask for at most.

    Attributes:
        pixels_per_frame: Width times height of a video frame or an image; the default is 8192 x 8192, twice 8K.
        packets_per_file: Packets of all tracks of a container, as its tables declare them; the default is 15 hours of
            30 frames a second with sound.
        bytes_per_request: Decoded pixels that one request keeps at a time: the frames of a training clip at full size,
            the views of a tested video at the network's.
        seconds_per_video: Time to read what is needed of one video; a worker that takes longer is ended.
        checkpoint_bytes: Tensors of a checkpoint, as its header declares them.
        dump_bytes: Values of a dump of scores, once unpacked.
        text_bytes: A list, a configuration or another text file, once unpacked.
        download_bytes: One downloaded file.
        download_seconds: From the request to the last byte of one downloaded file.
        depth: Blocks of a network.
        width: Channels of a network, and rows of a head.
        image_size: Height or width of a network's input, in pixels.
        patches_per_frame: Tokens that a network makes of a frame.
        frames_per_video: Frames of a clip times clips times crops.
    """

    pixels_per_frame: int = 2**26
    packets_per_file: int = 2**22
    bytes_per_request: int = 2**30
    seconds_per_video: int = 60
    checkpoint_bytes: int = 32 * 2**30
    dump_bytes: int = 5 * 2**28
    text_bytes: int = 2**29
    download_bytes: int = 32 * 2**30
    download_seconds: int = 24 * 3600
    depth: int = 256
    width: int = 2**16
    image_size: int = 4096
    patches_per_frame: int = 2**16
    frames_per_video: int = 2**14

    def __post_init__(self) -> None:
        """Check that every limit is a whole number above 0.

        Raises:
            ValueError: One is not.
        """
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"The limit {item.name} must be a whole number of at least 1, got {value!r}.")

    def check(self, name: str, value: int, *, what: str) -> None:
        """Refuse what is above a limit.

        Args:
            name: The limit.
            value: What a file asks for.
            what: Its subject, for the message: "a frame of 16000 x 16000 pixels".

        Raises:
            ValueError: The value is above the limit.

        >>> Limits().check("depth", 10**9, what="a network of 1000000000 blocks")
        Traceback (most recent call last):
            ...
        ValueError: a network of 1000000000 blocks is above the limit depth=256; to allow it: --limit depth=1000000000
        """
        allowed = getattr(self, name)
        if value > allowed:
            raise ValueError(f"{what} is above the limit {name}={allowed}; to allow it: --limit {name}={value}")


_limits: Limits | None = None


def get_limits() -> Limits:
    """The limits in force: those of ``set_limits``, else of the environment, else the defaults.

    Raises:
        ValueError: The environment variable names no limit or no number.
    """
    if _limits is not None:
        return _limits
    return _limits_of(os.environ.get(ENVIRONMENT_VARIABLE, ""))


@cache
def _limits_of(text: str) -> Limits:
    return replace(Limits(), **parse_limits(text))


def parse_limits(text: str) -> dict[str, int]:
    """Limits as they are written on the command line and in the environment.

    Raises:
        ValueError: A word is not NAME=NUMBER, or no limit has this name.

    >>> parse_limits("depth=300,seconds_per_video=600")
    {'depth': 300, 'seconds_per_video': 600}
    """
    names = [item.name for item in fields(Limits)]
    found = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = word.partition("=")
        if name not in names or not number.isdecimal():
            raise ValueError(f"A limit is written NAME=NUMBER, got {word!r}; there are: {', '.join(names)}.")
        found[name] = int(number)
    return found


def set_limits(**changes: int) -> AbstractContextManager[Limits]:
    """Change limits for this process and the processes it starts; in a ``with`` statement until its end.

    Args:
        **changes: Fields of ``Limits``.

    Returns:
        A context manager that puts back what was in force before.

    Raises:
        ValueError: A value that no limit may have.

    Examples:
        >>> with set_limits(seconds_per_video=600) as limits:
        ...     limits.seconds_per_video
        600
    """
    global _limits
    before, before_text = _limits, os.environ.get(ENVIRONMENT_VARIABLE)
    _limits = replace(get_limits(), **changes)
    changed = [f"{item.name}={getattr(_limits, item.name)}" for item in fields(Limits)]
    os.environ[ENVIRONMENT_VARIABLE] = ",".join(changed)
    return _put_back(_limits, before, before_text)


@contextmanager
def _put_back(now: Limits, before: Limits | None, text: str | None) -> Iterator[Limits]:
    global _limits
    try:
        yield now
    finally:
        _limits = before
        if text is None:
            os.environ.pop(ENVIRONMENT_VARIABLE, None)
        else:
            os.environ[ENVIRONMENT_VARIABLE] = text
