"""Lists of one's own: CSV, TSV and blank-separated text with or without header, JSON lines, Parquet; rawframe lists."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

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

__all__ = [
    "VIDEO_SUFFIXES",
    "jsonl_rows",
    "parquet_rows",
    "rawframe_rows",
    "read_jsonl",
    "read_parquet",
    "read_rawframe_list",
    "read_table",
    "row_from_columns",
    "table_rows",
]

VIDEO_SUFFIXES: Final = frozenset(
    f".{suffix}"
    for suffix in (
        *("3gp", "asf", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv"),
    )
)

_ROLES: Final = {
    column: role
    for role, columns in {
        "path": "path video video_path file file_name filename filepath video_name",
        "label": "label labels class class_name category action",
        "start_seconds": "start_seconds start start_time time_start",
        "end_seconds": "end_seconds end end_time time_end",
        "start_frame": "start_frame",
        "end_frame": "end_frame",
        "id": "id video_id clip_id",
        "split": "split subset",
    }.items()
    for column in columns.split()
}

# A quoted path, or everything up to a video suffix that a separator follows: so blanks and commas may be in a path.
_LEADING_PATH: Final = re.compile(
    r'"(?:[^"]|"")*"|.*?\.(?:' + "|".join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES)) + r")(?=[\t,; ]|$)",
    re.IGNORECASE,
)
_SEPARATORS: Final = ("\t", ",", ";", " ")


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
    ``start_frame``, ``end_frame``, ``id``, ``split``; other columns go to `VideoRecord.extra`.

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
    text = read_text(path)
    if separator is None:
        separator = find_separator(text)
    file, split = str(path), split_from_name(path)
    if separator == " " and not _is_header(text[:1000].strip().partition("\n")[0].split()):
        for line, content in _lines(text):
            listed, labels = _split_at_blanks(content)
            yield Row(file, line, listed, _one_or_all(labels), split=split)
        return
    header: list[str] | None = None
    first = True
    for line, cells in csv_rows(text, file=path, separator=separator):
        if first and _is_header(cells):
            header = [cell.strip() for cell in cells]
        elif header is None:
            yield Row(file, line, cells[0].strip(), _one_or_all(cells[1:]), split=split)
        else:
            if len(cells) != len(header):
                raise AnnotationError(
                    f"{len(cells)} columns, but the header has {len(header)}; quote a path that holds {separator!r}.",
                    file=path,
                    line=line,
                )
            yield row_from_columns(
                dict(zip(header, (cell.strip() for cell in cells), strict=True)),
                file=file,
                line=line,
                split=split,
                several=separator != ";",
            )
        first = False


def rawframe_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a list of frame folders, as `read_rawframe_list` tells.

    Raises:
        AnnotationError: A line without a number of frames.
    """
    file, split = str(path), split_from_name(path)
    for line, content in _lines(read_text(path)):
        folder, numbers = _split_at_blanks(content)
        if not numbers or not is_number(numbers[0]):
            raise AnnotationError(f"{content!r} is not 'folder frames label'.", file=path, line=line)
        yield Row(file, line, folder, _one_or_all(numbers[1:]), split=split, frames=(0, int(numbers[0])))


def jsonl_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a JSON lines file.

    Raises:
        AnnotationError: A line that is no JSON object.
    """
    file, split = str(path), split_from_name(path)
    for line, content in _lines(read_text(path)):
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
            for batch in table.iter_batches():
                for columns in batch.to_pylist():
                    line += 1
                    yield row_from_columns(columns, file=file, line=line, split=split)
    except arrow.ArrowInvalid as error:
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
        role = _ROLES.get(name.strip().casefold())
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
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=skips, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise AnnotationError(f"broken quotes ({error}).", file=file, line=line) from error


def find_separator(text: str) -> str:
    r"""The separator of a list: the one that follows the path in each of the first lines.

    >>> find_separator("my clip, second take.mp4 3\nb.mp4 1"), find_separator("path,label\na b.mp4,run")
    (' ', ',')
    """
    tails = []
    for _, line in _lines(text[:20_000]):
        path = _LEADING_PATH.match(line)
        tails.append(line[path.end() :][:1] if path else line)
    # The last line may have been cut; a line that is a path alone has no separator to tell.
    tails = [tail for tail in tails[:20] if tail]
    return next((separator for separator in _SEPARATORS if tails and all(separator in tail for tail in tails)), ",")


def _is_header(cells: list[str]) -> bool:
    """One cell names the column of paths, and none is a path: ``a.mp4,video`` has a class called so."""
    names = [cell.strip().casefold() for cell in cells]
    return any(_ROLES.get(name) == "path" for name in names) and not any(
        name.endswith(tuple(VIDEO_SUFFIXES)) for name in names
    )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for line, content in enumerate(io.StringIO(text), start=1):
        stripped = content.strip()
        if stripped:
            yield line, stripped


def _split_at_blanks(line: str) -> tuple[str, list[str]]:
    """Path and labels of ``path label``: numbers at the end are labels, any other text is one name."""
    match = _LEADING_PATH.match(line)
    if match:
        path, rest = match.group(), line[match.end() :].split()
        if path.startswith('"'):
            path = path[1:-1].replace('""', '"')
    else:
        words = line.split()
        numbers = 0
        while numbers < len(words) - 1 and is_number(words[-1 - numbers]):
            numbers += 1
        cut = len(words) - numbers if numbers else 1
        path, rest = " ".join(words[:cut]), words[cut:]
    if all(map(is_number, rest)):
        return path, rest
    return path, [" ".join(rest)]


def _one_or_all(labels: list[str]) -> str | list[str] | None:
    labels = [label for label in labels if label.strip()]
    return labels if len(labels) > 1 else next(iter(labels), None)
