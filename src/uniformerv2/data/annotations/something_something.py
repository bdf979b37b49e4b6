"""Something-Something V1 (frame folders, CSV) and V2 (webm, JSON), and Jester, which has the layout of V1.

Goyal et al., "The something something video database", 2017; Materzynska et al., "The Jester Dataset", 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uniformerv2.data.annotations.record import VideoRecord
from uniformerv2.data.annotations.rows import Classes, Row, finish, read_text, split_from_name
from uniformerv2.data.annotations.table import as_entries, csv_rows, read_json
from uniformerv2.data.annotations.text_lists import without_comments

__all__ = [
    "read_jester",
    "read_something_something_v1",
    "read_something_something_v2",
    "semicolon_rows",
    "something_something_v2_rows",
]


def read_something_something_v2(
    path: str | Path,
    *,
    classes: Classes | None = "something_something_v2",
    root: str | Path | None = None,
    split: str | None = None,
    file_name: str = "{id}.webm",
) -> list[VideoRecord]:
    """The official JSON: entries with ``id``, ``label``, ``template``, ``placeholders`` (test: ``id`` alone).

    The class is the template without its square brackets; the caption and the placeholders go to
    `VideoRecord.extra`.

    Args:
        path: For instance ``something-something-v2-validation.json``, plain or ``.gz``.
        classes: Class names in head order, or a label space.
        root: Where the videos lie; the JSON's folder where None.
        split: Keep only these records.
        file_name: Where a video lies under ``root``; ``"{id}"`` for frame folders.
    """
    rows = something_something_v2_rows(path, file_name=file_name)
    return finish(rows, source=path, classes=classes, root=root, split=split)


def read_something_something_v1(
    path: str | Path,
    *,
    classes: Classes | None = "something_something_v1",
    root: str | Path | None = None,
    split: str | None = None,
) -> list[VideoRecord]:
    """The official ``id;label`` CSV (test: ``id`` alone); a video is the folder ``id`` of JPEG frames."""
    return finish(semicolon_rows(path), source=path, classes=classes, root=root, split=split)


def read_jester(
    path: str | Path,
    *,
    classes: Classes | None = "jester",
    root: str | Path | None = None,
    split: str | None = None,
) -> list[VideoRecord]:
    """The official ``id;label`` CSV (test: ``id`` alone); a video is the folder ``id`` of JPEG frames."""
    return finish(semicolon_rows(path), source=path, classes=classes, root=root, split=split)


def something_something_v2_rows(path: str | Path, *, file_name: str = "{id}.webm") -> Iterator[Row]:
    """The rows of a Something-Something V2 JSON."""
    file, split = str(path), split_from_name(path)
    for number, entry in as_entries(read_json(path), file=path, needed="id"):
        template = entry.get("template")
        extra: dict[str, Any] = {key: entry[key] for key in ("label", "placeholders") if key in entry}
        identity = str(entry["id"])
        label = None if template is None else str(template).replace("[", "").replace("]", "")
        yield Row(file, number, file_name.format(id=identity), label, id=identity, split=split, extra=extra or None)


def semicolon_rows(path: str | Path) -> Iterator[Row]:
    """The rows of an ``id;label`` list."""
    file, split = str(path), split_from_name(path)
    for line, cells in csv_rows(without_comments(read_text(path)), file=path, separator=";"):
        row = Row(file, line, cells[0], cells[1] if len(cells) > 1 else None, id=cells[0], split=split)
        if len(cells) > 2:
            raise row.error(f"{len(cells)} cells; 'id;label' is needed.")
        yield row
