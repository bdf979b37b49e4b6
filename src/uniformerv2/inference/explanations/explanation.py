"""``Explanation``: where in a video the network looked for a class, by frame and patch; made by ``Predictor.explain``.

explanation = Predictor("models/demo").explain("examples/archery.mp4")
explanation.map                  # [T', H, W], adds up to 1
explanation.time_curve           # [T'], the sum over the patches of each step

Letters of this file: T frames, T' time steps of tokens, H x W patches a step, P prefix tokens a step, S stages, h
heads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniformerv2.core.messages import did_you_mean
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.explanations.attention import Reading, read_by_definition
from uniformerv2.inference.explanations.view import SeenView, ViewPlace, middle_view, read_view
from uniformerv2.inference.prediction import NOT_FINITE, ClassScore
from uniformerv2.media.decoding import VideoError

if TYPE_CHECKING:
    from uniformerv2.inference.predictor import Predictor

__all__ = ["FORMAT", "Explanation", "Method", "check_explainable", "explain", "explain_view", "target_of"]

FORMAT: Final = "uniformerv2-explanation-1"
"""Stands in the JSON; another number means other fields."""

TOP: Final = 5
"""Classes that are named beside the target."""

Method = Literal["gradient", "attention"]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Where the network looked for one class, in one view of a video.

    The patches of a step lie row by row in ``view.box``. A step is a frame, or a tubelet: see ``step_of``.

    Attributes:
        video: The path, or "array" for frames given as such.
        target: The class, with its score for this view.
        top: The most probable classes of this view, at most five.
        method: What ``map`` is made of: "gradient" of ``relevance``, "attention" of ``weights``.
        map: The share of each patch [T', H, W]: the mean over the heads, the sum over the stages; adds up to 1, or is
            all 0 where nothing speaks for the class.
        weights: With which the video token reads each patch, by stage and head [S, h, T', H, W]. With the weights of
            the prefix tokens (and of the video tokens of the fusion "hierarchical_kv") they add up to 1 in each head.
        relevance: What each patch adds to the logit of the class [S, h, T', H, W]; see ``explanations.attention``.
        prefix_weights: ``weights`` of the class token and the registers of each step [S, h, T', P].
        prefix_relevance: ``relevance`` of the same.
        video_weights: ``weights`` of the video tokens of earlier stages [S, h].
        class_token_share: How much of the features comes from the mean class token beside the video token, 0 to 1; no
            map shows that part.
        has_class_token: The first prefix token is the class token; else all are registers.
        blocks: Numbers of the blocks whose tokens the S stages read.
        view: Which view.
    """

    video: str
    target: ClassScore
    top: tuple[ClassScore, ...]
    method: Method
    map: NDArray[np.float32]
    weights: NDArray[np.float32]
    relevance: NDArray[np.float32]
    prefix_weights: NDArray[np.float32]
    prefix_relevance: NDArray[np.float32]
    video_weights: NDArray[np.float32]
    class_token_share: float
    has_class_token: bool
    blocks: tuple[int, ...]
    view: ViewPlace

    def __repr__(self) -> str:
        steps, height, width = self.map.shape
        return (
            f"<Explanation of {self.target.name!r} ({self.target.score:.4f}) in {self.video!r}: {steps} steps of "
            f"{height} x {width} patches, by {self.method}>"
        )

    @property
    def time_curve(self) -> NDArray[np.float32]:
        """The share of each step [T']."""
        return self.map.sum(axis=(1, 2))

    @property
    def prefix_share(self) -> float:
        """Share of the prefix tokens in what ``method`` measures, 0 to 1; the rest is the patches'."""
        chosen = {"gradient": (self.relevance, self.prefix_relevance), "attention": (self.weights, self.prefix_weights)}
        patches, prefix = (float(part.sum()) for part in chosen[self.method])
        return prefix / (patches + prefix) if patches + prefix else 0.0

    def step_of(self, place: int) -> int:
        """Which step of the tokens a frame of the view belongs to.

        ::

            8 frames, tubelets of 2   0 1 | 2 3 | 4 5 | 6 7   ->   steps 0 to 3

        Args:
            place: Of the frame in ``view.frame_indices``.
        """
        return place * len(self.map) // len(self.view.frame_indices)

    def to_dict(self, *, maps: bool = False) -> dict[str, Any]:
        """Plain values, for JSON.

        Args:
            maps: Also ``map``.
        """
        content: dict[str, Any] = {
            "format": FORMAT,
            "video": self.video,
            "target": _rounded_score(self.target),
            "top": [_rounded_score(one) for one in self.top],
            "method": self.method,
            "view": self.view.to_dict(),
            "grid": list(self.map.shape),
            "time_curve": _rounded(self.time_curve),
            "blocks": list(self.blocks),
            "stage_shares": _rounded(_shares(self.relevance.sum(axis=(1, 2, 3, 4)))),
            "prefix_share": round(self.prefix_share, 6),
            "prefix_weights": _rounded(self.prefix_weights.sum(axis=(2, 3)).mean(axis=1)),
            "video_weights": _rounded(self.video_weights.mean(axis=1)),
            "class_token_share": round(self.class_token_share, 6),
        }
        return {**content, "map": _rounded(self.map)} if maps else content

    def to_json(self, *, maps: bool = False) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(maps=maps), ensure_ascii=False, allow_nan=False)


