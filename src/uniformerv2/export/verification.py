"""The proof of an export: the file and its checkpoint, each through the whole pipeline, on the same real videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from uniformerv2.core.messages import UsageError
from uniformerv2.inference.engines import EngineName
from uniformerv2.inference.predictor import Predictor
from uniformerv2.media.decoding import VideoError
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.exported import ExportPrecision

__all__ = ["TOLERANCES", "Verification", "VerificationError", "verify"]

TOLERANCES: Final[dict[ExportPrecision, float]] = {"fp32": 1e-4, "fp16": 0.01, "int8": 0.1}
"""By how much a score may differ: float32 by rounding alone, weights in float16 and products in 8 bits by more."""


class VerificationError(RuntimeError):
    """An exported file gives other scores than its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a verification found.

    Attributes:
        num_videos: Videos.
        largest_difference: Of a score of a view, over all views and classes of all videos.
        tolerance: What was allowed.
        num_same_top1: Videos whose best class is the same.
        seconds_per_clip: Median time that the file's engine computed for a view.
        checkpoint_seconds_per_clip: PyTorch's for the checkpoint, in float32.
        engine: What computed the file.
    """

    num_videos: int
    largest_difference: float
    tolerance: float
    num_same_top1: int
    seconds_per_clip: float
    checkpoint_seconds_per_clip: float
    engine: str


def verify(
    model: UniFormerV2, exported: Path, videos: Sequence[str | Path], *, precision: ExportPrecision, engine: EngineName
) -> Verification:
    """Compare.

    Args:
        model: The checkpoint's network, merged.
        exported: What was made of it.
        videos: At least one.
        precision: Of what was made; decides the tolerance.
        engine: What computes it.

    Raises:
        VerificationError: A score differs by more than the tolerance.
        UsageError: A video cannot be read.
    """
    ours = Predictor(model, device="cpu", precision="fp32")
    theirs = Predictor(exported, precision="fp32", engine=engine)
    differences, same, seconds, own_seconds = [], 0, [], []
    for video in videos:
        try:
            wanted, found = ours(video), theirs(video)
        except VideoError as error:
            raise UsageError(f"There is nothing to verify on: {error}") from error
        differences.append(float(np.abs(wanted.view_scores - found.view_scores).max()))
        same += int(wanted.scores.argmax() == found.scores.argmax())
        own_seconds.append(wanted.timings.compute_seconds / len(wanted.view_scores))
        seconds.append(found.timings.compute_seconds / len(found.view_scores))
    result = Verification(
        num_videos=len(videos),
        largest_difference=float(np.max(differences)),  # NaN where one is
        tolerance=TOLERANCES[precision],
        num_same_top1=same,
        seconds_per_clip=median(seconds),
        checkpoint_seconds_per_clip=median(own_seconds),
        engine=theirs.engine.name,
    )
    if not result.largest_difference <= result.tolerance:
        raise VerificationError(
            f"The exported file gives other scores than the checkpoint: {result.largest_difference:.2g} apart, "
            f"{result.tolerance:g} is allowed in {precision}. It was not kept."
        )
    return result
