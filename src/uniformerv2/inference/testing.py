"""A test from its beginning to its dump: in one process or several; a stopped one continues.

    scorer = VideoScorer(Predictor("model", num_clips=4, num_crops=3))
    run = TestRun(scorer, records, dump="result.pkl")
    for video in run.videos():
        ...
    evaluation = run.finish()

Process r of W has the videos r, r + W, r + 2 W, ...: none twice, none missing, whatever the remainder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.evaluation.dumps import check_dump_path, read_dump, write_dump
from uniformerv2.evaluation.journal import ScoreJournal, differences
from uniformerv2.evaluation.scores import Evaluation, VideoScores
from uniformerv2.inference.scoring import VideoScorer

__all__ = ["TestRun"]

PATIENCE_SECONDS: Final = 3600.0
"""How long the first process waits for a sign of life of the others."""


class TestRun:
    """One test, or the share of it that one of several processes has.

    Args:
        scorer: What scores the videos.
        records: All of them, the same in every process.
        dump: What to write; a stopped test continues from the journal beside it. None: nothing is written.
        rank: Number of this process.
        world_size: Processes. They meet in the journal, so that there must be a ``dump``, on a disk that all share.
        info: What shall stand in the dump beside the scores, in plain values.

    Attributes:
        num_videos: Videos of this process's share.
        num_done: How many of these an earlier run has scored.

    Raises:
        ValueError: A label beyond the classes; several processes without a dump; a dump or a journal of another test.
    """

    __test__ = False  # pytest takes a class of this name for tests

    def __init__(
        self,
        scorer: VideoScorer,
        records: Sequence[VideoRecord],
        *,
        dump: str | Path | None = None,
        rank: int = 0,
        world_size: int = 1,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with world_size={world_size} it must be from 0 to {world_size - 1}.")
        if world_size > 1 and dump is None:
            raise ValueError(
                "Several processes meet in the journal of a dump: give one, on a disk that all of them see."
            )
        _check_labels(records, len(scorer.predictor.class_names))
        self.scorer = scorer
        self.records = records
        self.rank = rank
        self.dump = None if dump is None else check_dump_path(dump, view_scores=scorer.keep_view_scores)
        self.fingerprint = scorer.fingerprint(records)
        self.info = dict(info or {})
        self.journal = None if self.dump is None else ScoreJournal(self.dump, self.fingerprint, rank=rank)
        self._found = {} if self.journal is None else self.journal.read()
        self._finished = self._earlier()  # after the journal was read, which is removed only when there is a dump
        share = range(rank, len(records), world_size)
        self.num_videos = len(share)
        self._left = [index for index in share if index not in self._found and self._finished is None]
        self.num_done = self.num_videos - len(self._left)

    @property
    def is_finished(self) -> bool:
        """Whether the dump was there already."""
        return self._finished is not None

    def videos(self) -> Iterator[VideoScores]:
        """Score what is left of the share.

        Yields:
            Each video, when it is safe in the journal.
        """
        if not self._left:
            return
        with self.journal or nullcontext() as journal:
            for video in self.scorer(self.records, self._left):
                if journal is not None:
                    journal.add(video)
                else:
                    self._found[video.index] = video
                yield video

    def finish(self, *, patience_seconds: float = PATIENCE_SECONDS) -> Evaluation | None:
        """Wait for the other processes, and write the dump.

        Args:
            patience_seconds: How long the others may give no sign of life.

        Returns:
            The scores of all videos, in the process of rank 0; None in the others.
        """
        if self.rank > 0:
            return None
        if self._finished is not None:
            return self._finished
        if self.journal is not None:
            self._found = self.journal.wait(len(self.records), patience_seconds=patience_seconds)
        preprocessing = self.scorer.predictor.preprocessing
        evaluation = Evaluation(
            videos=tuple(self._found[index] for index in range(len(self.records))),
            class_names=self.scorer.predictor.class_names,
            is_multi_label=self.scorer.is_multi_label,
            num_clips=preprocessing.num_clips,
            num_crops=preprocessing.num_crops,
            info={**self.info, "fingerprint": self.fingerprint},
        )
        if self.dump is not None and self.journal is not None:
            write_dump(self.dump, evaluation)
            self.journal.remove()
        return evaluation

    def _earlier(self) -> Evaluation | None:
        """What a run that came to its end has dumped.

        Raises:
            ValueError: It was another test.
        """
        if self.dump is None or not self.dump.exists():
            return None
        before = read_dump(self.dump)
        now = json.loads(json.dumps(self.fingerprint))
        if before.info.get("fingerprint") != now:
            changed = differences(before.info.get("fingerprint", {}), now)
            raise ValueError(f"{self.dump} is the dump of another test: {changed}. Give another --dump, or delete it.")
        return before


def _check_labels(records: Sequence[VideoRecord], num_classes: int) -> None:
    if not records:
        raise ValueError("There are no videos to test on.")
    for record in records:
        labels = record.label if isinstance(record.label, tuple) else (record.label,)
        if max((-1 if label is None else label for label in labels), default=-1) >= num_classes:
            raise ValueError(
                f"{record.path} has the label {record.label}, the network has {num_classes} classes: 0 to "
                f"{num_classes - 1} are allowed."
            )
