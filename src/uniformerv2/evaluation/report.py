"""The report of a test: one HTML page that needs nothing beside it, and its figures as PNG and SVG files.

::

    FOLDER/report.html
    FOLDER/figures/confusion.png, confusion.svg, ...

What was not kept (view scores, durations, a training log) leaves its section out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from uniformerv2.core.files import write_bytes
from uniformerv2.core.optional import require
from uniformerv2.evaluation import figures
from uniformerv2.evaluation.breakdown import by_confidence, by_duration, by_num_views
from uniformerv2.evaluation.curves import read_curves
from uniformerv2.evaluation.figure_files import FigureFolder
from uniformerv2.evaluation.report_classes import classes_section, confusion_section
from uniformerv2.evaluation.report_examples import FrameStrips, example_sections
from uniformerv2.evaluation.report_page import (
    Cell,
    Column,
    Section,
    card,
    command,
    counted,
    details,
    figure,
    is_report,
    page,
    paragraph,
    percent,
    side_by_side,
    table,
    text,
    tile,
)
from uniformerv2.evaluation.scores import Evaluation, views_in_words
from uniformerv2.evaluation.summary import Estimate, Summary, summarize

__all__ = ["FrameStrips", "check_report_folder", "write_report"]

PAGE: Final = "report.html"
FIGURES: Final = "figures"

FAILURES: Final = 200
"""Most that the page lists; the dump has all."""

TITLES: Final = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "mean_class_accuracy": "Mean class accuracy",
    "mean_ap": "Mean average precision",
    "calibration_error": "Calibration error (ECE)",
    "loss": "Loss",
}

HEADLINES: Final = ("top1", "mean_ap", "top5", "mean_class_accuracy")


def write_report(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    strips: FrameStrips | None = None,
    curves: Sequence[str | Path] = (),
    commands: Sequence[str] = (),
    title: str = "Test report",
    summary: Summary | None = None,
) -> Path:
    """Write ``report.html`` and its figures.

    Args:
        evaluation: The scores of the test. Its ``info`` becomes the card of model and data.
        folder: Made where it is not there; an older report in it is replaced, see ``check_report_folder``.
        strips: Frames of a video, see ``uniformerv2.inference.strips``; None shows examples without.
        curves: The ``metrics.csv`` of a training, one for each time it was started, in order.
        commands: That give these numbers again.
        title: Of the page.
        summary: Of the same scores, where it is there already; None makes it.

    Returns:
        The page.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    drawings = FigureFolder(Path(folder) / FIGURES)
    drawings.path.mkdir(parents=True, exist_ok=True)
    drawings.clear()
    summary = summary or summarize(evaluation)
    sections = [
        _results(summary),
        _training(curves, len(evaluation.class_names), drawings),
        confusion_section(evaluation, drawings),
        classes_section(evaluation),
        _calibration(evaluation, summary, drawings),
        _conditions(evaluation, drawings),
        *example_sections(evaluation, strips),
        _failures(evaluation),
        _card(evaluation),
        _commands(commands),
    ]
    html = page(
        title=title,
        subtitle=_subtitle(evaluation, summary),
        sections=[section for section in sections if section],
        footer="The figures are files too: <code>figures/*.png</code> and <code>figures/*.svg</code> beside this page.",
    )
    path = Path(folder) / PAGE
    write_bytes(path, html.encode("utf-8", errors="replace"))  # a path may hold bytes that are no text
    return path


def check_report_folder(folder: str | Path) -> Path:
    """Refuse now a folder where a report would mix with something else.

    Args:
        folder: For ``write_report``. It may be absent, empty, or hold an older report, which will be replaced, or the
            figures of one that was interrupted.

    Returns:
        The folder.

    Raises:
        ValueError: It holds something else, or is a file.
        ModuleNotFoundError: matplotlib is not installed.
    """
    folder = Path(folder)
    require("matplotlib", extra="plot")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; a report needs a folder: give another one.")
    others = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    is_begun = others == {FIGURES} and FigureFolder(folder / FIGURES).is_alone()
    if others and not is_begun and not is_report(folder / PAGE):
        raise ValueError(
            f"{folder} holds something else than a report: give a folder that is empty or not there yet. Nothing in it "
            "was touched."
        )
    return folder


