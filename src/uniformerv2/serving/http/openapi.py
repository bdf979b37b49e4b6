"""What the OpenAPI document says of bodies and answers, with examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from uniformerv2.serving.http.guard import PROBLEM_TYPE
from uniformerv2.serving.problems import KINDS

__all__ = ["LABELS", "MODEL", "MODELS", "PREDICTION", "READY", "STATE", "TASK", "VIDEO", "answer", "problems"]

PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "enum": [f"urn:uniformerv2:{kind}" for kind in KINDS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
"""RFC 9457."""
NUMBER: Final = {"type": "number"}
SCORE: Final = {"type": "number", "minimum": 0, "maximum": 1}
PREDICTION: Final = {
    "type": "object",
    "required": ["video", "top", "scores", "num_views", "timings", "model"],
    "properties": {
        "video": {"type": "string", "enum": ["upload"]},
        "top": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "index", "score"],
                "properties": {"name": {"type": "string"}, "index": {"type": "integer"}, "score": SCORE},
            },
        },
        "scores": {"type": "array", "items": SCORE},
        "num_views": {"type": "integer", "minimum": 1},
        "timings": {
            "type": "object",
            "properties": {"decode_seconds": NUMBER, "preprocess_seconds": NUMBER, "compute_seconds": NUMBER},
        },
        "model": {"type": "string"},
    },
    "example": {
        "video": "upload",
        "top": [{"name": "Archery", "index": 0, "score": 0.966137}],
        "scores": [0.966137, 0.033863],
        "num_views": 1,
        "timings": {"decode_seconds": 0.02, "preprocess_seconds": 0.004, "compute_seconds": 0.07},
        "model": "demo",
    },
}
BYTES: Final = {"schema": {"type": "string", "format": "binary"}}
VIDEO: Final = {
    "requestBody": {
        "required": True,
        "description": "A video: its bytes, or a form with one file, whose other fields are parameters.",
        "content": {
            "application/octet-stream": BYTES,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
TASK: Final = {
    "requestBody": {
        "required": True,
        "description": "Hugging Face's task video-classification: a video in base64 with parameters, or its bytes.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "additionalProperties": False,
                    "properties": {
                        "inputs": {"type": "string", "format": "byte", "description": "The video in base64."},
                        "parameters": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "top_k": {"type": "integer", "minimum": 1, "maximum": 1000},
                                "function_to_apply": {"type": "string", "enum": ["softmax", "sigmoid", "none"]},
                                "num_frames": {"type": "integer", "minimum": 1},
                                "frame_sampling_rate": {"type": "integer", "minimum": 1},
                            },
                        },
                    },
                },
                "example": {"inputs": "AAAAIGZ0eXBpc29t", "parameters": {"top_k": 2}},
            },
            "application/octet-stream": BYTES,
        },
    }
}
LABELS: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["label", "score"],
        "properties": {"label": {"type": "string"}, "score": SCORE},
    },
    "example": [{"label": "Archery", "score": 0.966137}],
}
STATE: Final = {"type": "object", "required": ["live"], "properties": {"live": {"type": "boolean"}}}
READY: Final = {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}}
MODEL: Final = {
    "type": "object",
    "required": ["name", "ready", "platform", "inputs", "outputs", "class_names"],
    "properties": {
        "name": {"type": "string"},
        "ready": {"type": "boolean"},
        "platform": {"type": "string"},
        "inputs": {"type": "array"},
        "outputs": {"type": "array"},
        "class_names": {"type": "array", "items": {"type": "string"}},
    },
}
MODELS: Final = {
    "type": "object",
    "required": ["models"],
    "properties": {"models": {"type": "array", "items": {"type": "string"}}},
    "example": {"models": ["demo"]},
}
RETRIED: Final = frozenset({"429", "503", "507"})


def answer(schema: Mapping[str, Any], about: str) -> dict[int | str, Any]:
    """The answer where all is well."""
    return {200: {"description": about, "content": {"application/json": {"schema": dict(schema)}}}}


def problems(*kinds: str) -> dict[int | str, Any]:
    """The refusals of an address by their status, each with its kinds.

    Args:
        *kinds: Of ``KINDS``.
    """
    found: dict[int | str, Any] = {}
    for status in sorted({KINDS[kind].status for kind in kinds}):
        same = [kind for kind in kinds if KINDS[kind].status == status]
        about = " ".join(KINDS[kind].title for kind in same)
        found[status] = {
            "description": about,
            "content": {PROBLEM_TYPE: {"schema": PROBLEM, "example": _example(same)}},
        }
        if str(status) in RETRIED:
            seconds = {"schema": {"type": "integer"}, "description": "Seconds after which it may be tried again."}
            found[status]["headers"] = {"Retry-After": seconds}
    return found


def _example(kinds: Iterable[str]) -> dict[str, Any]:
    kind = next(iter(kinds))
    return {
        "type": f"urn:uniformerv2:{kind}",
        "title": KINDS[kind].title,
        "status": KINDS[kind].status,
        "detail": "What came, what is allowed, and what to do.",
        "request_id": "5f0c1e7a9b3d2c41",
    }
