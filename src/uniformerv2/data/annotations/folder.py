"""A folder per class: ``root/class/video``, with or without ``train``, ``val``, ``test`` folders above the classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from uniformerv2.data.annotations.held_out import held_out
from uniformerv2.data.annotations.record import AnnotationError, VideoRecord
from uniformerv2.data.annotations.rows import Classes, Row, finish, standard_split
from uniformerv2.data.annotations.table import VIDEO_SUFFIXES

__all__ = ["folder_rows", "has_split_folders", "read_folder"]

_SPLITS: Final = ("train", "val", "test")


def read_folder(
    path: str | Path,
    *,
    classes: Classes | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    val_fraction: float = 0.2,
    group_pattern: str | None = None,
) -> list[VideoRecord]:
    r"""Videos in one folder per class.

    Where there are no ``train``, ``val``, ``test`` folders the videos are split by a hash of their names (see
    `held_out`): the same on every machine, and nearly the same when videos are added. Each class with two sources or
    more has both sides; a class with one source is in ``train`` alone.

    Args:
        path: The folder that holds the class folders, or the ``train``, ``val``, ``test`` folders that hold them.
        classes: Name of a label space, or the class names in head order; None: the folder names, sorted.
        root: Where the records' paths start; ``path`` itself where None.
        split: Keep only these records.
        val_fraction: How much of each class, counted in sources, goes to ``val`` where no folder says it; 0 puts all
            into ``train``.
        group_pattern: Regular expression on the file name without suffix. Videos of a class for which it finds the
            same text go to the same side. None: UCF101's names (``_g01_``) and Kinetics' are known.

    Raises:
        ValueError: ``val_fraction`` is not from 0 to 1.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; it must be at least 0 and below 1.")
    rows = folder_rows(path, val_fraction=val_fraction, group_pattern=group_pattern)
    return finish(rows, source=path, classes=classes, root=root, split=split)


def has_split_folders(path: str | Path) -> bool:
    """Whether the folders in ``path`` are splits and not classes: ``train`` beside ``bus`` is a class."""
    folders = _folders(Path(path))
    splits = [folder for folder in folders if standard_split(folder) in _SPLITS]
    return (len(splits) > 1 or 0 < len(splits) == len(folders)) and all(_folders(Path(path, name)) for name in splits)


def folder_rows(path: str | Path, *, val_fraction: float = 0.2, group_pattern: str | None = None) -> Iterator[Row]:
    """One row per video, in the order of the sorted names.

    Raises:
        AnnotationError: There is no such folder, or no class folder in it holds a video.
    """
    top = Path(path)
    if not top.is_dir():
        raise AnnotationError("is no folder.", file=path)
    row = None
    for row in _class_rows(top, val_fraction=val_fraction, group_pattern=group_pattern):
        yield row
    if row is None:
        raise AnnotationError(
            "holds no videos in class folders: put each class's videos into a folder with its name, or give a list.",
            file=path,
        )


def _class_rows(top: Path, *, val_fraction: float, group_pattern: str | None) -> Iterator[Row]:
    if has_split_folders(top):
        for folder in _folders(top):
            if standard_split(folder) in _SPLITS:
                for name in _folders(top / folder):
                    for video in _videos(top, f"{folder}/{name}"):
                        yield Row(str(top), None, video, name, split=standard_split(folder))
        return
    for name in _folders(top):
        videos = _videos(top, name)
        held = held_out(videos, fraction=val_fraction, group_pattern=group_pattern)
        for video in videos:
            yield Row(str(top), None, video, name, split="val" if video in held else "train")


def _folders(top: Path) -> list[str]:
    with os.scandir(top) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _videos(top: Path, folder: str) -> list[str]:
    found = []
    for where, folders, names in os.walk(top / folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(where, name).relative_to(top).as_posix()
            for name in names
            if not name.startswith(".") and Path(name).suffix.casefold() in VIDEO_SUFFIXES
        ]
    return sorted(found)
