"""The report of a test, or of two side by side: one HTML page that needs nothing beside it, and its figures as files.

::

    FOLDER/report.html
    FOLDER/figures/confusion.png, confusion.svg, ...

What was not kept (view scores, durations, a training log) leaves its section out. The page is made by the Jinja2
templates in ``templates/``, which escape everything that comes from outside.
"""

from __future__ import annotations

import importlib.metadata
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from uniformerv2.core.files import write_bytes
from uniformerv2.core.messages import duration
from uniformerv2.core.optional import require
from uniformerv2.evaluation import figures
from uniformerv2.evaluation.breakdown import (
    ClassResult,
    Counts,
    by_class,
    by_confidence,
    by_duration,
    by_num_views,
    classes_of_worst_pairs,
    confusion_counts,
    order_by_confusion,
    worst_pairs,
)
from uniformerv2.evaluation.comparison import compare, in_words
from uniformerv2.evaluation.curves import read_curves
from uniformerv2.evaluation.figure_style import FigureFolder
from uniformerv2.evaluation.gallery import FrameStrips, changed_videos, every_video
from uniformerv2.evaluation.scores import Evaluation, views_in_words
from uniformerv2.evaluation.summary import Summary, differences, summarize

__all__ = ["FrameStrips", "check_report_folder", "facts_of", "write_comparison", "write_report"]

PACKAGE: Final = "uniformerv2"
PAGE: Final = "report.html"
FIGURES: Final = "figures"

MARK: Final = b'<meta name="generator" content="uniformerv2">'
"""Stands in the template: our own pages are recognised by it."""
MARK_WITHIN: Final = 1000
"""First bytes of a page that hold it."""

TOP5_CLASSES: Final = 20
"""With fewer classes top-5 is not shown: guessing alone would reach more than a quarter."""

TITLES: Final = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "mean_class_accuracy": "Mean class accuracy",
    "mean_ap": "Mean average precision",
    "calibration_error": "Calibration error (ECE)",
    "loss": "Loss",
}


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
        folder: Made where it does not exist; an older report in it is replaced, see ``check_report_folder``.
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
    drawings = _figure_folder(folder)
    summary = summary or summarize(evaluation)
    names = evaluation.class_names
    classes = sorted(by_class(evaluation), key=_goodness)
    context = {
        "title": title,
        "facts": {**(facts or {}), **_protocol(evaluation)},
        "notes": notes,
        "usage": [] if model is None else _usage(model),
        "summary": summary,
        "numbers": _shown(summary.all_videos, len(names)),
        "groups": _groups(summary),
        "classes": classes,
        "worst": next((each for each in classes if each.top1.total), None),
        "chance": _chance(classes, len(evaluation.videos)),
        "training": _training(curves, len(names), kept_epoch, drawings),
        "kept_epoch": kept_epoch,
        "confusion": _confusion(evaluation, drawings),
        "calibration": _calibration(evaluation, drawings),
        "views": _drawn(drawings, "views", figures.draw_views, by_num_views(evaluation), _measure(evaluation)),
        "durations": _drawn(
            drawings, "duration", figures.draw_durations, by_duration(evaluation), _measure(evaluation)
        ),
        "measure": _measure(evaluation),
        "gallery": every_video(evaluation, strips),
        "failed": [video for video in evaluation.videos if not video.is_readable],
        "evaluation": evaluation,
        "commands": commands,
    }
    return _write(folder, "report.html", names, context)


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
        seed: Of the resamples.

    Returns:
        The page.
    """
    drawings, runs = _figure_folder(folder), (before, after)
    summaries = [summarize(run, num_resamples=num_resamples, seed=seed) for run in runs]
    found = compare(before, after)
    counts = [by_class(run) for run in runs]
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
    return _write(folder, "comparison.html", before.class_names, context)


def facts_of(when: datetime, *, processor: str | None = None, seconds: float | None = None) -> dict[str, str]:
    """What stands at the top of a report.

    Args:
        when: When the scores were made.
        processor: What computed them.
        seconds: How long that took.
    """
    facts = {"Date": f"{when:%Y-%m-%d %H:%M} UTC", "Version": f"uniformerv2 {importlib.metadata.version(PACKAGE)}"}
    facts |= {"Processor": processor} if processor else {}
    return facts | ({"Duration": duration(seconds)} if seconds is not None else {})


def check_report_folder(folder: str | Path) -> Path:
    """Refuse now a folder where a report would mix with something else.

    Args:
        folder: For ``write_report``. It may be absent, empty, or hold an older report, which will be replaced, or the
            figures of one that was interrupted.

    Returns:
        The folder.

    Raises:
        ValueError: It holds something else, or is a file.
        ModuleNotFoundError: matplotlib or Jinja2 is not installed.
    """
    folder = Path(folder)
    require("matplotlib", extra="plot")
    require("jinja2", extra="plot")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; a report needs a folder: give another one.")
    others = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    is_begun = others == {FIGURES} and FigureFolder(folder / FIGURES).is_alone()
    if others and not is_begun and not _is_report(folder / PAGE):
        raise ValueError(
            f"{folder} holds something else than a report: give a folder that is empty or not there yet. Nothing in it "
            "was touched."
        )
    return folder


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK in file.read(MARK_WITHIN)


def _figure_folder(folder: str | Path) -> FigureFolder:
    drawings = FigureFolder(Path(folder) / FIGURES)
    drawings.path.mkdir(parents=True, exist_ok=True)
    drawings.clear()
    return drawings


def _write(folder: str | Path, template: str, names: Sequence[str], context: Mapping[str, Any]) -> Path:
    html = _environment().get_template(template).render(names=names, titles=TITLES, **context).lstrip()
    path = Path(folder) / PAGE
    write_bytes(path, html.encode("utf-8", errors="replace"))  # a path may hold bytes that are no text
    return path


def _environment() -> Any:
    jinja2 = require("jinja2", extra="plot")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("uniformerv2.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters.update(
        percent=percent, measure=_in_its_unit, width=_width, counted=counted, seconds=figures.seconds
    )
    return environment


def _printable(value: Any) -> Any:
    """Text without control characters, which HTML forbids; what a template has made stays as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(letter if letter.isprintable() or letter in "\n\u00a0" else " " for letter in value)


