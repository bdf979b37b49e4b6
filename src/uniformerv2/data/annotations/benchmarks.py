"""The official annotation files of the benchmarks, each as rows; ``read_records`` makes records of them.

ActivityNet 1.3 (Caba Heilbron et al., 2015) and HACS Segments (Zhao et al., 2019); Diving48 (Li et al., 2018);
HMDB51 (Kuehne et al., 2011); Jester (Materzynska et al., 2019); Kinetics-400, 600, 700 and 700-2020 (DeepMind, 2017 to
2020); Moments in Time (Monfort et al., 2018); Something-Something (Goyal et al., 2017); UCF101 (Soomro et al., 2012).

``file_name`` says where a video lies under the root of the videos, from ``{id}`` and what else the format knows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from uniformerv2.data.annotations.record import AnnotationError
from uniformerv2.data.annotations.rows import Row, split_from_name, standard_split
from uniformerv2.data.annotations.table import csv_rows, json_entries, read_json
from uniformerv2.data.annotations.text_lists import lines_of, read_list

__all__ = [
    "KINETICS_FILE",
    "KineticsClip",
    "activitynet_rows",
    "clip_file",
    "diving48_rows",
    "hmdb51_rows",
    "kinetics_clips",
    "kinetics_rows",
    "moments_rows",
    "semicolon_rows",
    "something_something_v2_rows",
    "ucf101_rows",
]

KINETICS_FILE: Final = "{id}_{start:06d}_{end:06d}.mp4"
"""The file name that the community's download scripts give a clip of Kinetics."""

_NEEDED: Final = ("youtube_id", "time_start", "time_end")
_HMDB51_SPLITS: Final = {"1": "train", "2": "test"}  # 0: in neither

_log = logging.getLogger(__name__)


def activitynet_rows(path: str | Path, *, file_name: str = "v_{id}.mp4") -> Iterator[Row]:
    """ActivityNet 1.3 and HACS Segments: one JSON with a ``database``, read for recognition as the paper does it.

    Training: one row per annotated segment. Validation: one row per whole video, with the label of its first segment.
    Testing: whole videos without label. Segments of no length, and videos to train or validate on that have no
    segment, are left out, and their numbers are logged.

    Args:
        path: For instance ``activity_net.v1-3.min.json``.
        file_name: From ``{id}``, ``{label}`` and ``{label_}`` (underscores for blanks).

    Raises:
        AnnotationError: There is no ``database``, or a video is broken; it is named.
    """
    value = read_json(path)
    database = value.get("database") if isinstance(value, dict) else None
    if not isinstance(database, dict):
        raise AnnotationError("no ActivityNet file: an object with the key 'database' is needed.", file=path)
    empty = without = 0
    for number, (identity, video) in enumerate(database.items(), start=1):
        try:
            split, segments = standard_split(video["subset"]), _segments(video)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"the video {identity!r} is broken ({type(error).__name__}: {error})."
            raise AnnotationError(message, file=path, line=number) from error
        if not segments and split in {"train", "val"}:
            without += 1
            continue
        first = segments[0][0] if segments else None
        name = _named(file_name, id=identity, label=first)
        if split != "train":
            yield Row(str(path), number, name, first if split == "val" else None, id=identity, split=split)
            continue
        for label, start, end in segments:
            if start < end:
                yield Row(str(path), number, name, label, id=identity, split=split, seconds=(start, end))
            else:
                empty += 1
    if empty:
        _log.warning("%s: %d training segments of no length were left out", path, empty)
    if without:
        _log.warning("%s: %d videos without a segment were left out", path, without)


def _segments(video: dict[str, Any]) -> list[tuple[str, float, float]]:
    found = []
    for annotation in video.get("annotations") or ():
        start, end = annotation["segment"]
        found.append((str(annotation["label"]), max(0.0, float(start)), float(end)))
    return found


def _named(file_name: str, *, label: str | None, **fields: Any) -> str:
    """The path of a video under the root of the videos."""
    label = label or ""
    return file_name.format(label=label, label_=label.replace(" ", "_"), **fields)


class KineticsClip(NamedTuple):
    """One line of a Kinetics CSV; times in whole seconds of the YouTube video."""

    line: int
    label: str | None
    youtube_id: str
    start: int
    end: int
    split: str | None


def kinetics_rows(path: str | Path, *, file_name: str = KINETICS_FILE) -> Iterator[Row]:
    """An official Kinetics CSV; the clips on disk are the trimmed ten seconds, so rows have no times.

    Args:
        path: The CSV, plain or ``.gz``.
        file_name: From ``{id}``, ``{start}``, ``{end}``, ``{split}``, ``{label}`` and ``{label_}`` (underscores for
            blanks): ``"{label}/{id}_{start:06d}_{end:06d}.mp4"`` for class folders.
    """
    for clip in kinetics_clips(path):
        name = clip_file(clip, file_name=file_name)
        yield Row(str(path), clip.line, name, clip.label, id=clip.youtube_id, split=clip.split)


