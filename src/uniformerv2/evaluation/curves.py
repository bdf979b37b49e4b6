"""Training curves from the CSV files of Lightning's ``CSVLogger``, and where a curve leads."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Falling", "Forecast", "forecast", "read_curves", "still_falling"]

FALLS_TO: Final = 0.95
"""What is left of a training loss that falls."""
FEWEST_EPOCHS: Final = 5
"""Fewer say nothing of where a curve leads."""
EXPONENTS: Final = np.linspace(0.2, 3.0, 29)
WIDEST: Final = 0.25
"""Half an interval, as a part of what the curve fell so far; where it is wider, there is no forecast."""

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


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Where a loss will be.

    Attributes:
        epochs: After so many epochs.
        value: The loss.
        low: With ``high``, where it will be in about 95 of 100 cases, if it goes on as it did.
        high: See ``low``.
    """

    epochs: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def forecast(losses: Sequence[float], epochs: int) -> Forecast | None:
    """Where a validation loss will be: a power law with a floor, ``floor + fall / epoch ** exponent``, fitted to it.

    Two things tell the error: how far the losses lie from the curve, and how far off the last half was when it was
    forecast from the first. The larger of both is taken, twice.

    Args:
        losses: After each epoch, from the first one on.
        epochs: Epochs of the end.

    Returns:
        None where there are too few epochs, the loss does not fall, or the error is too large to say anything.

    >>> print(forecast([1.3, 0.8, 0.63, 0.55, 0.5, 0.47], 12))
    0.384 (0.375 to 0.392)
    >>> forecast([0.5, 0.9, 0.4, 0.8, 0.6, 0.7], 12)
    """
    seen = np.asarray(losses, dtype=np.float64)
    if len(seen) < FEWEST_EPOCHS or not np.isfinite(seen).all():
        return None
    curve, spread = _power_law(seen)
    half = (len(seen) + 1) // 2
    early, _ = _power_law(seen[:half])
    later = np.arange(half + 1, len(seen) + 1)
    missed = float(np.sqrt(np.mean((early(later) - seen[half:]) ** 2))) if half > 2 else 0.0
    margin, fallen = 2 * max(spread, missed), float(seen[0] - seen.min())
    value = float(curve(np.array([epochs]))[0])
    if fallen <= 0 or margin > WIDEST * fallen:
        return None
    return Forecast(epochs=epochs, value=value, low=max(0.0, value - margin), high=value + margin)


def _power_law(losses: NDArray[np.float64]) -> tuple[Callable[[NDArray[Any]], NDArray[np.float64]], float]:
    """The best curve, from epochs to losses, and the deviation of the losses from it; neither part is below 0."""
    epochs, found = np.arange(1, len(losses) + 1, dtype=np.float64), []
    for exponent in EXPONENTS:
        shape = epochs**-exponent
        centred = shape - shape.mean()
        fall = max(0.0, float(centred @ losses / (centred @ centred)))
        floor = float(losses.mean() - fall * shape.mean())
        if floor < 0:
            floor, fall = 0.0, float(shape @ losses / (shape @ shape))
        found.append((float(np.sum((losses - floor - fall * shape) ** 2)), floor, fall, float(exponent)))
    error, floor, fall, exponent = min(found)
    return lambda at: floor + fall * at.astype(np.float64) ** -exponent, math.sqrt(error / max(1, len(losses) - 3))


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
