"""Indexes of long videos, kept: by this process, and on disk for the next one.

A worker of the loader opens the same files in every epoch, clips, thumbnails and windows of one film open it several
times, and the next run begins with all of them again. Where a container has no tables (Matroska, WebM, AVI, transport
streams) an index costs every byte of the video.

On disk they are in ``frame_indexes`` of `cache_home`, a file of some kilobytes a video. A cache that cannot be read or
written costs nothing but time.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final
from zipfile import BadZipFile
from zlib import error as ZlibError

import av
import numpy as np

from uniformerv2.core.files import cache_home, write_whole
from uniformerv2.media.frame_index import FrameIndex

__all__ = ["INDEXES", "IndexCache", "IndexFolder"]

LEAST_FRAMES: Final = 1000
"""The index of a shorter video is made faster than it is worth keeping."""
MOST_FRAMES: Final = 2**19
"""All that a process keeps together: 50 MB. The one that was not asked for longest goes first."""
MOST_FILES: Final = 20_000
"""In the folder; then the half that was written first goes."""
MOST_BYTES: Final = 2**24
"""A file of the folder that is larger is none of ours."""
SETTLED_SECONDS: Final = 60
"""A file that was changed later may still be written, or is an upload that is soon gone: not for the disk."""
FORMAT: Final = 1
"""Of the files, and of the rules by which an index is made."""
COLUMNS: Final = ("keys", "times", "seek_points", "keyframes")

logger = logging.getLogger(__name__)

Identity = tuple[int, int, int, int]


class IndexCache:
    """Indexes by the identity of an open file: device, inode, size, and when it was changed.

    Args:
        folder: Where they are kept for other processes, too.
    """

    def __init__(self, folder: IndexFolder | None = None) -> None:
        self._folder = folder
        self._kept: OrderedDict[Identity, FrameIndex] = OrderedDict()
        self._num_frames = 0
        self._lock = Lock()

    def get(self, file: BinaryIO) -> FrameIndex | None:
        """The index of a file as it now is; None where none is kept."""
        key = _identity(file)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        index = self._folder.read(file) if self._folder else None
        if index is not None:
            self._keep(key, index)
        return index

    def put(self, file: BinaryIO, index: FrameIndex) -> None:
        """Keep an index, where it is worth it and fits."""
        key = _identity(file)
        if key not in self._kept and LEAST_FRAMES <= len(index) <= MOST_FRAMES:
            self._keep(key, index)
            if self._folder:
                self._folder.write(file, index)

    def _keep(self, key: Identity, index: FrameIndex) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = index
            self._num_frames += len(index)
            while self._num_frames > MOST_FRAMES:
                _, oldest = self._kept.popitem(last=False)
                self._num_frames -= len(oldest)


class IndexFolder:
    """Indexes on disk, under a SHA-256 of the identity of the video, when its inode was changed, and PyAV's version."""

    def read(self, file: BinaryIO) -> FrameIndex | None:
        """The index of a file as it now is; None where none is kept that can be read."""
        try:
            path = self._path(file)
            if not path.is_file() or path.stat().st_size > MOST_BYTES:
                return None
            return _load(path)
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, BadZipFile, ZlibError) as error:
            logger.debug("The index of %s is not used: %s", getattr(file, "name", "a video"), error)
            return None

    def write(self, file: BinaryIO, index: FrameIndex) -> None:
        """Keep an index for other processes, where the file is no longer written and the folder can be."""
        if time.time() - os.fstat(file.fileno()).st_mtime < SETTLED_SECONDS:
            return
        with suppress(OSError, RuntimeError):
            path = self._path(file)
            write_whole(path, lambda temporary: _save(temporary, index))
            _remove_oldest(path.parent)

    def _path(self, file: BinaryIO) -> Path:
        told = FORMAT, av.__version__, *_identity(file), os.fstat(file.fileno()).st_ctime_ns
        return cache_home() / "frame_indexes" / f"{sha256(repr(told).encode()).hexdigest()}.npz"


def _identity(file: BinaryIO) -> Identity:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _save(path: Path, index: FrameIndex) -> None:
    """Write the differences, which are nearly constant and become small."""
    columns: dict[str, Any] = {name: np.diff(np.array(getattr(index, name), np.int64), prepend=0) for name in COLUMNS}
    with path.open("wb") as file:
        np.savez_compressed(file, timed=np.array(index.timed), **columns)


def _load(path: Path) -> FrameIndex:
    """What `_save` wrote.

    Raises:
        ValueError: It is no index.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        keys, times, seek_points, keyframes = (np.cumsum(arrays[name]) for name in COLUMNS)
        timed = bool(arrays["timed"])
    increases = all(np.all(np.diff(column) > 0) for column in (keys, times, seek_points, keyframes))
    fits = len(keys) and len(seek_points) and seek_points[0] <= keys[0] and len(times) in {0, len(keys)}
    if not increases or not fits or (len(keyframes) and not 0 <= keyframes[0] <= keyframes[-1] < len(keys)):
        raise ValueError(f"{path} is no index of frames")
    return FrameIndex(
        tuple(keys.tolist()),
        tuple(times.tolist()),
        tuple(seek_points.tolist()),
        tuple(keyframes.tolist()),
        timed=timed,
    )


def _remove_oldest(folder: Path) -> None:
    files = [(entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(folder)]
    if len(files) > MOST_FILES:
        for _, path in sorted(files)[: MOST_FILES // 2]:
            with suppress(OSError):
                Path(path).unlink()


INDEXES: Final = IndexCache(IndexFolder())
"""Of the long videos that were opened last."""
