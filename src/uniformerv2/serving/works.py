"""Works: what is made of one upload beside a prediction, read by workers in pieces and computed in steps.

::

    task -> worker -> piece -> compute: a step, others' steps, a step, ...  -> result
                        |
                        following: the next piece is read meanwhile

Between two steps the network serves other requests, and a request that nobody waits for any more ends.

Works on the windows of a video are in ``window_works``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from typing import Any, Literal

import torch
from PIL import Image

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.explanations.explanation import Explanation, Method, explain_view
from uniformerv2.inference.explanations.pictures import draw_overlays, overlay_sheet, overlay_video
from uniformerv2.inference.explanations.view import SeenView
from uniformerv2.inference.features.vectors import (
    Features,
    normed_features,
    whole_features,
)
from uniformerv2.inference.predictor import Predictor
from uniformerv2.serving.decoding import UPLOAD, SeenTask, SeenUpload, UploadTask, Views

__all__ = ["ExplainWork", "Form", "WholeWork", "Work"]

Form = Literal["json", "mp4", "png"]


class Work:
    """What becomes of one upload.

    Args:
        task: What a worker reads first.
        model: Name of the one that computes.

    Attributes:
        decode_seconds: What workers needed.
        compute_seconds: What the network needed.
    """

    def __init__(self, task: UploadTask, model: str) -> None:
        self.task = task
        self.model = model
        self.decode_seconds = 0.0
        self.compute_seconds = 0.0

    @property
    def timings(self) -> dict[str, float]:
        """For the answer."""
        return {name: round(getattr(self, name), 6) for name in ("decode_seconds", "compute_seconds")}

    def following(self, _answer: Any) -> UploadTask | None:
        """What a worker may read while this answer is computed; None: nothing more.

        Args:
            _answer: Of a worker.
        """
        return None

    @abstractmethod
    def compute(self, answer: Any) -> Iterator[None]:
        """Compute what a worker has read.

        Args:
            answer: Of a worker.

        Yields:
            After each step.
        """

    @abstractmethod
    def result(self) -> Any:
        """What is made of it, after the last step."""


class WholeWork(Work):
    """One feature for an upload.

    Args:
        task: Reads its views.
        model: Name of the one that computes.
        predictor: It; of a checkpoint.
    """

    def __init__(self, task: UploadTask, model: str, *, predictor: Predictor) -> None:
        super().__init__(task, model)
        self._predictor = predictor
        self._features: Features

    def compute(self, answer: Views) -> Iterator[None]:
        """See ``Work``."""
        rows = []
        for views in torch.from_numpy(answer.pixels).split(self._predictor.views_per_batch):
            rows.append(normed_features(self._predictor, views))
            yield
        seconds = answer.duration_seconds
        self._features = whole_features(VideoRecord(UPLOAD), torch.cat(rows), seconds, model=self.model)

    def result(self) -> Features:
        """See ``Work``."""
        return self._features


class ExplainWork(Work):
    """Where the network looked for a class in an upload; its result is the explanation, and a file.

    Args:
        task: Reads the view.
        model: Name of the one that computes.
        predictor: It; of a checkpoint that can be explained.
        target: Number of a class; None: the most probable one.
        method: See ``explain``.
        form: What is sent: "json" is no file.
        in_time: The video keeps time with the upload.
    """

    def __init__(
        self,
        task: SeenTask,
        model: str,
        *,
        predictor: Predictor,
        target: int | None,
        method: Method,
        form: Form,
        in_time: bool,
    ) -> None:
        super().__init__(task, model)
        self._predictor = predictor
        self._target = target
        self._method = method
        self._form = form
        self._in_time = in_time
        self._explanation: Explanation
        self._file = b""

    def compute(self, answer: SeenUpload) -> Iterator[None]:
        """See ``Work``."""
        seen = SeenView(torch.from_numpy(answer.pixels), answer.place)
        method = self._method
        self._explanation = explain_view(self._predictor, seen, video=UPLOAD, target=self._target, method=method)
        if answer.pictures is None:
            return
        yield
        overlays = draw_overlays(self._explanation, [Image.fromarray(one) for one in answer.pictures])
        yield
        if self._form == "png":
            file = BytesIO()
            overlay_sheet(overlays).save(file, format="png")
            self._file = file.getvalue()
        else:
            self._file = overlay_video(overlays, seconds=self._seconds(answer) if self._in_time else None)

    def _seconds(self, answer: SeenUpload) -> list[float] | None:
        """How long each frame is shown: until the next one; the first from the beginning, the last to the end."""
        times = answer.place.frame_seconds
        if times is None or answer.duration_seconds is None:
            return None
        return [end - start for start, end in pairwise((0.0, *times[1:], answer.duration_seconds))]

    def result(self) -> tuple[Explanation, bytes]:
        """See ``Work``."""
        return self._explanation, self._file
