"""What a request may ask for besides its video: each parameter said once, for reading and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from uniformerv2.core.messages import did_you_mean
from uniformerv2.core.options import options_of
from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.serving.problems import ServiceError

__all__ = [
    *("EXPLAIN", "FEATURES", "MODEL", "PREDICT", "RULES", "TIMELINE", "TOP_K", "Parameter", "read_parameters"),
]


@dataclass(frozen=True)
class Parameter:
    """One parameter, in the address or in a field of a form.

    Attributes:
        name: As it is written.
        schema: What is allowed, as JSON Schema; its type is integer, number, boolean or string.
        about: For the document.
        example: One value.
    """

    name: str
    schema: Mapping[str, Any]
    about: str
    example: Any

    def document(self) -> dict[str, Any]:
        """For OpenAPI."""
        about = {"name": self.name, "in": "query", "required": False, "description": self.about}
        return {**about, "schema": dict(self.schema), "example": self.example}

    def value(self, text: str) -> Any:
        """What a client wrote.

        Raises:
            ServiceError: It is not allowed.
        """
        kind = self.schema["type"]
        try:
            found = KINDS[kind](text)
            allowed = self.schema.get("enum")
            is_allowed = (
                found in allowed if allowed else self._least <= found <= self._most if kind in NUMBERS else True
            )
        except (ValueError, KeyError):
            is_allowed = False
        if not is_allowed:
            raise ServiceError("invalid-parameter", f"{self.name} must be {self.words}, got {text[:40]!r}.")
        return found

    @property
    def _least(self) -> float:
        return float(self.schema.get("minimum", self.schema.get("exclusiveMinimum", float("-inf"))))

    @property
    def _most(self) -> float:
        return float(self.schema.get("maximum", float("inf")))

    @property
    def words(self) -> str:
        """What is allowed."""
        if allowed := self.schema.get("enum"):
            return " or ".join(map(str, allowed))
        if self.schema["type"] == "boolean":
            return "true or false"
        what = {"integer": "a whole number", "number": "a number"}.get(self.schema["type"], "a text")
        return what if self.schema["type"] == "string" else f"{what} from {self._least:g} to {self._most:g}"


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(text)
    return float(text)  # NaN is in no range


NUMBERS: Final = frozenset({"integer", "number"})
KINDS: Final[Mapping[str, Any]] = {
    "integer": _whole,
    "number": _number,
    "boolean": {"true": True, "false": False}.__getitem__,
    "string": str,
}
MODEL: Final = Parameter("model", {"type": "string"}, "Which model; the first where it is left out.", "default")
TOP_K: Final = Parameter(
    "top_k", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5}, "Classes under `top`.", 3
)
CLIPS: Final = Parameter("clips", {"type": "integer", "minimum": 1, "maximum": 60}, "Clips; the model's own number.", 1)
CROPS: Final = Parameter("crops", {"type": "integer", "enum": [1, 3]}, "Crops of a clip; the model's own number.", 1)
WINDOWS: Final = (
    Parameter(
        "window_seconds",
        {"type": "number", "minimum": 0.1, "maximum": 600},
        "Length of a window; a clip of dense sampling, else 1.",
        1.0,
    ),
    Parameter(
        "stride_seconds",
        {"type": "number", "minimum": 0.01, "maximum": 600},
        "From window to window, at most its length; a quarter of it.",
        0.25,
    ),
)
MOST: Final = {"on": 1.0, "off": 1.0}
"""Of the numbers in ``SegmentRules``; the others are seconds."""
RULES: Final = tuple(
    Parameter(
        one.name,
        {"type": "number", "minimum": 0, "maximum": MOST.get(one.name, 3600.0), "default": one.default},
        f"{one.about[0].upper()}{one.about[1:]}.",
        one.default,
    )
    for one in options_of(SegmentRules)
)
PREDICT: Final = (TOP_K, CLIPS, CROPS, MODEL)
TIMELINE: Final = (
    Parameter(
        "scores",
        {"type": "boolean", "default": False},
        "Also `curve`: the scores of every window for the classes of the segments and the best five.",
        True,
    ),
    *WINDOWS,
    *RULES,
    CROPS,
    MODEL,
)
EXPLAIN: Final = (
    Parameter("class", {"type": "string"}, "Name or number of a class; the most probable one.", "0"),
    Parameter(
        "format",
        {"type": "string", "enum": ["mp4", "png", "json"], "default": "mp4"},
        "The frames under the map as a video or as one picture; or the map as numbers.",
        "json",
    ),
    Parameter(
        "method",
        {"type": "string", "enum": ["gradient", "attention"], "default": "gradient"},
        "What speaks for the class, or what is read at all.",
        "gradient",
    ),
    Parameter(
        "pace",
        {"type": "string", "enum": ["slides", "video"], "default": "slides"},
        "Of the video: each frame for 0.6 seconds, or in time with the upload.",
        "video",
    ),
    Parameter(
        "side",
        {"type": "integer", "minimum": 64, "maximum": 960, "default": 640},
        "Pixels of the longer side of the frames, at most.",
        320,
    ),
    MODEL,
)
FEATURES: Final = (
    Parameter(
        "per",
        {"type": "string", "enum": ["video", "window"], "default": "video"},
        "One feature of length 1 for all of it, or one for each window.",
        "video",
    ),
    Parameter(
        "format",
        {"type": "string", "enum": ["json", "npy"], "default": "json"},
        "Text, or NumPy's file; `Accept: application/octet-stream` asks for the file, too.",
        "json",
    ),
    CLIPS,
    CROPS,
    *WINDOWS,
    MODEL,
)


def read_parameters(
    allowed: Sequence[Parameter], query: Iterable[tuple[str, str]], fields: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The parameters of a request by name; those that were left out are absent.

    Args:
        allowed: What this address takes.
        query: Of the address.
        fields: Of a form.

    Raises:
        ServiceError: One is not known, comes twice, or has a value that is not allowed.
    """
    known = {each.name: each for each in allowed}
    found: dict[str, Any] = {}
    for name, text in [*query, *(fields or {}).items()]:
        if name not in known:
            hint = did_you_mean(name[:40], known) or f" There are: {', '.join(known) or 'none'}."
            raise ServiceError("invalid-parameter", f"No parameter is called {name[:40]!r}.{hint}")
        if name in found:
            raise ServiceError("invalid-parameter", f"{name} is given twice.")
        found[name] = known[name].value(text)
    return found
