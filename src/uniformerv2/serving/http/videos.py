"""What is done with an upload at the addresses below /v1: a prediction, a timeline, an explanation, features."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from uniformerv2.inference.features.vectors import Features
from uniformerv2.inference.prediction import Prediction
from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.inference.timelines.timeline import Timeline
from uniformerv2.serving import asking
from uniformerv2.serving.engine import Engine
from uniformerv2.serving.http import openapi
from uniformerv2.serving.http.parameters import EXPLAIN, FEATURES, PREDICT, RULES, TIMELINE, Parameter, read_parameters
from uniformerv2.serving.http.uploads import ClientLeftError, Upload, UploadDesk
from uniformerv2.serving.problems import ServiceError
from uniformerv2.serving.works import Work

__all__ = ["add_videos", "predict_upload"]

Result = TypeVar("Result")
Answers = dict[int | str, dict[str, Any]]
Check = Callable[[Engine, str | None], object]
MEDIA: Final = {"mp4": "video/mp4", "png": "image/png", "npy": "application/octet-stream"}


def add_videos(service: FastAPI, engine: Engine, desk: UploadDesk) -> None:
    """Add the addresses to a service.

    Args:
        service: Which.
        engine: Computes.
        desk: Receives uploads.
    """
    _add_predict(service, engine, desk)
    _add_timeline(service, engine, desk)
    _add_explain(service, engine, desk)
    _add_features(service, engine, desk)


def _said(*answers: Answers, parameters: Sequence[Parameter], more: Sequence[str] = ()) -> dict[str, Any]:
    """What the document says of an address that takes a video."""
    found: Answers = {}
    for each in answers:
        found |= each
    return {
        "responses": found | openapi.problems(*openapi.UPLOADS, *more, *openapi.EVERYWHERE),
        "openapi_extra": {**openapi.VIDEO, "parameters": [each.document() for each in parameters]},
    }


def _add_predict(service: FastAPI, engine: Engine, desk: UploadDesk) -> None:
    answer = openapi.answer(openapi.PREDICTION, "The classes, best first, and all scores.")

    @service.post("/v1/predict", summary="Classify a video", **_said(answer, parameters=PREDICT))
    async def predict(request: Request) -> Response:
        async with _received(request, engine, desk, PREDICT) as (upload, asked):
            found = await predict_upload(request, engine, upload.path, asked)
        return JSONResponse({**found.to_dict(top_k=asked.get("top_k", 5)), "model": request.state.model})


def _add_timeline(service: FastAPI, engine: Engine, desk: UploadDesk) -> None:
    answer = openapi.answer(openapi.TIMELINE, "The segments, by start.")

    @service.post("/v1/timeline", summary="What happens when in a video", **_said(answer, parameters=TIMELINE))
    async def timeline(request: Request) -> Response:
        async with _received(request, engine, desk, TIMELINE) as (upload, asked):
            work = asking.timeline_work(
                engine,
                upload.path,
                model=asked.get("model"),
                rules=_rules(asked),
                window_seconds=asked.get("window_seconds"),
                stride_seconds=asked.get("stride_seconds"),
                num_crops=asked.get("crops"),
            )
            found: Timeline = await _run(request, engine, work, seconds=engine.options.timeline_seconds)
        return await _json(request, work, lambda: found.to_dict(curve=asked.get("scores", False)))


def _rules(asked: dict[str, Any]) -> SegmentRules:
    try:
        return SegmentRules(**{each.name: asked[each.name] for each in RULES if each.name in asked})
    except ValueError as error:
        raise ServiceError("invalid-parameter", str(error)) from error


def _add_explain(service: FastAPI, engine: Engine, desk: UploadDesk) -> None:
    files = {MEDIA[form]: openapi.BYTES for form in ("mp4", "png")}
    answer = openapi.answer(openapi.EXPLANATION, "The frames under the map, or the map as numbers.", files)
    said = _said(answer, parameters=EXPLAIN, more=("unsupported-model",))

    @service.post("/v1/explain", summary="Where in a video the network looks for a class", **said)
    async def explain(request: Request) -> Response:
        async with _received(request, engine, desk, EXPLAIN, check=asking.check_can_explain) as (upload, asked):
            form = asked.get("format", "mp4")
            work = asking.explain_work(
                engine,
                upload.path,
                model=asked.get("model"),
                target=asked.get("class"),
                method=asked.get("method", "gradient"),
                form=form,
                side=asked.get("side", 640),
                in_time=asked.get("pace", "slides") == "video",
            )
            explanation, file = await _run(request, engine, work, seconds=engine.options.request_seconds)
        if form == "json":
            return await _json(request, work, lambda: explanation.to_dict(maps=True))
        return Response(file, media_type=MEDIA[form])


def _add_features(service: FastAPI, engine: Engine, desk: UploadDesk) -> None:
    answer = openapi.answer(openapi.FEATURES, "The features.", {MEDIA["npy"]: openapi.BYTES})
    said = _said(answer, parameters=FEATURES, more=("unsupported-model",))

    @service.post("/v1/features", summary="What the network makes of a video before it names a class", **said)
    async def features(request: Request) -> Response:
        async with _received(request, engine, desk, FEATURES, check=asking.check_has_features) as (upload, asked):
            wants_npy = request.headers.get("accept", "").partition(";")[0].strip() == MEDIA["npy"]
            form = asked.get("format", "npy" if wants_npy else "json")
            work, seconds = _features_work(engine, upload.path, asked, is_json=form == "json")
            found: Features = await _run(request, engine, work, seconds=seconds)
        if form == "json":
            return await _json(request, work, lambda: found.to_dict(vectors=True))
        file = BytesIO()
        await asyncio.to_thread(np.save, file, found.vectors, allow_pickle=False)
        return Response(file.getvalue(), media_type=MEDIA["npy"])


def _features_work(engine: Engine, path: Path, asked: dict[str, Any], *, is_json: bool) -> tuple[Work, float]:
    """The work, and the seconds that it may take.

    Raises:
        ServiceError: A parameter is for the other kind of features.
    """
    is_dense = asked.get("per", "video") == "window"
    wrong = ("clips",) if is_dense else ("window_seconds", "stride_seconds")
    if given := [name for name in wrong if name in asked]:
        other = "video" if is_dense else "window"
        raise ServiceError(
            "invalid-parameter", f"{given[0]} is for features per {other}: add per={other}, or leave it."
        )
    model, crops = asked.get("model"), asked.get("crops")
    if not is_dense:
        work: Work = asking.whole_work(engine, path, model=model, num_clips=asked.get("clips"), num_crops=crops)
        return work, engine.options.request_seconds
    work = asking.dense_work(
        engine,
        path,
        model=model,
        window_seconds=asked.get("window_seconds"),
        stride_seconds=asked.get("stride_seconds"),
        num_crops=crops,
        is_json=is_json,
    )
    return work, engine.options.timeline_seconds


@asynccontextmanager
async def _received(
    request: Request, engine: Engine, desk: UploadDesk, allowed: Sequence[Parameter], *, check: Check | None = None
) -> AsyncIterator[tuple[Upload, dict[str, Any]]]:
    """The upload of a request, and what it asks for; what the address alone shows to be wrong is refused before.

    Raises:
        ServiceError: Something of it is refused.
    """
    engine.check_room()
    query = request.query_params.multi_items()
    model = read_parameters(allowed, query).get("model")
    engine.predictor(model)
    if check is not None:
        check(engine, model)
    async with desk.receive(request) as upload:
        request.state.num_bytes = upload.num_bytes
        yield upload, read_parameters(allowed, query, upload.fields)


async def predict_upload(request: Request, engine: Engine, path: Path, asked: dict[str, Any]) -> Prediction:
    """Classify an upload, as long as the client waits.

    Args:
        request: What came; its state is told what the log shows.
        engine: Computes.
        path: The upload.
        asked: Parameters by name.

    Raises:
        ServiceError: It is refused.
        ClientLeftError: Nobody waits any more.
    """
    views = {"num_clips": asked.get("clips"), "num_crops": asked.get("crops")}
    request.state.model, reader = engine.reader(asked.get("model"), **views)
    found = await _while_client_waits(request, engine.predict(path, reader, model=request.state.model))
    _note(request, found.timings.decode_seconds, found.timings.compute_seconds)
    return found


async def _run(request: Request, engine: Engine, work: Work, *, seconds: float) -> Any:
    """Have a work done, as long as the client waits."""
    request.state.model = work.model
    found = await _while_client_waits(request, engine.run(work, seconds=seconds))
    _note(request, work.decode_seconds, work.compute_seconds)
    return found


def _note(request: Request, decode_seconds: float, compute_seconds: float) -> None:
    request.state.decode_seconds = round(decode_seconds, 4)
    request.state.compute_seconds = round(compute_seconds, 4)


async def _json(request: Request, work: Work, content: Callable[[], dict[str, Any]]) -> Response:
    """An answer that may be long: it is made beside the other requests."""

    def make() -> Response:
        return JSONResponse({**content(), "timings": work.timings, "model": request.state.model})

    return await asyncio.to_thread(make)


async def _while_client_waits(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What comes of some work, which is cancelled when the client leaves.

    Raises:
        ClientLeftError: It left.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return task.result()
    finally:
        for each in (task, leaving):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each
