"""``ScoreJournal``: the scores of a test while it runs, safe on disk; what a stopped test goes on from.

Beside the dump lies a folder with a file a process, which nobody else writes::

    result.pkl                      the dump; appears when the test is done
    .result.pkl.journal/0.jsonl     first line: what is tested and how; then a line a video
    .result.pkl.journal/1.jsonl     the second process's

The line that a killed process left half is dropped. Processes need no other connection than this folder.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from uniformerv2.core.files import telling_full_disk
from uniformerv2.evaluation.scores import VideoScores

__all__ = ["ScoreJournal", "differences", "journal_folder"]

SYNC_VIDEOS: Final = 32
"""Lines from one ``fsync`` to the next: a power cut costs no more videos. A killed process loses none."""

ARRAYS: Final = ("scores", "view_scores", "one_view_scores")


class ScoreJournal:
    """What the processes of a test have scored so far. Written from ``with`` on.

    Args:
        dump: Where the dump will be.
        fingerprint: What is tested and how, in plain values: a journal of another test is not gone on with.
        rank: Number of this process.

    Raises:
        ValueError: The folder holds another test; the message names what differs.
    """

    def __init__(self, dump: Path, fingerprint: Mapping[str, Any], *, rank: int = 0) -> None:
        self.folder = journal_folder(dump)
        self.fingerprint = json.loads(json.dumps(dict(fingerprint)))
        self.path = self.folder / f"{rank}.jsonl"
        self._lock = FileLock(self.folder / f"{rank}.lock", timeout=0)
        self._num_waiting = 0
        self._check()

    def read(self) -> dict[int, VideoScores]:
        """The videos of all processes so far, by index."""
        found = {}
        for path in self._files():
            lines = _whole_lines(path)
            next(lines, None)
            for line in lines:
                video = _from_line(line)
                found[video.index] = video
        return found

    def add(self, video: VideoScores) -> None:
        """Append one video.

        Raises:
            DiskFullError: The disk has no room for it.
        """
        with telling_full_disk(self.path):
            self._file.write(_to_line(video))
            self._file.flush()
            self._num_waiting += 1
            if self._num_waiting >= SYNC_VIDEOS:
                os.fsync(self._file.fileno())
                self._num_waiting = 0

    def wait(self, num_videos: int, *, patience_seconds: float) -> dict[int, VideoScores]:
        """The videos of all processes, as soon as there are so many.

        Args:
            num_videos: Of the whole test.
            patience_seconds: For the next line of any process.

        Raises:
            TimeoutError: The others have written nothing for so long.
        """
        last, size = time.monotonic(), -1
        while True:
            start = time.monotonic()
            now = sum(path.stat().st_size for path in self._files())
            if now != size:
                last, size = start, now
                found = self.read()
                if len(found) == num_videos:
                    return found
            if start - last > patience_seconds:
                raise TimeoutError(
                    f"{num_videos - len(found)} of {num_videos} videos are missing, and no other process has written "
                    f"to {self.folder} for {patience_seconds:.0f} s. Start the same command again: it goes on."
                )
            time.sleep(max(0.2, 5 * (time.monotonic() - start)))  # reading is no more than a fifth of the time

    def remove(self) -> None:
        """The dump is written: the journal is not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise ValueError(f"Another process is writing to {self.path}: the same test is running.") from error
        head = json.dumps(self.fingerprint) + "\n"
        size = sum(map(len, _whole_lines(self.path))) if self.path.exists() else 0
        self._file: IO[bytes] = self.path.open("ab")
        try:
            with telling_full_disk(self.path):
                self._file.truncate(size)
                self._file.write(b"" if size else head.encode())
                self._file.flush()
        except OSError:
            with suppress(OSError):  # told already
                self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        try:
            with telling_full_disk(self.path):
                self._file.close()  # which writes again what could not be written
        finally:
            self._lock.release()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def _check(self) -> None:
        for path in self._files():
            head = next(_whole_lines(path), None)
            if head is None:
                continue
            try:
                before = json.loads(head)
            except ValueError:
                before = None
            if not isinstance(before, dict):
                raise ValueError(f"{path} is no journal of a test: delete the folder {self.folder}.")
            if before != self.fingerprint:
                raise ValueError(
                    f"{self.folder} holds a stopped test of something else: {differences(before, self.fingerprint)}. "
                    "Give the same command to go on with it, delete the folder, or give another --dump."
                )


def journal_folder(dump: Path) -> Path:
    """Where the journal of a dump is while its test is not done."""
    return dump.with_name(f".{dump.name}.journal")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two fingerprints, in words.

    >>> differences({"views": 1, "list": "a"}, {"views": 3, "list": "a"})
    'views was 1, is 3'
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    values = [(name, before.get(name), now.get(name)) for name in names]
    return "; ".join(
        f"{name} differ" if isinstance(old, list) and isinstance(new, list) else f"{name} was {old}, is {new}"
        for name, old, new in values
    )


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _to_line(video: VideoScores) -> bytes:
    content = {name: value for name, value in vars(video).items() if name not in ARRAYS}
    for name in ARRAYS:
        array = getattr(video, name)
        content[name] = None if array is None else [list(array.shape), base64.b64encode(array.tobytes()).decode()]
    return json.dumps(content, ensure_ascii=True).encode() + b"\n"


def _from_line(line: bytes) -> VideoScores:
    content = json.loads(line)
    label = content.pop("label")
    content.update({name: _array(content[name]) for name in ARRAYS})
    return VideoScores(label=tuple(label) if isinstance(label, list) else label, **content)


def _array(packed: list[Any] | None) -> NDArray[np.float32] | None:
    if packed is None:
        return None
    shape, data = packed
    return np.frombuffer(base64.b64decode(data), dtype=np.float32).reshape(shape)
