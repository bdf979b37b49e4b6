"""What the OpenAPI document says of bodies and answers, with examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from uniformerv2.serving.http.guard import PROBLEM_TYPE
from uniformerv2.serving.problems import KINDS

__all__ = [
    *("BYTES", "EVERYWHERE", "EXPLANATION", "FEATURES", "LABELS", "MODEL", "MODELS", "PREDICTION", "READY"),
    *("STATE", "TASK", "TIMELINE", "UPLOADS", "VIDEO", "answer", "problems"),
]

EVERYWHERE: Final = ("unauthorized", "cross-site", "wrong-host", "internal")
UPLOADS: Final = (
    *("bad-request", "slow-upload", "upload-too-large", "video-too-large", "not-a-video", "encoded-body"),
    *("invalid-parameter", "unreadable-video", "request-too-large", "queue-full", "draining", "not-ready"),
    *("no-memory", "too-slow", "slow-decoding", "disk-full"),
)
"""Kinds of refusals: of every address, and of those that take a video."""

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
TEXT: Final = {"type": "string"}
INDEX: Final = {"type": "integer", "minimum": 0}
SHARES: Final = {"type": "array", "items": SCORE}
SECONDS: Final = {"type": "array", "items": NUMBER}
MAYBE_TEXT: Final = {"type": ["string", "null"]}
MAYBE_NUMBER: Final = {"type": ["number", "null"]}
TIMINGS: Final = {
    "type": "object",
    "required": ["decode_seconds", "compute_seconds"],
    "properties": {"decode_seconds": NUMBER, "compute_seconds": NUMBER},
}


def _object(example: Mapping[str, Any], **properties: Any) -> dict[str, Any]:
    """Plain values about an upload, all of which are there unless the example lacks them."""
    common = {"format": TEXT, "video": {"type": "string", "enum": ["upload"]}, "model": TEXT, "timings": TIMINGS}
    full = {**example, "video": "upload", "model": "demo", "timings": {"decode_seconds": 0.1, "compute_seconds": 0.4}}
    known = {**common, **properties}
    required = [name for name in known if name in full]
    return {"type": "object", "required": required, "properties": known, "example": full}


BOUNDS: Final = {"start_seconds": NUMBER, "end_seconds": NUMBER}
CLASS: Final = {
    "type": "object",
    "required": ["name", "index", "score"],
    "properties": {"name": TEXT, "index": INDEX, "score": SCORE},
}
TIMELINE: Final = _object(
    {
        "format": "uniformerv2-timeline-1",
        "duration_seconds": 12.4,
        "segments": [{"start_seconds": 0.0, "end_seconds": 6.2, "label": "Archery", "index": 0, "score": 0.91}],
        "nothing": [{"start_seconds": 6.2, "end_seconds": 12.4}],
        "window_seconds": 1.0,
        "stride_seconds": 0.25,
        "num_windows": 47,
        "way": "shared frames",
        "rules": {"on": 0.4, "off": 0.2, "smooth_seconds": 4.0, "min_seconds": 1.0, "merge_seconds": 1.0},
        "is_multi_label": False,
        "broken": None,
    },
    duration_seconds=NUMBER,
    segments={
        "type": "array",
        "items": {
            "type": "object",
            "required": ["start_seconds", "end_seconds", "label", "index", "score"],
            "properties": {**BOUNDS, "label": TEXT, "index": INDEX, "score": SCORE},
        },
    },
    nothing={"type": "array", "items": {"type": "object", "required": list(BOUNDS), "properties": BOUNDS}},
    window_seconds=NUMBER,
    stride_seconds=NUMBER,
    num_windows={"type": "integer", "minimum": 1},
    way=TEXT,
    rules={"type": "object"},
    is_multi_label={"type": "boolean"},
    broken={**MAYBE_TEXT, "description": "Why the video could not be read to its end."},
    curve={
        "type": "object",
        "description": "With scores=true: of every window its bounds, and its scores for some classes.",
        "required": ["start_seconds", "end_seconds", "classes"],
        "properties": {
            "start_seconds": SECONDS,
            "end_seconds": SECONDS,
            "classes": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["label", "index", "scores"],
                    "properties": {"label": TEXT, "index": INDEX, "scores": SHARES},
                },
            },
        },
    },
)
EXPLANATION: Final = _object(
    {
        "format": "uniformerv2-explanation-1",
        "target": {"name": "Archery", "index": 0, "score": 0.97},
        "top": [{"name": "Archery", "index": 0, "score": 0.97}],
        "method": "gradient",
        "view": {"frame_indices": [3, 9], "frame_seconds": [0.12, 0.36], "box": [0.0, 40.0, 240.0, 240.0]},
        "grid": [2, 2, 2],
        "time_curve": [0.4, 0.6],
        "map": [[[0.1, 0.1], [0.1, 0.1]], [[0.1, 0.2], [0.2, 0.1]]],
    },
    target=CLASS,
    top={"type": "array", "items": CLASS},
    method=TEXT,
    view={"type": "object", "description": "The frames, their times, their size, and the crop in them."},
    grid={"type": "array", "items": {"type": "integer"}},
    time_curve=SHARES,
    map={"type": "array", "items": {"type": "array", "items": SHARES}},
)
FEATURES: Final = _object(
    {
        "format": "uniformerv2-features-1",
        "duration_seconds": 12.4,
        "num_features": 1,
        "dim": 3,
        "is_normalised": True,
        "start_seconds": [0.0],
        "end_seconds": [12.4],
        "broken": None,
        "vectors": [[0.48, -0.6, 0.64]],
    },
    duration_seconds=MAYBE_NUMBER,
    num_features={"type": "integer", "minimum": 1},
    dim={"type": "integer", "minimum": 1},
    is_normalised={"type": "boolean"},
    start_seconds={"type": "array", "items": MAYBE_NUMBER},
    end_seconds={"type": "array", "items": MAYBE_NUMBER},
    broken=MAYBE_TEXT,
    vectors={"type": "array", "items": SECONDS},
)
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


def answer(
    schema: Mapping[str, Any], about: str, files: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[int | str, Any]:
    """The answer where all is well.

    Args:
        schema: Of its JSON.
        about: What it is.
        files: Other forms that it may have, by type.
    """
    return {200: {"description": about, "content": {"application/json": {"schema": dict(schema)}, **(files or {})}}}


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
