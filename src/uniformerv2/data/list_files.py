"""Files with a row per video: lists that ``read_records`` reads back to the same records, and manifests of long runs.

train.csv, val.csv, ...      lists, written whole
manifest.csv                 what a run found, CSV or Parquet by its suffix; appears when the run is done
.manifest.csv.journal        its rows so far; a stopped run continues from it, see ``core.journal``
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, Final, Generic, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from uniformerv2.core.files import write_text, write_whole
from uniformerv2.core.journal import Journal
from uniformerv2.core.optional import require
from uniformerv2.data.annotations import VideoRecord, class_names

__all__ = [
    "LIST_NAMES",
    "ManifestJournal",
    "check_lists",
    "csv_text",
    "journal_path",
    "numbered_anew",
    "read_manifest",
    "write_lists",
    "write_manifest",
]

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
    return [record.relabelled([new[number] for number in record.labels]) for record in records]


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
    rows = (
        [
            _relative(record.path, folder),
            _label(record),
            record.id,
            *(getattr(record, name) for name in [*split, *optional]),
            *(record.extra.get(name) for name in extra),
        ]
        for record in records
    )
    return csv_text(["path", "label", "id", *split, *optional, *extra], rows)


def csv_text(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """The text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _relative(path: str, folder: Path) -> str:
    return path if "://" in path else Path(os.path.relpath(path, folder)).as_posix()


def _label(record: VideoRecord) -> str | int | None:
    """Names where there are any: a number could be taken for the name of another class."""
    label = record.label if record.label_name is None else record.label_name
    # A semicolon also after a single one of several-label data, so that it stays a list.
    return ";".join(map(str, label)) + ";" if isinstance(label, tuple) else label


Row = TypeVar("Row")  # a dataclass with fields of type str, int, float and bool, or one of these and None

_SUFFIXES: Final = (".csv", ".parquet")


class ManifestJournal(Journal, Generic[Row]):
    """The rows of a run, safe on disk as soon as they are added. They are written from ``with`` on.

    Args:
        manifest: Where the manifest will be.
        row_type: The dataclass of the rows.
        resume: Start with the rows of a journal that a stopped run left, else of the manifest of a finished one.

    Attributes:
        rows: The rows that it started with.

    Raises:
        ValueError: Another suffix, or the file that is there is no such manifest: it would be replaced.
    """

    def __init__(self, manifest: str | Path, row_type: type[Row], *, resume: bool) -> None:
        self.manifest = _checked(Path(manifest))
        super().__init__(journal_path(self.manifest), list(_columns(row_type)))
        self.rows: list[Row] = []
        if resume and self.path.exists():
            if (found := self.found_head()) not in (self.head, None):
                raise ValueError(_other_columns(self.path, found))
            self.rows = [row_type(*values) for values in self.entries() if len(values) == len(self.head)]
        elif self.manifest.exists():
            there = read_manifest(self.manifest, row_type)
            self.rows = there if resume else []

    def add(self, entry: Row) -> None:
        """Append one row."""
        super().add(_cells(entry))

    def finish(self, rows: Sequence[Row]) -> None:
        """Write the manifest and remove the journal."""
        write_manifest(self.manifest, rows)
        self.path.unlink()

    def __enter__(self) -> Self:
        self.restart(map(_cells, self.rows))
        return super().__enter__()


def journal_path(manifest: Path) -> Path:
    """Where the journal of a manifest is while a run is not done."""
    return manifest.with_name(f".{manifest.name}.journal")


def write_manifest(path: str | Path, rows: Sequence[Row]) -> Path:
    """Write the rows as CSV or Parquet (by the suffix), whole or not at all.

    Raises:
        ValueError: Another suffix, or no rows.
    """
    path = _checked(Path(path))
    if not rows:
        raise ValueError(f"There are no rows to write to {path}.")
    row_type = type(rows[0])
    if path.suffix == ".csv":
        write_text(path, csv_text(_columns(row_type), map(_cells, rows)))
        return path
    arrow = require("pyarrow", extra="tables")
    parquet = require("pyarrow.parquet", extra="tables")
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
    schema = arrow.schema([(name, kinds[kind]) for name, (kind, _) in _columns(row_type).items()])
    values = [dict(zip(schema.names, map(_as_utf8, astuple(row)), strict=True)) for row in rows]  # type: ignore[call-overload]
    table = arrow.Table.from_pylist(values, schema=schema)
    write_whole(path, lambda temporary: parquet.write_table(table, temporary))
    return path


def read_manifest(path: str | Path, row_type: type[Row]) -> list[Row]:
    """The rows of a manifest.

    Raises:
        ValueError: The file has other columns.
    """
    path = _checked(Path(path))
    if path.suffix == ".csv":
        return _rows_of_csv(path, row_type)
    table = require("pyarrow.parquet", extra="tables").read_table(path)
    if table.column_names != list(_columns(row_type)):
        raise ValueError(_other_columns(path, table.column_names))
    return [row_type(**values) for values in table.to_pylist()]


def _checked(path: Path) -> Path:
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"A manifest is called *.csv or *.parquet, not {path.name!r}.")
    if path.suffix == ".parquet":
        require("pyarrow.parquet", extra="tables")  # now, not when a long run is done
    return path


def _columns(row_type: type[Any]) -> dict[str, tuple[type, bool]]:
    """Name -> type, and whether None is allowed; a ``Literal`` is of words."""
    hints = get_type_hints(row_type)
    columns = {}
    for field in fields(row_type):
        hint = hints[field.name]
        kinds = [str] if get_origin(hint) is Literal else get_args(hint) or [hint]
        columns[field.name] = (next(kind for kind in kinds if kind is not type(None)), type(None) in kinds)
    return columns


def _cells(row: Any) -> tuple[Any, ...]:
    return astuple(row)  # the csv module writes None as nothing, and floats so that they read back the same


def _rows_of_csv(path: Path, row_type: type[Row]) -> list[Row]:
    columns = _columns(row_type)
    with path.open(encoding="utf-8", newline="") as file:
        cells = list(csv.reader(file))
    if not cells or cells[0] != list(columns):
        raise ValueError(_other_columns(path, cells[0] if cells else ()))
    return [
        row_type(*(_value(cell, *kind) for cell, kind in zip(row, columns.values(), strict=True)))
        for row in cells[1:]
        if len(row) == len(columns)
    ]


def _other_columns(path: Path, columns: Sequence[str]) -> str:
    found = ", ".join(columns) or "none"
    return f"{path} is no manifest of this kind: its columns are {found}. Name another file, or move this one away."


def _value(cell: str, kind: type, optional: bool) -> Any:
    if optional and not cell:
        return None
    return cell == "True" if kind is bool else kind(cell)


def _as_utf8(value: Any) -> Any:
    """A file name that is not UTF-8 as text that is, the same that the CSV form has."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
