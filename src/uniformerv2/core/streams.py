"""Standard streams that can be written to: closed ones lead nowhere, and no character ends a run."""

from __future__ import annotations

import io
import logging
import os
import sys

from uniformerv2.core.terminal import harmless

__all__ = ["prepare_streams"]


class HarmlessFormatter(logging.Formatter):
    """Log messages without what a terminal would obey: they name files and classes."""

    def format(self, record: logging.LogRecord) -> str:
        """As ``Formatter.format``."""
        return harmless(super().format(record))


def prepare_streams() -> None:
    r"""Open what the caller closed (``>&-``) on the null device, and write what an encoding lacks as ``\u2588``.

    A closed stream would be None, and its number would go to the next file that is opened: messages of a library would
    be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper) and not _writes_anything(stream):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(HarmlessFormatter())


def _writes_anything(stream: io.TextIOWrapper) -> bool:
    """Whether a file name that is not UTF-8 and a character that the encoding lacks can be written."""
    is_unicode = stream.encoding.casefold().replace("-", "") == "utf8"
    return stream.errors != "strict" and (is_unicode or stream.errors != "surrogateescape")
