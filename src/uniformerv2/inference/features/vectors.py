"""Features of one video, whole or window by window: from what the network computed to what is written and sent.

Letters of this file: N features, C channels, V views.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.features.clock import FeatureClock
from uniformerv2.inference.features.index import FORMAT
from uniformerv2.inference.prediction import NOT_FINITE
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.window_frames import WindowPlan
from uniformerv2.inference.window_grid import WindowGrid
from uniformerv2.inference.window_scores import Window
from uniformerv2.inference.windows import WindowScorer
from uniformerv2.media.decoding import VideoError

__all__ = ["WHAT", "Features", "dense_features", "is_on_stride", "normed_features", "whole_features"]

WHAT: Final = "the fused video token after the last norm, before dropout and classifier"


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features of one video, or of one segment.

    Attributes:
        video: The path.
        vectors: [N, C] float32: of each window; or [1, C] of length 1.
        starts: Seconds at which each begins [N]; NaN where only a frame number is known.
        ends: Seconds at which it ends [N], likewise.
        label: Name of the class where the list gives one; several are separated by ``;``.
        model: Digest of the network's architecture and weights.
        duration_seconds: Of the video, or of the segment; None where nothing tells it.
        clock: How tools for localisation find feature i; None for whole videos and segments.
        video_fps: Frames per second of the video, where there is a clock.
        way: How windows were computed; empty for whole videos.
        broken: Why the video could not be read to the end; None where it could.
    """

    video: str
    vectors: NDArray[np.float32]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    label: str | None
    model: str
    duration_seconds: float | None
    clock: FeatureClock | None = None
    video_fps: float | None = None
    way: str = ""
    broken: str | None = None

    def __repr__(self) -> str:
        count, dim = self.vectors.shape
        return f"<Features of {self.video!r}: {count} of {dim} numbers{f', {self.label}' if self.label else ''}>"

    def to_dict(self, *, vectors: bool = False) -> dict[str, Any]:
        """Plain values, for JSON.

        Args:
            vectors: Also the features themselves.
        """
        content: dict[str, Any] = {
            "format": FORMAT,
            "video": self.video,
            "duration_seconds": None if self.duration_seconds is None else round(self.duration_seconds, 6),
            "num_features": len(self.vectors),
            "dim": self.vectors.shape[1],
            "what": WHAT,
            "is_normalised": self.clock is None,
            "label": self.label,
            "model": self.model,
            "start_seconds": _rounded(self.starts),
            "end_seconds": _rounded(self.ends),
            "broken": self.broken,
        }
        if self.clock is not None:
            content |= {**self.clock.to_dict(), "video_fps": self.video_fps, "way": self.way}
        if vectors:
            content["vectors"] = [[float(value) for value in row] for row in self.vectors]
        return content

    def to_json(self, *, vectors: bool = False) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(vectors=vectors), ensure_ascii=False, allow_nan=False)


@torch.inference_mode()
def normed_features(predictor: Predictor, pixels: Tensor) -> Tensor:
    """[V, T, 3, h, w] of 0 to 255 -> [V, C]: what the head of a checkpoint's network reads."""
    with predictor.autocast():
        fused = predictor.model.forward_features(predictor.network_input(pixels))
        return predictor.model.forward_head(fused, pre_logits=True).float().cpu()


def whole_features(record: VideoRecord, rows: Tensor, duration_seconds: float | None, *, model: str) -> Features:
    """The feature of a video or a segment.

    Args:
        record: It.
        rows: ``normed_features`` of its views [V, C].
        duration_seconds: As the reader says.
        model: Digest or name of the network.

    Raises:
        VideoError: There are numbers that are none.
    """
    mean = rows.double().mean(dim=0)
    vector = (mean / mean.norm()).float()
    if not vector.isfinite().all():
        raise VideoError(record.path, "no score", NOT_FINITE)
    start, end, first_frame, stop_frame = record.segment
    if start is None:
        start = 0.0 if first_frame is None else np.nan
    if end is None:
        end = start + duration_seconds if stop_frame is None and duration_seconds else np.nan
    return Features(
        video=record.path,
        vectors=vector.numpy()[None],
        starts=np.array([start]),
        ends=np.array([end]),
        label=";".join(map(str, record.label_names or record.labels)) or None,
        model=model,
        duration_seconds=duration_seconds,
    )


def is_on_stride(grid: WindowGrid, number: int, window: Window) -> bool:
    """Whether window i lies i strides after the first, as tools for localisation count."""
    place = grid.start_seconds + number * grid.stride_seconds
    return abs(window.start_seconds - place) < grid.step_seconds / 2


def dense_features(
    scorer: WindowScorer, plan: WindowPlan, vectors: NDArray[np.float32], *, video: str, model: str, broken: str | None
) -> Features:
    """The features of the windows of a video.

    Args:
        scorer: What computed them.
        plan: Of the windows.
        vectors: Those of the windows on a stride [N, C].
        video: What to call it.
        model: Digest or name of the network.
        broken: Why there are no more; None where there are all.
    """
    grid, preprocessing = plan.grid, scorer.predictor.preprocessing
    starts = grid.start_seconds + grid.stride_seconds * np.arange(len(vectors), dtype=np.float64)
    is_by_frames = preprocessing.sampling == "dense" and not scorer.has_own_length
    clock = FeatureClock.of(
        window_seconds=scorer.lengths(plan.fps)[0],
        num_frames=preprocessing.num_frames,
        stride_steps=grid.stride_steps,
        ticks_per_step=preprocessing.frame_stride if is_by_frames else None,
    )
    return Features(
        video=video,
        vectors=vectors,
        starts=starts,
        ends=starts + grid.window_seconds,
        label=None,
        model=model,
        duration_seconds=plan.duration_seconds,
        clock=clock,
        video_fps=plan.fps,
        way=scorer.way,
        broken=broken,
    )


def _rounded(seconds: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in seconds]
