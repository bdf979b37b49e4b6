"""What a long run found, one row per video: a journal that grows while it runs, and a manifest written at the end.

manifest.csv                 the manifest, CSV or Parquet by its suffix; appears when the run is done
.manifest.csv.journal        its rows so far; a stopped run continues from it, see ``core.journal``
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from uniformerv2.core.files import write_text, write_whole
from uniformerv2.core.journal import Journal
from uniformerv2.core.optional import require

__all__ = ["ManifestJournal", "journal_path", "read_manifest", "write_manifest"]

Row = TypeVar("Row")  # a dataclass with fields of type str, int, float and bool, or one of these and None

_SUFFIXES: Final = (".csv", ".parquet")


class ManifestJournal(Generic[Row]):
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
        self.path = journal_path(self.manifest)
        self._journal = Journal(self.path, list(_columns(row_type)))
        self.rows: list[Row] = []
        if resume and self.path.exists():
            if (found := self._journal.found_head()) not in (self._journal.head, None):
                raise ValueError(_other_columns(self.path, found))
            num_columns = len(self._journal.head)
            self.rows = [row_type(*values) for values in self._journal.entries() if len(values) == num_columns]
        elif self.manifest.exists():
            there = read_manifest(self.manifest, row_type)
            self.rows = there if resume else []

    def add(self, row: Row) -> None:
        """Append one row."""
        self._journal.add(_cells(row))

    def finish(self, rows: Sequence[Row]) -> None:
        """Write the manifest and remove the journal."""
        write_manifest(self.manifest, rows)
        self.path.unlink()

    def __enter__(self) -> Self:
        self._journal.restart(map(_cells, self.rows))
        self._journal.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, traceback)


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
        write_text(path, _csv_of_rows(rows, row_type))
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


def _csv_of_rows(rows: Iterable[Row], row_type: type[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_columns(row_type))
    writer.writerows(map(_cells, rows))
    return text.getvalue()


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
