"""What every reader returns: one `VideoRecord` per video or segment; and the error that names file and line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["AnnotationError", "VideoRecord", "class_names"]

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
        # The file and line are keyword-only; without this the error would not survive a worker process.
        return _rebuild_error, (self.message, self.file, self.line)


def _rebuild_error(message: str, file: str, line: int | None) -> AnnotationError:
    return AnnotationError(message, file=file, line=line)


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
        if record.label is None:
            continue
        if isinstance(record.label, tuple):
            known = record.label_name or tuple(map(str, record.label))
            names.update(zip(record.label, known, strict=True))
        else:
            names[record.label] = str(record.label if record.label_name is None else record.label_name)
    count = max(names, default=-1) + 1
    if count > max(MANY_CLASSES, RARELY * len(names)) and names[count - 1] == str(count - 1):
        raise ValueError(
            f"The label {count - 1} is far above the {len(names)} different labels that there are: as a class number "
            f"it would make {count} classes. Number the classes from 0; or name them all in their order, with "
            "--classes FILE (classes=), where these numbers may be the names."
        )
    return tuple(names.get(number, str(number)) for number in range(count))
