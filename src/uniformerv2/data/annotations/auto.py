"""Which format is it? Found from the folder's or the file's content, so that one function reads them all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final, Literal, get_args

from uniformerv2.data.annotations import (
    activitynet,
    folder,
    kinetics,
    something_something,
    split_files,
    table,
    text_lists,
)
from uniformerv2.data.annotations.record import AnnotationError, VideoRecord
from uniformerv2.data.annotations.rows import Classes, Row, finish, read_text
from uniformerv2.data.annotations.table import as_entries, read_json
from uniformerv2.data.labels import whole_number
from uniformerv2.media.suffixes import VIDEO_SUFFIXES

__all__ = ["AnnotationFormat", "detect_format", "read_lists", "read_records"]

AnnotationFormat = Literal[
    "activitynet",
    "diving48",
    "folder",
    "hacs",
    "hmdb51",
    "jester",
    "json",
    "jsonl",
    "kinetics",
    "lists",
    "moments_in_time",
    "parquet",
    "rawframes",
    "something_something_v1",
    "something_something_v2",
    "table",
    "ucf101",
]

_LIST_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
_CLASSES_FILE: Final = "classes.txt"


def read_records(
    path: str | Path,
    *,
    classes: Classes | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    format: AnnotationFormat | Literal["auto"] = "auto",
) -> list[VideoRecord]:
    """The videos of a folder or an annotation file, whatever its format.

    Args:
        path: A folder per class; a folder with ``train``, ``val`` or ``test`` lists; a CSV, TSV, text list, JSON
            lines or Parquet file; or the annotations of a benchmark.
        classes: Name of a label space, or the class names in head order. None: what the format knows
            (``classes.txt`` in a folder of lists, the benchmark's own classes); else the numbers of a list stay,
            and names, which those of class folders always are, are numbered in sorted order: as numbers where all of
            them are whole numbers, so that class ``2`` comes before ``10``. Where the given classes are called by
            whole numbers, a bare number in a list is such a name; else it is a place among them.
        root: Where relative paths start. None: the folder that holds the annotations.
        split: Keep only these records; records of which nothing says the split are taken to be of it.
        format: ``"auto"`` finds it from the content, except Jester, which looks like Something-Something V1, and
            HACS, which looks like ActivityNet and has the same classes.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: No format has this name.
    """
    if format != "auto" and format not in get_args(AnnotationFormat):
        raise ValueError(f"No format is called {format!r}. Allowed: auto, {', '.join(get_args(AnnotationFormat))}.")
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file or folder {str(path)!r}.")
    chosen = detect_format(path) if format == "auto" else format
    if chosen == "lists":
        return read_lists(path, classes=classes, root=root, split=split)
    rows, known = _FORMATS[chosen]
    by_name = chosen == "folder"
    return finish(rows(path), source=path, classes=classes or known, root=root, split=split, by_name=by_name)


def read_lists(
    path: str | Path,
    *,
    classes: Classes | None = None,
    root: str | Path | None = None,
    split: str | None = None,
) -> list[VideoRecord]:
    """A folder with a list per split (``train.txt``, ``val.csv``, ``test.jsonl``) and perhaps ``classes.txt``.

    The lists are numbered together, so a class that is absent in one of them keeps its number.

    Raises:
        AnnotationError: No list is there, or one (or ``classes.txt``) is empty or broken; with file and line. One list
            has names and another numbers, and nothing says which is which.
    """
    lists = _lists(Path(path))
    if not lists:
        raise AnnotationError(f"holds no list: one of train, val, test with {_LIST_SUFFIXES} is needed.", file=path)
    named = Path(path, _CLASSES_FILE)
    if classes is None and named.is_file():
        classes = text_lists.read_class_names(named)
    rows = list(_rows_of_lists(lists))
    if classes is None:
        _check_labels_agree(rows, path)
    return finish(rows, source=path, classes=classes, root=root, split=split)


def detect_format(path: str | Path) -> AnnotationFormat:
    """The format of a folder or a file, from its name and its first lines.

    Raises:
        AnnotationError: A JSON file that is no known annotation file, or a file that is a video.
    """
    top = Path(path)
    if top.is_dir():
        if any(top.glob("trainlist0[123].txt")):
            return "ucf101"
        if any(top.glob("*_test_split[123].txt")):
            return "hmdb51"
        return "lists" if _lists(top) else "folder"
    name = top.name.removesuffix(".gz").casefold()
    suffix = Path(name).suffix
    if suffix in VIDEO_SUFFIXES:
        raise AnnotationError("is a video; a list of videos, or the folder that holds them, is needed.", file=path)
    if suffix == ".parquet":
        return "parquet"
    if suffix in {".jsonl", ".ndjson"}:
        return "jsonl"
    return (
        _detect_json(path) if suffix == ".json" else _detect_text(text_lists.without_comments(read_text(path)[:20_000]))
    )


def _detect_json(path: str | Path) -> AnnotationFormat:
    value = read_json(path)
    if isinstance(value, dict) and "database" in value:
        return "activitynet"
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, dict):
        if "vid_name" in first:
            return "diving48"
        if "template" in first or set(first) == {"id"}:
            return "something_something_v2"
        return "json"
    raise AnnotationError("no annotations: a list of objects, or an object with 'database', is needed.", file=path)


def _detect_text(text: str) -> AnnotationFormat:
    # The last line may have been cut.
    lines = [line for line in text.splitlines() if line.strip()][:20]
    lines = lines[:-1] or lines
    if lines and {"youtube_id", "time_start"} <= {cell.strip(' "') for cell in lines[0].split(",")}:
        return "kinetics"
    if lines and all(re.fullmatch(r"\d+;[^;]+", line.strip()) for line in lines):
        return "something_something_v1"
    if lines and all(re.fullmatch(r"(?P<label>[^,/]+)/[^,]+,(?P=label),\d+,\d+", line.strip()) for line in lines):
        return "moments_in_time"
    suffixes = "|".join(suffix[1:] for suffix in VIDEO_SUFFIXES)
    video = re.compile(rf"\.(?:{suffixes})\b", re.IGNORECASE)
    if lines and all(re.search(r" \d+ \d+$", line.strip()) and not video.search(line) for line in lines):
        return "rawframes"
    return "table"


def _lists(top: Path) -> list[Path]:
    """The lists of a folder, train first; of one split the first in the order of `_LIST_SUFFIXES`."""
    found = []
    for names in (("train",), ("val", "valid", "validation", "dev", "eval"), ("test",)):
        files = [top / f"{name}{suffix}" for suffix in _LIST_SUFFIXES for name in names]
        found += [file for file in files if file.is_file()][:1]
    return found


def _rows_of_lists(lists: list[Path]) -> Iterator[Row]:
    for file in lists:
        rows = _FORMATS[detect_format(file)][0](file)
        first = next(rows, None)
        if first is None:
            raise AnnotationError("holds no videos: the list is empty.", file=file)
        yield from chain((first,), rows)


def _check_labels_agree(rows: Iterable[Row], top: str | Path) -> None:
    """That not one list names its classes while another numbers them: the numbers would become names.

    Raises:
        AnnotationError: That is so.
    """
    first: dict[str, tuple[str, Any]] = {}
    for file, own in groupby(rows, key=lambda row: row.file):
        labels = [atom for row in own for atom in (row.label if isinstance(row.label, list) else [row.label])]
        atoms = [atom for atom in labels if atom is not None and atom == atom and str(atom).strip()]
        named = [atom for atom in atoms if whole_number(atom) is None]
        if atoms:
            first.setdefault("names" if named else "numbers", (Path(file).name, (named or atoms)[0]))
    if len(first) > 1:
        (named_in, name), (numbered_in, number) = first["names"], first["numbers"]
        raise AnnotationError(
            f"{named_in} has class names, such as {name!r}, and {numbered_in} has class numbers, such as {number!r}: "
            f"write names in both, or give the names in the order of the numbers, one a line, in {_CLASSES_FILE}.",
            file=top,
        )


def _json_rows(path: str | Path) -> Iterator[Row]:
    for number, entry in as_entries(read_json(path), file=path, needed="path"):
        yield table.row_from_columns(entry, file=str(path), line=number)


_FORMATS: Final[dict[str, tuple[Callable[[str | Path], Iterator[Row]], str | None]]] = {
    "activitynet": (activitynet.activitynet_rows, "activitynet"),
    "diving48": (split_files.diving48_rows, "diving48"),
    "folder": (folder.folder_rows, None),
    "hacs": (activitynet.activitynet_rows, "hacs"),
    "hmdb51": (split_files.hmdb51_rows, "hmdb51"),
    "jester": (something_something.semicolon_rows, "jester"),
    "json": (_json_rows, None),
    "jsonl": (table.jsonl_rows, None),
    "kinetics": (kinetics.kinetics_rows, None),
    "moments_in_time": (split_files.moments_rows, "moments_in_time_v1"),
    "parquet": (table.parquet_rows, None),
    "rawframes": (table.rawframe_rows, None),
    "something_something_v1": (something_something.semicolon_rows, "something_something_v1"),
    "something_something_v2": (something_something.something_something_v2_rows, "something_something_v2"),
    "table": (table.table_rows, None),
    "ucf101": (split_files.ucf101_rows, "ucf101"),
}
