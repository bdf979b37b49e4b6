"""Rows become `VideoRecord`s: labels are numbered, paths resolved, and everything is checked.

A video has one spelling in all its records: ``a.mp4``, ``./a.mp4``, ``b/../a.mp4`` and a link to it are the same video.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from uniformerv2.core.limits import ITEM_BYTES, RECORD_BYTES, get_limits, read_bytes
from uniformerv2.data.annotations.record import AnnotationError, VideoRecord, no_extra
from uniformerv2.data.labels import ClassNames, LabelSpace, class_names_of, in_order, whole_number

__all__ = [
    "Classes",
    "Row",
    "Spellings",
    "finish",
    "is_number",
    "of_split",
    "read_text",
    "split_from_name",
    "standard_split",
]

Classes = LabelSpace | str | Sequence[str]
"""The name of a label space (``"kinetics400"``), or the class names in head order."""

_SPLITS: Final = {
    spelling: name
    for name, spellings in {
        "train": "train training trainset trainingset trainlist",
        "val": "val valid validate validation valset validationset vallist dev devset eval evaluation evalset",
        "test": "test testing testset testingset testlist",
    }.items()
    for spelling in spellings.split()
}


@dataclass(slots=True)
class Row:
    """One entry as a file has it: the label is a name, a number, several of them, or nothing.

    Where ``split`` is None, the name of ``file`` tells it, if it tells one (not that of a folder, which has no lines).
    """

    file: str
    line: int | None
    path: str
    label: Any = None
    id: str = ""
    split: str | None = None
    seconds: tuple[float | None, float | None] = (None, None)
    frames: tuple[int | None, int | None] = (None, None)
    extra: dict[str, Any] | None = None

    def error(self, message: str) -> AnnotationError:
        """The error that names this row's file and line."""
        return AnnotationError(message, file=self.file, line=self.line)


def standard_split(name: str) -> str:
    """``train``, ``val`` or ``test`` for their usual spellings, anything else as it came.

    >>> standard_split("validate"), standard_split("Training"), standard_split("extra")
    ('val', 'train', 'extra')
    """
    return _SPLITS.get(name.strip().casefold(), name)


def split_from_name(path: str | Path) -> str | None:
    """The split that a file is named after, or None.

    >>> split_from_name("kinetics-400_val.csv.gz"), split_from_name("trainlist01.txt"), split_from_name("contest.csv")
    ('val', 'train', None)
    """
    words = re.findall(r"[a-z]+", Path(path).name.casefold())
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def read_text(path: str | Path) -> str:
    """A UTF-8 text file (with or without byte-order mark, plain or ``.gz``).

    Raises:
        AnnotationError: No text; not UTF-8, with the line of the first bad byte; not gzip; or larger, once unpacked,
            than the limit ``text_bytes``.
    """
    try:
        data = read_bytes(Path(path))
    except ValueError as error:
        raise AnnotationError(str(error).removeprefix(f"{path}: ").removeprefix(f"{path} "), file=path) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise AnnotationError("is no text, and so no list of videos.", file=path) from error
        line = data.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "another encoding"
        raise AnnotationError(
            f"byte 0x{data[error.start]:02x} is not UTF-8; this looks like {kind}. Save the file as UTF-8.",
            file=path,
            line=line,
        ) from error
    if ".json" not in Path(path).suffixes:  # whose items are counted before they are made
        _check_size(text, path)
    return text


def _check_size(text: str, path: str | Path) -> None:
    """Refuse a list whose rows and cells would fill the memory.

    Raises:
        AnnotationError: They are above the limit ``text_bytes``.
    """
    lines, cells = text.count("\n"), sum(map(text.count, ",; \t"))
    size = len(text) + RECORD_BYTES * lines + ITEM_BYTES * cells
    try:
        get_limits().check("text_bytes", size, what=f"a list of {lines} lines and {lines + cells} cells")
    except ValueError as error:
        raise AnnotationError(f"{error}.", file=path) from error