def _subtitle(evaluation: Evaluation, summary: Summary) -> str:
    views = views_in_words(evaluation.num_clips, evaluation.num_crops).replace(" x ", " × ")
    parts = [counted(summary.num_videos, "video"), f"{len(evaluation.class_names)} classes", f"{views} a video"]
    if summary.num_unreadable:
        parts.append(f"{summary.num_unreadable:,} could not be read")
    if summary.num_labelled < summary.num_videos:
        parts.append(f"{summary.num_videos - summary.num_labelled:,} without a label")
    return " · ".join(parts)


def _results(summary: Summary) -> Section:
    numbers = summary.all_videos
    if not numbers:
        return Section("results", "Results", paragraph("No video has a label: there is nothing to measure."))
    views = f"{summary.num_views} views" if summary.num_views > 1 else "One view"
    groups = [(views, numbers), ("One view", summary.one_view), (f"{views}, readable videos", summary.readable)]
    groups = [(title, group) for title, group in groups if group]
    rows = [[Cell(TITLES[name]), *(Cell(_estimate(name, group[name])) for _, group in groups)] for name in numbers]
    heads = [Column("Measure"), *(Column(title, is_number=True) for title, _ in groups)]
    shown = [(name, numbers[name]) for name in HEADLINES if name in numbers]
    tiles = "".join(tile(TITLES[name], number.value, number.low, number.high) for name, number in shown)
    has_intervals = not all(math.isnan(number.low) for number in numbers.values())
    told = "In brackets: the 95 % interval." if has_intervals else "Without intervals, as asked."
    body = f'<dl class="tiles">{tiles}</dl>' + table(heads, rows, caption=told)
    notes = []
    if summary.num_unreadable:
        notes.append(f"What could not be read ({counted(summary.num_unreadable, 'video')}) counts as wrong.")
    if has_intervals:
        notes.append(
            "The interval (bootstrap over the videos; Wilson at 0 and 100 %) is what other videos of the same kind and "
            "number would give; it does not tell what another training run would."
        )
    return Section("results", "Results", body + (paragraph(" ".join(notes), kind="muted note") if notes else ""))


def _estimate(name: str, estimate: Estimate) -> str:
    low, value, high = (
        f"{number:.3f}" if name == "loss" else percent(number)
        for number in (estimate.low, estimate.value, estimate.high)
    )
    return value if math.isnan(estimate.low) else f"{value} <small>({low} – {high})</small>"


def _training(logs: Sequence[str | Path], num_classes: int, drawings: FigureFolder) -> Section | None:
    curves = read_curves([Path(log) for log in logs])
    if "train_loss_epoch" in curves:  # as the console tells it; single steps are in the log
        curves = {**curves, "train_loss": curves["train_loss_epoch"]}
        del curves["train_loss_epoch"]
    if num_classes <= 5:  # all of them are among the five best
        curves = {name: curve for name, curve in curves.items() if name != "val_top5"}
    if not figures.num_panels(curves):
        return None
    last = ", ".join(f"{name.replace('_', ' ')} {values[-1]:.4g}" for name, (_, values) in sorted(curves.items()))
    drawing = figure(
        drawings.save("training", figures.draw_curves, curves),
        alt=f"Training curves. Last values: {last}.",
        caption="The training loss is the mean over an epoch, of augmented clips, and may lie above the validation "
        "loss; validation is with one view a video. Where parts of the network have rates of their own (image ViT and "
        "video blocks), the highest is drawn; the others are a constant part of it.",
        max_width=330 * figures.num_panels(curves),
    )
    return Section("training", "Training", drawing)


def _calibration(evaluation: Evaluation, summary: Summary, drawings: FigureFolder) -> Section | None:
    bins = by_confidence(evaluation)
    if not bins:
        return None
    error = summary.all_videos["calibration_error"]
    of = "decisions" if evaluation.is_multi_label else "videos"
    drawing = figure(
        drawings.save("calibration", figures.draw_calibration, bins, of),
        alt=f"Reliability diagram with an expected calibration error of {percent(error.value)}; its numbers follow.",
        caption="Each point: the mean confidence of a bin, and the part of its decisions that is right, with its 95 % "
        "interval. Under the dashed line the network is too sure of itself, above it not sure enough. "
        f"Below: how many {of} have this confidence.",
        max_width=480,
    )
    rows = [
        [
            Cell(f"{percent(part.low, digits=0)} – {percent(part.high, digits=0)}"),
            Cell(f"{part.rate.total:,}"),
            Cell(percent(part.confidence)),
            Cell(percent(part.rate.value)),
        ]
        for part in bins
        if part.rate.total
    ]
    heads = [Column("Confidence"), *_numbers(of.capitalize(), "Mean confidence", "Right")]
    lead = paragraph(
        f"Expected calibration error: {percent(error.value)}. On average, confidence and accuracy lie so far apart."
    )
    numbers = table(heads, rows, caption="The numbers of the figure.")
    return Section("calibration", "Calibration", lead + side_by_side([drawing, numbers]))


