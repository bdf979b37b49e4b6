"""The report of a test, or of two side by side: one HTML page that needs nothing beside it, and its figures as files.

::

    FOLDER/report.html
    FOLDER/figures/confusion.png, confusion.svg, ...

What was not kept (view scores, durations, a training log) leaves its section out. The page is made by the Jinja2
templates in ``templates/``, which escape everything that comes from outside.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from uniformerv2.evaluation import breakdown, figures
from uniformerv2.evaluation.comparison import compare, in_words
from uniformerv2.evaluation.curves import read_curves
from uniformerv2.evaluation.figure_style import save_figure
from uniformerv2.evaluation.gallery import FrameStrips, changed_videos, every_video
from uniformerv2.evaluation.page import figure_folder, write_page
from uniformerv2.evaluation.scores import Evaluation, views_in_words
from uniformerv2.evaluation.summary import Summary, differences, summarize

__all__ = ["FrameStrips", "write_comparison", "write_report"]

TOP5_CLASSES: Final = 20
"""With fewer classes top-5 is not shown: guessing alone would reach more than a quarter."""

FEW_VIDEOS: Final = 20
"""With fewer videos the page says how much of the accuracy each one is."""


def write_report(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    strips: FrameStrips | None = None,
    curves: Sequence[str | Path] = (),
    kept_epoch: int | None = None,
    commands: Sequence[str] = (),
    title: str = "Test report",
    summary: Summary | None = None,
    facts: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    model: str | None = None,
) -> Path:
    """Write ``report.html`` and its figures.

    Args:
        evaluation: The scores of the test. Its ``info`` becomes the card of model and data.
        folder: Made where it does not exist; an older report in it is replaced, see ``page.check_report_folder``.
        strips: Frames of a video, see ``uniformerv2.inference.strips``; None shows no previews.
        curves: The ``metrics.csv`` of a training, one for each time it was started, in order.
        kept_epoch: The epoch that the model is of, from 1; marked in the curves.
        commands: Commands that give these numbers again.
        title: Title of the page.
        summary: Of the same scores, where it exists already; None makes it.
        facts: What stands above the numbers by name, such as date, version, processor and duration.
        notes: Sentences that follow the summary, such as how the epoch was chosen.
        model: What ``--model`` takes, for the box that says how to use it; None leaves the box out.

    Returns:
        The page.

    Raises:
        ModuleNotFoundError: matplotlib or Jinja2 is not installed.
    """
    drawings = figure_folder(folder)
    summary = summary or summarize(evaluation)
    names = evaluation.class_names
    classes = sorted(breakdown.by_class(evaluation), key=_goodness)
    context = {
        "title": title,
        "facts": {**(facts or {}), **_protocol(evaluation)},
        "notes": notes,
        "usage": [] if model is None else _usage(model),
        "summary": summary,
        "few_videos": FEW_VIDEOS,
        "numbers": _shown(summary.all_videos, len(names)),
        "groups": _groups(summary),
        "classes": classes,
        "worst": next((each for each in classes if each.top1.total), None),
        "chance": _chance(classes, len(evaluation.videos)),
        "training": _training(curves, len(names), kept_epoch, drawings),
        "kept_epoch": kept_epoch,
        **_broken_down(evaluation, drawings),
        "gallery": every_video(evaluation, strips),
        "failed": [video for video in evaluation.videos if not video.is_readable],
        "evaluation": evaluation,
        "commands": commands,
    }
    return write_page(folder, "report.html", names, context)


def write_comparison(
    before: Evaluation,
    after: Evaluation,
    folder: str | Path,
    *,
    names: Sequence[str] = ("A", "B"),
    strips: FrameStrips | None = None,
    commands: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Path:
    """Write a page that puts two tests of the same videos side by side.

    Args:
        before: As ``comparison.align`` gives it.
        after: As ``comparison.align`` gives it.
        folder: As in ``write_report``.
        names: What the two tests are called.
        strips: Frames of a video; None shows no previews.
        commands: Commands that give these numbers again.
        facts: What stands above the numbers, by name.
        num_resamples: Resamples of the bootstrap; 0 leaves the intervals out.
        seed: Decides the resamples.

    Returns:
        The page.
    """
    drawings, runs = figure_folder(folder), (before, after)
    summaries = [summarize(run, num_resamples=num_resamples, seed=seed) for run in runs]
    found = compare(before, after)
    counts = [breakdown.by_class(run) for run in runs]
    changes = differences(*runs, num_resamples=num_resamples, seed=seed)
    if "top1" in changes:
        changes["top1"] = found.difference  # exact, and there without resamples too
    pairs = sorted(zip(*counts, strict=True), key=lambda pair: _goodness(pair[1]) - _goodness(pair[0]))
    context = {
        "title": f"{names[0]} and {names[1]}",
        "runs": names,
        "facts": {**(facts or {}), **_protocol(before)},
        "comparison": found,
        "sentences": in_words(found, names),
        "numbers": [_shown(summary.all_videos, len(before.class_names)) for summary in summaries],
        "differences": changes,
        "classes": [pair for pair in pairs if pair[0].top1.total],
        "confusions": [_confusion(run, drawings, name) for run, name in zip(runs, ("before", "after"), strict=True)],
        "gallery": changed_videos(before, after, names, strips),
        "evaluations": runs,
        "commands": commands,
    }
    return write_page(folder, "comparison.html", before.class_names, context)


def _usage(model: str) -> list[str]:
    command = shlex.join(["uniformerv2", "predict", "VIDEO.mp4", "--model", model])
    script = f'from uniformerv2 import Predictor\npredict = Predictor({model!r})\nprint(predict("VIDEO.mp4").top(3))'
    return [command, script]


def _protocol(evaluation: Evaluation) -> dict[str, str]:
    views = views_in_words(evaluation.num_clips, evaluation.num_crops).replace(" x ", " × ")
    counts = {"Videos": len(evaluation.videos), "Classes": len(evaluation.class_names)}
    return {**{name: f"{count:,}" for name, count in counts.items()}, "Views per video": views}


def _shown(numbers: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Without top-5 where it says little."""
    return {name: number for name, number in numbers.items() if name != "top5" or num_classes >= TOP5_CLASSES}