def finish(
    rows: Iterable[Row],
    *,
    source: str | Path,
    classes: Classes | None,
    root: str | Path | None,
    by_name: bool = False,
) -> list[VideoRecord]:
    """Check the rows and make records of them; a video that is there several times has one path in all of them.

    Args:
        rows: What the format's reader found.
        source: The file or folder, for messages; relative paths start from its folder where ``root`` is None.
        classes: Fixes the numbers of the classes. None: numbers stay, names are numbered as ``in_order`` sorts them.
        root: The folder that relative paths start from.
        by_name: Labels are names, also where each of them is a number.

    Raises:
        AnnotationError: No rows, a label outside the classes, a path twice with two labels, and so on.
    """
    found = list(rows)
    if not found:
        raise AnnotationError("holds no videos: the list is empty.", file=source)
    told = {file: split_from_name(file) for file in {row.file for row in found if row.line is not None}}
    for row in found:
        row.split = row.split or told.get(row.file)
    numbering = _Numbering(found, classes, by_name=by_name)
    base = Path(root) if root is not None else (Path(source) if Path(source).is_dir() else Path(source).parent)
    prefix = os.path.join(base, "")  # noqa: PTH118 a million joins: a string prefix is 20 times faster than Path
    records: list[VideoRecord] = []
    seen: dict[Any, int] = {}
    spellings = Spellings()
    for position, row in enumerate(found):
        record = _record(row, prefix, numbering, spellings)
        whole = row.seconds == row.frames == (None, None)
        first = seen.setdefault(record.path if whole else (record.path, row.seconds, row.frames), position)
        if first < position and records[first].label != record.label:
            other = found[first]
            where = other.path if other.line is None else f"{other.file}:{other.line}"
            raise row.error(
                f"{row.path!r} has the label {row.label!r} here and {other.label!r} in {where}, which is the same "
                "video. Keep one, or give both labels in one row of a list."
            )
        records.append(record)
    return records


def of_split(records: list[VideoRecord], split: str | None, *, source: str | Path) -> list[VideoRecord]:
    """The records of a split, and those of which nothing says the split; all of them where ``split`` is None.

    Raises:
        AnnotationError: There are none.
    """
    if split is None:
        return records
    split = standard_split(split)
    kept = [record for record in records if record.split in {None, split}]
    if not kept:
        there = ", ".join(sorted({repr(record.split) for record in records}))
        raise AnnotationError(f"no video is of the split {split!r}; the splits here are {there}.", file=source)
    return [record if record.split else replace(record, split=split) for record in kept]


def _record(row: Row, prefix: str, numbering: _Numbering, spellings: Spellings) -> VideoRecord:
    if not row.path or "\0" in row.path:
        raise row.error(f"{row.path!r} is no path: it is empty, or holds a zero byte.")
    label, name = numbering.number(row)
    start, end = row.seconds
    if start is not None and (not math.isfinite(start) or start < 0):
        raise row.error(f"the segment starts at {start} seconds; a time from 0 is needed.")
    if end is not None and not (start or 0) < end < math.inf:
        raise row.error(f"the segment from {start} to {end} seconds is empty; the end must come after the start.")
    first, last = row.frames
    if (first is not None and first < 0) or (last is not None and last <= (first or 0)):
        raise row.error(f"the segment from frame {first} to {last} is empty; 0 <= start < end is needed.")
    free = "://" in row.path or os.path.isabs(row.path)  # noqa: PTH117 a million calls
    return VideoRecord(
        path=spellings.first(row.path if free else prefix + row.path),
        label=label,
        label_name=name,
        id=row.id or row.path,
        split=row.split,
        start_seconds=start,
        end_seconds=end,
        start_frame=first,
        end_frame=last,
        extra=row.extra or no_extra(),
    )


