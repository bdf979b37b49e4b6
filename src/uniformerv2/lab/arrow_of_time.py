"""The arrow-of-time set: each video forward (class 0) and reversed (class 1), made of any videos as they are read.

A network that cannot tell the order of frames is at chance here: both samples of a test video have the same frames, so
that whatever ignores their order gives both the same scores, and is right about exactly one of them.

Source of the task:
    Pickup et al., Seeing the Arrow of Time (CVPR 2014); Wei et al., Learning and Using the Arrow of Time (CVPR 2018).

A codec predicts forward, which may leave traces of the direction: a score here is evidence that a network uses the
order of the frames, not that it understands motion.

Letters: K clips, T frames, C colours, H x W pixels of a frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Final

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader
from uniformerv2.data.dataset import VideoDataset

__all__ = ["DIRECTIONS", "DirectedReader", "both_directions", "read_directions"]

DIRECTIONS: Final = ("forward", "reversed")
"""Class names, in head order."""

COLUMN: Final = "direction"
"""Of ``VideoRecord.extra``."""


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
