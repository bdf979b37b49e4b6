"""A folder per class: ``root/class/video``, with or without ``train``, ``val``, ``test`` folders above the classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

from uniformerv2.data.annotations.held_out import held_out
from uniformerv2.data.annotations.record import AnnotationError, VideoRecord
from uniformerv2.data.annotations.rows import Classes, Row, finish, standard_split
from uniformerv2.data.annotations.table import VIDEO_SUFFIXES

__all__ = ["folder_rows", "has_split_folders", "read_folder"]

_SPLITS: Final = ("train", "val", "test")
_SHOWN: Final = 10

_log = logging.getLogger(__name__)


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
    more has both sides; a class with one source is in ``train`` alone. Folders without a video are logged.

    Args:
        path: The folder that holds the class folders, or the ``train``, ``val``, ``test`` folders that hold them.
        classes: Name of a label space, or the class names in head order; None: the folder names, sorted (as
            numbers where all of them are whole numbers).
        root: Where the records' paths start; ``path`` itself where None.
        split: Keep only these records.
        val_fraction: How much of each class, counted in sources, goes to ``val`` where no folder says it; 0 puts all
            into ``train``.
        group_pattern: Regular expression on the file name without suffix. Videos for which it finds the same text
            go to the same side. None: UCF101's names (``_g01_``) and Kinetics' are known.

    Raises:
        ValueError: ``val_fraction`` is not from 0 to 1.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; it must be at least 0 and below 1.")
    rows = folder_rows(path, val_fraction=val_fraction, group_pattern=group_pattern)
    return finish(rows, source=path, classes=classes, root=root, split=split, by_name=True)


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
    names = _folders(top)
    splits = [name for name in names if standard_split(name) in _SPLITS] if has_split_folders(top) else []
    places = [f"{split}/{name}" for split in splits for name in _folders(top / split)] if splits else names
    videos = {place: _videos(top, place) for place in places}
    held = set() if splits else held_out(videos, fraction=val_fraction, group_pattern=group_pattern)
    for place, found in videos.items():
        folder, _, name = place.rpartition("/")
        for video in found:
            split = standard_split(folder) if splits else "val" if video in held else "train"
            yield Row(str(top), None, video, name, split=split)
    if any(videos.values()):
        _warn_of_unread(top, videos, splits)


def _warn_of_unread(top: Path, videos: Mapping[str, list[str]], splits: Sequence[str]) -> None:
    """Log class folders without a video, and folders beside the splits that have the same classes."""
    read = {PurePath(place).name for place, found in videos.items() if found}
    empty = sorted({PurePath(place).name for place in videos} - read)
    if empty:
        _log.warning(
            "%s: no video is in the class folders %s; files are read that end in %s",
            top,
            ", ".join(empty[:_SHOWN]) + (f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""),
            " ".join(sorted(VIDEO_SUFFIXES)),
        )
    others = [name for name in _folders(top) if splits and name not in splits]
    beside = [name for name in others if read.intersection(next(os.walk(top / name), ("", [], []))[1])]
    if beside:
        _log.warning("%s: %s is not read, as the splits are %s", top, ", ".join(beside), ", ".join(splits))


def _folders(top: Path) -> list[str]:
    with os.scandir(top) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _videos(top: Path, folder: str) -> list[str]:
    """Sorted, relative to ``top``. Links to folders are followed, each folder once and none that holds ``folder``."""
    found: list[str] = []
    links = [top / folder]
    known = {str(parent) for parent in Path(os.path.realpath(top / folder)).parents}
    known |= {os.path.realpath(above) for above in (top, *top.absolute().parents)}
    while links:
        for where, folders, names in os.walk(links.pop(0)):
            real = os.path.realpath(where)
            if real in known:
                folders.clear()
                continue
            known.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [Path(where, name) for name in folders if Path(where, name).is_symlink()]
            found += [
                Path(where, name).relative_to(top).as_posix()
                for name in names
                if not name.startswith(".") and Path(name).suffix.casefold() in VIDEO_SUFFIXES
            ]
    return sorted(found)
