"""Lists of one's own: CSV, TSV and blank-separated text with or without header, JSON lines, Parquet; rawframe lists."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.limits import check_items, check_parquet, get_limits
from uniformerv2.core.optional import require
from uniformerv2.data.annotations.record import AnnotationError
from uniformerv2.data.annotations.rows import Row, is_number, read_text, standard_split
from uniformerv2.data.annotations.text_lists import (
    ROLES,
    find_separator,
    is_header,
    lines_of,
    read_list,
    refuse_unknown_header,
    split_at_blanks,
    whole_lines,
)

__all__ = [
    "csv_rows",
    "json_entries",
    "json_rows",
    "jsonl_rows",
    "parquet_rows",
    "rawframe_rows",
    "read_json",
    "table_rows",
]

_FEW_ROWS: Final = 128
"""Rows of a Parquet table that are unpacked at a time."""


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


def json_entries(path: str | Path, *, needed: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and content of each entry of a JSON list.

    Raises:
        AnnotationError: No list, or an entry that is no object or lacks the key ``needed``.
    """
    value = read_json(path)
    if not isinstance(value, list):
        raise AnnotationError(f"a list of entries is needed; this is a {type(value).__name__}.", file=path)
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict) or needed not in entry:
            raise AnnotationError(f"entry {str(entry)[:60]!r} has no {needed!r}.", file=path, line=number)
        yield number, entry


def json_rows(path: str | Path) -> Iterator[Row]:
    """A JSON list of objects with the keys of a `table_rows` header."""
    for number, entry in json_entries(path, needed="path"):
        yield row_from_columns(entry, file=path, line=number)


def table_rows(path: str | Path, *, separator: str | None = None) -> Iterator[Row]:
    r"""A list of videos in text form: CSV, TSV, or ``path label`` lines as MMAction2 and the official code have them.

    Without a header the first column is the path and the others are labels (several: multi-label); a list of paths
    alone has no labels. A header has a column ``path`` (or ``video``, ``file``, ``filename``) and may have ``label``
    (or ``class``, ``category``, ``action``; several separated by ``;``), ``start_seconds``, ``end_seconds``,
    ``start_frame``, ``end_frame``, ``id``, ``split``; other columns go to `VideoRecord.extra`. A header without a path
    is refused. Lines that begin with ``# `` are comments.

    Args:
        path: The list; ``.gz`` is read as it is.
        separator: ``","``, ``"\t"``, ``";"``, ``" "``; None: found in the first lines.
    """
    text = read_list(path)
    separator = find_separator(text) if separator is None else separator
    listed: Iterator[tuple[int, str, list[str]]]
    if separator == " " and not is_header(text[:1000].strip().partition("\n")[0].split()):
        listed = ((line, *split_at_blanks(content)) for line, content in lines_of(text))
    else:
        cells = csv_rows(text, file=path, separator=separator)
        first = next(cells, None)
        if first is None:
            return
        if is_header(first[1]):
            yield from _rows_below(first[1], cells, file=path, separator=separator)
            return
        listed = ((line, row[0].strip(), row[1:]) for line, row in chain((first,), cells))
    yield from refuse_unknown_header(Row(str(path), line, video, _one_or_all(labels)) for line, video, labels in listed)


def _rows_below(
    header: list[str], cells: Iterator[tuple[int, list[str]]], *, file: str | Path, separator: str
) -> Iterator[Row]:
    """The rows of a list with a header.

    Raises:
        AnnotationError: A line does not fit the header.
    """
    names = [name.strip() for name in header]
    for line, row in cells:
        if len(row) != len(names):
            message = f"{len(row)} columns, but the header has {len(names)}; quote a path that holds {separator!r}."
            raise AnnotationError(message, file=file, line=line)
        columns = dict(zip(names, (cell.strip() for cell in row), strict=True))
        yield row_from_columns(columns, file=file, line=line, several=separator != ";")


def rawframe_rows(path: str | Path) -> Iterator[Row]:
    """An MMAction2 list of frame folders: ``folder frames label...``; the row holds frames 0 to ``frames``.

    Raises:
        AnnotationError: A line without a number of frames.
    """
    for line, content in lines_of(read_list(path)):
        folder, numbers = split_at_blanks(content)
        if not numbers or not is_number(numbers[0]):
            raise AnnotationError(f"{content!r} is not 'folder frames label'.", file=path, line=line)
        yield Row(str(path), line, folder, _one_or_all(numbers[1:]), frames=(0, int(numbers[0])))


def jsonl_rows(path: str | Path) -> Iterator[Row]:
    """JSON lines: one object per line with the keys of a `table_rows` header; ``label`` may be a list.

    Raises:
        AnnotationError: A line that is no JSON object.
    """
    for line, content in lines_of(read_text(path)):
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            message = f"not JSON ({error}); one object per line is needed."
            raise AnnotationError(message, file=path, line=line) from error
        if not isinstance(value, dict):
            raise AnnotationError(f"{content[:60]!r} is no JSON object.", file=path, line=line)
        yield row_from_columns(value, file=path, line=line)


def parquet_rows(path: str | Path) -> Iterator[Row]:
    """Parquet with the columns of a `table_rows` header; ``label`` may be a list. Needs the extra ``tables``.

    Raises:
        AnnotationError: No readable Parquet file.
    """
    arrow = require("pyarrow", extra="tables")
    parquet = require("pyarrow.parquet", extra="tables")
    line = letters = 0
    try:
        with parquet.ParquetFile(path) as table:
            check_parquet(table, limit="text_bytes", columns=table.schema_arrow.names, where=path)
            texts = [field.name for field in table.schema_arrow if arrow.types.is_string(field.type)]
        with parquet.ParquetFile(path, read_dictionary=texts) as table:  # which can repeat one long text without end
            for batch in table.iter_batches(_FEW_ROWS):
                for columns in batch.to_pylist():
                    line += 1
                    letters += sum(len(value) for value in columns.values() if isinstance(value, str))
                    get_limits().check("text_bytes", letters, what=f"{path}: {letters} letters")
                    yield row_from_columns(columns, file=path, line=line)
    except (arrow.ArrowException, OSError) as error:
        raise AnnotationError(f"not a readable Parquet file ({error}).", file=path) from error


def row_from_columns(columns: Mapping[str, Any], *, file: str | Path, line: int, several: bool = True) -> Row:
    """A row from named columns.

    Args:
        columns: Name to value.
        file: The file, named in messages.
        line: The line, named in messages.
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
    row = Row(str(file), line, known["path"], label, id=str(known.get("id", "")), extra=extra or None)
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
    """A whole number, also written ``"5.0"``: a table with gaps makes floats of numbers."""
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
