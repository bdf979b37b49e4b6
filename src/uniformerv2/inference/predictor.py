"""A video in, a prediction out: the checkpoint's own preprocessing, multi-view, decoding beside computing.

Letters of this file: K clips, V views (K times crops), T frames, C colours, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader, VideoSample
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.batches import compute_in_batches
from uniformerv2.inference.engines import (
    EngineName,
    Network,
    Precision,
    TorchEngine,
    check_same_input,
    load_network,
    open_engine,
)
from uniformerv2.inference.prediction import NOT_FINITE, Prediction, Timings
from uniformerv2.inference.reading_ahead import read_ahead
from uniformerv2.media.decoding import Decoder, VideoError
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.exported import ExportedNetwork

if TYPE_CHECKING:
    from uniformerv2.inference.explanations.explanation import Explanation, Method

__all__ = ["Predictor", "Video"]

Video = str | Path | Tensor | NDArray[np.uint8]

GPU_VIEWS: Final = 8
"""Default number of views per batch, except on a CPU."""


class Predictor:
    """Classifies videos with one model.

    Args:
        model: What ``load_model`` takes: a folder, a file, a name of the zoo; or what ``uniformerv2 export`` wrote. Or
            a model, which is moved to the device and put in eval mode.
        preprocessing: The checkpoint's own where None; or one of your own, or a published protocol by name.
        num_clips: Clips of a video; the preprocessing's own number where None.
        num_crops: Crops of a clip, 1 or 3; the preprocessing's own number where None.
        device: "auto" is a GPU where there is one, for a checkpoint; exported networks are computed on the CPU.
        precision: "auto" is bfloat16 where the hardware and the engine gain from it.
        engine: What computes; "auto" is the rule of ``inference.engines``.
        decoder: See ``open_video``.
        views_per_batch: Views that the network sees at once, of as many videos as it takes to fill a batch. None: 1 on
            a CPU, where more gain nothing, else 8.
        timeout_seconds: How long one video may take to read; None: the limit ``seconds_per_video``.

    Raises:
        ValueError: An argument outside what is allowed.
        ModuleNotFoundError: The engine is not installed.
    """

    def __init__(
        self,
        model: Network | str | Path,
        preprocessing: Preprocessing | Literal["official", "mmaction2"] | None = None,
        *,
        num_clips: int | None = None,
        num_crops: int | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        engine: EngineName = "auto",
        decoder: Decoder = "auto",
        views_per_batch: int | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        if decoder not in get_args(Decoder):
            raise ValueError(f"decoder is one of {', '.join(map(repr, get_args(Decoder)))}, got {decoder!r}.")
        if views_per_batch is not None and views_per_batch < 1:
            raise ValueError(f"views_per_batch must be at least 1, got {views_per_batch}.")
        network = load_network(model) if isinstance(model, str | Path) else model
        specification = _preprocessing_of(network, preprocessing, num_clips=num_clips, num_crops=num_crops)
        self.class_names = _class_names(network)
        self.is_multi_label = network.info.is_multi_label
        self.network = network
        self.engine = open_engine(network, specification, engine=engine, device=device, precision=precision)
        self.reader = ClipReader(preprocessing=specification, decoder=decoder, timeout_seconds=timeout_seconds)
        self.views_per_batch = views_per_batch or (1 if self.device.type == "cpu" else GPU_VIEWS)

    def __repr__(self) -> str:
        network, views = self.network, self.preprocessing
        height, width = views.input_size
        size = f"{views.num_frames} frames of {height} x {width}"
        if isinstance(network, ExportedNetwork):
            name = network.path.name
        else:
            name = f"{network.config.backbone or 'CLIP ViT'} of {network.config.depth} blocks"
        return (
            f"<Predictor on {self.device}, {self.engine.name}, {self.precision}: {name}, {len(self.class_names)} "
            f"classes, {views.num_clips} x {views.num_crops} views of {size}>"
        )

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.engine.device

    @property
    def precision(self) -> str:
        """In which the network computes."""
        return self.engine.precision

    @property
    def preprocessing(self) -> Preprocessing:
        """What a video goes through before the network; another may be set that makes views of the same kind."""
        return self.reader.preprocessing

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing) -> None:
        check_same_input(value, self.preprocessing, what="This predictor")
        self.reader = replace(self.reader, preprocessing=value)

    def __call__(self, video: Video) -> Prediction:
        """Classify one video.

        Args:
            video: A path (file, or folder of frames); or frames, uint8 RGB [T, C, H, W] or [T, H, W, C].

        Returns:
            The prediction.

        Raises:
            VideoError: The video can't be read, or the network says no finite number of it.
            ValueError: An array that is no video, or a list of videos.
        """
        (result,) = self.of_samples([(video, self._prepare(video))])
        if isinstance(result, VideoError):
            raise result
        return result

    def stream(self, videos: Iterable[Video]) -> Iterator[Prediction | VideoError]:
        """Classify many videos, in order; the next ones are decoded while the network works.

        A prediction may wait for the videos after it, until they fill a batch of ``views_per_batch``. How many are
        decoded ahead says ``read_ahead``.

        Args:
            videos: As for a single call.

        Yields:
            A prediction, or for a video that can't be read or scored the ``VideoError`` in its place.
        """
        yield from self.of_samples(read_ahead(videos, self._prepare, device=self.device))

    def _prepare(self, video: Video) -> VideoSample:
        return self.reader.read(video) if isinstance(video, str | Path) else self.reader.from_frames(_as_frames(video))

    def of_samples(self, videos: Iterable[tuple[Video, VideoSample | VideoError]]) -> Iterator[Prediction | VideoError]:
        """What ``stream`` yields, of videos that are read already: what stands for each, and all its views."""
        pairs = ((pair, pair[1].video if isinstance(pair[1], VideoSample) else None) for pair in videos)
        for done in compute_in_batches(pairs, self.logits, views_per_batch=self.views_per_batch):
            video, views = done.item
            if isinstance(views, VideoError):
                yield views
            elif done.rows is not None and not done.rows.isfinite().all():
                name = video if isinstance(video, str | Path) else "array"
                yield VideoError(name, "no score", NOT_FINITE)
            elif done.rows is not None:
                scores = done.rows.sigmoid() if self.is_multi_label else done.rows.softmax(dim=-1)
                view_scores = scores.numpy()
                yield Prediction(
                    video=str(video) if isinstance(video, str | Path) else "array",
                    scores=view_scores.mean(axis=0),
                    view_scores=view_scores,
                    class_names=self.class_names,
                    frame_indices=views.frame_indices,
                    timings=Timings(views.decode_seconds, views.preprocess_seconds, done.seconds),
                    duration_seconds=views.duration_seconds,
                )

    def explain(
        self, video: Video, target: str | int | None = None, *, view: int | None = None, method: Method = "gradient"
    ) -> Explanation:
        """Where in a video the network looked for a class; see ``inference.explanations.explanation.explain``."""
        from uniformerv2.inference.explanations.explanation import explain

        source = VideoRecord(str(video)) if isinstance(video, str | Path) else _as_frames(video)
        return explain(self, source, target=target, view=view, method=method)

    def logits(self, pixels: Tensor) -> Tensor:
        """What the network says of views, all at once.

        Args:
            pixels: [V, T, C, h, w], 0 to 255, before normalisation.

        Returns:
            [V, num_classes], float32, in the computer's main memory.

        Raises:
            ValueError: An exported file gives another number of scores than its metadata say.
        """
        logits = self.engine(pixels)
        if logits.shape != (len(pixels), len(self.class_names)):
            wanted = f"{len(pixels)} x {len(self.class_names)}"
            raise ValueError(f"The network gives logits of {list(logits.shape)}, and must give {wanted} of them.")
        return logits

    @property
    def is_exported(self) -> bool:
        """Whether the network gives scores alone: no tokens, no features."""
        return isinstance(self.network, ExportedNetwork)

    @property
    def model(self) -> UniFormerV2:
        """The checkpoint's network; see ``is_exported``.

        Raises:
            ValueError: There is none.
        """
        return self._checkpoint().model

    def network_input(self, pixels: Tensor) -> Tensor:
        """Pixels [..., C, h, w] of 0 to 255, normalised, on the device of the checkpoint's network and in its type."""
        return self._checkpoint().network_input(pixels)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which the checkpoint's network computes, for a ``with`` statement."""
        return self._checkpoint().autocast()

    def _checkpoint(self) -> TorchEngine:
        if not isinstance(self.engine, TorchEngine):
            raise ValueError("An exported network gives scores alone; give the checkpoint that it was made from.")
        return self.engine


