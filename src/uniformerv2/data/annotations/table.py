"""Lists of one's own: CSV, TSV and blank-separated text with or without header, JSON lines, Parquet; rawframe lists."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.declared import check_items, check_parquet
from uniformerv2.core.limits import get_limits
from uniformerv2.core.optional import require
from uniformerv2.data.annotations.record import AnnotationError, VideoRecord
from uniformerv2.data.annotations.rows import (
    Classes,
    Row,
    finish,
    is_number,
    read_text,
    split_from_name,
    standard_split,
)
from uniformerv2.data.annotations.text_lists import (
    ROLES,
    find_separator,
    is_header,
    lines_of,
    refuse_unknown_header,
    split_at_blanks,
    whole_lines,
    without_comments,
)

__all__ = [
    "as_entries",
    "jsonl_rows",
    "parquet_rows",
    "rawframe_rows",
    "read_json",
    "read_jsonl",
    "read_parquet",
    "read_rawframe_list",
    "read_table",
    "row_from_columns",
    "table_rows",
]


def read_json(path: str | Path) -> Any:
    """The value of a JSON file, plain or ``.gz``.

    Raises:
        AnnotationError: Not UTF-8, or not JSON; with the line.
    """
    text = read_text(path)
    try:
        check_items(text, where="it")
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(f"not JSON ({error.msg}).", file=path, line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"not an annotation file ({error}).", file=path) from error


def as_entries(value: Any, *, file: str | Path, needed: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and content of each entry of a JSON list.

    Raises:
        AnnotationError: No list, or an entry that is no object or lacks the key ``needed``.
    """
    if not isinstance(value, list):
        raise AnnotationError(f"a list of entries is needed; this is a {type(value).__name__}.", file=file)
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict) or needed not in entry:
            raise AnnotationError(f"entry {str(entry)[:60]!r} has no {needed!r}.", file=file, line=number)
        yield number, entry


_FEW_ROWS: Final = 128
"""Rows of a Parquet table that are unpacked at a time."""


def read_table(
    path: str | Path,
    *,
    classes: Classes | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    separator: str | None = None,
) -> list[VideoRecord]:
    r"""A list of videos in text form: CSV, TSV, or ``path label`` lines as MMAction2 and the official code have them.

    Without a header the first column is the path and the others are labels (several: multi-label); a list of paths
    alone has no labels. A header has a column ``path`` (or ``video``, ``file``, ``filename``) and may have ``label``
    (or ``class``, ``category``, ``action``; several separated by ``;``), ``start_seconds``, ``end_seconds``,
    ``start_frame``, ``end_frame``, ``id``, ``split``; other columns go to `VideoRecord.extra`. A header without a path
    is refused. Lines that begin with ``# `` are comments.

    Args:
        path: The list; ``.gz`` is read as it is.
        classes: Name of a label space, or the class names in head order.
        root: Where relative paths start; the list's own folder where None.
        split: Keep only these records.
        separator: ``","``, ``"\t"``, ``";"``, ``" "``; None: found in the first lines.
    """
    return finish(table_rows(path, separator=separator), source=path, classes=classes, root=root, split=split)


def read_rawframe_list(
    path: str | Path,
    *,
    classes: Classes | None = None,
    root: str | Path | None = None,
    split: str | None = None,
) -> list[VideoRecord]:
    """An MMAction2 list of frame folders: ``folder frames label...``; the record holds frames 0 to ``frames``."""
    return finish(rawframe_rows(path), source=path, classes=classes, root=root, split=split)


def read_jsonl(
    path: str | Path,
    *,
    classes: Classes | None = None,
    root: str | Path | None = None,
    split: str | None = None,
) -> list[VideoRecord]:
    """JSON lines: one object per line with the keys of a `read_table` header; ``label`` may be a list."""
    return finish(jsonl_rows(path), source=path, classes=classes, root=root, split=split)


def read_parquet(
    path: str | Path,
    *,
    classes: Classes | None = None,
    root: str | Path | None = None,
    split: str | None = None,
) -> list[VideoRecord]:
    """Parquet with the columns of a `read_table` header; ``label`` may be a list. Needs the extra ``tables``."""
    return finish(parquet_rows(path), source=path, classes=classes, root=root, split=split)


def table_rows(path: str | Path, *, separator: str | None = None) -> Iterator[Row]:
    """The rows of a text list, as `read_table` tells.

    Raises:
        AnnotationError: Broken quotes, or a line that does not fit the header.
    """
    text = without_comments(read_text(path))
    if separator is None:
        separator = find_separator(text)
    file, split = str(path), split_from_name(path)
    if separator == " " and not is_header(text[:1000].strip().partition("\n")[0].split()):
        rows = (
            Row(file, line, listed, _one_or_all(labels), split=split)
            for line, (listed, labels) in ((line, split_at_blanks(content)) for line, content in lines_of(text))
        )
        yield from refuse_unknown_header(rows)
        return
    cells = csv_rows(text, file=path, separator=separator)
    first = next(cells, None)
    if first is None:
        return
    if not is_header(first[1]):
        rows = (
            Row(file, line, row[0].strip(), _one_or_all(row[1:]), split=split) for line, row in chain((first,), cells)
        )
        yield from refuse_unknown_header(rows)
        return
    header = [cell.strip() for cell in first[1]]
    for line, row in cells:
        if len(row) != len(header):
            raise AnnotationError(
                f"{len(row)} columns, but the header has {len(header)}; quote a path that holds {separator!r}.",
                file=path,
                line=line,
            )
        columns = dict(zip(header, (cell.strip() for cell in row), strict=True))
        yield row_from_columns(columns, file=file, line=line, split=split, several=separator != ";")


