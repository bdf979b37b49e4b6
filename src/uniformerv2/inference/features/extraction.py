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

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from uniformerv2.core.files import write_whole
from uniformerv2.core.npy import write_rows
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import VideoSample
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.batches import compute_in_batches
from uniformerv2.inference.engines import EngineName, Precision
from uniformerv2.inference.features.index import FORMAT
from uniformerv2.inference.features.vectors import (
    Features,
    dense_features,
    is_on_stride,
    normed_features,
    whole_features,
)
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.reading_ahead import read_ahead
from uniformerv2.inference.scoring import weights_digest
from uniformerv2.inference.windows import WindowRun, WindowScorer
from uniformerv2.media.decoding import Decoder, VideoError
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import load_model
from uniformerv2.zoo.exported import find_exported

__all__ = ["FeatureExtractor", "load_feature_model"]


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
        return dense_features(
            self.scorer, run.plan, vectors, video=run.record.path, model=self.digest, broken=rows.broken
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
        normed = partial(normed_features, self.predictor)
        for done in compute_in_batches(pairs, normed, views_per_batch=batch):
            record, sample = done.item
            if isinstance(sample, VideoError):
                yield sample
                continue
            assert done.rows is not None  # what could be read has views
            try:
                yield whole_features(record, done.rows, sample.duration_seconds, model=self.digest)
            except VideoError as error:
                yield error

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
                if is_on_stride(run.plan.grid, number, window) and window.features is not None:
                    count += 1
                    yield window.features
                if tell is not None:
                    tell(number + 1, run.plan.grid.num_windows)
        except VideoError as error:
            if not count or error.kind == "no score":
                raise
            rows.broken = error.reason


class _Rows:
    """What is known of a video only when its last feature has come."""

    broken: str | None = None
