"""Is every video what the list says? Each file is opened and decoded once, in a worker process that may crash.

What is asked of a file is what training will ask of it: ``open_video``, then the first, the middle and the last frame
(or all of them). `summarize_checks` counts: statuses, classes, videos that are there twice, and what to do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from statistics import median
from typing import Final, Literal

from uniformerv2.core.limits import get_limits
from uniformerv2.core.workers import Lost, available_cores, run_isolated
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.annotations.record import content_digest, fingerprint
from uniformerv2.media.decoding import VideoError, VideoErrorKind, open_video

__all__ = [
    "CheckStatus",
    "CheckSummary",
    "ClassSummary",
    "Repeat",
    "VideoCheck",
    "beyond_end",
    "check_videos",
    "probe_video",
    "summarize_checks",
    "unchanged_checks",
]

CheckStatus = Literal["ok", VideoErrorKind, "too short", "crashed"]
"""``"crashed"``: the decoder took its process with it, or failed in a way that has no name."""


@dataclass(frozen=True)
class VideoCheck:
    """One video as it was found; the fields are the columns of the manifest.

    Attributes:
        path: The file or the folder of frames.
        status: ``"ok"``, or what is wrong.
        detail: What was found, in words; empty where all is well.
        frames: How many are shown; what follows is as in ``VideoInfo``. None where the file does not open.
        fps: Mean frames per second; 0.0 where the source does not say.
        constant_rate: Every frame is shown equally long.
        duration_seconds: Time from the first frame to the end of the last.
        width: Width in pixels as shown, rotation applied.
        height: Height in pixels, likewise.
        rotation: Degrees clockwise that were applied.
        codec: FFmpeg's name, or ``"images"``.
        container: FFmpeg's name, or ``"folder"``.
        gop_length: Frames from one keyframe to the next, the longest.
        bytes: Size on disk.
        modified_ns: When it was written, in nanoseconds since 1970; with ``bytes`` it tells a changed file.
        checksum: SHA-256 of its bytes; of the names and bytes of a folder's files. Empty where nobody asked for it.
        all_decoded: Every frame was decoded, not three.
    """

    path: str
    status: CheckStatus
    detail: str = ""
    frames: int | None = None
    fps: float | None = None
    constant_rate: bool | None = None
    duration_seconds: float | None = None
    width: int | None = None
    height: int | None = None
    rotation: int | None = None
    codec: str = ""
    container: str = ""
    gop_length: int | None = None
    bytes: int | None = None
    modified_ns: int | None = None
    checksum: str = ""
    all_decoded: bool = False


def check_videos(
    records: Iterable[VideoRecord],
    *,
    deep: bool = False,
    min_frames: int = 2,
    num_workers: int | None = None,
    timeout_seconds: float | None = None,
    known: Mapping[str, VideoCheck] | None = None,
    checksums: bool = True,
    probe: Callable[[str], VideoCheck] | None = None,
) -> Generator[VideoCheck]:
    """Check each different path of the records; addresses with ``://`` are left out.

    Args:
        records: What a reader returned. Several segments of one video are one check.
        deep: Decode every frame, instead of the first, the middle and the last.
        min_frames: A video with fewer is too short, and so is one that ends before a segment of the records starts.
        num_workers: Processes; None: as many as there are cores.
        timeout_seconds: Time limit per video; None is the limit ``seconds_per_video``, ten times that where ``deep``.
        known: Checks of an earlier run by path (see ``unchanged_checks``), given again without looking.
        checksums: Read all bytes of each video too, for ``VideoCheck.checksum``.
        probe: Instead of ``probe_video``.

    Yields:
        The known ones first, the others as they finish.
    """
    needs: dict[str, list[VideoRecord]] = {}
    for record in records:
        if "://" not in record.path:
            needs.setdefault(record.path, []).append(record)
    known = known or {}
    yield from (_judged(known[path], needs[path], min_frames) for path in needs if path in known)
    if num_workers is None:
        num_workers = available_cores()
    if timeout_seconds is None:
        timeout_seconds = get_limits().seconds_per_video * (10.0 if deep else 1.0)
    probe = probe or partial(probe_video, deep=deep, checksum=checksums)
    todo = [path for path in needs if path not in known]
    for path, answer in run_isolated(probe, todo, num_workers=num_workers, timeout_seconds=timeout_seconds):
        check = _lost(path, answer) if isinstance(answer, Lost) else answer
        yield _judged(check, needs[path], min_frames)


def unchanged_checks(checks: Iterable[VideoCheck], *, deep: bool = False) -> dict[str, VideoCheck]:
    """Those that still hold, by path: the file is as it was, and they looked at as many frames as are asked for now."""
    latest = {check.path: check for check in checks}
    return {path: check for path, check in latest.items() if _still_holds(check, deep=deep)}


def _lost(path: str, lost: Lost) -> VideoCheck:
    num_bytes, modified = fingerprint(path)
    return VideoCheck(path, lost.reason, lost.detail, bytes=num_bytes, modified_ns=modified)


def _still_holds(check: VideoCheck, *, deep: bool) -> bool:
    if check.status in {"timeout", "crashed"}:  # may have been the machine's fault
        return False
    if deep and not check.all_decoded and check.status in {"ok", "too short"}:
        return False
    return check.modified_ns is not None and (check.bytes, check.modified_ns) == fingerprint(check.path)


def _judged(check: VideoCheck, records: Sequence[VideoRecord], min_frames: int) -> VideoCheck:
    """The check with the status that the list's demands give it: what training would refuse is not ok."""
    if check.status not in {"ok", "too short"} or check.frames is None:
        return check
    is_timed = any(record.start_seconds is not None or record.end_seconds is not None for record in records)
    if is_timed and not check.fps:
        return replace(check, status="unsupported", detail="a segment is told in seconds, and its frames have no times")
    wrong = next(filter(None, (beyond_end(check, record) for record in records)), "")
    if check.frames < min_frames:
        wrong = f"{check.frames} of at least {min_frames} frames"
    return replace(check, status="too short" if wrong else "ok", detail=wrong)


