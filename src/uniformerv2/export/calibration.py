"""Videos of the user for an export: 8-bit integers get their scales on them, and both networks their accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from uniformerv2.core.messages import UsageError
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.evaluation.summary import summarize
from uniformerv2.inference.engines import EngineName, Network
from uniformerv2.inference.testing import prepare_test

__all__ = ["Accuracy", "calibration_views", "measure_accuracy"]

MOST_VIDEOS: Final = 32
"""Videos that scales are measured on; more move them no further."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How often the best class is the right one, on the same videos.

    Attributes:
        num_videos: Videos with a label; one that cannot be read is a miss.
        top1: Of the exported network, in percent.
        checkpoint_top1: Of the checkpoint in float32, in percent.
    """

    num_videos: int
    top1: float
    checkpoint_top1: float


def calibration_views(records: Sequence[VideoRecord], preprocessing: Preprocessing) -> Iterator[Tensor]:
    """Views of some videos, evenly chosen.

    Args:
        records: Videos, with labels or without.
        preprocessing: How they become the network's input.

    Yields:
        The views of a video, [V, T, 3, h, w].

    Raises:
        UsageError: None of them can be read.
    """
    count = min(MOST_VIDEOS, len(records))
    reader = ClipReader(preprocessing=preprocessing)
    num_read = 0
    for number in range(count):
        sample = reader.test(records[number * len(records) // count])
        if sample.readable:
            num_read += 1
            yield sample.video
    if not num_read:
        raise UsageError(f"None of {count} videos can be read: there is nothing to calibrate on.")


def measure_accuracy(
    source: str | Path, exported: Network, checkpoint: Network, *, engine: EngineName
) -> Accuracy | None:
    """Test both on a list; None where its videos have no labels, or several each.

    Args:
        source: A list or folder of videos.
        exported: The exported network.
        checkpoint: What it was made of.
        engine: What computes the exported one.

    Raises:
        UsageError: Its classes are not those of the network.
    """
    found = []
    for network, name in ((exported, engine), (checkpoint, "torch")):
        run = prepare_test(network, source, split="all", device="cpu", precision="fp32", engine=name)
        for _ in run.videos():
            pass
        evaluation = run.finish()
        assert evaluation is not None  # as this is the only process
        found.append(summarize(evaluation, num_resamples=0))
    ours, theirs = (summary.all_videos.get("top1") for summary in found)
    if ours is None or theirs is None:
        return None
    return Accuracy(num_videos=found[0].num_labelled, top1=100 * ours.value, checkpoint_top1=100 * theirs.value)
