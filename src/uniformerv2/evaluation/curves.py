"""Training curves from the CSV files of Lightning's ``CSVLogger``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Curve", "read_curves"]

Curve = tuple[tuple[float, ...], tuple[float, ...]]
"""Steps, and the value at each."""


def read_curves(logs: Sequence[Path]) -> Mapping[str, Curve]:
    """The curves of one training.

    Args:
        logs: Its ``metrics.csv``; a resumed training has one for each start, in order. Where two know a step the later
            counts. A file that is not there is left out.

    Returns:
        By the name of the column, steps ascending: ``train_loss``, ``val_loss``, ``val_top1``, ``learning_rate`` ...
    """
    points: dict[str, dict[float, float]] = {}
    for log in logs:
        if not log.is_file():
            continue
        with log.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                step = _number(row.get("step"))
                for name, text in row.items():
                    value = _number(text)
                    if step is not None and value is not None and name not in {"step", "epoch", None}:
                        points.setdefault(name, {})[step] = value
    return {name: _curve(values) for name, values in points.items()}


def _curve(values: Mapping[float, float]) -> Curve:
    steps = sorted(values)
    return tuple(steps), tuple(values[step] for step in steps)


def _number(text: str | None) -> float | None:
    """None for an empty field, for what is no number, and for NaN and infinity, which cannot be drawn."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
