"""The features of many videos as files: begun, stopped, gone on with.

::

    DenseRun    out/match.npy           [N, C], written whole
                out/match.json          where they lie and what made them; stands when the video is done
                out/actionformer.yaml   lines for the tools' configurations
                out/opentad.py
    WholeRun    out/features.parquet    a row per video or segment; appears when the run is done
                out/.features.journal   a line per video while it is not
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from uniformerv2.core.files import lock_folder, write_text
from uniformerv2.core.journal import Journal
from uniformerv2.core.messages import first_few
from uniformerv2.data.annotations import VideoRecord, records_digest
from uniformerv2.data.annotations.record import fingerprint
from uniformerv2.evaluation.journal import differences
from uniformerv2.inference.features.clock import FeatureClock
from uniformerv2.inference.features.extraction import FeatureExtractor
from uniformerv2.inference.features.index import FORMAT, read_head, write_index
from uniformerv2.inference.features.localization_lines import actionformer_lines, opentad_lines
from uniformerv2.inference.features.vectors import Features
from uniformerv2.media.decoding import VideoError

__all__ = ["DenseRun", "WholeRun"]

EXTRACTION: Final = "An extraction of features"
INDEX: Final = "features.parquet"
JOURNAL: Final = ".features.journal"
Telling = Callable[[str], AbstractContextManager[Callable[[int, int], object]]]
"""For a video what is told how many of how many windows are done."""


def _silent(_video: str) -> AbstractContextManager[Callable[[int, int], object]]:
    return nullcontext(lambda _done, _total: None)


class DenseRun:
    """Dense features of videos into a folder.

    Args:
        extractor: What computes.
        videos: Paths; each is taken once.
        out: The folder.

    Attributes:
        num_done: Videos that an earlier run has finished and that are unchanged.

    Raises:
        ValueError: Two videos have the same name; or the folder holds features of another network or of other windows.
    """

    def __init__(self, extractor: FeatureExtractor, videos: Sequence[str], out: Path) -> None:
        self.extractor = extractor
        self.videos = list(dict.fromkeys(videos))
        self.out = out
        self._settings = json.loads(json.dumps({**extractor.settings(), **extractor.asked}))
        self._found: dict[str, dict[str, Any]] = {}
        self._clocks: dict[FeatureClock, None] = {}
        seen: dict[str, str] = {}
        for video in self.videos:
            if (other := seen.setdefault(Path(video).stem, video)) != video:
                raise ValueError(
                    f"The files are called as the videos are, and {other} and {video} are both called "
                    f"{Path(video).stem!r}: give one of them at a time, each with an --out of its own."
                )
            if (found := self._earlier(video)) is not None:
                self._found[video] = found
        self.num_done = len(self._found)

    def place(self, video: str) -> Path:
        """The ``.npy`` of a video."""
        return self.out / f"{Path(video).stem}.npy"

    def run(self, telling: Telling = _silent) -> Iterator[tuple[str, Features | VideoError | dict[str, Any]]]:
        """Compute what is not there.

        Args:
            telling: For a video what is told how far it is.

        Yields:
            Each video in turn with its features; or with its error; or, where an earlier run finished it, with the
            content of its JSON file.
        """
        with lock_folder(self.out, what=EXTRACTION):
            for video in self.videos:
                if video in self._found:
                    self._note(self._found[video])
                    yield video, self._found[video]
                    continue
                try:
                    with telling(video) as tell:
                        found = self.extractor.dense(video, file=self.place(video), tell=tell)
                except VideoError as error:
                    yield video, error
                    continue
                content = {**found.to_dict(), "settings": self._settings, "file": list(fingerprint(video))}
                write_text(self.place(video).with_suffix(".json"), json.dumps(content, ensure_ascii=False) + "\n")
                self._note(content)
                yield video, found

    def lines(self) -> dict[str, str]:
        """What to paste into the configurations of ActionFormer and OpenTAD, by the name of the file."""
        clocks = tuple(self._clocks)
        if not clocks:
            return {}
        return {
            "actionformer.yaml": actionformer_lines(clocks, folder=self.out, dim=self.extractor.dim),
            "opentad.py": opentad_lines(clocks, folder=self.out, dim=self.extractor.dim),
        }

    def finish(self) -> list[Path]:
        """Write these lines.

        Returns:
            The files.
        """
        for name, text in self.lines().items():
            write_text(self.out / name, text)
        return [self.out / name for name in self.lines()]

    def _note(self, content: Mapping[str, Any]) -> None:
        self._clocks[FeatureClock(**{name: content[name] for name in ("fps", "feature_stride", "num_frames")})] = None

    def _earlier(self, video: str) -> dict[str, Any] | None:
        """What an earlier run says of a video that is unchanged.

        Raises:
            ValueError: Its features are of something else.
        """
        place = self.place(video)
        beside = place.with_suffix(".json")
        if not beside.exists():
            if place.exists():
                raise ValueError(f"{place} is there, and no {beside.name} says whose it is: give another --out.")
            return None
        try:
            content = json.loads(beside.read_text("utf-8"))
            settings, file = content["settings"], content["file"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{beside} is not of this verb: give another --out.") from error
        if settings != self._settings:
            changed = differences(_flat(settings), _flat(self._settings))
            raise ValueError(
                f"{beside} belongs to features of something else: {changed}. Give another --out, or delete it."
            )
        is_whole = place.exists() and content.get("format") == FORMAT
        return content if is_whole and file == list(fingerprint(video)) else None


class WholeRun:
    """One feature per video or segment into one Parquet file.

    Args:
        extractor: What computes.
        records: Videos and segments, in the order of the rows.
        out: The folder.

    Attributes:
        file: The Parquet file.
        num_done: Records that an earlier run has done.
        is_finished: Whether the file was there already.

    Raises:
        ValueError: The folder holds features of something else.
    """

    def __init__(self, extractor: FeatureExtractor, records: Sequence[VideoRecord], out: Path) -> None:
        self.extractor = extractor
        self.records = records
        self.out = out
        self.file = out / INDEX
        digest = records_digest(records, ((record.path,) for record in records))[:16]
        self._head = json.loads(json.dumps({**extractor.settings(), "videos": f"{len(records)} ({digest})"}))
        self._journal = Journal(out / JOURNAL, self._head)
        self.is_finished = self.file.exists()
        before = read_head(self.file) if self.is_finished else self._journal.found_head()
        before = before and {name: before.get(name) for name in self._head}
        if before not in (None, self._head):
            where = self.file if self.is_finished else self._journal.path
            raise ValueError(
                f"{where} holds features of something else: {differences(_flat(before), _flat(self._head))}. Give "
                "another --out, or delete it."
            )
        self.num_done = len(records) if self.is_finished else sum(1 for _ in self._journal.entries())

    def run(self) -> Iterator[tuple[VideoRecord, Features | VideoError]]:
        """Compute what is not there; each is safe in the journal when it is given."""
        if self.is_finished:
            return
        with lock_folder(self.out, what=EXTRACTION), self._journal as journal:
            left = islice(self.records, self.num_done, None)
            for record, found in zip(left, self.extractor.whole(self.records[self.num_done :]), strict=True):
                journal.add(_entry(record, found))
                yield record, found

    def finish(self) -> list[tuple[str, str]]:
        """Write the Parquet file.

        Returns:
            The path of each video that could not be read, and why.

        Raises:
            ValueError: Not one could be read.
        """
        if self.is_finished:
            return [(path, reason) for path, reason in read_head(self.file)["failures"]]
        failures = [(entry["video"], entry["error"]) for entry in self._journal.entries() if "error" in entry]
        try:
            if len(failures) == len(self.records):
                listed = first_few([f"{path}: {reason}" for path, reason in failures], shown=3, separator="; ")
                raise ValueError(f"Not one of {len(failures)} videos could be read: {listed}")
            rows = (entry for entry in self._journal.entries() if "error" not in entry)
            write_index(self.file, rows, head={**self._head, "failures": failures}, dim=self.extractor.dim)
        finally:
            self._journal.path.unlink(missing_ok=True)
        return failures


def _entry(record: VideoRecord, found: Features | VideoError) -> dict[str, Any]:
    if isinstance(found, VideoError):
        return {"video": record.path, "error": f"{found.kind}: {found.detail}"}
    start, end = (None if math.isnan(value[0]) else float(value[0]) for value in (found.starts, found.ends))
    vector = base64.b64encode(np.ascontiguousarray(found.vectors[0], "<f4").tobytes()).decode()
    return {"video": found.video, "start_seconds": start, "end_seconds": end, "label": found.label, "vector": vector}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings and those of the preprocessing side by side, for a message that names what differs."""
    inner = settings.get("preprocessing")
    return {**{name: value for name, value in settings.items() if name != "preprocessing"}, **(inner or {})}
