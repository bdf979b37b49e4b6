"""What every reader returns: one `VideoRecord` per video or segment; whether their files are there, and their digest.

`AnnotationError` names the file and the line of a list that cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.files import write_text
from uniformerv2.core.messages import SHOWN, first_few

__all__ = [
    "AnnotationError",
    "FileCheck",
    "VideoRecord",
    "check_files",
    "class_names",
    "content_digest",
    "fingerprint",
    "records_digest",
]

_NOTHING: Final[dict[str, Any]] = {}
MANY_CLASSES: Final = 1000
RARELY: Final = 10
"""Class numbers without names that go to a thousand and beyond are believed where one in ten of them occurs."""


def no_extra() -> Mapping[str, Any]:
    """One empty mapping for all records: a million of them would cost as much as the paths."""
    return _NOTHING


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video, or one segment of it, and what is known about it.

    Attributes:
        path: The video file, the folder of frames, or an address with ``://``; resolved against ``root``. Spelled as
            the list spells it the first time, where it has other spellings of it or links to it.
        label: Class number from 0; several for multi-label data; None where the list gives none.
        label_name: The name or names that belong to ``label``; None where the list knows numbers only.
        id: The benchmark's own id (YouTube id, clip number), or the path as the list has it.
        split: ``"train"``, ``"val"``, ``"test"``, or what the list says; None where nothing says it.
        start_seconds: Where the segment starts; None: at the beginning.
        end_seconds: Where the segment ends; None: at the end.
        start_frame: First frame of the segment, from 0; None: the first of the video.
        end_frame: One past the last frame of the segment; None: to the end.
        extra: Further columns of the list, as they came. Read only: records without any share one mapping.
    """

    path: str
    label: int | tuple[int, ...] | None = None
    label_name: str | tuple[str, ...] | None = None
    id: str = ""
    split: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    start_frame: int | None = None
    end_frame: int | None = None
    extra: Mapping[str, Any] = field(default_factory=no_extra, hash=False)

    @property
    def labels(self) -> tuple[int, ...]:
        """The class numbers as a tuple: none, one or several."""
        return () if self.label is None else self.label if isinstance(self.label, tuple) else (self.label,)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names as a tuple; empty where the list knows numbers only."""
        name = self.label_name
        return () if name is None else name if isinstance(name, tuple) else (name,)

    @property
    def source(self) -> str:
        """What the video was cut from, where a column ``source`` of the list says it; else empty."""
        return str(self.extra.get("source") or "")

    @property
    def segment(self) -> tuple[float | None, float | None, int | None, int | None]:
        """Start and end in seconds, then first frame and one past the last; all None for a whole video."""
        return self.start_seconds, self.end_seconds, self.start_frame, self.end_frame

    def relabelled(self, numbers: Sequence[int]) -> VideoRecord:
        """The record with other class numbers, as many as it has; its names stay."""
        return replace(self, label=tuple(numbers) if isinstance(self.label, tuple) else next(iter(numbers), None))

    def __repr__(self) -> str:
        """The fields that say something; a list of records stays readable."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        named = [f"{name}={value!r}" for name, value in shown.items() if value not in (None, "", {}) and name != "path"]
        return f"VideoRecord({', '.join([repr(self.path), *named])})"


class AnnotationError(ValueError):
    """An annotation file that cannot be used as it is.

    Attributes:
        file: The file, or the folder, that was read.
        line: The line from 1, or the number of the entry in JSON and Parquet; None where the whole file is meant.
    """

    def __init__(self, message: str, *, file: str | Path, line: int | None = None) -> None:
        where = f"{file}" if line is None else f"{file}:{line}"
        super().__init__(f"{where}: {message}")
        self.message = message
        self.file = str(file)
        self.line = line

    def __reduce__(self) -> tuple[Any, ...]:
        """The file and line are keyword-only; without this the error would not survive a worker process."""
        return partial(AnnotationError, file=self.file, line=self.line), (self.message,)


