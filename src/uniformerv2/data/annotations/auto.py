"""``read_records``: the videos of a folder or of a list in any format, which is found from the content."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final, Literal

from uniformerv2.data.annotations import benchmarks, table, text_lists
from uniformerv2.data.annotations.folder import files_below, folder_rows
from uniformerv2.data.annotations.held_out import HELD_OUT, hold_out
from uniformerv2.data.annotations.record import AnnotationError, VideoRecord
from uniformerv2.data.annotations.rows import Classes, Row, Spellings, finish, of_split, read_text
from uniformerv2.data.annotations.table import read_json
from uniformerv2.data.labels import whole_number
from uniformerv2.media.video_error import VIDEO_SUFFIXES

__all__ = ["AnnotationFormat", "detect_format", "find_videos", "read_records"]

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
    val_fraction: float | None = None,
    group_pattern: str | None = None,
    file_name: str | None = None,
    fold: Literal[1, 2, 3] | None = None,
    separator: str | None = None,
) -> list[VideoRecord]:
    r"""The videos of a folder or an annotation file, whatever its format.

    Videos of which nothing says the split are held out by a hash of their names: the same on every machine, and nearly
    the same when videos are added. Each class with two sources or more has both sides; a class with one source is in
    ``train`` alone.

    Args:
        path: A folder per class, perhaps in folders ``train``, ``val``, ``test``; a folder with ``train``, ``val`` or
            ``test`` lists and perhaps ``classes.txt``; a CSV, TSV, text list, JSON lines or Parquet file; or the
            annotations of a benchmark.
        classes: Name of a label space, or the class names in head order. None: what the format knows
            (``classes.txt`` in a folder of lists, the benchmark's own classes); else the numbers of a list stay,
            and names, which those of class folders always are, are numbered in sorted order: as numbers where all of
            them are whole numbers, so that class ``2`` comes before ``10``. Where the given classes are called by
            whole numbers, a bare number in a list is such a name; else it is a place among them.
        root: Where relative paths start. None: the folder that holds the annotations.
        split: Keep only these records; records of which nothing says the split are taken to be of it.
        format: ``"auto"`` finds it from the content, except Jester, which looks like Something-Something V1, and
            HACS, which looks like ActivityNet and has the same classes.
        val_fraction: How much of each class, counted in sources, is held out as ``val`` where nothing is marked so;
            0 holds out nothing. None: a fifth of a folder per class without split folders, nothing of a list.
        group_pattern: Regular expression on the file name without suffix. Videos for which it finds the same text
            go to the same side. None: UCF101's names (``_g01_``) and Kinetics' are known.
        file_name: Where a video of ActivityNet, Diving48, HACS, Kinetics or Something-Something V2 lies under
            ``root``, from ``{id}``, ``{label}`` and so on; None: as the usual download scripts call it.
        fold: Which of the three published splits of UCF101 or HMDB51; None: the first.
        separator: What separates the columns of a text list: ``","``, ``"\t"``, ``";"`` or ``" "``; None: found from
            the first lines.

    Raises:
        AnnotationError: The annotations cannot be used as they are; with file and line.
        FileNotFoundError: There is no such file or folder.
        ValueError: No format has this name, or the format does not know an option that is given.
    """
    if format != "auto" and format not in _FORMATS:
        raise ValueError(f"No format is called {format!r}. Allowed: auto, {', '.join(_FORMATS)}.")
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file or folder {str(path)!r}.")
    chosen = detect_format(path) if format == "auto" else format
    rows, known = _FORMATS[chosen]
    options = {"file_name": file_name, "fold": fold, "separator": separator}
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := [name for name in given if name not in inspect.signature(rows).parameters]:
        raise ValueError(f"{unknown[0]} says nothing about the format {chosen!r} of {path}: leave it out.")
    found: Iterable[Row] = rows(path, **given)
    if chosen == "lists" and classes is None:
        found, known = _with_classes(found, Path(path))
    records = finish(found, source=path, classes=classes or known, root=root, by_name=chosen == "folder")
    is_undivided = chosen == "folder" and records[0].split is None
    if val_fraction is None:
        val_fraction = HELD_OUT if is_undivided else 0.0
    if is_undivided or (val_fraction and all(record.split != "val" for record in records)):
        records = hold_out(records, fraction=val_fraction, group_pattern=group_pattern)
    return of_split(records, split, source=path)


def find_videos(source: str | Path, *, root: str | Path | None = None) -> list[VideoRecord]:
    """The videos of a list; of a folder everything in it that could be meant as a video.

    A folder needs no classes. Its records have them where ``read_records`` finds some, and then come the files that
    no reader would take: without a class, or with a suffix that no video has. A folder with nothing but images is one
    video.

    Args:
        source: A list in any format of ``read_records``, or a folder.
        root: Where relative paths of a list start.

    Raises:
        AnnotationError: The list holds no videos, or the folder no files.
    """
    top = Path(source)
    if not top.is_dir() or detect_format(top) != "folder":
        return read_records(top, root=root)
    try:
        records = read_records(top, root=root)
    except AnnotationError:  # no class folders: its files are found below
        records = []
    below = files_below(top)
    spellings = Spellings()
    known = {spellings.first(record.path) for record in records}
    prefix = os.path.join(top, "")  # noqa: PTH118 as the readers begin the paths
    names = sorted([*below.videos, *below.candidates(), *below.frames])
    paths = {name: str(top) if name == "." else spellings.first(prefix + name) for name in names}
    others = [VideoRecord(path, id=name) for name, path in paths.items() if path not in known]
    if not records and not others:
        raise AnnotationError("holds no videos: the folder has no file that could be one.", file=source)
    return records + others


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
    found: list[Path] = []
    for names in (("train",), ("val", "valid", "validation", "dev", "eval"), ("test",)):
        files = [top / f"{name}{suffix}" for suffix in _LIST_SUFFIXES for name in names]
        found += [file for file in files if file.is_file()][:1]
    return found


def _list_rows(path: str | Path) -> Iterator[Row]:
    """A folder with a list per split (``train.txt``, ``val.csv``, ``test.jsonl``); they are numbered together.

    Raises:
        AnnotationError: No list is there, or one is empty.
    """
    lists = _lists(Path(path))
    if not lists:
        raise AnnotationError(f"holds no list: one of train, val, test with {_LIST_SUFFIXES} is needed.", file=path)
    for file in lists:
        rows = _FORMATS[detect_format(file)][0](file)
        first = next(rows, None)
        if first is None:
            raise AnnotationError("holds no videos: the list is empty.", file=file)
        yield from chain((first,), rows)


def _with_classes(rows: Iterable[Row], top: Path) -> tuple[Iterable[Row], Classes | None]:
    """The rows of a folder of lists, and the class names that its ``classes.txt`` gives."""
    named = top / _CLASSES_FILE
    if named.is_file():
        return rows, text_lists.read_class_names(named)
    listed = list(rows)
    _check_labels_agree(listed, top)
    return listed, None


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


_FORMATS: Final[dict[str, tuple[Callable[..., Iterator[Row]], Classes | None]]] = {
    "activitynet": (benchmarks.activitynet_rows, "activitynet"),
    "diving48": (benchmarks.diving48_rows, "diving48"),
    "folder": (folder_rows, None),
    "hacs": (benchmarks.activitynet_rows, "hacs"),
    "hmdb51": (benchmarks.hmdb51_rows, "hmdb51"),
    "jester": (benchmarks.semicolon_rows, "jester"),
    "json": (table.json_rows, None),
    "jsonl": (table.jsonl_rows, None),
    "kinetics": (benchmarks.kinetics_rows, None),
    "lists": (_list_rows, None),
    "moments_in_time": (benchmarks.moments_rows, "moments_in_time_v1"),
    "parquet": (table.parquet_rows, None),
    "rawframes": (table.rawframe_rows, None),
    "something_something_v1": (benchmarks.semicolon_rows, "something_something_v1"),
    "something_something_v2": (benchmarks.something_something_v2_rows, "something_something_v2"),
    "table": (table.table_rows, None),
    "ucf101": (benchmarks.ucf101_rows, "ucf101"),
}
"""Its rows and its classes, of each format; what a rows function takes by keyword is an option of the format."""