def _groups(summary: Summary) -> dict[str, Mapping[str, Any]]:
    """The columns of the results."""
    views = f"{summary.num_views} views" if summary.num_views > 1 else "One view"
    groups = {views: summary.all_videos}
    if summary.one_view:
        groups["One view"] = summary.one_view
    if summary.readable:
        groups[f"{views}, readable videos"] = summary.readable
    return groups


def _chance(classes: Sequence[breakdown.ClassResult], num_videos: int) -> float:
    """What the answer that is always the commonest class would reach."""
    return max((each.top1.total for each in classes), default=0) / max(1, sum(each.top1.total for each in classes))


def _goodness(result: breakdown.ClassResult) -> float:
    """Classes that do not occur come last."""
    value = result.top1.value if math.isnan(result.average_precision) else result.average_precision
    return math.inf if math.isnan(value) else value


def _drawn(drawings: Path, name: str, draw: Any, values: Sequence[Any], *more: Any) -> dict[str, Any] | None:
    """A figure and the numbers that it shows; None without numbers."""
    return {"values": values, "drawing": save_figure(drawings, name, draw, values, *more)} if values else None


def _training(
    logs: Sequence[str | Path], num_classes: int, kept_epoch: int | None, drawings: Path
) -> list[dict[str, Any]]:
    """The panels that the log has curves for."""
    curves = dict(read_curves([Path(log) for log in logs]))
    if "train_loss_epoch" in curves:  # as the console tells it; single steps are in the log
        curves["train_loss"] = curves.pop("train_loss_epoch")
    if num_classes < TOP5_CLASSES:
        curves.pop("val_top5", None)
    return [
        {
            "drawing": save_figure(drawings, f"training_{name}", figures.draw_curves, name, curves, kept_epoch),
            "title": title,
            "last": {known: curves[known][1][-1] for known in shown if known in curves},
        }
        for name, (title, shown) in figures.PANELS.items()
        if any(known in curves for known in shown)
    ]


def _broken_down(evaluation: Evaluation, drawings: Path) -> dict[str, Any]:
    """By pair of classes, by confidence, by number of views and by duration, with the figures."""
    measure = "highest score is a label" if evaluation.is_multi_label else "top-1"
    of = "decisions" if evaluation.is_multi_label else "videos"
    confusion = _confusion(evaluation, drawings)
    calibration = _drawn(drawings, "calibration", figures.draw_calibration, breakdown.by_confidence(evaluation), of)
    return {
        "confusion": confusion,
        "calibration": calibration and {**calibration, "of": of},
        "views": _drawn(drawings, "views", figures.draw_views, breakdown.by_num_views(evaluation), measure),
        "durations": _drawn(drawings, "duration", figures.draw_durations, breakdown.by_duration(evaluation), measure),
        "measure": measure,
    }


def _confusion(evaluation: Evaluation, drawings: Path, suffix: str = "") -> dict[str, Any] | None:
    """The matrix, its worst part enlarged where there are many classes, and the worst pairs."""
    counts = breakdown.confusion_counts(evaluation)
    if evaluation.is_multi_label or len(counts) < 2 or not counts.sum():
        return None
    order, pairs = breakdown.order_by_confusion(counts), breakdown.worst_pairs(counts)
    totals, names = counts.sum(axis=1), evaluation.class_names

    def draw(name: str, chosen: Sequence[int]) -> Any:
        shown = [names[index] for index in chosen]
        part = counts[np.ix_(chosen, chosen)]
        return save_figure(
            drawings, f"{name}_{suffix}".rstrip("_"), figures.draw_confusion, part, shown, totals[list(chosen)]
        )

    is_small = len(order) <= figures.LABELLED
    worst = [] if is_small else breakdown.classes_of_worst_pairs(pairs, order)
    return {
        "drawing": draw("confusion", order),
        "max_width": min(860, 300 + 40 * len(order)) if is_small else 780,
        "is_small": is_small,
        "pairs": pairs,
        "worst": worst,
        "worst_drawing": draw("confusion_worst", worst) if worst else None,
        "data": _cells(counts, order, names),
        "taken_for": _commonest_mistakes(counts),
    }


def _cells(counts: breakdown.Counts, order: list[int], names: Sequence[str]) -> dict[str, Any]:
    """What the page's script knows of the matrix, as plain values."""
    ordered = counts[np.ix_(order, order)]
    return {
        "names": [names[index] for index in order],
        "numbers": order,
        "totals": ordered.sum(axis=1).tolist(),
        "cells": [[int(row), int(column), int(ordered[row, column])] for row, column in np.argwhere(ordered)],
    }


def _commonest_mistakes(counts: breakdown.Counts) -> list[tuple[int, int]]:
    """Of each class the class that it is most often taken for, and how often."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    return [(int(row.argmax()), int(row.max())) for row in wrong]