def class_names(records: Iterable[VideoRecord]) -> tuple[str, ...]:
    """The names of the classes that occur in ``records``, by number; a class without a name is called by its number.

    Give them to the next reader, so that a validation list in which a class is absent keeps the numbers of the
    training list: ``read_records(val, classes=class_names(train))``.

    Raises:
        ValueError: The numbers are years, dates or the like: there would be thousands of classes without a video.

    >>> class_names([VideoRecord("a.mp4", label=2, label_name="swim"), VideoRecord("b.mp4", label=0, label_name="run")])
    ('run', '1', 'swim')
    """
    names: dict[int, str] = {}
    for record in records:
        names.update(zip(record.labels, record.label_names or map(str, record.labels), strict=True))
    count = max(names, default=-1) + 1
    if count > max(MANY_CLASSES, RARELY * len(names)) and names[count - 1] == str(count - 1):
        raise ValueError(
            f"The label {count - 1} is far above the {len(names)} different labels that there are: as a class number "
            f"it would make {count} classes. Number the classes from 0; or name them all in their order, with "
            "--classes FILE (classes=), where these numbers may be the names."
        )
    return tuple(names.get(number, str(number)) for number in range(count))


def records_digest(records: Sequence[VideoRecord], names: Iterable[Sequence[str]]) -> str:
    """SHA-256 of which videos these are: the name, the labels and the segment of each, in their order.

    Args:
        records: The records.
        names: What tells the video of each record: its path, or the digest of its content.
    """
    rows = [[*name, record.label, *record.segment] for name, record in zip(names, records, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class FileCheck:
    """What `check_files` found.

    Attributes:
        present: The records whose video is there, in their order.
        missing: The paths that are not there, each once.
        written_to: The file that lists ``missing``, where one was written.
    """

    present: list[VideoRecord]
    missing: tuple[str, ...]
    written_to: Path | None = None

    def __str__(self) -> str:
        """The count, the first ten, and where the rest is."""
        if not self.missing:
            return f"All {len(self.present)} records have their video."
        head = f"{len(self.missing)} videos are missing; {len(self.present)} records are left:"
        where = f", all in {self.written_to}" if self.written_to else ""
        return "\n  ".join([head, first_few(self.missing, separator="\n  ") + where])


def check_files(records: Iterable[VideoRecord], *, missing_list: str | Path | None = None) -> FileCheck:
    """Sort the records by whether their video (or folder of frames) is on disk; addresses with ``://`` count as there.

    Args:
        records: What a reader returned.
        missing_list: Written with one missing path a line where there are more than ten.

    Raises:
        FileNotFoundError: Not one video is there: the prefix is wrong. The message shows one resolved path.
    """
    asked: dict[str, bool] = {}
    present = []
    for record in records:
        path = record.path
        if path not in asked:
            asked[path] = "://" in path or os.path.exists(path)  # noqa: PTH110 a million calls
        if asked[path]:
            present.append(record)
    missing = tuple(path for path, there in asked.items() if not there)
    if missing and not present:
        raise FileNotFoundError(
            f"Not one of the {len(missing)} videos is there. The first was looked for at "
            f"{str(Path(missing[0]).absolute())!r}; give root=, the folder that the paths of the list start from."
        )
    if missing_list is None or len(missing) <= SHOWN:
        return FileCheck(present, missing)
    written = Path(missing_list)
    write_text(written, "".join(f"{missed}\n" for missed in missing))
    return FileCheck(present, missing, written)


def fingerprint(path: str | Path) -> tuple[int | None, int | None]:
    """Bytes and time of writing (nanoseconds); of a folder the sum and the latest; None where nothing is there."""
    try:
        status = os.stat(path)  # noqa: PTH116 a million calls
        if not os.path.isdir(path):  # noqa: PTH112
            return status.st_size, status.st_mtime_ns
        with os.scandir(path) as entries:
            inside = [entry.stat() for entry in entries]
    except (OSError, ValueError):
        return None, None
    return sum(each.st_size for each in inside), max([status.st_mtime_ns, *(each.st_mtime_ns for each in inside)])


def content_digest(path: str | Path) -> str:
    """SHA-256 of a file, or over the names and contents of a folder of frames.

    Raises:
        ValueError: It is neither.
    """
    where = Path(path)
    if where.is_file():
        with where.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not where.is_dir():  # reading a pipe would wait for ever
        raise ValueError(f"{path} is no file here, so that nobody can tell whether it has changed.")
    frames = [f"{frame.name} {content_digest(frame)}" for frame in sorted(where.iterdir())]
    return hashlib.sha256("\n".join(frames).encode("utf-8", "surrogateescape")).hexdigest()