def kinetics_clips(path: str | Path) -> Iterator[KineticsClip]:
    """The clips of a Kinetics CSV, underscores in class names read as blanks (some lists have them).

    Columns are ``label`` (absent in test lists), ``youtube_id``, ``time_start``, ``time_end``, ``split``.

    Raises:
        AnnotationError: A column is missing, or a time is no number; with file and line.
    """
    rows = csv_rows(read_list(path), file=path)
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
    """The path of a clip under the root of the videos.

    >>> clip = KineticsClip(2, "air drumming", "ixq5OGYjjmA", 154, 164, "val")
    >>> clip_file(clip, file_name="{label_}/" + KINETICS_FILE)
    'air_drumming/ixq5OGYjjmA_000154_000164.mp4'
    """
    fields = {"id": clip.youtube_id, "start": clip.start, "end": clip.end, "split": clip.split, **more}
    return _named(file_name, label=clip.label, **fields)


def something_something_v2_rows(path: str | Path, *, file_name: str = "{id}.webm") -> Iterator[Row]:
    """Something-Something V2: JSON entries with ``id``, ``label``, ``template``, ``placeholders`` (test: ``id`` alone).

    The class is the template without its square brackets; the caption and the placeholders go to
    `VideoRecord.extra`.

    Args:
        path: For instance ``something-something-v2-validation.json``, plain or ``.gz``.
        file_name: From ``{id}``; ``"{id}"`` itself for folders of frames.
    """
    for number, entry in json_entries(path, needed="id"):
        template, identity = entry.get("template"), str(entry["id"])
        extra: dict[str, Any] = {key: entry[key] for key in ("label", "placeholders") if key in entry}
        label = None if template is None else str(template).replace("[", "").replace("]", "")
        yield Row(str(path), number, file_name.format(id=identity), label, id=identity, extra=extra or None)


def semicolon_rows(path: str | Path) -> Iterator[Row]:
    """Something-Something V1 and Jester: an ``id;label`` CSV (test: ``id`` alone); a video is a folder of frames."""
    for line, cells in csv_rows(read_list(path), file=path, separator=";"):
        row = Row(str(path), line, cells[0], cells[1] if len(cells) > 1 else None, id=cells[0])
        if len(cells) > 2:
            raise row.error(f"{len(cells)} cells; 'id;label' is needed.")
        yield row


def ucf101_rows(path: str | Path, *, fold: int = 1) -> Iterator[Row]:
    """UCF101: ``trainlist01.txt``, ``testlist01.txt`` and so on; the class is the folder in each line.

    Args:
        path: The folder of the split files (``ucfTrainTestlist``), or one of them.
        fold: Which of the three published splits.

    Raises:
        AnnotationError: A split file is missing, or a line is broken.
    """
    top = Path(path)
    lists = [top / f"{split}list{fold:02d}.txt" for split in ("train", "test")] if top.is_dir() else [top]
    for file in lists:
        if not file.is_file():
            raise AnnotationError(f"no UCF101 split: {file.name} is not there.", file=path)
        for line, content in lines_of(read_list(file)):
            video, *number = content.split()
            row = Row(str(file), line, video, video.partition("/")[0])
            if "/" not in video or len(number) > 1:
                raise row.error(f"{content!r} is not 'Class/video.avi number'.")
            yield row


def hmdb51_rows(path: str | Path, *, fold: int = 1) -> Iterator[Row]:
    """HMDB51: ``<class>_test_split1.txt`` and so on; videos that a split leaves out are left out.

    Args:
        path: The folder of the split files (``testTrainMulti_7030_splits``).
        fold: Which of the three published splits.

    Raises:
        AnnotationError: No split file is there, or a line is broken.
    """
    end = f"_test_split{fold}.txt"
    lists = sorted(Path(path).glob(f"*{end}"))
    if not lists:
        raise AnnotationError(f"no HMDB51 split: no file *{end} is there.", file=path)
    for file in lists:
        label = file.name.removesuffix(end)
        for line, content in lines_of(read_list(file)):
            video, _, use = content.rpartition(" ")
            row = Row(str(file), line, f"{label}/{video.strip()}", label, split=_HMDB51_SPLITS.get(use))
            if not video or use not in {"0", "1", "2"}:
                raise row.error(f"{content!r} is not 'video.avi 0', 1 (train) or 2 (test).")
            if row.split is not None:
                yield row


def diving48_rows(path: str | Path, *, file_name: str = "{id}.mp4") -> Iterator[Row]:
    """Diving48: the official JSON (``Diving48_V2_train.json``), entries with ``vid_name`` and a class number.

    The files on disk are the cut dives, so the entry's frames go to `VideoRecord.extra` and are no segment.
    """
    for number, entry in json_entries(path, needed="vid_name"):
        identity = str(entry["vid_name"])
        extra: dict[str, Any] = {key: entry[key] for key in ("start_frame", "end_frame") if key in entry}
        name = file_name.format(id=identity)
        yield Row(str(path), number, name, entry.get("label"), id=identity, extra=extra or None)


def moments_rows(path: str | Path) -> Iterator[Row]:
    """Moments in Time: ``trainingSet.csv`` or ``validationSet.csv``, lines of path, class and two vote counts."""
    for line, cells in csv_rows(read_list(path), file=path):
        row = Row(str(path), line, cells[0], cells[1] if len(cells) > 1 else None)
        if row.label is None:
            raise row.error(f"{cells!r} is not path, class, votes for, votes against.")
        yield row