def _class_names(model: Network) -> tuple[str, ...]:
    """Names of the head's rows, or numbers where they have no names.

    Raises:
        ValueError: There is no head, or it has not as many rows as names.
    """
    names = model.info.class_names or tuple(str(index) for index in range(model.num_classes))
    if not names or len(names) != model.num_classes:
        raise ValueError(
            f"A predictor needs a head and a name for each of its rows: there are {model.num_classes} rows and "
            f"{len(names)} names (model.info.class_names)."
        )
    return names


def _preprocessing_of(
    model: Network,
    given: Preprocessing | str | None,
    *,
    num_clips: int | None,
    num_crops: int | None,
) -> Preprocessing:
    if isinstance(given, Preprocessing):
        fields = given.to_dict()
    else:
        source = model.config if isinstance(model, UniFormerV2) else model.preprocessing
        size = {"num_frames": source.num_frames, "image_size": source.image_size}
        fields = {**size, **model.info.preprocessing} if given is None else {**size, "protocol": given}
    views = {"num_clips": num_clips, "num_crops": num_crops}
    return Preprocessing.from_dict({**fields, **{name: count for name, count in views.items() if count is not None}})


def _as_frames(video: Any) -> Tensor:
    if not isinstance(video, Tensor | np.ndarray):
        raise ValueError(
            f"A predictor takes one video: a path, or frames as an array, got a {type(video).__name__}. For several: "
            "stream(videos), which yields a prediction of each."
        )
    if isinstance(video, np.ndarray) and video.dtype != np.uint8:
        raise ValueError(f"Frames are uint8 RGB, [T, 3, H, W] or [T, H, W, 3], got {video.dtype} {video.shape}.")
    frames = torch.as_tensor(video)
    is_video = frames.ndim == 4 and frames.dtype == torch.uint8 and frames.shape[0] > 0
    if is_video and frames.shape[1] == 3:
        return frames
    if is_video and frames.shape[3] == 3:
        return frames.permute(0, 3, 1, 2)
    raise ValueError(f"Frames are uint8 RGB, [T, 3, H, W] or [T, H, W, 3], got {frames.dtype} {tuple(frames.shape)}.")
