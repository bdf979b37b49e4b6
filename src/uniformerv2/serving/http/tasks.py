"""Hugging Face's task ``video-classification``: a video in base64 with parameters, labels with scores as the answer.

What the network decides, such as its number of frames, may be named and must then be what it is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.files import in_words
from uniformerv2.inference.prediction import Prediction
from uniformerv2.inference.predictor import Predictor
from uniformerv2.serving.http.parameters import TOP_K
from uniformerv2.serving.problems import ServiceError

__all__ = ["labels", "top_k_of", "unpack_task"]

MOST_BYTES: Final = 2**25
"""Of a task, which is read whole; larger videos are sent as they are."""


def unpack_task(path: Path) -> dict[str, Any]:
    """Put the video of a task in the place of its JSON.

    Args:
        path: The body of a request.

    Returns:
        The parameters.

    Raises:
        ServiceError: It is no such task, or a large one.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        detail = (
            f"A task has at most {in_words(MOST_BYTES)}, got {in_words(size)}: send the bytes of the video instead."
        )
        raise ServiceError("upload-too-large", detail)
    try:
        task = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ServiceError("bad-request", "The body is said to be JSON, and is none.") from error
    if not isinstance(task, dict) or not isinstance(task.get("inputs"), str) or set(task) - {"inputs", "parameters"}:
        detail = 'A task is {"inputs": "a video in base64", "parameters": {...}}.'
        raise ServiceError("invalid-parameter", detail)
    try:
        path.write_bytes(base64.b64decode(task["inputs"], validate=True))
    except (binascii.Error, ValueError) as error:
        detail = "inputs must be a video in base64; addresses are not fetched: send the bytes of the video."
        raise ServiceError("invalid-parameter", detail) from error
    parameters = task.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ServiceError("invalid-parameter", "parameters must be an object.")
    return parameters


def top_k_of(parameters: Mapping[str, Any], predictor: Predictor) -> int:
    """How many labels are wanted; all else must be what the model does anyway.

    Raises:
        ServiceError: A parameter that is not known, or that the model does otherwise.
    """
    preprocessing = predictor.preprocessing
    own = {
        "function_to_apply": "sigmoid" if predictor.is_multi_label else "softmax",
        "num_frames": preprocessing.num_frames,
        "frame_sampling_rate": preprocessing.frame_stride,
    }
    for name, value in parameters.items():
        if name != "top_k" and name not in own:
            detail = f"No parameter is called {name[:40]!r}. There are: top_k, {', '.join(own)}."
            raise ServiceError("invalid-parameter", detail)
        if name in own and value is not None and (value != own[name] or isinstance(value, bool)):
            detail = f"{name} is {own[name]!r} for this model, and cannot be changed, got {str(value)[:40]!r}."
            raise ServiceError("invalid-parameter", detail)
    top_k = parameters.get("top_k")
    if isinstance(top_k, bool) or not (top_k is None or isinstance(top_k, int)):
        raise ServiceError("invalid-parameter", f"top_k must be {TOP_K.words}, got {str(top_k)[:40]!r}.")
    return 5 if top_k is None else int(TOP_K.value(str(top_k)))


def labels(prediction: Prediction, top_k: int) -> list[dict[str, Any]]:
    """The answer to a task."""
    return [{"label": item.name, "score": round(item.score, 6)} for item in prediction.top(top_k)]
