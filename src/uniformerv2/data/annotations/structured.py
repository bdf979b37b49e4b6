"""JSON files whose every broken part has to be named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uniformerv2.core.declared import check_items
from uniformerv2.data.annotations.record import AnnotationError
from uniformerv2.data.annotations.rows import read_text

__all__ = ["as_entries", "read_json"]


def read_json(path: str | Path) -> Any:
    """The value of a JSON file, plain or ``.gz``.

    Raises:
        AnnotationError: Not UTF-8, or not JSON; with the line.
    """
    text = read_text(path)
    try:
        check_items(text, where="it")
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(f"not JSON ({error.msg}).", file=path, line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"not an annotation file ({error}).", file=path) from error


def as_entries(value: Any, *, file: str | Path, needed: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and content of each entry of a JSON list.

    Raises:
        AnnotationError: No list, or an entry that is no object or lacks the key ``needed``.
    """
    if not isinstance(value, list):
        raise AnnotationError(f"a list of entries is needed; this is a {type(value).__name__}.", file=file)
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict) or needed not in entry:
            raise AnnotationError(f"entry {str(entry)[:60]!r} has no {needed!r}.", file=file, line=number)
        yield number, entry
