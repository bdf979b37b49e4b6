"""Files of the report's figures: each as PNG and SVG, and as SVG for inside a page.

In the SVG inside the page the page's own colours (light or dark) take the place of those here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from uniformerv2.core.files import write_bytes
from uniformerv2.core.optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "MUTED", "RED", "FigureFolder", "FigureName"]

FigureName = Literal["training", "confusion", "confusion_worst", "calibration", "views", "duration"]

_NAMES: Final = get_args(FigureName)
"""Of all figures a report may have."""

_SUFFIXES: Final = ("png", "svg")

INK, MUTED, LINE, PAPER = "#1b1f24", "#5c6670", "#d3d9df", "#fefefe"
BLUE, GREEN, RED = "#0072b2", "#009e73", "#d55e00"
_PAGE_COLOURS: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    BLUE: "var(--accent)",
    GREEN: "var(--right)",
    RED: "var(--wrong)",
}

_STYLE: Final[Mapping[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "savefig.dpi": 160,
}


@dataclass(frozen=True)
class FigureFolder:
    """Where the figures of a report are written.

    Attributes:
        path: Is there.
    """

    path: Path

    def clear(self) -> None:
        """Remove the figures of an older report, which may have had more of them."""
        for name in _NAMES:
            for suffix in _SUFFIXES:
                (self.path / f"{name}.{suffix}").unlink(missing_ok=True)

    def is_alone(self) -> bool:
        """Whether the folder is there, with nothing in it but figures of a report."""
        own = {f"{name}.{suffix}" for name in _NAMES for suffix in _SUFFIXES}
        return self.path.is_dir() and own.issuperset(entry.name for entry in self.path.iterdir())

    def save(self, name: FigureName, draw: Callable[..., Figure], *arguments: Any) -> str:
        """Draw, and write ``name.svg`` and ``name.png``.

        Args:
            name: Without suffix; the ids inside the SVG start with it.
            draw: Makes the figure; called in the report's style.
            *arguments: For ``draw``.

        Returns:
            The SVG for inside a page, with the page's colours and type.
        """
        matplotlib = require("matplotlib", extra="plot")
        files: dict[str, bytes] = {}
        with warnings.catch_warnings(), matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has it
            figure = draw(*arguments)
            for suffix in _SUFFIXES:
                drawn = BytesIO()
                metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if suffix == "svg" else None
                figure.savefig(drawn, format=suffix, metadata=metadata)
                files[suffix] = drawn.getvalue()
        for suffix, content in files.items():
            write_bytes(self.path / f"{name}.{suffix}", content)
        return _for_page(files["svg"].decode(), name)


def _for_page(svg: str, name: str) -> str:
    """The bare ``<svg>``: ids of its own, no addresses, colours and type of the page."""
    _, _, svg = svg.partition("<svg")
    opening, _, rest = svg.partition(">")
    box = re.search(r'viewBox="[^"]*"', opening)
    svg = f"<svg {box.group() if box else ''}>{rest}"
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for colour, variable in _PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"'DejaVu Sans'[^;\"<]*", "var(--sans)", svg)