def beyond_end(check: VideoCheck, record: VideoRecord) -> str:
    """That the record's segment starts after the end of its video, in words; empty where it does not."""
    if check.duration_seconds and (record.start_seconds or 0.0) >= check.duration_seconds:
        return f"it ends at {check.duration_seconds:.2f} s, and a segment starts at {record.start_seconds:.2f} s"
    if check.frames and (record.start_frame or 0) >= check.frames:
        return f"it has {check.frames} frames, and a segment starts at frame {record.start_frame}"
    return ""


def probe_video(path: str, *, deep: bool, checksum: bool = True) -> VideoCheck:
    """Open a video, decode some or all frames, tell what it is. Whatever the video is, this does not raise for it."""
    num_bytes, modified = fingerprint(path)
    check = VideoCheck(path, "ok", bytes=num_bytes, modified_ns=modified, all_decoded=deep)
    try:
        if checksum and num_bytes is not None:
            with suppress(ValueError):  # what is wrong is said when it is opened
                check = replace(check, checksum=content_digest(path))
        with open_video(path, decoder="pyav") as video:
            facts = {name: value for name, value in asdict(video.info).items() if name in _FACTS}
            check = replace(check, frames=len(video), **facts)
            last = len(video) - 1
            for number in range(last + 1) if deep else sorted({0, last // 2, last}):
                video.frames([number])
    except VideoError as error:
        return replace(check, status=error.kind, detail=error.detail)
    except OSError as error:
        return replace(check, status="unreadable", detail=str(error.strerror or error))
    return check


_FACTS: Final = frozenset(field.name for field in fields(VideoCheck))

LONG_GOP: Final = 50
"""Where keyframes are so many frames apart, sparse sampling decodes mostly frames that nobody wants."""
LARGE_SHORT_SIDE: Final = 480


@dataclass(frozen=True)
class ClassSummary:
    """One class.

    Attributes:
        name: Its name, or its number, or ``"(no class)"``.
        videos: Different paths.
        bad: How many of these are not ok.
        hours: Hours of video that is ok.
        median_frames: Median length of the videos that are ok, in frames; None where none is.
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
        paths: Files with this content; one path where a list has it in several splits.
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
        classes: One entry per class, in the order of their numbers.
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
        names = record.label_names or tuple(map(str, record.labels)) or ("(no class)",)
        for name, number in zip(names, record.labels or (-1,), strict=True):
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
