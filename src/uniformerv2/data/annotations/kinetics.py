"""Kinetics-400, 600, 700 and 700-2020: the official CSV files (DeepMind, 2017 to 2020).

Columns ``label`` (absent in test lists), ``youtube_id``, ``time_start``, ``time_end``, ``split``; others are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from uniformerv2.data.annotations.record import AnnotationError, VideoRecord
from uniformerv2.data.annotations.rows import Classes, Row, finish, read_text, split_from_name, standard_split
from uniformerv2.data.annotations.table import csv_rows
from uniformerv2.data.annotations.text_lists import without_comments

__all__ = ["KINETICS_FILE", "KineticsClip", "kinetics_clips", "kinetics_rows", "read_kinetics"]

KINETICS_FILE: Final = "{id}_{start:06d}_{end:06d}.mp4"
"""The file name that the community's download scripts give a clip."""

_NEEDED: Final = ("youtube_id", "time_start", "time_end")


class KineticsClip(NamedTuple):
    """One line of a Kinetics CSV; times in whole seconds of the YouTube video."""

    line: int
    label: str | None
    youtube_id: str
    start: int
    end: int
    split: str | None


def read_kinetics(
    path: str | Path,
    *,
    classes: Classes | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    file_name: str = KINETICS_FILE,
) -> list[VideoRecord]:
    """An official Kinetics CSV; the clips on disk are the trimmed ten seconds, so records have no times.

    Args:
        path: The CSV, plain or ``.gz``.
        classes: ``"kinetics400"`` and so on, or the names in head order; None: the names that occur, sorted.
        root: Where the videos lie; the CSV's folder where None.
        split: Keep only these records.
        file_name: Where a clip lies under ``root``, from ``{id}``, ``{start}``, ``{end}``, ``{split}``, ``{label}``
            and ``{label_}`` (underscores for blanks): ``"{label}/{id}_{start:06d}_{end:06d}.mp4"`` for class folders.
    """
    return finish(kinetics_rows(path, file_name=file_name), source=path, classes=classes, root=root, split=split)


def kinetics_rows(path: str | Path, *, file_name: str = KINETICS_FILE) -> Iterator[Row]:
    """The rows of a Kinetics CSV."""
    file = str(path)
    for clip in kinetics_clips(path):
        yield Row(
            file, clip.line, clip_file(clip, file_name=file_name), clip.label, id=clip.youtube_id, split=clip.split
        )


def kinetics_clips(path: str | Path) -> Iterator[KineticsClip]:
    """The clips of a Kinetics CSV, underscores in class names read as blanks (some lists have them).

    Raises:
        AnnotationError: A column is missing, or a time is no number; with file and line.
    """
    rows = csv_rows(without_comments(read_text(path)), file=path)
    _, header = next(rows, (1, []))
    columns = {name.strip(): number for number, name in enumerate(header)}
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        message = f"no Kinetics list: the columns {missing} are missing; it has {header}."
        raise AnnotationError(message, file=path, line=1)
    label_at, split_at = columns.get("label"), columns.get("split")
    id_at, start_at, end_at = (columns[name] for name in _NEEDED)
    named = split_from_name(path)
    for line, padded in rows:
        cells = [cell.strip() for cell in padded]
        try:
            label = None if label_at is None else cells[label_at].replace("_", " ")
            split = named if split_at is None else standard_split(cells[split_at])
            start, end = round(float(cells[start_at])), round(float(cells[end_at]))
            yield KineticsClip(line, label, cells[id_at], start, end, split)
        except (ValueError, OverflowError, IndexError) as error:
            message = f"{','.join(cells)!r} does not fit the columns {','.join(header)} ({error})."
            raise AnnotationError(message, file=path, line=line) from error


def clip_file(clip: KineticsClip, *, file_name: str = KINETICS_FILE, **more: str) -> str:
    """The path of a clip under the videos' root.

    >>> clip = KineticsClip(2, "air drumming", "ixq5OGYjjmA", 154, 164, "val")
    >>> clip_file(clip, file_name="{label_}/" + KINETICS_FILE)
    'air_drumming/ixq5OGYjjmA_000154_000164.mp4'
    """
    label = clip.label or ""
    return file_name.format(
        id=clip.youtube_id,
        start=clip.start,
        end=clip.end,
        split=clip.split,
        label=label,
        label_=label.replace(" ", "_"),
        **more,
    )
