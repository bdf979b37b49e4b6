"""What an ablation learns: the classes of the videos, or the arrow of time.

The arrow-of-time set has each video forward (class 0) and reversed (class 1), made of any videos as they are read. A
network that cannot tell the order of frames is at chance here: both samples of a test video have the same frames, so
that whatever ignores their order gives both the same scores, and is right about exactly one of them.

Source of the task:
    Pickup et al., Seeing the Arrow of Time (CVPR 2014); Wei et al., Learning and Using the Arrow of Time (CVPR 2018).

A codec predicts forward, which may leave traces of the direction: a score here is evidence that a network uses the
order of the frames, not that it understands motion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from re import search
from typing import Final, Literal

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.annotations.held_out import GROUP_PATTERNS
from uniformerv2.data.clips import ClipReader
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.splits import Splits, read_splits

__all__ = ["DIRECTIONS", "DirectedReader", "Task", "both_directions", "read_directions", "read_task", "source_of"]

Task = Literal["classes", "arrow_of_time"]

DIRECTIONS: Final = ("forward", "reversed")
"""Class names, in head order."""

COLUMN: Final = "direction"
"""The key in ``VideoRecord.extra``."""


def read_task(data: str | Path, task: Task, *, limit: int | None = None) -> Splits:
    """The videos of a folder or a list, as the task has them.

    Args:
        data: See ``read_splits``; its own division into training and validation holds for both tasks.
        task: "arrow_of_time": each video forward and reversed, whatever its class.
        limit: Videos of each split, from all over it; None: all.

    Raises:
        ValueError: Videos with several classes each.
    """
    splits = read_splits(data)
    if splits.is_multi_label and task == "classes":
        raise ValueError("An ablation measures top-1, but videos of these data have several classes each.")
    train, val = (_spread(records, limit) for records in (splits.train, splits.val))
    if task == "classes":
        return replace(splits, train=tuple(train), val=tuple(val), test=())
    directed = (tuple(both_directions(records)) for records in (train, val))
    return replace(splits, train=next(directed), val=next(directed), test=(), class_names=DIRECTIONS)


def source_of(record: VideoRecord) -> str:
    """What the clips of one source share; the path of a clip that is a source of its own."""
    path = Path(record.path)
    found = next((match for pattern in GROUP_PATTERNS if (match := search(pattern, path.stem))), None)
    return found.group() if found else record.path


def both_directions(records: Iterable[VideoRecord]) -> list[VideoRecord]:
    """Two records of each, next to each other: forward, then reversed; what class the video had is gone.

    >>> [(record.path, record.label_name) for record in both_directions([VideoRecord("a.mp4", label=7)])]
    [('a.mp4', 'forward'), ('a.mp4', 'reversed')]
    """
    return [
        replace(record, label=label, label_name=name, extra={**record.extra, COLUMN: name})
        for record in records
        for label, name in enumerate(DIRECTIONS)
    ]


class DirectedReader(ClipReader):
    """A ``ClipReader`` that shows the frames of a reversed record in reverse.

    Which frames these are is decided beforehand, as for any video: the reversed sample of a test video has the very
    frames of the forward one.
    """

    def _in_order(self, record: VideoRecord, clips: list[list[int]]) -> list[list[int]]:
        return [clip[::-1] for clip in clips] if record.extra.get(COLUMN) == DIRECTIONS[1] else clips


def read_directions(dataset: VideoDataset) -> VideoDataset:
    """Let a dataset honour the direction of its records, if they have one.

    Args:
        dataset: Changed in place.

    Returns:
        The same dataset.
    """
    reader = dataset.reader
    dataset.reader = DirectedReader(**{item.name: getattr(reader, item.name) for item in fields(reader) if item.init})
    return dataset


def _spread(records: Sequence[VideoRecord], limit: int | None) -> Sequence[VideoRecord]:
    if limit is None or limit >= len(records):
        return records
    return [records[number * len(records) // limit] for number in range(limit)]
