"""Temporal localisation: average precision of segments found in long videos, as ActivityNet measures it.

Source:
    Caba Heilbron et al., "ActivityNet: A Large-Scale Video Benchmark for Human Activity Understanding", CVPR 2015,
    and the benchmark's rules: https://github.com/activitynet/ActivityNet (detection task). Detections of a class are
    taken by falling score, each matches the free true segment of its video that it overlaps most, if the overlap is at
    least the threshold; the precision is interpolated at all points.

The overlap is the temporal intersection over union (tIoU) of two segments, in seconds.

Letters of this file: P detections of a class, G true segments of a class, H thresholds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.limits import get_limits
from uniformerv2.core.messages import first_few

__all__ = [
    "ACTIVITYNET_THRESHOLDS",
    "THUMOS_THRESHOLDS",
    "Detection",
    "Localization",
    "TrueSegment",
    "average_precisions",
    "localize",
    "read_detections",
    "read_truth",
    "share_of_seconds",
]

Floats = NDArray[np.float64]

ACTIVITYNET_THRESHOLDS: Final = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""0.5:0.05:0.95."""
THUMOS_THRESHOLDS: Final = tuple(round(0.3 + 0.1 * k, 1) for k in range(5))
"""0.3:0.1:0.7, as THUMOS14 is measured."""
EVALUATED: Final = frozenset({"validation", "val"})
"""Subsets of an annotation file that are measured where any video is marked so; else all are."""


@dataclass(frozen=True)
class TrueSegment:
    """One annotated segment; seconds from the start of the video."""

    video: str
    label: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Detection:
    """One segment that was found; seconds from the start of the video."""

    video: str
    label: str
    start_seconds: float
    end_seconds: float
    score: float


@dataclass(frozen=True)
class Localization:
    """How well segments were found.

    Attributes:
        thresholds: The tIoU from which on a segment counts as found [H].
        per_class: Class name -> average precision at each threshold [H]; the classes of the truth.
        num_true: Class name -> true segments.
        num_found: Class name -> detections.
    """

    thresholds: tuple[float, ...]
    per_class: Mapping[str, tuple[float, ...]]
    num_true: Mapping[str, int]
    num_found: Mapping[str, int]

    @property
    def mean_ap(self) -> tuple[float, ...]:
        """The mean over the classes at each threshold [H]."""
        table = np.array(list(self.per_class.values()))
        return tuple(table.mean(axis=0).tolist())

    @property
    def average_map(self) -> float:
        """The mean over classes and thresholds."""
        return float(np.mean(self.mean_ap))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "thresholds": list(self.thresholds),
            "mean_ap": list(self.mean_ap),
            "average_map": self.average_map,
            "per_class": {
                name: {"ap": list(values), "num_true": self.num_true[name], "num_found": self.num_found[name]}
                for name, values in self.per_class.items()
            },
        }


def localize(
    truth: Sequence[TrueSegment], detections: Sequence[Detection], *, thresholds: Sequence[float]
) -> Localization:
    """Measure detections.

    Args:
        truth: At least one segment. Its classes are the ones that count.
        detections: In any order; of equal scores the first comes first.
        thresholds: tIoU from 0 to 1.

    Raises:
        ValueError: There is no true segment, or a threshold is out of range.
    """
    if not truth:
        raise ValueError("There is no true segment to measure against.")
    if not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"A tIoU threshold is above 0 and at most 1, got {first_few(thresholds)}.")
    names = sorted({segment.label for segment in truth})
    true = {name: [segment for segment in truth if segment.label == name] for name in names}
    found = {name: [detection for detection in detections if detection.label == name] for name in names}
    return Localization(
        thresholds=tuple(thresholds),
        per_class={name: tuple(average_precisions(true[name], found[name], thresholds).tolist()) for name in names},
        num_true={name: len(true[name]) for name in names},
        num_found={name: len(found[name]) for name in names},
    )


def average_precisions(
    truth: Sequence[TrueSegment], detections: Sequence[Detection], thresholds: Sequence[float]
) -> Floats:
    """The average precision of one class at each threshold [H]."""
    places: dict[str, list[int]] = {}
    for place, segment in enumerate(truth):
        places.setdefault(segment.video, []).append(place)
    order = sorted(range(len(detections)), key=lambda index: -detections[index].score)
    is_hit = np.zeros((len(thresholds), len(order)), dtype=bool)
    is_taken = np.zeros((len(thresholds), len(truth)), dtype=bool)
    for rank, index in enumerate(order):
        detection = detections[index]
        own = places.get(detection.video, [])
        overlaps = _tiou(detection, [truth[place] for place in own])
        best_first = np.argsort(-overlaps, kind="stable")
        for level, threshold in enumerate(thresholds):
            for candidate in best_first:
                if overlaps[candidate] < threshold:
                    break
                if not is_taken[level, own[candidate]]:
                    is_taken[level, own[candidate]] = is_hit[level, rank] = True
                    break
    return np.array([_interpolated(hits, len(truth)) for hits in is_hit])


