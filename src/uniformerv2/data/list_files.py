"""Records -> list files that ``read_records`` reads back to the same records."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from uniformerv2.data.annotations import VideoRecord, class_names
from uniformerv2.data.annotations.files import write_whole

__all__ = ["write_lists"]

_SPLITS: Final = ("train", "val", "test")
_OPTIONAL: Final = ("start_seconds", "end_seconds", "start_frame", "end_frame")


def write_lists(records: Sequence[VideoRecord], folder: str | Path) -> list[Path]:
    """Write a list per split, or one ``videos.csv``; and ``classes.txt`` where the classes have names.

    Where every record is of ``train``, ``val`` or ``test``, the lists are ``train.csv`` and so on, and
    ``read_records(folder)`` reads them; else ``read_records(folder / "videos.csv", classes=...)`` with the names of
    ``classes.txt``. Columns are ``path`` (from ``folder``), ``label``, ``id``, and what the records have of segments,
    split and extra columns, whose values come back as text.

    Args:
        records: What a reader returned; at least one.
        folder: The folder to write; made where absent.

    Returns:
        The lists; without ``classes.txt``.

    Raises:
        ValueError: There are no records, or a class name cannot be told from a list of names.
    """
    if not records:
        raise ValueError("There are no records to write a list of.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    named = any(record.label_name is not None for record in records)
    if named:
        names = class_names(records)
        _check_names(names)
        write_whole(folder / "classes.txt", "".join(f"{name}\n" for name in names))
    if all(record.split in _SPLITS for record in records):
        parts = {split: [record for record in records if record.split == split] for split in _SPLITS}
        files = {folder / f"{split}.csv": part for split, part in parts.items() if part}
    else:
        files = {folder / "videos.csv": list(records)}
    return [write_whole(file, _as_csv(part, folder)) for file, part in files.items()]


def _check_names(names: Sequence[str]) -> None:
    wrong = [name for name in names if ";" in name or "\n" in name or name != name.strip() or not name]
    if wrong:
        raise ValueError(f"A list cannot hold the class name {wrong[0]!r}: no ';', no line break, no blanks around it.")


def _as_csv(records: Sequence[VideoRecord], folder: Path) -> str:
    optional = [name for name in _OPTIONAL if any(getattr(record, name) is not None for record in records)]
    extra = list(dict.fromkeys(name for record in records for name in record.extra))
    split = ["split"] if any(record.split not in _SPLITS for record in records) else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "id", *split, *optional, *extra])
    for record in records:
        values: Iterable[Any] = (getattr(record, name) for name in [*split, *optional])
        more = (record.extra.get(name) for name in extra)
        writer.writerow([_relative(record.path, folder), _label(record), record.id, *values, *more])
    return text.getvalue()


def _relative(path: str, folder: Path) -> str:
    return path if "://" in path else Path(os.path.relpath(path, folder)).as_posix()


def _label(record: VideoRecord) -> str | int | None:
    """Names where there are any: a number could be taken for the name of another class."""
    label = record.label if record.label_name is None else record.label_name
    # A semicolon also after a single one of several-label data, so that it stays a list.
    return ";".join(map(str, label)) + ";" if isinstance(label, tuple) else label
