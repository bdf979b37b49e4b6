"""A folder per class: ``root/class/video``, with or without ``train``, ``val``, ``test`` folders above the classes.

`files_below` is the one walk over a folder of videos.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from uniformerv2.core.messages import first_few
from uniformerv2.data.annotations.record import AnnotationError
from uniformerv2.data.annotations.rows import Row, standard_split
from uniformerv2.media.video_error import BESIDE_VIDEOS, IMAGE_SUFFIXES, VIDEO_SUFFIXES

__all__ = ["FilesBelow", "files_below", "folder_rows"]

_SPLITS: Final = ("train", "val", "test")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FilesBelow:
    """The files of a folder and of those in it.

    Attributes:
        videos: By their suffix.
        others: The other files, without those of ``frames``.
        frames: Folders that hold images alone: videos, where they are named in a list.
    """

    videos: list[str]
    others: list[str]
    frames: list[str]

    def candidates(self) -> list[str]:
        """The other files that may be meant as videos: none that usually lies beside videos, and no image."""
        known = BESIDE_VIDEOS | IMAGE_SUFFIXES
        return [name for name in self.others if _suffix(name) not in known]

    def unread(self) -> str:
        """How many files are passed over that may be meant as videos, with their suffixes; empty where there are none.

        >>> FilesBelow([], ["a/x.lrv", "a/y.LRV", "a/z", "a/notes.txt", "a/cover.jpg"], []).unread()
        '3 files with the suffix .lrv (2), no suffix (1)'
        """
        return _counted(self.candidates(), self.frames)

    def passed_over(self) -> str:
        """How many files are not read, with their suffixes; empty where there are none."""
        return _counted(self.others, self.frames)


def _suffix(name: str) -> str:
    return PurePath(name).suffix.casefold()


def _counted(files: Sequence[str], frames: Sequence[str]) -> str:
    suffixes = Counter(map(_suffix, files))
    told = [
        f"{suffix or 'no suffix'} ({suffixes[suffix]})" for suffix in sorted(suffixes, key=lambda s: (-suffixes[s], s))
    ]
    parts = [f"{len(files)} file{'s' * (len(files) > 1)} with the suffix {first_few(told)}"] if told else []
    parts += [f"{len(frames)} folder{'s' * (len(frames) > 1)} of images, which a list may name"] if frames else []
    return " and ".join(parts)


def folder_rows(path: str | Path) -> Iterator[Row]:
    """One row per video, in the order of the sorted names; of no split where no folder says it.

    Folders without a video are logged.

    Args:
        path: The folder that holds the class folders, or the ``train``, ``val``, ``test`` folders that hold them.

    Raises:
        AnnotationError: There is no such folder, or no class folder in it holds a video.
    """
    top = Path(path)
    if not top.is_dir():
        raise AnnotationError("is no folder.", file=path)
    names = _folders(top)
    splits = _split_folders(top, names)
    places = [f"{split}/{name}" for split in splits for name in _folders(top / split)] if splits else names
    files = {place: files_below(top, place) for place in places}
    if not any(found.videos for found in files.values()):
        raise AnnotationError(
            "holds no videos in class folders: put each class's videos into a folder with its name, or give a list.",
            file=path,
        )
    for place, found in files.items():
        folder, _, name = place.rpartition("/")
        for video in found.videos:
            yield Row(str(top), None, video, name, split=standard_split(folder) if splits else None)
    _warn_of_unread(top, files, splits)


def _split_folders(top: Path, names: Sequence[str]) -> list[str]:
    """The folders that are splits and not classes: ``train`` beside ``bus`` is a class."""
    splits = [name for name in names if standard_split(name) in _SPLITS]
    are_splits = len(splits) > 1 or 0 < len(splits) == len(names)
    return splits if are_splits and all(_folders(top / name) for name in splits) else []


def _warn_of_unread(top: Path, files: Mapping[str, FilesBelow], splits: Sequence[str]) -> None:
    """Log what is passed over: class folders without a video, other files, and folders beside the splits."""
    read = {PurePath(place).name for place, found in files.items() if found.videos}
    empty = sorted({PurePath(place).name for place in files} - read)
    every = FilesBelow([], [], [])
    for found in files.values():
        every.others.extend(found.others)
        every.frames.extend(found.frames)
    told = [f"no video is in the class folders {first_few(empty)}"] if empty else []
    told += [f"not read: {unread}"] if (unread := every.unread()) else []
    if told:
        _log.warning("%s: %s; files are read that end in %s", top, "; ".join(told), " ".join(sorted(VIDEO_SUFFIXES)))
    others = [name for name in _folders(top) if splits and name not in splits]
    beside = [name for name in others if read.intersection(next(os.walk(top / name), ("", [], []))[1])]
    if beside:
        _log.warning("%s: %s is not read, as the splits are %s", top, ", ".join(beside), ", ".join(splits))


def _folders(top: Path) -> list[str]:
    with os.scandir(top) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def files_below(top: Path, folder: str = "") -> FilesBelow:
    """What lies in ``top/folder`` and the folders in it; what is hidden is passed over.

    Links to folders are followed, each folder once and none that holds ``top/folder``. Paths are sorted and relative to
    ``top``.
    """
    found = FilesBelow([], [], [])
    links = [top / folder]
    known = {str(parent) for parent in Path(os.path.realpath(top / folder)).parents}
    known |= {os.path.realpath(above) for above in (top / folder).absolute().parents}
    while links:
        for where, folders, names in os.walk(links.pop(0)):
            real = os.path.realpath(where)
            if real in known:
                folders.clear()
                continue
            known.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [Path(where, name) for name in folders if Path(where, name).is_symlink()]
            inside = Path(where).relative_to(top)
            shown = [name for name in names if not name.startswith(".")]
            if shown and not folders and all(_suffix(name) in IMAGE_SUFFIXES for name in shown):
                found.frames.append(inside.as_posix())
                continue
            for name in shown:
                (found.videos if _suffix(name) in VIDEO_SUFFIXES else found.others).append((inside / name).as_posix())
    return FilesBelow(sorted(found.videos), sorted(found.others), sorted(found.frames))
