"""``VideoScorer``: records -> their scores by all views, one video after the other.

A video is decoded once for all its views, in a worker process, while the network works on the videos before. With more
than one view a batch (``Predictor``'s ``views_per_batch``) those of several videos share batches, and the last digits
of a score (1e-7 in float32) may depend on what else is tested.

Letters of this file: V views of a video, T frames, C colours, h x w of the network's input, K classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from uniformerv2.core.workers import available_cores
from uniformerv2.data.annotations import VideoRecord, records_digest
from uniformerv2.data.clips import VideoSample
from uniformerv2.data.dataset import TooManyFailuresError, VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.evaluation.scores import SEGMENT, VideoScores
from uniformerv2.inference.batches import compute_in_batches
from uniformerv2.inference.prediction import NOT_FINITE
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.exported import ExportedNetwork

__all__ = ["Average", "VideoScorer", "decoding_workers", "middle_view", "weights_digest"]

Average = Literal["softmax", "logits"]

MOST_WORKERS: Final = 8
LARGE_ITEM: Final = 64_000_000
"""Bytes of all views of a video from which on a worker prepares only one video ahead."""


class VideoScorer:
    """Scores videos by all their views.

    Args:
        predictor: The network, its preprocessing with the number of views, where and how precisely it computes.
        average: Mean over the views of the probabilities, or of the logits.
        is_multi_label: A video may have several classes: probabilities are sigmoids, not a softmax.
        keep_view_scores: Keep the scores of each view.
        num_workers: Processes that decode; None: see ``decoding_workers``.
        timeout_seconds: How long a video may take to read; None: the limit ``seconds_per_video``.

    Raises:
        ValueError: An unknown average.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        average: Average = "softmax",
        is_multi_label: bool = False,
        keep_view_scores: bool = False,
        num_workers: int | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        if average not in get_args(Average):
            raise ValueError(f"average is {average!r}; it must be 'softmax' or 'logits'.")
        self.predictor = predictor
        self.average = average
        self.is_multi_label = is_multi_label
        self.keep_view_scores = keep_view_scores
        self.num_workers = decoding_workers(predictor.device) if num_workers is None else num_workers
        self.timeout_seconds = timeout_seconds

    def __call__(self, records: Sequence[VideoRecord], indices: Sequence[int]) -> Iterator[VideoScores]:
        """Score some records.

        Args:
            records: The whole list.
            indices: Which of them.

        Yields:
            Their scores, in the order of ``indices``; of a video that cannot be read, the error.
        """
        if not indices:
            return
        dataset = VideoDataset(
            [records[index] for index in indices],
            self.predictor.preprocessing,
            num_classes=len(self.predictor.class_names) if self.is_multi_label else None,
            decoder=self.predictor.reader.decoder,
            timeout_seconds=self.timeout_seconds,
        )
        predictor = self.predictor
        samples = ((sample, sample.video if sample.readable else None) for sample in self._samples(dataset))
        done = compute_in_batches(samples, predictor.logits, views_per_batch=predictor.views_per_batch)
        for index, video in zip(indices, done, strict=True):
            record, sample = records[index], video.item
            is_scored = video.rows is not None and bool(video.rows.isfinite().all())
            scores = self._score(video.rows) if video.rows is not None and is_scored else self._nothing()
            errors = [f"{failure.kind}: {failure.detail}" for failure in sample.failures]
            errors += [f"no score: {NOT_FINITE}"] if video.rows is not None and not is_scored else []
            yield VideoScores(
                index=index,
                path=record.path,
                id=record.id,
                label=record.label,
                error="; ".join(errors),
                duration_seconds=sample.duration_seconds,
                **{name: getattr(record, name) for name in SEGMENT},
                **scores,
            )

    def fingerprint(self, records: Sequence[VideoRecord]) -> dict[str, Any]:
        """What decides the scores, in plain values: two runs with the same values can continue each other."""
        labels = records_digest(records, ((record.path,) for record in records))[:16]
        return {
            **self._computed_by(),
            "videos": f"{len(records)} ({labels})",
            **self.predictor.preprocessing.to_dict(),
            "classes": list(self.predictor.class_names),
            "average": self.average,
            "multi_label": self.is_multi_label,
            "precision": self.predictor.precision,
            "decoder": self.predictor.reader.decoder,
            "view_scores": self.keep_view_scores,
        }

    def _computed_by(self) -> dict[str, str]:
        network = self.predictor.network
        if isinstance(network, ExportedNetwork):
            return {"checkpoint": network.file_digest(), "engine": self.predictor.engine.name}
        return {"checkpoint": weights_digest(network)}

    def _samples(self, dataset: VideoDataset) -> Iterator[VideoSample]:
        """All views of each video, one video after the other."""
        size = dataset.reader.preprocessing
        item = 4 * 3 * dataset.reader.num_views * size.num_frames * size.input_size[0] * size.input_size[1]
        loader = VideoLoader(
            dataset, batch_size=1, num_workers=self.num_workers, prefetch_batches=1 if item > LARGE_ITEM else 2
        )
        num_given = 0
        with closing(loader):
            try:
                for batch in loader:
                    num_given += 1
                    yield VideoSample(
                        batch.video[0],
                        batch.label[0],
                        num_given - 1,
                        readable=bool(batch.readable[0]),
                        failures=batch.failures,
                        duration_seconds=batch.duration_seconds[0],
                    )
            except TooManyFailuresError:  # of a share without a readable video, which the loader gives up: list it
                for position in range(num_given, len(dataset)):
                    sample = dataset[position]
                    assert isinstance(sample, VideoSample)
                    yield sample

    def _score(self, logits: Tensor) -> dict[str, Any]:
        """[V, K] -> the scores of a video."""
        view_scores = self._probabilities(logits).numpy()
        if self.average == "softmax":
            scores = view_scores.mean(axis=0)
        else:
            scores = self._probabilities(logits.mean(dim=0)).numpy()
        return {
            "scores": scores,
            "one_view_scores": view_scores[middle_view(self.predictor.preprocessing)],
            "view_scores": view_scores if self.keep_view_scores else None,
        }

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.is_multi_label else logits.softmax(dim=-1)

    def _nothing(self) -> dict[str, Any]:
        return {"scores": np.zeros(len(self.predictor.class_names), dtype=np.float32)}


def decoding_workers(device: torch.device, *, num_devices: int = 1) -> int:
    """Processes that decode for a network: one per core, up to 8; where it computes on these cores itself, one less.

    Args:
        device: Where the network computes.
        num_devices: How many such networks share this machine.
    """
    cores = available_cores() // num_devices
    return max(1, min(cores - (device.type == "cpu"), MOST_WORKERS))


def middle_view(preprocessing: Preprocessing) -> int:
    """The view that stands for a test with one view: the middle crop of the middle clip.

    >>> middle_view(Preprocessing(num_clips=3, num_crops=3)), middle_view(Preprocessing(num_clips=4))
    (4, 1)
    """
    last = preprocessing.crop_order == "first_last_middle"
    crop = 0 if preprocessing.num_crops == 1 else 1 + last
    return (preprocessing.num_clips - 1) // 2 * preprocessing.num_crops + crop


def weights_digest(model: UniFormerV2) -> str:
    """Digest of the architecture and all weights."""
    digest = hashlib.blake2b(json.dumps(model.config.to_dict(), sort_keys=True).encode(), digest_size=8)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
