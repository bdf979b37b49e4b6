"""Regularised logistic regression on many features of few clips, for several strengths of the regularisation at once.

Features are standardised and divided by the root of their number, so that a strength means the same for any number of
them. The regression runs in the space that the clips span, where it has the same solution (Hastie and Tibshirani,
"Efficient quadratic regularization for expression arrays", Biostatistics 5, 2004): with more features than clips this
costs a fraction.

Letters of this file: M clips, F features, R dimensions that the clips span, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.optional import require

__all__ = ["LinearHead", "fit_heads"]

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

SMALLEST_PART: Final = 1e-7
"""Directions with less than this part of the largest variance are rounding."""
NEVER: Final = -30.0
"""Logit of a class that no clip shows."""
MAX_STEPS: Final = 300


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A linear classifier of standardised features: ``((x - mean) * scale) @ weight.T + bias``.

    Attributes:
        mean: [F].
        scale: [F]; 0 for features that never change.
        weight: [K, F].
        bias: [K].
        is_multi_label: A clip may have several classes.
    """

    mean: Floats
    scale: Floats
    weight: Floats
    bias: Floats
    is_multi_label: bool

    def probabilities(self, features: Floats) -> Floats:
        """[M, F] -> [M, K]."""
        logits = ((features - self.mean) * self.scale) @ self.weight.T + self.bias
        return _sigmoid(logits) if self.is_multi_label else _softmax(logits)


def fit_heads(features: Floats, target: Mask, *, strengths: Sequence[float], is_multi_label: bool) -> list[LinearHead]:
    """One head for each strength.

    Args:
        features: [M, F].
        target: Whether a clip has a class, [M, K].
        strengths: As scikit-learn's C: the larger, the less is regularised. Rising.
        is_multi_label: Fit a regression of its own to each class.

    Returns:
        As many heads as strengths.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    changes = deviation > SMALLEST_PART * max(1e-12, float(deviation.max(initial=0.0)))
    scale = np.divide(1.0, deviation * np.sqrt(features.shape[1]), out=np.zeros_like(deviation), where=changes)
    standard = (features - mean) * scale
    variance, directions = np.linalg.eigh(standard @ standard.T)
    kept = variance > SMALLEST_PART * max(1e-12, float(variance.max(initial=0.0)))
    roots = np.sqrt(variance[kept])
    rotated = directions[:, kept] * roots  # [M, R]
    back = (directions[:, kept] / roots).T @ standard  # [R, F]
    fit = _fit_each_class if is_multi_label else _fit_classes
    return [
        LinearHead(mean=mean, scale=scale, weight=weight @ back, bias=bias, is_multi_label=is_multi_label)
        for weight, bias in fit(rotated, target, strengths)
    ]


def _fit_classes(rotated: Floats, target: Mask, strengths: Sequence[float]) -> list[tuple[Floats, Floats]]:
    """Weights [K, R] and bias [K] where a clip has one class."""
    label = target.argmax(axis=1)
    present = np.flatnonzero(target.any(axis=0))
    found: list[tuple[Floats, Floats]] = []
    for coefficients, intercepts in _regressions(rotated, label, strengths, num_classes=len(present)):
        weight, bias = np.zeros((target.shape[1], rotated.shape[1])), np.full(target.shape[1], NEVER)
        if len(present) == 2:  # one row, for the second class
            coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.r_[-intercepts, intercepts] / 2
        weight[present], bias[present] = coefficients, intercepts
        found.append((weight, bias))
    return found


def _fit_each_class(rotated: Floats, target: Mask, strengths: Sequence[float]) -> list[tuple[Floats, Floats]]:
    """Weights [K, R] and bias [K] where a clip may have several classes."""
    weight = np.zeros((len(strengths), target.shape[1], rotated.shape[1]))
    bias = np.full((len(strengths), target.shape[1]), NEVER)
    for index, own in enumerate(target.T):
        if own.all():
            bias[:, index] = -NEVER
        elif own.any():
            fits = _regressions(rotated, own.astype(np.int64), strengths, num_classes=2)
            for place, (coefficients, intercepts) in enumerate(fits):
                weight[place, index], bias[place, index] = coefficients[0], intercepts[0]
    return list(zip(weight, bias, strict=True))


def _regressions(
    rotated: Floats, label: NDArray[np.int64], strengths: Sequence[float], *, num_classes: int
) -> list[tuple[Floats, Floats]]:
    """Coefficients and intercepts for each strength, each fit starting from the one before; zeros of one class."""
    if num_classes < 2:
        return [(np.zeros((1, rotated.shape[1])), np.zeros(1)) for _ in strengths]
    linear_model = require("sklearn.linear_model", extra="train")
    regression = linear_model.LogisticRegression(warm_start=True, max_iter=MAX_STEPS, tol=1e-4)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _convergence_warning())  # the weakest regularisation may need more steps
        for strength in strengths:
            regression.set_params(C=strength).fit(rotated, label)
            found.append((regression.coef_.copy(), regression.intercept_.copy()))
    return found


def _convergence_warning() -> type[Warning]:
    found: type[Warning] = require("sklearn.exceptions", extra="train").ConvergenceWarning
    return found


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, 2 * NEVER, -2 * NEVER))))
