"""HTML of the report: small pieces, everything from outside escaped, one page without resources from elsewhere."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

__all__ = [
    "Cell",
    "Column",
    "Section",
    "bar",
    "card",
    "command",
    "counted",
    "data_image",
    "details",
    "figure",
    "filter_box",
    "is_report",
    "json_data",
    "page",
    "paragraph",
    "percent",
    "side_by_side",
    "table",
    "text",
    "tile",
]

MARK: Final = b'<meta name="generator" content="uniformerv2">'
"""Stands in the template: by it our own pages are known."""

MARK_WITHIN: Final = 1000
"""First bytes of a page that hold it."""

SHOWN: Final = 20
"""Most values of a list on a card."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: For links.
        title: Heading, plain text.
        body: HTML.
    """

    id: str
    title: str
    body: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        html: What it shows.
        value: What a number sorts by; NaN comes last either way. None sorts by the text.
    """

    html: str
    value: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Plain text.
        is_number: Right-aligned.
        is_largest_first: The first click sorts downwards.
        is_sorted: The rows come in its order, upwards.
    """

    title: str
    is_number: bool = False
    is_largest_first: bool = False
    is_sorted: bool = False


def page(*, title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page.

    Args:
        title: Plain text.
        subtitle: Plain text.
        sections: From top to bottom.
        footer: HTML.
    """
    template = Template(files("uniformerv2.evaluation").joinpath("report_page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=text(title),
        subtitle=text(subtitle),
        contents="".join(f'<li><a href="#{part.id}">{escape(part.title)}</a></li>' for part in sections),
        sections="\n".join(
            f'<section id="{part.id}" aria-labelledby="{part.id}-title">'
            f'<h2 id="{part.id}-title">{escape(part.title)}</h2>\n{part.body}\n</section>'
            for part in sections
        ),
        footer=footer,
    )


def is_report(path: Path) -> bool:
    """Whether a file is a page that ``page`` made."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK in file.read(MARK_WITHIN)


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def figure(svg: str, *, alt: str, caption: str, max_width: int, id: str = "", after: str = "") -> str:
    """A drawing with its caption.

    Args:
        svg: From ``save_figure``.
        alt: What it shows, for those who do not see it.
        caption: How to read it, plain text.
        max_width: CSS pixels.
        id: Of the element.
        after: HTML under the drawing.
    """
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{text(alt)}" style="max-width: {max_width}px" ', 1)
    mark = f' id="{id}"' if id else ""
    return f"<figure{mark}>{svg}{after}<figcaption>{escape(caption)}</figcaption></figure>"


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    *,
    caption: str,
    id: str = "",
    is_sortable: bool = False,
) -> str:
    """A table; the first cell of a row is its heading. A sortable one scrolls in a box of its own."""
    head = "".join(_heading(column, is_sortable=is_sortable) for column in columns)
    body = "\n".join("<tr>" + "".join(map(_cell, columns, row, range(len(columns)))) + "</tr>" for row in rows)
    content = f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody>"
    mark = f' id="{id}"' if id else ""
    if not is_sortable:
        return f'<div class="wide"><table{mark}><caption>{escape(caption)}</caption>{content}</table></div>'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table{mark} class="sortable">{content}</table></div>'
    )


def tile(title: str, value: float, low: float, high: float) -> str:
    """A headline number, 0 to 1, with its interval (NaN where there is none)."""
    scale, told = "", ""
    if not math.isnan(low):
        scale = (
            f'<div class="range-bar" aria-hidden="true"><i style="left: {100 * low:.2f}%; '
            f'width: {100 * (high - low):.2f}%"></i><b style="left: {100 * value:.2f}%"></b></div>'
        )
        told = f'<div class="range">95 % interval {percent(low)} – {percent(high)}</div>'
    return (
        f'<div class="tile"><dt>{escape(title)}</dt><dd><div class="value">{percent(value)}</div>{scale}{told}</dd>'
        "</div>"
    )


def filter_box(table_id: str) -> str:
    """A field that hides the rows of a table that do not hold what is typed."""
    return (
        f'<div class="filter"><label for="{table_id}-filter">Show rows with</label>'
        f'<input id="{table_id}-filter" type="search" data-filters="{table_id}" autocomplete="off"></div>'
    )


def side_by_side(parts: Iterable[str]) -> str:
    """HTML in columns where the page is wide enough."""
    return '<div class="columns">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"


def text(value: str) -> str:
    """Plain text as HTML; control characters, which HTML forbids, become spaces."""
    return escape("".join(letter if letter.isprintable() else " " for letter in value))


def details(summary: str, html: str) -> str:
    """HTML that is folded away."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def bar(part: float, *, kind: str = "bar") -> str:
    """A bar of 0 to 1, for the eye only."""
    width = 0.0 if math.isnan(part) else 100 * min(max(part, 0.0), 1.0)
    return f'<span class="{kind}" aria-hidden="true"><i style="width: {width:.1f}%"></i></span>'


def card(values: Mapping[str, Any]) -> str:
    """Names and plain values; mappings inside become lists of their own."""
    rows = "".join(f"<dt>{escape(_words(name))}</dt><dd>{_value(value)}</dd>" for name, value in values.items())
    return f'<dl class="card">{rows}</dl>'


def command(text: str) -> str:
    """A command with a button that copies it."""
    return f'<div class="command"><pre><code>{escape(text)}</code></pre><button type="button">Copy</button></div>'


def data_image(jpeg: bytes, size: tuple[int, int], *, alt: str) -> str:
    """A JPEG inside the page."""
    content = base64.b64encode(jpeg).decode()
    width, height = size
    return (
        f'<img src="data:image/jpeg;base64,{content}" alt="{text(alt)}" width="{width}" height="{height}" '
        'loading="lazy">'
    )


def json_data(id: str, content: Any) -> str:
    """Plain values for the page's script; no text in them can end the element."""
    plain = json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{id}">{plain}</script>'


def counted(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> counted(1, "video"), counted(1200, "video")
    ('1 video', '1,200 videos')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(value: float, *, digits: int = 1) -> str:
    """A part of 1 as percent, a dash for NaN.

    >>> percent(0.875).split()
    ['87.5', '%']
    """
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}\u00a0%"


def _heading(column: Column, *, is_sortable: bool) -> str:
    kind = ' class="number"' if column.is_number else ""
    title = escape(column.title)
    if not is_sortable:
        return f'<th scope="col"{kind}>{title}</th>'
    first = ' data-first="descending"' if column.is_largest_first else ""
    first += ' aria-sort="ascending"' if column.is_sorted else ""
    return f'<th scope="col"{kind}{first}><button type="button">{title}</button></th>'


def _cell(column: Column, cell: Cell, place: int) -> str:
    kind = ' class="number"' if column.is_number else ""
    value = "" if cell.value is None else f' data-value="{cell.value:.6g}"'
    name, scope = ("td", "") if place else ("th", ' scope="row"')
    return f"<{name}{scope}{kind}{value}>{cell.html}</{name}>"


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return card(value)
    if isinstance(value, list | tuple):
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return text(", ".join(map(str, value[:SHOWN])) + more)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return text(f"{value:.6g}" if isinstance(value, float) else str(value))
