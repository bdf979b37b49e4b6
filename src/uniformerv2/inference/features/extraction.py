"""What a network makes of videos before it names a class: features for localisation (dense) and for retrieval (whole).

    extractor = FeatureExtractor("models/demo")
    extractor.dense("match.mp4").vectors          # [N, C], one feature per window
    for found in extractor.whole(["a.mp4", "b.mp4"]):
        found.vectors                             # [1, C], of length 1

A feature is what the head reads: the fused video token after the network's last norm, before dropout and classifier.
Dense ones are the network's own numbers. Of whole videos and segments the mean over the views is divided by its length,
so that a product of two is their cosine.

Letters of this file: N features, C channels, V views, T frames of a window.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniformerv2.core.files import write_whole
from uniformerv2.core.npy import write_rows
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import VideoSample
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.batches import compute_in_batches
from uniformerv2.inference.engines import EngineName, Precision
from uniformerv2.inference.features.clock import FeatureClock
from uniformerv2.inference.features.index import FORMAT
from uniformerv2.inference.prediction import NOT_FINITE
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.reading_ahead import read_ahead
from uniformerv2.inference.scoring import weights_digest
from uniformerv2.inference.windows import WindowRun, WindowScorer
from uniformerv2.media.decoding import Decoder, VideoError
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import load_model
from uniformerv2.zoo.exported import find_exported

__all__ = ["WHAT", "FeatureExtractor", "Features", "load_feature_model"]

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


def load_feature_model(source: str | Path, **overrides: Any) -> UniFormerV2:
    """A checkpoint that gives features.

    Args:
        source: What ``load_model`` takes.
        **overrides: See ``load_model``.

    Raises:
        ValueError: As ``load_model``; or an exported network, which has none.
    """
    if find_exported(source) is not None:
        raise ValueError(
            f"{source} is an exported network and gives scores alone, no features: give the checkpoint that it was "
            "made from."
        )
    return load_model(source, **overrides)


class FeatureExtractor:
    """Computes features with one network.

    Args:
        model: What ``load_model`` takes, or a model as it was loaded, which is made ready for inference.
        preprocessing: See ``Predictor``, as the following.
        num_clips: Of a whole video; dense features see each window once.
        num_crops: Crops of a clip or window.
        device: See ``Predictor``.
        precision: See ``Predictor``.
        engine: See ``Predictor``.
        decoder: See ``Predictor``.
        views_per_batch: See ``Predictor``.
        window_seconds: See ``WindowScorer``, as the following.
        stride_seconds: From window to window.
        fps: Of folders of frames.

    Attributes:
        predictor: What reads the videos and computes.
        digest: Of architecture and weights, as they were loaded.
        asked: Which windows were asked for.

    Raises:
        ValueError: An argument outside what is allowed, or an exported network.
    """

    def __init__(
        self,
        model: UniFormerV2 | str | Path,
        preprocessing: Preprocessing | Literal["official", "mmaction2"] | None = None,
        *,
        num_clips: int | None = None,
        num_crops: int | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        engine: EngineName = "auto",
        decoder: Decoder = "auto",
        views_per_batch: int | None = None,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        fps: float | None = None,
    ) -> None:
        network = load_feature_model(model) if isinstance(model, str | Path) else model
        self.digest = weights_digest(network)  # before linear maps are merged: another processor may round otherwise
        if not network.num_classes:
            network.reset_classifier(1)  # a predictor needs a head; features are read below it
        self.predictor = Predictor(
            network.merge_linear(),
            preprocessing,
            num_clips=num_clips,
            num_crops=num_crops,
            device=device,
            precision=precision,
            engine=engine,
            decoder=decoder,
            views_per_batch=views_per_batch,
        )
        self.asked: dict[str, Any] = {"window_seconds": window_seconds, "stride_seconds": stride_seconds, "fps": fps}
        self.scorer = WindowScorer(self.predictor, **self.asked)

    @property
    def dim(self) -> int:
        """C."""
        return int(self.predictor.model.num_features)

    def settings(self) -> dict[str, Any]:
        """What decides the features, in plain values: of files with equal ones the features may be mixed."""
        return {
            "format": FORMAT,
            "model": self.digest,
            "dim": self.dim,
            "preprocessing": self.predictor.preprocessing.to_dict(),
            "precision": self.predictor.precision,
            "decoder": self.predictor.reader.decoder,
        }

    def dense(
        self,
        video: str | Path | VideoRecord,
        *,
        file: Path | None = None,
        tell: Callable[[int, int], object] | None = None,
    ) -> Features:
        """One feature per window of a video, each a stride after the one before.

        The last window of a timeline ends with the video; here it is left out where it does not lie a stride after the
        one before, as tools count in strides.

        Args:
            video: A path, or a record.
            file: Written as ``.npy`` while features come, whole or not at all, so that memory does not grow with the
                video; the result's array is then the file, mapped.
            tell: Called after each window with how many are done, and of how many.

        Returns:
            The features; of a video that breaks off, those up to the break.

        Raises:
            VideoError: Not one window can be read, or the frames have no times.
        """
        run, rows = WindowRun(self.scorer, video), _Rows()
        windows = self._on_grid(run, rows, tell)
        if file is None:
            vectors = np.stack(list(windows))
        else:
            write_whole(file, lambda temporary: write_rows(temporary, windows, self.dim))
            vectors = np.load(file, mmap_mode="r")
        grid = run.plan.grid
        starts = grid.start_seconds + grid.stride_seconds * np.arange(len(vectors), dtype=np.float64)
        return Features(
            video=run.record.path,
            vectors=vectors,
            starts=starts,
            ends=starts + grid.window_seconds,
            label=None,
            model=self.digest,
            duration_seconds=run.plan.duration_seconds,
            clock=self._clock(run),
            video_fps=run.plan.fps,
            way=self.scorer.way,
            broken=rows.broken,
        )

    def whole(self, videos: Iterable[str | Path | VideoRecord]) -> Iterator[Features | VideoError]:
        """One feature per video or segment, in order: the mean over its views, of length 1.

        Args:
            videos: Paths, or records with their segments and classes.

        Yields:
            The features, or for a video that cannot be read the ``VideoError`` in its place.
        """
        records = (video if isinstance(video, VideoRecord) else VideoRecord(str(video)) for video in videos)
        samples = read_ahead(records, self.predictor.reader.read, device=self.predictor.device)
        pairs = ((pair, pair[1].video if isinstance(pair[1], VideoSample) else None) for pair in samples)
        batch = self.predictor.views_per_batch
        for done in compute_in_batches(pairs, self._normed, views_per_batch=batch):
            record, sample = done.item
            if isinstance(sample, VideoError):
                yield sample
                continue
            assert done.rows is not None  # what could be read has views
            mean = done.rows.double().mean(dim=0)
            vector = (mean / mean.norm()).float()
            if vector.isfinite().all():
                yield self._of_whole(record, sample, vector.numpy())
            else:
                yield VideoError(record.path, "no score", NOT_FINITE)

    def _of_whole(self, record: VideoRecord, sample: VideoSample, vector: NDArray[np.float32]) -> Features:
        start, end, first_frame, stop_frame = record.segment
        if start is None:
            start = 0.0 if first_frame is None else np.nan
        if end is None:
            end = start + sample.duration_seconds if stop_frame is None and sample.duration_seconds else np.nan
        return Features(
            video=record.path,
            vectors=vector[None],
            starts=np.array([start]),
            ends=np.array([end]),
            label=";".join(map(str, record.label_names or record.labels)) or None,
            model=self.digest,
            duration_seconds=sample.duration_seconds,
        )

    @torch.inference_mode()
    def _normed(self, pixels: Tensor) -> Tensor:
        """[V, T, 3, h, w] of 0 to 255 -> [V, C]."""
        with self.predictor.autocast():
            fused = self.predictor.model.forward_features(self.predictor.network_input(pixels))
            return self.predictor.model.forward_head(fused, pre_logits=True).float().cpu()

    def _on_grid(
        self, run: WindowRun, rows: _Rows, tell: Callable[[int, int], object] | None
    ) -> Iterator[NDArray[np.float32]]:
        """The features of the windows that lie a stride after the one before.

        Raises:
            VideoError: There is not one.
        """
        count = 0
        try:
            for number, window in enumerate(run.windows()):
                place = run.plan.grid.start_seconds + number * run.plan.grid.stride_seconds
                if abs(window.start_seconds - place) < run.plan.grid.step_seconds / 2 and window.features is not None:
                    count += 1
                    yield window.features
                if tell is not None:
                    tell(number + 1, run.plan.grid.num_windows)
        except VideoError as error:
            if not count or error.kind == "no score":
                raise
            rows.broken = error.reason

    def _clock(self, run: WindowRun) -> FeatureClock:
        preprocessing = self.predictor.preprocessing
        is_by_frames = preprocessing.sampling == "dense" and self.asked["window_seconds"] is None
        return FeatureClock.of(
            window_seconds=self.scorer.lengths(run.plan.fps)[0],
            num_frames=preprocessing.num_frames,
            stride_steps=run.plan.grid.stride_steps,
            ticks_per_step=preprocessing.frame_stride if is_by_frames else None,
        )


class _Rows:
    """What is known of a video only when its last feature has come."""

    broken: str | None = None


def _rounded(seconds: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in seconds]
