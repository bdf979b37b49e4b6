"""What was found as one page that needs no network: a picture of each video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from uniformerv2.core.files import write_bytes
from uniformerv2.data.clips import ClipReader
from uniformerv2.evaluation.page import page_environment
from uniformerv2.inference.features.index import Neighbour
from uniformerv2.inference.features.search import SearchResult
from uniformerv2.inference.strips import inline_picture, path_below, thumbnails
from uniformerv2.inference.timelines.files import clock

__all__ = ["write_search_page"]

HEIGHT: Final = 150
"""Of a picture in pixels."""
ASSUMED_FPS: Final = 25.0
"""Of folders of frames: only which frame is shown depends on it."""


@dataclass(frozen=True)
class Card:
    """A video of the page.

    Attributes:
        name: The file without folders.
        found: What is known of it; None for the query.
        picture: An address that holds it; empty where there is none.
        link: Relative address of the video; empty where the page may not lead there.
    """

    name: str
    found: Neighbour | None
    picture: str = ""
    link: str = ""


def write_search_page(
    path: Path, results: Sequence[SearchResult], *, reader: ClipReader, root: str | Path, model: str
) -> int:
    """Write the page, whole or not at all.

    Args:
        path: The file; videos are named relative to its folder.
        results: At least one.
        reader: Decodes the pictures.
        root: Only videos below this folder are opened: an index may name any file of this machine.
        model: What to call the model.

    Returns:
        How many neighbours have no picture.
    """
    pairs = [(result, _query(result, path, reader), _cards(result, path, reader, root)) for result in results]
    environment = page_environment("uniformerv2.inference.features")
    environment.filters["clock"] = lambda seconds: clock(seconds)[: -len("00")].removeprefix("00:")
    html = environment.get_template("search.html").render(pairs=pairs, model=model).lstrip()
    write_bytes(path, html.encode("utf-8", errors="replace"))
    return sum(not card.picture for _, _, cards in pairs for card in cards)


def _query(result: SearchResult, page: Path, reader: ClipReader) -> Card:
    picture = _picture(result.query, (result.duration_seconds or 0.0) / 2, reader)
    return Card(Path(result.query).name, None, picture, _link(result.query, page, 0.0))


def _cards(result: SearchResult, page: Path, reader: ClipReader, root: str | Path) -> list[Card]:
    cards = []
    for found in result.neighbours:
        name, start = Path(found.video).name, found.start_seconds or 0.0
        video = path_below(found.video, root)
        if video is None:
            cards.append(Card(name, found))
            continue
        middle = (start + (start if found.end_seconds is None else found.end_seconds)) / 2
        cards.append(Card(name, found, _picture(video, middle, reader), _link(video, page, start)))
    return cards


def _picture(video: str, seconds: float, reader: ClipReader) -> str:
    (picture,) = thumbnails(video, [seconds], height=HEIGHT, reader=reader, fps=ASSUMED_FPS)
    return inline_picture(picture) if picture else ""


def _link(video: str, page: Path, start: float) -> str:
    address = quote(os.path.relpath(video, page.parent).replace(os.sep, "/"))
    return f"{address}#t={start:.1f}" if start else address
