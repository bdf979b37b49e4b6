"""``ScoreJournal``: the scores of a test while it runs; a stopped test continues from it.

Beside the dump lies a folder with one journal (see ``core.journal``) per process, which nobody else writes::

    result.pkl                      the dump; appears when the test is done
    .result.pkl.journal/0.jsonl     first line: what is tested and how; then one line per video
    .result.pkl.journal/1.jsonl     the second process's

Processes need no other connection than this folder.
"""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from uniformerv2.core.journal import Journal
from uniformerv2.evaluation.scores import VideoScores

__all__ = ["ScoreJournal", "differences", "journal_folder"]

ARRAYS: Final = ("scores", "view_scores", "one_view_scores")


class ScoreJournal:
    """What the processes of a test have scored so far. Videos are added from ``with`` on.

    Args:
        dump: Where the dump will be.
        fingerprint: What is tested and how, in plain values: the journal of another test is refused.
        rank: Number of this process.

    Raises:
        ValueError: The folder holds another test; the message names what differs.
    """

    def __init__(self, dump: Path, fingerprint: Mapping[str, Any], *, rank: int = 0) -> None:
        self.folder = journal_folder(dump)
        self._own = Journal(self.folder / f"{rank}.jsonl", dict(fingerprint))
        self.path, self.fingerprint = self._own.path, self._own.head
        self._lock = FileLock(self.folder / f"{rank}.lock", timeout=0)
        for journal in self._journals():
            self._check(journal)

    def read(self) -> dict[int, VideoScores]:
        """The videos of all processes so far, by index."""
        videos = (_unpacked(entry) for journal in self._journals() for entry in journal.entries())
        return {video.index: video for video in videos}

    def add(self, video: VideoScores) -> None:
        """Append one video.

        Raises:
            DiskFullError: The disk has no room for it.
        """
        self._own.add(_packed(video))

    def wait(self, num_videos: int, *, patience_seconds: float) -> dict[int, VideoScores]:
        """The videos of all processes, as soon as there are so many.

        Args:
            num_videos: Of the whole test.
            patience_seconds: How long no process may write a line.

        Raises:
            TimeoutError: The others have written nothing for so long.
        """
        last, size = time.monotonic(), -1
        while True:
            start = time.monotonic()
            now = sum(journal.path.stat().st_size for journal in self._journals())
            if now != size:
                last, size = start, now
                found = self.read()
                if len(found) == num_videos:
                    return found
            if start - last > patience_seconds:
                raise TimeoutError(
                    f"{num_videos - len(found)} of {num_videos} videos are missing, and no other process has written "
                    f"to {self.folder} for {patience_seconds:.0f} s. Start the same command again: it continues."
                )
            time.sleep(max(0.2, 5 * (time.monotonic() - start)))  # reading is no more than a fifth of the time

    def remove(self) -> None:
        """The dump is written: the journal is not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(self._lock)
            except Timeout as error:
                raise ValueError(f"Another process is writing to {self.path}: the same test is running.") from error
            held.enter_context(self._own)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _journals(self) -> list[Journal]:
        return [Journal(path, self.fingerprint) for path in sorted(self.folder.glob("*.jsonl"))]

    def _check(self, journal: Journal) -> None:
        try:
            before = journal.found_head()
        except ValueError as error:
            raise ValueError(f"{journal.path} is no journal of a test: delete the folder {self.folder}.") from error
        if before not in (None, self.fingerprint):
            raise ValueError(
                f"{self.folder} holds a stopped test of something else: {differences(before, self.fingerprint)}. "
                "Give the same command to continue it, delete the folder, or give another --dump."
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


def _packed(video: VideoScores) -> dict[str, Any]:
    content = dict(vars(video))
    for name in ARRAYS:
        array = content[name]
        content[name] = None if array is None else [array.shape, base64.b64encode(array.tobytes()).decode()]
    return content


def _unpacked(entry: Mapping[str, Any]) -> VideoScores:
    label = entry["label"]
    arrays = {name: _array(entry[name]) for name in ARRAYS}
    return VideoScores(**{**entry, **arrays, "label": tuple(label) if isinstance(label, list) else label})


def _array(packed: list[Any] | None) -> NDArray[np.float32] | None:
    if packed is None:
        return None
    shape, data = packed
    return np.frombuffer(base64.b64decode(data), dtype=np.float32).reshape(shape)
