"""Records -> list files that ``read_records`` reads back to the same records."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.files import write_text
from uniformerv2.data.annotations import VideoRecord, class_names

__all__ = ["LIST_NAMES", "check_lists", "numbered_anew", "write_lists"]

LIST_NAMES: Final = ("train.csv", "val.csv", "test.csv", "videos.csv", "classes.txt")
"""What ``write_lists`` may write."""

_WRITTEN: Final = ".written_lists"
"""The SHA-256 of each list that was written into this folder, one a line: no other file is replaced."""
_SPLITS: Final = ("train", "val", "test")
_OPTIONAL: Final = ("start_seconds", "end_seconds", "start_frame", "end_frame")


def write_lists(records: Sequence[VideoRecord], folder: str | Path) -> list[Path]:
    """Write a list per split, or one ``videos.csv``; and ``classes.txt`` where the classes have names.

    Where every record is of ``train``, ``val`` or ``test``, the lists are ``train.csv`` and so on, and
    ``read_records(folder)`` reads them; else ``read_records(folder / "videos.csv", classes=...)`` with the names of
    ``classes.txt``. Columns are ``path`` (from ``folder``), ``label``, ``id``, and what the records have of segments,
    split and extra columns, whose values come back as text. What was written before and is not now is removed.

    Args:
        records: What a reader returned; at least one.
        folder: The folder to write; made where absent.

    Returns:
        The lists; without ``classes.txt``.

    Raises:
        ValueError: What ``check_lists`` refuses.
    """
    folder = Path(folder)
    check_lists(records, folder)
    if all(record.split in _SPLITS for record in records):
        parts = {split: [record for record in records if record.split == split] for split in _SPLITS}
        texts = {f"{split}.csv": _as_csv(part, folder) for split, part in parts.items() if part}
    else:
        texts = {"videos.csv": _as_csv(records, folder)}
    lists = list(texts)
    if _is_named(records):
        texts["classes.txt"] = "".join(f"{name}\n" for name in class_names(records))
    folder.mkdir(parents=True, exist_ok=True)
    written = _written(folder) | {_digest(text.encode("utf-8", "backslashreplace")) for text in texts.values()}
    write_text(folder / _WRITTEN, "".join(f"{digest}\n" for digest in sorted(written)))
    for name in LIST_NAMES:
        if name not in texts:
            (folder / name).unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in lists]


def check_lists(records: Sequence[VideoRecord], folder: str | Path) -> None:
    """Whether ``write_lists`` will write these records; asked before long work.

    Raises:
        ValueError: There are no records, a class name cannot be told from a list of names, or the folder holds a list
            that ``write_lists`` did not write, or that was changed since.
    """
    if not records:
        raise ValueError("There are no records to write a list of.")
    names = class_names(records) if _is_named(records) else ()
    wrong = [name for name in names if ";" in name or "\n" in name or name != name.strip() or not name]
    if wrong:
        raise ValueError(f"A list cannot hold the class name {wrong[0]!r}: no ';', no line break, no blanks around it.")
    written = _written(Path(folder))
    for file in (Path(folder, name) for name in LIST_NAMES):
        if file.exists() and (file.is_dir() or _digest(file.read_bytes()) not in written):
            raise ValueError(
                f"{file} is no list that was written here before, or was changed since: move it away, or choose "
                "another folder."
            )


def numbered_anew(records: Sequence[VideoRecord]) -> list[VideoRecord]:
    """The records with classes 0, 1, 2 ... in the order of their numbers; as they are where the classes have no names.

    A class that no record has any more would leave a number without a name.
    """
    if not _is_named(records):
        return list(records)
    numbers = sorted({number for record in records for number in record.labels})
    new = {number: place for place, number in enumerate(numbers)}

    def label(record: VideoRecord) -> int | tuple[int, ...] | None:
        found = tuple(new[number] for number in record.labels)
        return found if isinstance(record.label, tuple) else next(iter(found), None)

    return [replace(record, label=label(record)) for record in records]


def _is_named(records: Iterable[VideoRecord]) -> bool:
    return any(record.label_name is not None for record in records)


def _written(folder: Path) -> set[str]:
    file = folder / _WRITTEN
    return set(file.read_text(encoding="utf-8").split()) if file.exists() else set()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