class _Numbering:
    """Class numbers for the labels of a list: decided once over all rows, then applied to each."""

    def __init__(self, rows: Sequence[Row], classes: Classes | None, *, by_name: bool) -> None:
        for row in rows:
            row.label = _tidy(row)
        self.multi = any(isinstance(row.label, list) for row in rows)
        self.labelled = {row.split for row in rows if row.label is not None}  # the test part may have no labels
        atoms = {atom for row in rows for atom in _atoms(row.label)}
        # A number among names is a name too, where a class is called so.
        self.are_names = by_name or any(whole_number(atom) is None for atom in atoms)
        self.known: dict[str | int, int] = {}  # a class has many rows
        self.classes: ClassNames | None = None
        if classes is not None:
            self.classes = class_names_of(classes)
        elif atoms and self.are_names:
            self.classes = ClassNames(in_order({str(atom) for atom in atoms}), called="the classes of the list")

    def number(self, row: Row) -> tuple[int | tuple[int, ...] | None, str | tuple[str, ...] | None]:
        """The class number or numbers of a row, and their names where there are any."""
        if row.label is None:
            if row.split in self.labelled:
                raise row.error(f"{row.path!r} has no label, though other rows have one.")
            return None, None
        for atom in _atoms(row.label):
            if atom not in self.known:
                self.known[atom] = self._one(row, atom)
        numbers = tuple(dict.fromkeys(self.known[atom] for atom in _atoms(row.label)))
        names = None if self.classes is None else tuple(self.classes[number] for number in numbers)
        return (numbers, names) if self.multi else (numbers[0], names and names[0])

    def _one(self, row: Row, atom: str | int) -> int:
        """By name where that can be, else as ``ClassNames.numbered`` takes a number."""
        number = whole_number(atom)
        if self.classes is None:
            assert number is not None  # names without classes were made classes above
            if number < 0:
                raise row.error(f"the label {number} is outside the classes: numbers from 0 are allowed.")
            return number
        found = self.classes.find(str(atom)) if self.are_names or self.classes.are_numbers else None
        if found is not None:
            return found
        try:
            return self.classes.index(str(atom)) if number is None else self.classes.numbered(number)
        except ValueError as error:
            raise row.error(str(error)) from error


def _tidy(row: Row) -> str | int | list[str | int] | None:
    """The label with absent values as None and whole floats (a table with gaps makes them) as integers."""
    label = row.label
    if isinstance(label, str):
        return label.strip() or None
    if isinstance(label, (list, tuple)):
        atoms = [_atom(row, atom) for atom in label]
        if not atoms:
            raise row.error(f"{row.path!r} has an empty list of labels; leave the label out, or give one.")
        return atoms
    return None if label is None or label != label else _atom(row, label)


def _atom(row: Row, value: Any) -> str | int:
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise row.error(f"{value!r} is no label: a class name or a class number is needed.")


def _atoms(label: Any) -> list[str | int]:
    return [] if label is None else label if isinstance(label, list) else [label]


def is_number(text: str) -> bool:
    """Whether the text is a whole number of a size that a label or a frame can have."""
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


_ODD: Final = frozenset({"", ".", ".."})


class Spellings:
    """Gives each file the spelling under which it came first, so that paths can be compared as text from then on.

    Each folder is resolved and listed once for the links in it: asking a million files one by one takes longer.
    """

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}  # by its spelling, which ends with a slash or is empty
        self._spelled: dict[str, str] = {}  # where a folder is -> as it was spelled first
        self._linked: dict[str, str] = {}  # where a file is to which a link led -> the first such link
        self._seen: set[str] = set()

    def first(self, path: str) -> str:
        """The first spelling of this file; addresses with ``://`` are left as they are."""
        if "://" in path:
            return path
        cut = path.rfind("/") + 1
        spelled, name = path[:cut], path[cut:]
        if name in _ODD:
            spelled, slash, name = os.path.realpath(path).rpartition("/")
            spelled += slash
        folder = self._folders.get(spelled) or self._resolved(spelled)
        own = path if folder.first == spelled == path[:cut] else folder.first + name
        if name in folder.links:
            target = os.path.realpath(own)
            above, _, name = target.rpartition("/")
            listed = self._spelled.get(f"{above}/", f"{above}/") + name
            return listed if listed in self._seen else self._linked.setdefault(target, own)
        if self._linked and (link := self._linked.get(folder.place + name)):
            return link
        self._seen.add(own)
        return own

    def _resolved(self, spelled: str) -> _Folder:
        place = os.path.realpath(spelled or ".").rstrip("/") + "/"
        try:
            with os.scandir(place) as entries:
                links = frozenset(entry.name for entry in entries if entry.is_symlink())
        except OSError:  # what is wrong is said when its videos are read
            links = frozenset()
        folder = self._folders[spelled] = _Folder(self._spelled.setdefault(place, spelled), place, links)
        return folder


class _Folder(NamedTuple):
    """A folder as it was spelled first and where it is, both with a slash; and the names of the links in it."""

    first: str
    place: str
    links: frozenset[str]
