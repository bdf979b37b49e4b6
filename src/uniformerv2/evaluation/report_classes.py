"""The report's sections about classes: confusion, and a table of all classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uniformerv2.evaluation import figures
from uniformerv2.evaluation.breakdown import ClassResult, Rate, by_class
from uniformerv2.evaluation.confusion import (
    ConfusedPair,
    classes_of_worst_pairs,
    confusion_counts,
    order_by_confusion,
    worst_pairs,
)
from uniformerv2.evaluation.figure_files import FigureFolder
from uniformerv2.evaluation.report_page import (
    Cell,
    Column,
    Section,
    bar,
    figure,
    filter_box,
    json_data,
    paragraph,
    percent,
    table,
    text,
)
from uniformerv2.evaluation.scores import Evaluation

__all__ = ["classes_section", "confusion_section"]

Counts = NDArray[np.int64]


def confusion_section(evaluation: Evaluation, folder: FigureFolder) -> Section | None:
    """The matrix, its worst part enlarged where there are many classes, and the worst pairs."""
    counts = confusion_counts(evaluation)
    if evaluation.is_multi_label or len(counts) < 2 or not counts.sum():
        return None
    order, pairs = order_by_confusion(counts), worst_pairs(counts)
    body = _matrix(evaluation.class_names, counts, order, pairs, folder)
    if pairs and len(order) > figures.LABELLED:
        body += "<h3>The worst pairs, enlarged</h3>" + _worst(evaluation.class_names, counts, order, pairs, folder)
    if pairs:
        body += "<h3>Most confused pairs</h3>" + _pairs(evaluation.class_names, pairs)
    else:
        body += paragraph("No video was taken for another class.")
    return Section("confusion", "Confusion", body)


def classes_section(evaluation: Evaluation) -> Section | None:
    """Every class, sortable."""
    results = sorted(by_class(evaluation), key=_goodness)
    num_occurring = sum(bool(result.top1.total) for result in results)
    if not num_occurring:
        return None
    if evaluation.is_multi_label:
        heads, rows = _average_precisions(evaluation, results)
    else:
        heads, rows = _accuracies(evaluation, results)
    occurring = f"{num_occurring} of {len(results)} classes occur. " if num_occurring < len(results) else ""
    body = paragraph(
        f"{occurring}The worst come first. Click a heading to sort, again to turn the order.", kind="muted"
    )
    body += filter_box("class-table") if len(results) > figures.LABELLED else ""
    body += table(heads, rows, caption="Every class", id="class-table", is_sortable=True)
    return Section("classes", "Classes", body)


def _matrix(
    names: Sequence[str], counts: Counts, order: list[int], pairs: Sequence[ConfusedPair], folder: FigureFolder
) -> str:
    is_small = len(order) <= figures.LABELLED
    totals, shown = counts.sum(axis=1)[order], [names[index] for index in order]
    ordered = counts[np.ix_(order, order)]
    cells = [[int(row), int(column), int(ordered[row, column])] for row, column in np.argwhere(ordered)]
    told = "; ".join(
        f"{pair.count} of {pair.total} videos of {names[pair.true]} are taken for {names[pair.predicted]}"
        for pair in pairs[:3]
    )
    caption = (
        "A row holds the videos of a true class, its colours sum to 1. Classes that are confused stand side by side, "
        "so mistakes gather in blocks along the diagonal. The colours follow a square root: single mistakes show."
    )
    return figure(
        folder.save("confusion", figures.draw_confusion, ordered, shown, totals),
        alt=f"Confusion matrix of {len(order)} classes. {told}.",
        caption=caption if is_small else f"{caption} The numbers at the edges count the classes in this order.",
        max_width=min(860, 300 + 40 * len(order)) if is_small else 780,
        id="confusion-figure",
        after='<output id="readout" class="muted">Point at a cell to read it.</output>'
        + json_data("confusion-data", {"names": shown, "totals": totals.tolist(), "cells": cells}),
    )


def _worst(
    names: Sequence[str], counts: Counts, order: list[int], pairs: Sequence[ConfusedPair], folder: FigureFolder
) -> str:
    worst = classes_of_worst_pairs(pairs, order)
    shown = [names[index] for index in worst]
    part = counts[np.ix_(worst, worst)]
    return figure(
        folder.save("confusion_worst", figures.draw_confusion, part, shown, counts.sum(axis=1)[worst]),
        alt=f"Confusion among {', '.join(shown)}.",
        caption=f"The {len(worst)} classes with the most frequent mistakes. The numbers are videos; those taken for a "
        "class that is not here are left out.",
        max_width=860,
    )


def _pairs(names: Sequence[str], pairs: Sequence[ConfusedPair]) -> str:
    heads = [Column("True class"), Column("Taken for")]
    heads += [Column(title, is_number=True) for title in ("Videos", "Part of the class", "The other way round")]
    rows = [
        [
            Cell(text(names[pair.true])),
            Cell(text(names[pair.predicted])),
            Cell(f"{pair.count} <small>of {pair.total}</small>"),
            Cell(percent(pair.count / pair.total)),
            Cell(str(pair.reverse)),
        ]
        for pair in pairs
    ]
    return table(heads, rows, caption="The pairs with the most videos first.")


def _accuracies(evaluation: Evaluation, results: Sequence[ClassResult]) -> tuple[list[Column], list[list[Cell]]]:
    names, has_top5 = evaluation.class_names, len(results) > 5
    wrong = confusion_counts(evaluation)
    np.fill_diagonal(wrong, 0)
    heads = [Column("Class"), _number("Videos"), Column("Top-1", is_sorted=True), _number("95 % interval")]
    heads += [_number("Top-5")] * has_top5 + [
        _number("Precision"),
        Column("Most often taken for", is_largest_first=True),
    ]
    rows = []
    for result in results:
        other = int(wrong[result.index].argmax())
        count = int(wrong[result.index, other])
        row = [Cell(text(names[result.index])), Cell(str(result.top1.total), result.top1.total)]
        row += [_bar(result.top1.value), _interval(result.top1)]
        row += [_percent(result.top5.value)] * has_top5 + [_percent(result.precision.value)]
        taken = f"{text(names[other])} <small>({count})</small>" if count else "–"
        rows.append([*row, Cell(taken, count or math.nan)])
    return heads, rows


def _average_precisions(
    evaluation: Evaluation, results: Sequence[ClassResult]
) -> tuple[list[Column], list[list[Cell]]]:
    heads = [
        Column("Class"),
        _number("Videos"),
        Column("Average precision", is_sorted=True),
        _number("Part of the videos"),
    ]
    rows = [
        [
            Cell(text(evaluation.class_names[result.index])),
            Cell(str(result.top1.total), result.top1.total),
            _bar(result.average_precision),
            _percent(result.top1.total / len(evaluation.videos)),
        ]
        for result in results
    ]
    return heads, rows


def _goodness(result: ClassResult) -> float:
    """Classes that do not occur come last."""
    value = result.top1.value if math.isnan(result.average_precision) else result.average_precision
    return math.inf if math.isnan(value) else value


def _number(title: str) -> Column:
    return Column(title, is_number=True, is_largest_first=title == "Videos")


def _percent(value: float) -> Cell:
    return Cell(percent(value), value)


def _bar(value: float) -> Cell:
    return Cell(bar(value) + percent(value), value)


def _interval(rate: Rate) -> Cell:
    if not rate.total:
        return Cell("–", math.nan)
    low, high = rate.interval
    return Cell(f"{percent(low, digits=0)} – {percent(high, digits=0)}", low)
