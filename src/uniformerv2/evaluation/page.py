"""The page of a report as a file: the folder it lies in, the templates that make it, and how they write numbers."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.files import write_bytes
from uniformerv2.core.messages import duration
from uniformerv2.core.optional import require
from uniformerv2.evaluation import figures
from uniformerv2.evaluation.figure_style import SUFFIXES

__all__ = ["check_report_folder", "facts_of", "figure_folder", "page_environment", "write_page"]

PACKAGE: Final = "uniformerv2"
PAGE: Final = "report.html"
FIGURES: Final = "figures"
OURS: Final = frozenset(
    f"{name}.{suffix}"
    for name in (
        *("training_loss", "training_validation", "training_rate", "calibration", "views", "duration"),
        *(f"{name}{run}" for name in ("confusion", "confusion_worst") for run in ("", "_before", "_after")),
    )
    for suffix in SUFFIXES
)
"""All figures that a report may have."""

MARK: Final = b'<meta name="generator" content="uniformerv2">'
"""Stands in the template: our own pages are recognised by it."""
MARK_WITHIN: Final = 1000
"""First bytes of a page that hold it."""

TITLES: Final = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "mean_class_accuracy": "Mean class accuracy",
    "mean_ap": "Mean average precision",
    "calibration_error": "Calibration error (ECE)",
    "loss": "Loss",
}


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
    is_begun = others == {FIGURES} and _has_only_ours(folder / FIGURES)
    if others and not is_begun and not _is_report(folder / PAGE):
        raise ValueError(
            f"{folder} holds something else than a report: give a folder that is empty or not there yet. Nothing in it "
            "was touched."
        )
    return folder


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


def figure_folder(folder: str | Path) -> Path:
    """Where the figures of a new report go; those of an older one, which may have had more of them, are removed."""
    drawings = Path(folder) / FIGURES
    drawings.mkdir(parents=True, exist_ok=True)
    for name in OURS:
        (drawings / name).unlink(missing_ok=True)
    return drawings


def write_page(folder: str | Path, template: str, names: Sequence[str], context: Mapping[str, Any]) -> Path:
    """Make the page of a report.

    Args:
        folder: Of the report.
        template: Its name, in ``templates/``.
        names: Names of the classes.
        context: What else the template shows.

    Returns:
        The page.
    """
    html = page_environment().get_template(template).render(names=names, titles=TITLES, **context).lstrip()
    path = Path(folder) / PAGE
    write_bytes(path, html.encode("utf-8", errors="replace"))  # a path may hold bytes that are no text
    return path


def _has_only_ours(drawings: Path) -> bool:
    return drawings.is_dir() and OURS.issuperset(entry.name for entry in drawings.iterdir())


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK in file.read(MARK_WITHIN)


def page_environment(*packages: str) -> Any:
    """Where templates of pages are found, and how they write numbers.

    Args:
        *packages: Packages with ``templates/`` of their own, which may use those of the report.
    """
    jinja2 = require("jinja2", extra="plot")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(one) for one in (*packages, "uniformerv2.evaluation")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters.update(
        percent=_percent, measure=_in_its_unit, width=_width, counted=_counted, seconds=figures.seconds
    )
    return environment


def _printable(value: Any) -> Any:
    """Text without control characters, which HTML forbids; what a template has made stays as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(letter if letter.isprintable() or letter in "\n\u00a0" else " " for letter in value)


def _percent(value: float, digits: int = 1) -> str:
    """A part of 1 as percent, a dash for NaN.

    >>> _percent(0.875).split()
    ['87.5', '%']
    """
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}\u00a0%"


def _counted(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> _counted(1, "video"), _counted(1200, "video")
    ('1 video', '1,200 videos')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _in_its_unit(value: float, name: str, sign: bool) -> str:
    if name == "loss":
        return f"{value:+.3f}" if sign else f"{value:.3f}"
    return f"{100 * value:+.1f} points" if sign else _percent(value)


def _width(part: float) -> float:
    return 0.0 if math.isnan(part) else 100 * min(max(part, 0.0), 1.0)
