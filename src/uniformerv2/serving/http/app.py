"""The addresses of the service: an upload in, an answer of the engine out.

service = make_service(engine, folder=folder, metrics=metrics)   # an ASGI application
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from uniformerv2.inference.predictor import Predictor
from uniformerv2.serving.engine import Engine
from uniformerv2.serving.http import openapi
from uniformerv2.serving.http.guard import problem_response
from uniformerv2.serving.http.metrics import CONTENT_TYPE, Metrics
from uniformerv2.serving.http.page import add_page
from uniformerv2.serving.http.parameters import MODEL, read_parameters
from uniformerv2.serving.http.tasks import labels, top_k_of, unpack_task
from uniformerv2.serving.http.uploads import ClientLeftError, UploadDesk
from uniformerv2.serving.http.videos import add_videos, predict_upload
from uniformerv2.serving.problems import ServiceError

__all__ = ["make_service"]


def make_service(engine: Engine, *, folder: Path, metrics: Metrics) -> FastAPI:
    """The service around an engine; ``Guard`` comes before it.

    Args:
        engine: Started by whoever calls.
        folder: Where uploads lie while they are read.
        metrics: Shown at /metrics.
    """
    service = FastAPI(
        title="uniformerv2",
        version=version("uniformerv2"),
        summary="Which action a video shows.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    desk = UploadDesk(folder, engine.options, tell=metrics.uploads)
    _add_problems(service)
    add_videos(service, engine, desk)
    _add_task(service, engine, desk)
    _add_state(service, engine, metrics)
    add_page(service)
    return service


def _add_problems(service: FastAPI) -> None:
    """Every refusal is a problem of RFC 9457, those of the framework too."""

    async def refuse(request: Request, error: Exception) -> Response:
        known = error if isinstance(error, ServiceError) else FRAMEWORK.get(getattr(error, "status_code", 500))
        known = known or ServiceError("internal", "The service failed; its log has this request's number.")
        request.state.kind = known.kind
        response = problem_response(known, request_id=request.state.request_id)
        response.headers.update(getattr(error, "headers", None) or {})  # of 405: which methods there are
        return response

    async def nobody_waits(request: Request, _error: Exception) -> Response:
        request.state.kind = "client-left"
        return Response(status_code=499)

    for kind in (ServiceError, 404, 405, Exception):
        service.add_exception_handler(kind, refuse)
    service.add_exception_handler(ClientLeftError, nobody_waits)


FRAMEWORK: Final = {
    404: ServiceError("not-found", "GET /openapi.json lists the addresses."),
    405: ServiceError("method-not-allowed", "The header Allow names the methods of this address."),
}


def _add_task(service: FastAPI, engine: Engine, desk: UploadDesk) -> None:
    @service.post(
        "/",
        summary="Classify a video, as Hugging Face's task video-classification",
        responses={
            **openapi.answer(openapi.LABELS, "The classes, best first."),
            **openapi.problems(*openapi.UPLOADS, *openapi.EVERYWHERE),
        },
        openapi_extra=openapi.TASK,
    )
    async def classify(request: Request) -> Response:
        engine.check_room()
        read_parameters((), request.query_params.multi_items())
        is_json = request.headers.get("content-type", "").lower().startswith("application/json")
        async with desk.receive(request) as upload:
            request.state.num_bytes = upload.num_bytes
            read_parameters((), (), upload.fields)
            parameters = await asyncio.to_thread(unpack_task, upload.path) if is_json else {}
            top_k = top_k_of(parameters, engine.predictor(None)[1])
            found = await predict_upload(request, engine, upload.path, {})
        return JSONResponse(labels(found, top_k))


def _add_state(service: FastAPI, engine: Engine, metrics: Metrics) -> None:
    """Health and models as the Open Inference Protocol has them (KServe v2), and the metrics."""

    @service.get("/v2/health/live", summary="Is it alive", responses=openapi.answer(openapi.STATE, "It is."))
    async def live() -> Response:
        return JSONResponse({"live": True})

    ready_responses = {
        **openapi.answer(openapi.READY, "It takes requests."),
        **openapi.problems("draining", "not-ready"),
    }

    @service.get("/v2/health/ready", summary="Does it take requests", responses=ready_responses)
    async def ready() -> Response:
        engine.check_state()
        return JSONResponse({"ready": True})

    models_responses = {
        **openapi.answer(openapi.MODELS, "Names; the first is asked where a request names none."),
        **openapi.problems(*openapi.EVERYWHERE),
    }

    @service.get("/v2/models", summary="Which models there are", responses=models_responses)
    async def models() -> Response:
        return JSONResponse({"models": list(engine.predictors)})

    model_responses = {**openapi.answer(openapi.MODEL, "It."), **openapi.problems("not-found", *openapi.EVERYWHERE)}

    @service.get(
        "/v2/models/{name}",
        summary="What a model takes and gives",
        responses=model_responses,
        openapi_extra={"parameters": [{**MODEL.document(), "name": "name", "in": "path", "required": True}]},
    )
    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in engine.predictors:
            raise ServiceError(
                "not-found", f"No model is called {name[:40]!r}. There are: {', '.join(engine.predictors)}."
            )
        return JSONResponse(_model_of(name, engine.predictors[name], is_ready=engine.is_ready))

    content = {"text/plain": {"schema": {"type": "string"}}}
    text: dict[int | str, dict[str, Any]] = {200: {"description": "As Prometheus reads them.", "content": content}}

    @service.get(
        "/metrics", summary="Numbers for Prometheus", responses={**text, **openapi.problems(*openapi.EVERYWHERE)}
    )
    async def show_metrics() -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})


def _model_of(name: str, predictor: Predictor, *, is_ready: bool) -> dict[str, Any]:
    """Metadata of a model; the tensors are those of its network, which no client sends."""
    height, width = predictor.preprocessing.input_size
    num_frames, num_classes = predictor.preprocessing.num_frames, len(predictor.class_names)
    return {
        "name": name,
        "versions": [],
        "ready": is_ready,
        "platform": predictor.engine.name,
        "inputs": [{"name": "video", "datatype": "FP32", "shape": [-1, num_frames, 3, height, width]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, num_classes]}],
        "class_names": list(predictor.class_names),
        "num_clips": predictor.preprocessing.num_clips,
        "num_crops": predictor.preprocessing.num_crops,
        "is_multi_label": predictor.is_multi_label,
    }
