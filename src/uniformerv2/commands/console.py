"""Where the verbs print: as wide as the terminal, or as wide as needed where there is none; and nothing it obeys."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from uniformerv2.core.terminal import harmless

__all__ = ["make_console", "write_line"]


class HarmlessConsole(Console):
    """A console whose colours are ours: sequences in a name, a path or a message are shown, not obeyed."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As ``Console.render_str``, before widths are measured."""
        return super().render_str(harmless(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As ``Console.render``; also what came as ``Text``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


def make_console(*, stderr: bool = False, quiet: bool = False, width: int = 10_000) -> Console:
    """A console that cuts nothing off when its output goes to a file or a pipe.

    Args:
        stderr: Print there instead of stdout.
        quiet: Print nothing.
        width: Columns where there is no terminal.
    """
    console = HarmlessConsole(stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True)
    if console.is_terminal:
        return console
    return HarmlessConsole(stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True, width=width)


def write_line(text: str) -> None:
    """Write a line to stdout at once: who reads a pipe waits for no buffer, and a stopped run leaves whole lines."""
    sys.stdout.write(f"{harmless(text)}\n")
    sys.stdout.flush()
