"""What a request may ask for besides its video: each parameter said once, for reading and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from uniformerv2.core.messages import did_you_mean
from uniformerv2.serving.problems import ServiceError

__all__ = ["MODEL", "PREDICT", "TOP_K", "Parameter", "read_parameters"]


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
PREDICT: Final = (
    TOP_K,
    Parameter("clips", {"type": "integer", "minimum": 1, "maximum": 60}, "Clips; the model's own number.", 1),
    Parameter("crops", {"type": "integer", "enum": [1, 3]}, "Crops of a clip; the model's own number.", 1),
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
