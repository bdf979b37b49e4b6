"""How all figures look (reports, ablations, benchmarks), and how one is written to files and into a page.

Colours are Okabe and Ito's, which colour-blind readers tell apart. In the SVG inside a page, the page's own colours
(light or dark) replace them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.core.files import write_bytes
from uniformerv2.core.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "INK", "MUTED", "RED", "SUFFIXES", "Drawing", "figure_style", "new_axes", "save_figure"]

SUFFIXES: Final = ("png", "svg")

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


@contextmanager
def figure_style(salt: str = "") -> Iterator[None]:
    """Figures that are drawn and saved meanwhile look alike.

    Args:
        salt: What the ids inside an SVG are made from, so that the same figure is the same file.
    """
    with warnings.catch_warnings(), require("matplotlib", extra="plot").rc_context({**_STYLE, "svg.hashsalt": salt}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has it
        yield


def new_axes(
    width: float, height: float, *, rows: int = 1, columns: int = 1, ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row.

    Args:
        width: Inches.
        height: Inches.
        rows: Axes below each other.
        columns: Axes side by side.
        ratios: Heights of the rows.
    """
    figure = require("matplotlib.figure", extra="plot").Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=ratios)
    return figure, list(axes.flat)


@dataclass(frozen=True)
class Drawing:
    """A figure for inside a page.

    Attributes:
        view_box: The attribute of the ``<svg>`` element.
        body: What the element holds, with the page's colours and type.
    """

    view_box: str
    body: str


def save_figure(folder: Path, name: str, draw: Callable[..., Figure], *arguments: Any) -> Drawing:
    """Draw, and write ``name.svg`` and ``name.png``.

    Args:
        folder: Is there.
        name: Without suffix; the ids inside the SVG start with it.
        draw: Makes the figure; called in the common style.
        *arguments: For ``draw``.
    """
    files: dict[str, bytes] = {}
    with figure_style(name):
        figure = draw(*arguments)
        for suffix in SUFFIXES:
            drawn = BytesIO()
            metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if suffix == "svg" else None
            figure.savefig(drawn, format=suffix, metadata=metadata)
            files[suffix] = drawn.getvalue()
    for suffix, content in files.items():
        write_bytes(folder / f"{name}.{suffix}", content)
    return _for_page(files["svg"].decode(), name)


def _for_page(svg: str, name: str) -> Drawing:
    """What the ``<svg>`` holds, with ids of its own, no addresses, and the colours and type of the page."""
    opening, _, body = svg.partition("<svg")[2].partition(">")
    box = re.search(r'viewBox="([^"]*)"', opening)
    body = re.sub(r'\bid="', f'id="{name}-', body.rpartition("</svg>")[0])
    body = body.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for colour, variable in _PAGE_COLOURS.items():
        body = body.replace(colour, variable)
    return Drawing(box[1] if box else "0 0 1 1", re.sub(r"'DejaVu Sans'[^;\"<]*", "var(--sans)", body))