def share_of_seconds(truth: Sequence[TrueSegment], found: Sequence[Detection], *, step_seconds: float = 0.1) -> float:
    """The part of the annotated time at which a found segment has the true label, and no other covers it.

    Args:
        truth: Segments that do not overlap.
        found: Likewise.
        step_seconds: The time is looked at so often.
    """
    by_video: dict[str, list[Detection]] = {}
    for one in found:
        by_video.setdefault(one.video, []).append(one)
    right = total = 0
    for segment in truth:
        times = np.arange(segment.start_seconds + step_seconds / 2, segment.end_seconds, step_seconds)
        is_said, is_other = np.zeros((2, len(times)), dtype=bool)
        for one in by_video.get(segment.video, ()):
            covered = (one.start_seconds <= times) & (times < one.end_seconds)
            if one.label == segment.label:
                is_said |= covered
            else:
                is_other |= covered
        right += int((is_said & ~is_other).sum())
        total += len(times)
    return right / total if total else math.nan


def _tiou(detection: Detection, truth: Sequence[TrueSegment]) -> Floats:
    starts = np.array([segment.start_seconds for segment in truth])
    ends = np.array([segment.end_seconds for segment in truth])
    shared = np.clip(np.minimum(ends, detection.end_seconds) - np.maximum(starts, detection.start_seconds), 0, None)
    either = (ends - starts) + (detection.end_seconds - detection.start_seconds) - shared
    overlaps: Floats = np.divide(shared, either, out=np.zeros_like(shared, dtype=np.float64), where=either > 0)
    return overlaps


def _interpolated(hits: NDArray[np.bool_], num_true: int) -> float:
    """The area under the precision over the recall, each precision being the best at this recall or a higher one."""
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / num_true)


def read_detections(path: str | Path) -> list[Detection]:
    """Detections of a file of ActivityNet's form (``{"results": {video: [...]}}``), or of lines of timelines.

    Raises:
        ValueError: The file is neither, or a detection has no label, no two times or no score.
    """
    path = Path(path)
    value = _read(path)
    if isinstance(value, list):
        return [found for line in value for found in _of_timeline(path, line)]
    results = value.get("results", value) if isinstance(value, dict) else None
    if not isinstance(results, dict) or not all(isinstance(found, list) for found in results.values()):
        raise ValueError(
            f'{path} holds no detections: it must be {{"results": {{VIDEO: [{{"label", "score", "segment"}}, ...]}}}}, '
            "or lines that uniformerv2 timeline --json printed."
        )
    return [_detection(path, video, one) for video, found in results.items() for one in found]


def read_truth(path: str | Path) -> tuple[list[TrueSegment], frozenset[str]]:
    """True segments of ActivityNet's annotation file (``{"database": {video: {"annotations": [...]}}}``).

    Returns:
        The segments, and the names of the videos that are measured: those of the validation subset, or all where none
        is marked so. A video may have no segment.

    Raises:
        ValueError: The file is none, or an annotation has no label or no two times.
    """
    path = Path(path)
    value = _read(path)
    database = value.get("database", value) if isinstance(value, dict) else None
    if not isinstance(database, dict) or not all(isinstance(video, dict) for video in database.values()):
        raise ValueError(
            f'{path} holds no annotations: it must be {{"database": {{VIDEO: {{"annotations": [{{"label", "segment"}}, '
            "...]}}}}, as ActivityNet's file."
        )
    marked = {name for name, video in database.items() if video.get("subset") in EVALUATED}
    videos = {name: video for name, video in database.items() if not marked or name in marked}
    segments = []
    for name, video in videos.items():
        for one in video.get("annotations") or ():
            label, start, end = _label_and_times(path, name, one)
            segments.append(TrueSegment(name, label, start, end))
    return segments, frozenset(videos)


def _read(path: Path) -> Any:
    """JSON, or a list of the values of JSON lines.

    Raises:
        ValueError: Neither.
    """
    size = path.stat().st_size
    get_limits().check("text_bytes", size, what=f"{path} of {size} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip()]
        values = [json.loads(line) for line in lines] if lines and _is_whole(lines[0]) else None
        if values is not None and (len(values) > 1 or _is_timeline(values[0])):
            return values
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no JSON ({error}): give what uniformerv2 timeline wrote by --activitynet or --json, or "
            "ActivityNet's annotations."
        ) from error


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _is_timeline(value: Any) -> bool:
    return isinstance(value, dict) and {"video", "segments"} <= value.keys()


def _of_timeline(path: Path, value: Any) -> Iterable[Detection]:
    if isinstance(value, dict) and "error" in value:  # of a video that could not be read
        return
    if not _is_timeline(value):
        raise ValueError(f"{path} has a line that is no timeline: 'video' and 'segments' are needed.")
    for one in value["segments"]:
        try:
            segment = [one["start_seconds"], one["end_seconds"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: a segment of {value['video']} has no start_seconds and end_seconds.") from error
        yield _detection(path, Path(value["video"]).stem, {**one, "segment": segment})


def _detection(path: Path, video: str, value: Any) -> Detection:
    label, start, end = _label_and_times(path, video, value)
    score = value.get("score")
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"{path}: a detection in {video} has the score {score!r}; it must be a finite number.")
    return Detection(video, label, start, end, float(score))


def _label_and_times(path: Path, video: str, value: Any) -> tuple[str, float, float]:
    segment = value.get("segment") if isinstance(value, dict) else None
    times = [time for time in segment if isinstance(time, int | float)] if isinstance(segment, list) else []
    is_pair = isinstance(segment, list) and len(segment) == len(times) == 2 and all(map(math.isfinite, times))
    if not is_pair or not isinstance(value.get("label"), str):
        raise ValueError(f"{path}: {value!r} of {video} is not {{'label': NAME, 'segment': [START, END]}}.")
    return value["label"], float(times[0]), float(times[1])