def _conditions(evaluation: Evaluation, drawings: FigureFolder) -> Section | None:
    measure = "highest score is a label" if evaluation.is_multi_label else "top-1"
    parts = [
        part for part in (_views(evaluation, measure, drawings), _durations(evaluation, measure, drawings)) if part
    ]
    return Section("conditions", "Views and duration", side_by_side(parts)) if parts else None


def _views(evaluation: Evaluation, measure: str, drawings: FigureFolder) -> str:
    counts = by_num_views(evaluation)
    if not counts:
        return ""
    rows = [
        [Cell(str(count.num_views)), *(Cell(percent(part)) for part in (count.mean, count.lowest, count.highest))]
        for count in counts
    ]
    heads = [Column("Views", is_number=True), *_numbers("Mean", "Lowest", "Highest")]
    return figure(
        drawings.save("views", figures.draw_views, counts, measure),
        alt=f"{measure} against the number of views: {percent(counts[0].mean)} with one view, "
        f"{percent(counts[-1].mean)} with {counts[-1].num_views}.",
        caption="Scores averaged over so many views. Line: mean over random choices of the views; band: from the "
        "worst to the best of these choices.",
        max_width=480,
    ) + details("Numbers", table(heads, rows, caption=f"{measure} by number of views."))


def _durations(evaluation: Evaluation, measure: str, drawings: FigureFolder) -> str:
    groups = by_duration(evaluation)
    if not groups:
        return ""
    rows = [
        [
            Cell(f"{figures.seconds(group.from_seconds)} – {figures.seconds(group.to_seconds)} s"),
            Cell(f"{group.rate.total:,}"),
            Cell(percent(group.rate.value)),
            Cell(" – ".join(percent(bound) for bound in group.rate.interval)),
        ]
        for group in groups
    ]
    heads = [Column("Duration"), *_numbers("Videos", measure, "95 % interval")]
    return figure(
        drawings.save("duration", figures.draw_durations, groups, measure),
        alt=f"{measure} of {len(groups)} groups of videos by duration; the numbers follow.",
        caption="Videos sorted by duration, in groups of about equal number, with 95 % intervals. Classes differ in "
        "duration, so a slope may be theirs.",
        max_width=480,
    ) + details("Numbers", table(heads, rows, caption=f"{measure} by duration."))


def _failures(evaluation: Evaluation) -> Section | None:
    failed = [video for video in evaluation.videos if not video.is_readable]
    if not failed:
        return None
    rows = [[Cell(text(video.path)), Cell(text(video.error))] for video in failed[:FAILURES]]
    caption = f"{len(failed):,} of {counted(len(evaluation.videos), 'video')}. None was replaced by another."
    if len(failed) > FAILURES:
        caption += f" The first {FAILURES} are listed."
    heads = [Column("Video"), Column("Why it could not be read")]
    return Section("failures", "Failures", table(heads, rows, caption=caption))


def _card(evaluation: Evaluation) -> Section | None:
    if not evaluation.info:
        return None
    single = {name: value for name, value in evaluation.info.items() if not isinstance(value, Mapping)}
    nested = {name: value for name, value in evaluation.info.items() if isinstance(value, Mapping)}
    parts = [card(single)] if single else []
    for name, value in nested.items():
        title = name.replace("_", " ").capitalize()
        if name == "fingerprint":  # what decides the scores: for a comparison of two tests, not for reading
            parts.append(details(title, card(value)))
        else:
            parts.append(f"<h3>{text(title)}</h3>{card(value)}")
    return Section("card", "Model and data", "".join(parts))


def _commands(commands: Sequence[str]) -> Section | None:
    return Section("reproduce", "Reproduce", "".join(map(command, commands))) if commands else None


def _numbers(*titles: str) -> list[Column]:
    return [Column(title, is_number=True) for title in titles]
