"""Is every video what the list says? Each file is opened and decoded once, in a process that may be lost.

What is asked of a file is what training will ask of it: ``open_video``, then the first, the middle and the last frame
(or all of them).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

from uniformerv2.core.limits import get_limits
from uniformerv2.core.workers import Lost, available_cores, run_isolated
from uniformerv2.data.annotations import AnnotationError, VideoRecord, detect_format, read_records
from uniformerv2.media.decoding import VideoError, VideoErrorKind, VideoReader, open_video
from uniformerv2.media.suffixes import BESIDE_VIDEOS, IMAGE_SUFFIXES

__all__ = [
    "CheckStatus",
    "VideoCheck",
    "beyond_end",
    "check_videos",
    "find_videos",
    "fingerprint",
    "probe_video",
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
        duration_seconds: From the first frame to the end of the last.
        width: As shown, rotation applied.
        height: As ``width``.
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


def find_videos(source: str | Path, *, root: str | Path | None = None) -> list[VideoRecord]:
    """The videos of a list; of a folder everything in it that could be meant as a video.

    A folder needs no classes. Its records have them where ``read_records`` finds some, and then come the files that
    no reader would take: without a class, or with a suffix that no video has. A folder with nothing but images is one
    video.

    Args:
        source: A list in any format of ``read_records``, or a folder.
        root: Where relative paths of a list start.

    Raises:
        AnnotationError: The list holds no videos, or the folder no files.
    """
    path = Path(source)
    if not path.is_dir() or detect_format(path) != "folder":
        return read_records(path, root=root)
    try:
        records = read_records(path, root=root)
    except AnnotationError:  # no class folders: its files are found below
        records = []
    known = {record.path for record in records}
    others = [file for file in _files_that_may_be_videos(path) if file not in known]
    if not records and not others:
        raise AnnotationError("holds no videos: the folder has no file that could be one.", file=source)
    return records + [VideoRecord(file, id=os.path.relpath(file, path)) for file in others]


def _files_that_may_be_videos(top: Path) -> Iterator[str]:
    for folder, inner, names in os.walk(top):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        suffixes = {name: PurePath(name).suffix.casefold() for name in sorted(names) if not name.startswith(".")}
        if suffixes and not inner and set(suffixes.values()) <= IMAGE_SUFFIXES:
            yield folder
            continue
        for name, suffix in suffixes.items():
            if suffix not in BESIDE_VIDEOS | IMAGE_SUFFIXES:
                yield os.path.join(folder, name)  # noqa: PTH118 a million calls, and the form that the readers give


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
        timeout_seconds: For one video; None: the limit ``seconds_per_video``, ten times as long where ``deep``.
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
            check = replace(check, checksum=_checksum(Path(path)))
        with open_video(path, decoder="pyav") as video:
            check = _described(check, video)
            last = len(video) - 1
            for number in range(last + 1) if deep else sorted({0, last // 2, last}):
                video.frames([number])
    except VideoError as error:
        return replace(check, status=error.kind, detail=error.detail)
    except OSError as error:
        return replace(check, status="unreadable", detail=str(error.strerror or error))
    return check


def _described(check: VideoCheck, video: VideoReader) -> VideoCheck:
    info = video.info
    return replace(
        check,
        frames=info.num_frames,
        fps=info.fps,
        constant_rate=info.constant_rate,
        duration_seconds=info.duration_seconds,
        width=info.width,
        height=info.height,
        rotation=info.rotation,
        codec=info.codec,
        container=info.container,
        gop_length=info.gop_length,
    )


def fingerprint(path: str | Path) -> tuple[int | None, int | None]:
    """Bytes and time of writing (nanoseconds); of a folder the sum and the latest; None where nothing is there."""
    try:
        status = os.stat(path)  # noqa: PTH116 a million calls
        if not os.path.isdir(path):  # noqa: PTH112
            return status.st_size, status.st_mtime_ns
        with os.scandir(path) as entries:
            inside = [entry.stat() for entry in entries]
    except (OSError, ValueError):
        return None, None
    return sum(each.st_size for each in inside), max([status.st_mtime_ns, *(each.st_mtime_ns for each in inside)])


def _checksum(path: Path) -> str:
    if not path.is_dir():
        if not path.is_file():  # reading a pipe would wait for ever
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for inner in sorted(path.iterdir()):
        if inner.is_file():
            digest.update(os.fsencode(inner.name) + b"\0" + bytes.fromhex(_checksum(inner)))
    return digest.hexdigest()