def percent(value: float, digits: int = 1) -> str:
    """A part of 1 as percent, a dash for NaN.

    >>> percent(0.875).split()
    ['87.5', '%']
    """
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}\u00a0%"


def counted(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> counted(1, "video"), counted(1200, "video")
    ('1 video', '1,200 videos')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _in_its_unit(value: float, name: str, sign: bool) -> str:
    if name == "loss":
        return f"{value:+.3f}" if sign else f"{value:.3f}"
    return f"{100 * value:+.1f} points" if sign else percent(value)


def _width(part: float) -> float:
    return 0.0 if math.isnan(part) else 100 * min(max(part, 0.0), 1.0)


def _usage(model: str) -> list[str]:
    command = shlex.join(["uniformerv2", "predict", "VIDEO.mp4", "--model", model])
    script = f'from uniformerv2 import Predictor\npredict = Predictor({model!r})\nprint(predict("VIDEO.mp4").top(3))'
    return [command, script]


def _protocol(evaluation: Evaluation) -> dict[str, str]:
    views = views_in_words(evaluation.num_clips, evaluation.num_crops).replace(" x ", " × ")
    counts = {"Videos": len(evaluation.videos), "Classes": len(evaluation.class_names)}
    return {**{name: f"{count:,}" for name, count in counts.items()}, "Views per video": views}


def _measure(evaluation: Evaluation) -> str:
    return "highest score is a label" if evaluation.is_multi_label else "top-1"


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


def _chance(classes: Sequence[ClassResult], num_videos: int) -> float:
    """What the answer that is always the commonest class would reach."""
    return max((each.top1.total for each in classes), default=0) / max(1, sum(each.top1.total for each in classes))


def _goodness(result: ClassResult) -> float:
    """Classes that do not occur come last."""
    value = result.top1.value if math.isnan(result.average_precision) else result.average_precision
    return math.inf if math.isnan(value) else value


def _drawn(drawings: FigureFolder, name: str, draw: Any, values: Sequence[Any], *more: Any) -> dict[str, Any] | None:
    """A figure and the numbers that it shows; None without numbers."""
    return {"values": values, "drawing": drawings.save(name, draw, values, *more)} if values else None


def _training(
    logs: Sequence[str | Path], num_classes: int, kept_epoch: int | None, drawings: FigureFolder
) -> list[dict[str, Any]]:
    """The panels that the log has curves for."""
    curves = dict(read_curves([Path(log) for log in logs]))
    if "train_loss_epoch" in curves:  # as the console tells it; single steps are in the log
        curves["train_loss"] = curves.pop("train_loss_epoch")
    if num_classes < TOP5_CLASSES:
        curves.pop("val_top5", None)
    return [
        {
            "drawing": drawings.save(f"training_{name}", figures.draw_curves, name, curves, kept_epoch),
            "title": title,
            "last": {known: curves[known][1][-1] for known in shown if known in curves},
        }
        for name, (title, shown) in figures.PANELS.items()
        if any(known in curves for known in shown)
    ]


def _confusion(evaluation: Evaluation, drawings: FigureFolder, suffix: str = "") -> dict[str, Any] | None:
    """The matrix, its worst part enlarged where there are many classes, and the worst pairs."""
    counts = confusion_counts(evaluation)
    if evaluation.is_multi_label or len(counts) < 2 or not counts.sum():
        return None
    order, pairs = order_by_confusion(counts), worst_pairs(counts)
    totals, names = counts.sum(axis=1), evaluation.class_names

    def draw(name: str, chosen: Sequence[int]) -> Any:
        shown = [names[index] for index in chosen]
        part = counts[np.ix_(chosen, chosen)]
        return drawings.save(f"{name}_{suffix}".rstrip("_"), figures.draw_confusion, part, shown, totals[list(chosen)])

    is_small = len(order) <= figures.LABELLED
    worst = [] if is_small else classes_of_worst_pairs(pairs, order)
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


def _cells(counts: Counts, order: list[int], names: Sequence[str]) -> dict[str, Any]:
    """What the page's script knows of the matrix, as plain values."""
    ordered = counts[np.ix_(order, order)]
    return {
        "names": [names[index] for index in order],
        "numbers": order,
        "totals": ordered.sum(axis=1).tolist(),
        "cells": [[int(row), int(column), int(ordered[row, column])] for row, column in np.argwhere(ordered)],
    }


def _commonest_mistakes(counts: Counts) -> list[tuple[int, int]]:
    """Of each class the class that it is most often taken for, and how often."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    return [(int(row.argmax()), int(row.max())) for row in wrong]


def _calibration(evaluation: Evaluation, drawings: FigureFolder) -> dict[str, Any] | None:
    of = "decisions" if evaluation.is_multi_label else "videos"
    found = _drawn(drawings, "calibration", figures.draw_calibration, by_confidence(evaluation), of)
    return found and {**found, "of": of}