def target_of(names: Sequence[str], target: str | int | None) -> int | None:
    """The number of a class that was named, or given by its number.

    Raises:
        ValueError: There is no such class.
    """
    if target is None or (isinstance(target, int) and 0 <= target < len(names)):
        return target
    word = str(target)
    if isinstance(target, str) and word in names:
        return list(names).index(word)
    if isinstance(target, str) and word.isdecimal() and int(word) < len(names):
        return int(word)
    raise ValueError(
        f"The network has no class {target!r}.{did_you_mean(word, names)} It has {len(names)}, by name or 0 to "
        f"{len(names) - 1}."
    )


def explain(
    predictor: Predictor,
    video: VideoRecord | Tensor,
    *,
    target: str | int | None = None,
    view: int | None = None,
    method: Method = "gradient",
) -> Explanation:
    """Explain one view; see ``Predictor.explain``.

    Args:
        predictor: Of a checkpoint.
        video: A video or a segment of it; or its frames, uint8 RGB [T, C, H, W].
        target: Name or number of a class; None: the most probable one of this view.
        view: Number of one of the predictor's views; None: the middle crop of one clip.
        method: What the map is made of.

    Raises:
        VideoError: The video cannot be read, or the network says no finite number of it.
        ValueError: No such class, view or method, or a network that cannot be explained.
    """
    if method not in get_args(Method):
        raise ValueError(f"method is one of {', '.join(map(repr, get_args(Method)))}, got {method!r}.")
    check_explainable(predictor)
    index = target_of(predictor.class_names, target)
    reader, number = predictor.reader, view or 0
    if view is None:
        reader = middle_view(reader)
    if not 0 <= number < reader.num_views:
        raise ValueError(f"The predictor has the views 0 to {reader.num_views - 1}, got {view}.")
    name = video.path if isinstance(video, VideoRecord) else "array"
    return explain_view(predictor, read_view(reader, video, number), video=name, target=index, method=method)


def explain_view(
    predictor: Predictor, seen: SeenView, *, video: str, target: int | None = None, method: Method = "gradient"
) -> Explanation:
    """Explain a view that is read already.

    Args:
        predictor: See ``check_explainable``.
        seen: Of its preprocessing.
        video: What to call the video.
        target: Number of a class; None: the most probable one of this view.
        method: What the map is made of.

    Raises:
        VideoError: The network says no finite number of it.
    """
    reading = _read(predictor, seen.pixels, target)
    if not reading.logits.isfinite().all():
        raise VideoError(video, "no score", NOT_FINITE)
    return _explanation(predictor, video, reading, seen.place, method)


def check_explainable(predictor: Predictor) -> None:
    """Refuse networks whose score has parts that no global block weighs.

    Raises:
        ValueError: Such a network.
    """
    if predictor.is_exported:
        raise ValueError(
            "An exported network gives scores alone, so that there is nothing to explain them by; give the checkpoint "
            "that it was made from."
        )
    if predictor.model.config.statistics:
        raise ValueError(
            "The head of this network reads statistics of all tokens, as a probe does: they weigh no token, so that "
            "its score has no places to show. What train --no-probe makes can be explained."
        )


def _read(predictor: Predictor, pixels: Tensor, target: int | None) -> Reading:
    """The blocks in the predictor's precision and without gradients, what lies above them in the weights' own."""
    model = predictor.model
    with torch.inference_mode(False):  # there are no gradients in it, and a caller may have chosen it
        batch = predictor.network_input(pixels[None])
        with torch.no_grad(), predictor.autocast():
            tokens = model.read_tokens(batch)
        return read_by_definition(model, tokens, model.embedding.grid(batch), target=target)


def _explanation(predictor: Predictor, video: str, reading: Reading, place: ViewPlace, method: Method) -> Explanation:
    model, logits = predictor.model, reading.logits
    scores = logits.sigmoid() if predictor.is_multi_label else logits.softmax(dim=-1)
    best = scores.argsort(descending=True, stable=True)[:TOP].tolist()
    names = predictor.class_names
    classes = {index: ClassScore(names[index], index, float(scores[index])) for index in {*best, reading.target}}
    parts = {"gradient": reading.relevance, "attention": reading.weights}
    combined = parts[method].patches.mean(dim=1).sum(dim=0)
    total = combined.sum()
    return Explanation(
        video=video,
        target=classes[reading.target],
        top=tuple(classes[index] for index in best),
        method=method,
        map=(combined / total if total > 0 else combined).numpy(),
        weights=reading.weights.patches.numpy(),
        relevance=reading.relevance.patches.numpy(),
        prefix_weights=reading.weights.prefix.numpy(),
        prefix_relevance=reading.relevance.prefix.numpy(),
        video_weights=reading.weights.video.numpy(),
        class_token_share=reading.class_token_share,
        has_class_token=model.embedding.has_class_token,
        blocks=model.config.fusion_stages,
        view=place,
    )


def _rounded_score(one: ClassScore) -> dict[str, Any]:
    return {**asdict(one), "score": round(one.score, 6)}


def _shares(values: NDArray[np.float32]) -> NDArray[np.float32]:
    total = float(values.sum())
    return values / total if total else values


def _rounded(values: NDArray[np.float32]) -> Any:
    """Lists of numbers with six digits after the point."""
    return np.round(values.astype(float), 6).tolist()
