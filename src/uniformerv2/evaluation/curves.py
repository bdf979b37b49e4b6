"""Training curves from the CSV files of Lightning's ``CSVLogger``."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["Curve", "read_curves"]

Curve = tuple[tuple[float, ...], tuple[float, ...]]
"""Epochs done, with their fraction, and the value after each."""


def read_curves(logs: Sequence[Path]) -> Mapping[str, Curve]:
    """The curves of one training.

    Args:
        logs: Its ``metrics.csv``; a resumed training has one for each start, in order. Where two know a step the later
            counts. A file that is not there is left out.

    Returns:
        By the name of the column, in the order of time: ``train_loss``, ``val_loss``, ``val_top1``, ``learning_rate``
        ...
    """
    points: dict[str, dict[float, float]] = {}
    steps_per_epoch = 1.0
    for row in _rows(logs):
        step, epoch = _number(row.pop("step", None)), _number(row.pop("epoch", None))
        if step is None or epoch is None:
            continue
        steps_per_epoch = max(steps_per_epoch, (step + 1) / (epoch + 1))  # reached by the last step of an epoch
        for name, text in row.items():
            if (value := _number(text)) is not None:
                points.setdefault(name, {})[step] = value
    return {
        name: (tuple((step + 1) / steps_per_epoch for step in sorted(values)), tuple(values[s] for s in sorted(values)))
        for name, values in points.items()
    }


def _rows(logs: Sequence[Path]) -> Iterator[dict[str, str]]:
    for log in logs:
        if log.is_file():
            with log.open(encoding="utf-8", newline="") as file:
                yield from csv.DictReader(file, restkey="more", restval="")


def _number(text: object) -> float | None:
    """None for an empty field, for what is no number, and for NaN and infinity, which cannot be drawn."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
