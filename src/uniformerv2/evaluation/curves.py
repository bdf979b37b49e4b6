"""Training curves from the CSV files of Lightning's ``CSVLogger``."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Curve", "Falling", "read_curves", "still_falling"]

FALLS_TO: Final = 0.95
"""What is left of a training loss that falls."""

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


@dataclass(frozen=True, kw_only=True)
class Falling:
    """A training loss that was falling when the training ended.

    Attributes:
        last: Mean of the last epoch.
        before: Mean of an earlier one.
        epoch: Which one, from 1.
    """

    last: float
    before: float
    epoch: int


def still_falling(curves: Mapping[str, Curve]) -> Falling | None:
    """Whether more epochs promise something.

    They do where the training loss fell by 5 % or more in the last quarter of the epochs, and the validation loss was
    never lower than at the end.

    Args:
        curves: From ``read_curves``, with ``train_loss_epoch``.

    >>> epochs, losses = (1.0, 2.0, 3.0), (2.0, 1.5, 1.2)
    >>> still_falling({"train_loss_epoch": (epochs, losses), "val_loss": (epochs, (2.0, 1.0, 1.0))})
    Falling(last=1.2, before=1.5, epoch=2)
    >>> still_falling({"train_loss_epoch": (epochs, losses), "val_loss": (epochs, (2.0, 1.0, 1.1))})
    """
    losses, validation = (curves.get(name, ((), ()))[1] for name in ("train_loss_epoch", "val_loss"))
    if len(losses) < 2 or not validation or validation[-1] > min(validation):
        return None
    epoch = len(losses) - max(1, len(losses) // 4)
    last, before = losses[-1], losses[epoch - 1]
    return Falling(last=last, before=before, epoch=epoch) if last <= FALLS_TO * before else None


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
