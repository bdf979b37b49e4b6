"""Text from outside, made fit to be shown: no sequences that a terminal obeys, no passwords of addresses."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from typing import Final
from urllib.parse import unquote

__all__ = ["harmless", "harmless_address", "prepare_streams", "without_credentials"]

OBEYED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, line separators, and marks that reverse the direction of what follows."""

CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s'\"]*@")
QUERY: Final = re.compile(r"([a-z]+://[^\s?'\")]*)\?[^\s'\")]*", re.IGNORECASE)
"""What follows ``?`` may be a signature, with which anybody can fetch the file."""
SECRETS: Final = re.compile(
    r"((?:user(?:name)?|login|pass(?:word|wd)?|pwd|token|\w*key|auth|secret|sig(?:nature)?)=)[^/;&,\s]*", re.IGNORECASE
)
"""Cameras take user and password in the path: ``/user=admin_password=1234_channel=1.sdp``; all of that goes."""
ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#;]*)([^?#]*)([?#]?)(.*)", re.IGNORECASE | re.DOTALL)
HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@\[\]]*)(:\d+)?", re.IGNORECASE)


def harmless(text: str) -> str:
    r"""Text as it is, with what a terminal would obey written out as JSON writes it.

    A name of a class or a file may hold a sequence that clears the screen, changes the title, or hides what follows.
    A line of JSON stays the same value.

    >>> print(harmless("run\x1b[2J, jump"), harmless("ü fine"))
    run\u001b[2J, jump ü fine
    """
    return OBEYED.sub(lambda found: json.dumps(found[0])[1:-1], text)


def without_credentials(text: str) -> str:
    """Text with addresses that hold no user, no password and no query.

    >>> without_credentials("https://me:secret@a.org/x?key=1 failed")
    'https://a.org/x?... failed'
    """
    return QUERY.sub(r"\1?...", CREDENTIALS.sub("", text))


def harmless_address(address: str) -> str:
    """An address of a camera or a server as it may be shown: no user, no password, no token, nothing of a query.

    What is written with percent signs is read first, as a server does. Where it is not clear what is the host and what
    a password, neither is shown.

    >>> harmless_address("rtsp://me:p@ss@10.0.0.7:554/ch1?token=abc")
    'rtsp://10.0.0.7:554/ch1?...'
    >>> harmless_address("rtsp://cam/user=me_password=x_channel=1.sdp"), harmless_address("rtsp://me:p/ss@cam/ch1")
    ('rtsp://cam/user=...', 'rtsp://...')
    """
    found = ADDRESS.match(unquote(unquote(address)))
    if found is None:
        return harmless(address)
    scheme, authority, path, more, query = found.groups()
    host = authority.rpartition("@")[2]
    if not HOST.fullmatch(host) or "@" in path + query:
        return f"{scheme}://..."
    shown = SECRETS.sub(r"\1...", path) + (f"{more}..." if more else "")
    return harmless(f"{scheme}://{host}{shown}")


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