def rawframe_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a list of frame folders, as `read_rawframe_list` tells.

    Raises:
        AnnotationError: A line without a number of frames.
    """
    file, split = str(path), split_from_name(path)
    for line, content in lines_of(without_comments(read_text(path))):
        folder, numbers = split_at_blanks(content)
        if not numbers or not is_number(numbers[0]):
            raise AnnotationError(f"{content!r} is not 'folder frames label'.", file=path, line=line)
        yield Row(file, line, folder, _one_or_all(numbers[1:]), split=split, frames=(0, int(numbers[0])))


def jsonl_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a JSON lines file.

    Raises:
        AnnotationError: A line that is no JSON object.
    """
    file, split = str(path), split_from_name(path)
    for line, content in lines_of(read_text(path)):
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise AnnotationError(
                f"not JSON ({error}); one object per line is needed.", file=path, line=line
            ) from error
        if not isinstance(value, dict):
            raise AnnotationError(f"{content[:60]!r} is no JSON object.", file=path, line=line)
        yield row_from_columns(value, file=file, line=line, split=split)


def parquet_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a Parquet table, read in batches.

    Raises:
        AnnotationError: No readable Parquet file.
    """
    arrow = require("pyarrow", extra="tables")
    parquet = require("pyarrow.parquet", extra="tables")
    file, split, line = str(path), split_from_name(path), 0
    try:
        with parquet.ParquetFile(path) as table:
            check_parquet(table, limit="text_bytes", columns=table.schema_arrow.names, where=path)
            texts = [field.name for field in table.schema_arrow if arrow.types.is_string(field.type)]
        letters = 0
        with parquet.ParquetFile(path, read_dictionary=texts) as table:  # which can repeat one long text without end
            for batch in table.iter_batches(_FEW_ROWS):
                for columns in batch.to_pylist():
                    line += 1
                    letters += sum(len(value) for value in columns.values() if isinstance(value, str))
                    get_limits().check("text_bytes", letters, what=f"{path}: {letters} letters")
                    yield row_from_columns(columns, file=file, line=line, split=split)
    except (arrow.ArrowException, OSError) as error:
        raise AnnotationError(f"not a readable Parquet file ({error}).", file=path) from error


def row_from_columns(
    columns: Mapping[str, Any], *, file: str, line: int, split: str | None = None, several: bool = True
) -> Row:
    """A row from named columns.

    Args:
        columns: Name to value.
        file: For messages.
        line: For messages.
        split: The split where no column says it.
        several: Whether ``;`` separates several labels in one text.

    Raises:
        AnnotationError: No column holds a path, or a time or frame is no number.
    """
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in columns.items():
        role = ROLES.get(name.strip().casefold())
        if role is None or role in known:
            extra[name] = value
        elif value is not None and value != "":
            known[role] = value
    if not isinstance(known.get("path"), str):
        message = f"no path; the columns are {', '.join(map(repr, columns))}, and one called 'path' is needed."
        raise AnnotationError(message, file=file, line=line)
    label = known.get("label")
    if several and isinstance(label, str) and ";" in label:
        label = [part for part in label.split(";") if part.strip()]
    row = Row(file, line, known["path"], label, id=str(known.get("id", "")), split=split, extra=extra or None)
    if "split" in known:
        row.split = standard_split(str(known["split"]))
    row.seconds = _seconds(row, known, "start_seconds"), _seconds(row, known, "end_seconds")
    row.frames = _frame(row, known, "start_frame"), _frame(row, known, "end_frame")
    return row


def _seconds(row: Row, known: Mapping[str, Any], name: str) -> float | None:
    value = known.get(name)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise row.error(f"{name} is {value!r}; a number is needed.") from error


def _frame(row: Row, known: Mapping[str, Any], name: str) -> int | None:
    """Also from ``"5.0"``: a table with gaps makes floats of numbers."""
    number = _seconds(row, known, name)
    if number is None or number.is_integer():
        return None if number is None else int(number)
    raise row.error(f"{name} is {known[name]!r}; a whole number is needed.")


def csv_rows(text: str, *, file: str | Path, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not blank.

    Raises:
        AnnotationError: A quote that never ends, or text after a closing quote.
    """
    skips = separator == ","  # a quote after a blank is a quote
    reader = csv.reader(whole_lines(text), delimiter=separator, skipinitialspace=skips, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise AnnotationError(f"broken quotes ({error}).", file=file, line=line) from error


def _one_or_all(labels: list[str]) -> str | list[str] | None:
    labels = [label for label in labels if label.strip()]
    return labels if len(labels) > 1 else next(iter(labels), None)
