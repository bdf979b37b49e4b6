"""Text from outside, made fit to be shown: no sequences that a terminal obeys, no passwords of addresses."""

from __future__ import annotations

import json
import re
from typing import Final

__all__ = ["harmless", "without_credentials"]

OBEYED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, line separators, and marks that reverse the direction of what follows."""

CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s@'\"]*@")
QUERY: Final = re.compile(r"(https?://[^\s?'\")]*)\?[^\s'\")]*")
"""What follows ``?`` may be a signature, with which anybody can fetch the file."""


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
