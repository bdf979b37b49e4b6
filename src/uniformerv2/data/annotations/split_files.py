"""UCF101, HMDB51, Diving48 and Moments in Time: the official split files.

Soomro et al. 2012, Kuehne et al. 2011, Li et al. 2018, Monfort et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from uniformerv2.data.annotations.record import AnnotationError, VideoRecord
from uniformerv2.data.annotations.rows import Classes, Row, finish, read_text, split_from_name
from uniformerv2.data.annotations.table import as_entries, csv_rows, read_json
from uniformerv2.data.annotations.text_lists import without_comments

__all__ = [
    "Fold",
    "diving48_rows",
    "hmdb51_rows",
    "moments_rows",
    "read_diving48",
    "read_hmdb51",
    "read_moments_in_time",
    "read_ucf101",
    "ucf101_rows",
]

Fold = Literal[1, 2, 3]

_HMDB51_SPLITS: Final = {"1": "train", "2": "test"}  # 0: in neither


def read_ucf101(
    path: str | Path,
    *,
    classes: Classes | None = "ucf101",
    root: str | Path | None = None,
    split: str | None = None,
    fold: Fold = 1,
) -> list[VideoRecord]:
    """UCF101: the folder with ``trainlist01.txt``, ``testlist01.txt`` and so on.

    The class is the folder in each line; the number behind it, which starts from 1, is not needed.

    Args:
        path: The folder of the split files (``ucfTrainTestlist``), or one of them.
        classes: Class names in head order, or a label space.
        root: Where the class folders lie; the folder of the split files where None.
        split: ``"train"`` or ``"test"``; None: both.
        fold: Which of the three published splits.
    """
    return finish(ucf101_rows(path, fold=fold), source=path, classes=classes, root=root, split=split)


def read_hmdb51(
    path: str | Path,
    *,
    classes: Classes | None = "hmdb51",
    root: str | Path | None = None,
    split: str | None = None,
    fold: Fold = 1,
) -> list[VideoRecord]:
    """HMDB51: the folder with ``<class>_test_split1.txt`` and so on; videos that a split leaves out are left out.

    Args:
        path: The folder of the split files (``testTrainMulti_7030_splits``).
        classes: Class names in head order, or a label space.
        root: Where the class folders lie; ``path`` where None.
        split: ``"train"`` or ``"test"``; None: both.
        fold: Which of the three published splits.
    """
    return finish(hmdb51_rows(path, fold=fold), source=path, classes=classes, root=root, split=split)


def read_diving48(
    path: str | Path,
    *,
    classes: Classes | None = "diving48",
    root: str | Path | None = None,
    split: str | None = None,
    file_name: str = "{id}.mp4",
) -> list[VideoRecord]:
    """Diving48: the official JSON (``Diving48_V2_train.json``), entries with ``vid_name`` and a class number.

    The files on disk are the cut dives, so the entry's frames go to `VideoRecord.extra` and are no segment.
    """
    return finish(diving48_rows(path, file_name=file_name), source=path, classes=classes, root=root, split=split)


def read_moments_in_time(
    path: str | Path,
    *,
    classes: Classes | None = "moments_in_time_v1",
    root: str | Path | None = None,
    split: str | None = None,
) -> list[VideoRecord]:
    """Moments in Time: ``trainingSet.csv`` or ``validationSet.csv``, lines of path, class and two vote counts.

    Args:
        path: The CSV, without header.
        classes: Class names in head order, or a label space; the later editions bring their own list of 305.
        root: Where the class folders lie (``training`` or ``validation``); the CSV's folder where None.
        split: Keep only these records.
    """
    return finish(moments_rows(path), source=path, classes=classes, root=root, split=split)


def ucf101_rows(path: str | Path, *, fold: Fold = 1) -> Iterator[Row]:
    """The rows of one fold, or of one split file.

    Raises:
        AnnotationError: A split file is missing, or a line is broken.
    """
    top = Path(path)
    lists = [top / f"{split}list{fold:02d}.txt" for split in ("train", "test")] if top.is_dir() else [top]
    for file in lists:
        if not file.is_file():
            raise AnnotationError(f"no UCF101 split: {file.name} is not there.", file=path)
        for line, content in enumerate(without_comments(read_text(file)).splitlines(), start=1):
            video = content.split()
            if not video:
                continue
            row = Row(str(file), line, video[0], video[0].partition("/")[0], split=split_from_name(file))
            if "/" not in video[0] or len(video) > 2:
                raise row.error(f"{content!r} is not 'Class/video.avi number'.")
            yield row


def hmdb51_rows(path: str | Path, *, fold: Fold = 1) -> Iterator[Row]:
    """The rows of one fold.

    Raises:
        AnnotationError: No split file is there, or a line is broken.
    """
    end = f"_test_split{fold}.txt"
    lists = sorted(Path(path).glob(f"*{end}"))
    if not lists:
        raise AnnotationError(f"no HMDB51 split: no file *{end} is there.", file=path)
    for file in lists:
        label = file.name.removesuffix(end)
        for line, content in enumerate(without_comments(read_text(file)).splitlines(), start=1):
            if not content.strip():
                continue
            video, _, use = content.strip().rpartition(" ")
            row = Row(str(file), line, f"{label}/{video.strip()}", label, split=_HMDB51_SPLITS.get(use))
            if not video or use not in {"0", "1", "2"}:
                raise row.error(f"{content!r} is not 'video.avi 0', 1 (train) or 2 (test).")
            if row.split is not None:
                yield row


def diving48_rows(path: str | Path, *, file_name: str = "{id}.mp4") -> Iterator[Row]:
    """The rows of a Diving48 JSON."""
    file, split = str(path), split_from_name(path)
    for number, entry in as_entries(read_json(path), file=path, needed="vid_name"):
        identity = str(entry["vid_name"])
        extra: dict[str, Any] = {key: entry[key] for key in ("start_frame", "end_frame") if key in entry}
        yield Row(
            file,
            number,
            file_name.format(id=identity),
            entry.get("label"),
            id=identity,
            split=split,
            extra=extra or None,
        )


def moments_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a Moments in Time CSV."""
    file, split = str(path), split_from_name(path)
    for line, cells in csv_rows(without_comments(read_text(path)), file=path):
        row = Row(file, line, cells[0], cells[1] if len(cells) > 1 else None, split=split)
        if row.label is None:
            raise row.error(f"{cells!r} is not path, class, votes for, votes against.")
        yield row
