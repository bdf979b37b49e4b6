"""Where the verbs print: as wide as the terminal, or as wide as needed where there is none."""

from __future__ import annotations

import sys

from rich.console import Console

__all__ = ["make_console", "write_line"]


def make_console() -> Console:
    """A console that cuts nothing off when its output goes to a file or a pipe."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=10_000)


def write_line(text: str) -> None:
    """Write a line to stdout at once: who reads a pipe waits for no buffer, and a stopped run leaves whole lines."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
