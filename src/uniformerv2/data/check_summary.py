"""What many checks say together: counts, classes, videos that are there twice, and what to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.check import CheckStatus, VideoCheck

__all__ = ["CheckSummary", "ClassSummary", "Repeat", "summarize_checks"]

LONG_GOP: Final = 50
"""From this many frames between keyframes on, sparse sampling decodes mostly frames that nobody wants."""
LARGE_SHORT_SIDE: Final = 480


@dataclass(frozen=True)
class ClassSummary:
    """One class.

    Attributes:
        name: Its name, or its number, or ``"(no class)"``.
        videos: Different paths.
        bad: How many of these are not ok.
        hours: Of video that is ok.
        median_frames: Of the videos that are ok; None where none is.
    """

    name: str
    videos: int
    bad: int
    hours: float
    median_frames: float | None


@dataclass(frozen=True)
class Repeat:
    """The same content more than once.

    Attributes:
        paths: Where it lies; one path where a list has it in several splits.
        splits: The splits that it is in.
    """

    paths: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def is_leak(self) -> bool:
        """It is in ``train`` and also in what the model is judged by."""
        return "train" in self.splits and len(self.splits) > 1


@dataclass(frozen=True)
class CheckSummary:
    """All checks together.

    Attributes:
        statuses: How many videos have each status, the most frequent first.
        classes: In the order of their numbers.
        repeats: Equal content under several paths, and paths in several splits.
        suggestions: What to do, in whole sentences.
    """

    statuses: dict[CheckStatus, int]
    classes: tuple[ClassSummary, ...]
    repeats: tuple[Repeat, ...]
    suggestions: tuple[str, ...]

    @property
    def num_bad(self) -> int:
        """Videos that are not ok."""
        return sum(count for status, count in self.statuses.items() if status != "ok")

    @property
    def leaks(self) -> tuple[Repeat, ...]:
        """The repeats that make a result on ``val`` or ``test`` look better than it is."""
        return tuple(repeat for repeat in self.repeats if repeat.is_leak)

    @property
    def is_good(self) -> bool:
        """Every video is ok, and nothing leaks."""
        return not self.num_bad and not self.leaks


def summarize_checks(records: Iterable[VideoRecord], checks: Sequence[VideoCheck]) -> CheckSummary:
    """Summarise.

    Args:
        records: The records that were checked: they tell classes and splits.
        checks: What ``check_videos`` gave for them.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, set[str]] = defaultdict(set)
    numbers: dict[str, int] = {}
    for record in records:
        splits[record.path].update([record.split] if record.split else [])
        for name, number in _classes_of(record):
            classes[name].add(record.path)
            numbers[name] = number
    by_path = {check.path: check for check in checks}
    order = sorted(classes, key=lambda name: (numbers[name], name))
    repeats = _repeats(checks, splits)
    statuses = dict(Counter(check.status for check in checks).most_common())
    return CheckSummary(
        statuses=statuses,
        classes=tuple(
            _class_summary(name, [by_path[path] for path in classes[name] & by_path.keys()]) for name in order
        ),
        repeats=repeats,
        suggestions=tuple(_suggestions(checks, repeats)),
    )


def _classes_of(record: VideoRecord) -> list[tuple[str, int]]:
    if record.label is None:
        return [("(no class)", -1)]
    numbers = record.label if isinstance(record.label, tuple) else (record.label,)
    names = record.label_name if isinstance(record.label_name, tuple) else (record.label_name,) * len(numbers)
    return [(str(number) if name is None else name, number) for name, number in zip(names, numbers, strict=True)]


def _class_summary(name: str, checks: Sequence[VideoCheck]) -> ClassSummary:
    good = [check for check in checks if check.status == "ok"]
    return ClassSummary(
        name=name,
        videos=len(checks),
        bad=len(checks) - len(good),
        hours=sum(check.duration_seconds or 0.0 for check in good) / 3600,
        median_frames=median(check.frames or 0 for check in good) if good else None,
    )


def _repeats(checks: Sequence[VideoCheck], splits: dict[str, set[str]]) -> tuple[Repeat, ...]:
    groups: dict[str, list[str]] = defaultdict(list)
    for check in checks:
        if check.status != "empty":
            groups[check.checksum or check.path].append(check.path)
    repeats = []
    for paths in groups.values():
        there = sorted(set().union(*(splits[path] for path in paths)))
        if len(paths) > 1 or len(there) > 1:
            repeats.append(Repeat(tuple(sorted(paths)), tuple(there)))
    return tuple(sorted(repeats, key=lambda repeat: (not repeat.is_leak, repeat.paths)))


def _suggestions(checks: Sequence[VideoCheck], repeats: Sequence[Repeat]) -> list[str]:
    good = [check for check in checks if check.status == "ok"]
    advice = []
    long = [check.gop_length for check in good if (check.gop_length or 0) >= LONG_GOP]
    if long:
        advice.append(
            f"Sparse sampling will be slow: {len(long)} of {len(good)} videos have runs of {LONG_GOP} frames or more "
            f"without a keyframe (the longest {max(filter(None, long))}). Run: uniformerv2 data prepare DATA OUT"
        )
    large = sum(min(check.width or 0, check.height or 0) > LARGE_SHORT_SIDE for check in good)
    if large:
        advice.append(
            f"{large} of {len(good)} videos have a short side above {LARGE_SHORT_SIDE} pixels, most of which training "
            "throws away. Run: uniformerv2 data prepare DATA OUT --short-side 320"
        )
    variable = sum(check.constant_rate is False for check in good)
    if variable:
        advice.append(
            f"{variable} of {len(good)} videos have a variable frame rate: frames evenly spread by number are not "
            "evenly spread in time. To change that: uniformerv2 data prepare DATA OUT --fps 30"
        )
    leaks = sum(repeat.is_leak for repeat in repeats)
    if leaks:
        advice.append(f"Videos of train that are also in another split: {leaks}. Take them out of one.")
    if len(repeats) > leaks:
        advice.append(f"Videos that are there more than once: {len(repeats) - leaks}. Their checksums are equal.")
    if any(check.status == "timeout" for check in checks):
        advice.append("Videos that timed out may only be long: try --timeout with more seconds, or fewer --workers.")
    if len(good) < len(checks):
        advice.append("Take the bad videos off the list, or fetch them again; --resume looks only at what has changed.")
    return advice
