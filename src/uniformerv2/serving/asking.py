"""What is asked of an engine beside predictions, as works: checked, with a task for the workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Final

from uniformerv2.core.files import in_words
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.inference.explanations.explanation import Method, check_explainable, target_of
from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.inference.windows import WindowScorer
from uniformerv2.serving.decoding import FramesTask, SeenTask, ViewsTask, views_bytes
from uniformerv2.serving.engine import Engine
from uniformerv2.serving.problems import ServiceError
from uniformerv2.serving.window_works import DenseWork, TimelineWork
from uniformerv2.serving.works import ExplainWork, Form, WholeWork

__all__ = ["check_can_explain", "check_has_features", "dense_work", "explain_work", "timeline_work", "whole_work"]

PIECE_BYTES: Final = 2**25
"""Of the frames that a worker reads at a time of a long video, at most; and a sixteenth of a request's memory."""


@contextmanager
def _refused(kind: str) -> Iterator[None]:
    """What a library refuses as wrong is a request that is refused.

    Raises:
        ServiceError: Of this kind, with the library's words.
    """
    try:
        yield
    except ValueError as error:
        raise ServiceError(kind, str(error)) from error


def check_has_features(engine: Engine, model: str | None) -> None:
    """Refuse a model that gives scores alone.

    Raises:
        ServiceError: There is no such model, or it has no features.
    """
    name, predictor = engine.predictor(model)
    if predictor.is_exported:
        raise ServiceError("unsupported-model", f"{name} is an exported network: it gives scores, and no features.")


def check_can_explain(engine: Engine, model: str | None) -> None:
    """Refuse a model that cannot be explained.

    Raises:
        ServiceError: There is no such model, or what it sees has no places to show.
    """
    with _refused("unsupported-model"):
        check_explainable(engine.predictor(model)[1])


def timeline_work(
    engine: Engine,
    path: Path,
    *,
    model: str | None = None,
    rules: SegmentRules,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    num_crops: int | None = None,
) -> TimelineWork:
    """What happens when in an upload.

    Args:
        engine: Will do it.
        path: The upload.
        model: None: the first.
        rules: How segments are cut.
        window_seconds: See ``WindowScorer``.
        stride_seconds: Likewise.
        num_crops: None: the model's own.

    Raises:
        ServiceError: Something of it is not allowed.
    """
    name, scorer, task = _windows(engine, path, model, window_seconds, stride_seconds, num_crops)
    return TimelineWork(task, name, scorer=scorer, most_bytes=engine.options.memory_bytes, rules=rules)


def dense_work(
    engine: Engine,
    path: Path,
    *,
    model: str | None = None,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    num_crops: int | None = None,
    is_json: bool,
) -> DenseWork:
    """A feature for each window of an upload.

    Args:
        engine: See ``timeline_work``, as the following.
        path: The upload.
        model: None: the first.
        window_seconds: See ``WindowScorer``.
        stride_seconds: Likewise.
        num_crops: None: the model's own.
        is_json: The features are sent as text.

    Raises:
        ServiceError: Something of it is not allowed.
    """
    check_has_features(engine, model)
    name, scorer, task = _windows(engine, path, model, window_seconds, stride_seconds, num_crops)
    return DenseWork(task, name, scorer=scorer, most_bytes=engine.options.memory_bytes, is_json=is_json)


def _windows(
    engine: Engine,
    path: Path,
    model: str | None,
    window_seconds: float | None,
    stride_seconds: float | None,
    num_crops: int | None,
) -> tuple[str, WindowScorer, FramesTask]:
    """The name of a model, what scores windows by it, and what reads the first of their frames."""
    name, reader = engine.reader(model, num_clips=1, num_crops=num_crops)
    predictor = copy(engine.predictors[name])  # the network is the same; the number of crops is this request's
    predictor.reader = reader
    with _refused("invalid-parameter"):
        scorer = WindowScorer(predictor, window_seconds=window_seconds, stride_seconds=stride_seconds)
    num_frames = reader.preprocessing.num_frames
    frame_bytes = views_bytes(reader.preprocessing) // (2 * num_frames)
    task = FramesTask(
        path=str(path),
        reader=reader,
        max_pixels=engine.options.max_pixels,
        source=scorer.source(VideoRecord(str(path))),
        size=max(num_frames, min(PIECE_BYTES, engine.options.memory_bytes // 16) // frame_bytes),
    )
    return name, scorer, task


def whole_work(
    engine: Engine,
    path: Path,
    *,
    model: str | None = None,
    num_clips: int | None = None,
    num_crops: int | None = None,
) -> WholeWork:
    """One feature for an upload.

    Args:
        engine: See ``timeline_work``, as the following.
        path: The upload.
        model: None: the first.
        num_clips: None: the model's own.
        num_crops: None: the model's own.

    Raises:
        ServiceError: Something of it is not allowed.
    """
    check_has_features(engine, model)
    name, reader = engine.reader(model, num_clips=num_clips, num_crops=num_crops)
    task = ViewsTask(path=str(path), reader=reader, max_pixels=engine.options.max_pixels)
    return WholeWork(task, name, predictor=engine.predictors[name])


def explain_work(
    engine: Engine,
    path: Path,
    *,
    model: str | None = None,
    target: str | None = None,
    method: Method = "gradient",
    form: Form = "mp4",
    side: int = 640,
    in_time: bool = False,
) -> ExplainWork:
    """Where the network looked for a class in an upload.

    Args:
        engine: See ``timeline_work``, as the following.
        path: The upload.
        model: None: the first.
        target: Name or number of a class; None: the most probable one.
        method: See ``explain``.
        form: What is sent.
        side: Pixels of the longer side of the pictures, at most.
        in_time: The video keeps time with the upload.

    Raises:
        ServiceError: Something of it is not allowed.
    """
    check_can_explain(engine, model)
    name, reader = engine.reader(model, num_clips=1, num_crops=1)
    predictor = engine.predictors[name]
    with _refused("invalid-parameter"):
        index = target_of(predictor.class_names, target)
    # twice while they travel, then plain and under the map
    needed = 0 if form == "json" else 4 * reader.preprocessing.num_frames * 3 * side * side
    if needed > engine.options.memory_bytes:
        allowed = in_words(engine.options.memory_bytes)
        detail = (
            f"Pictures of {side} pixels take {in_words(needed)} of memory, and {allowed} are allowed: ask for less."
        )
        raise ServiceError("request-too-large", detail)
    task = SeenTask(
        path=str(path),
        reader=reader,
        max_pixels=engine.options.max_pixels,
        side=None if form == "json" else side,
    )
    return ExplainWork(task, name, predictor=predictor, target=index, method=method, form=form, in_time=in_time)
