"""Re-encode videos for training: small, upright, without sound, a keyframe every few frames.

Sparse sampling takes 8 frames out of 250. Where keyframes are far apart it pays for all that lie between:

    source     K . . . . . . . . . . . . . . . . . . . . .     wanted x:  > > > > > > > > > > > x > > > > > > > x
    prepared   K . . . K . . . K . . . K . . . K . . . K .                            > > > x             > > x

The frames, their number and their times stay as they are (except where another rate is asked for), so that labels and
segments hold. Nothing here imports torch or av before a video is opened: the options of the verb are read here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from uniformerv2.core.files import NO_ROOM, DiskFullError, check_room, lock_folder
from uniformerv2.core.workers import Lost, available_cores, run_isolated
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.annotations.record import fingerprint
from uniformerv2.data.prepared_video import PreparedVideo, PrepareSettings
from uniformerv2.media.video_error import VideoError

if TYPE_CHECKING:
    from uniformerv2.media.decoding import VideoReader

__all__ = [
    "PREPARATION",
    "new_files",
    "prepare_videos",
    "refuse_to_replace",
    "still_prepared",
]


PREPARATION: Final = "A preparation of videos"
"""Who holds the folder that is written; see ``lock_folder``."""

MOST_ROOM: Final = 2**30
"""What a new file may take of the disk at least: as much as its source, but no more than this."""

_ELSEWHERE: Final = "choose another folder to write."


Encode = Callable[["VideoReader", Path, PrepareSettings], int]

_NO_ROOM: Final = "no room"
"""The status of a video for which the disk has no room: no fault of the video."""


def prepare_videos(
    records: Iterable[VideoRecord],
    out: str | Path,
    *,
    base: str | Path,
    settings: PrepareSettings | None = None,
    num_workers: int | None = None,
    timeout_seconds: float = 900.0,
    known: Mapping[str, PreparedVideo] | None = None,
    encode: Encode | None = None,
) -> Generator[PreparedVideo]:
    """Re-encode each different video of the records to ``out/videos``, under its path below ``base``, as ``.mp4``.

    A new file appears whole or not at all, and only after it was opened and its frames counted.

    Args:
        records: What a reader returned; addresses with ``://`` are left out.
        out: The folder to write.
        base: The folder whose structure is kept; a video from elsewhere gets a folder named by a hash.
        settings: How to encode.
        num_workers: Processes; None: as many as there are cores. Each uses one thread.
        timeout_seconds: Time limit per video.
        known: Prepared before, by source (see ``still_prepared``): given again without any work, unless the new file
            is called otherwise now.
        encode: Instead of ``reencode``.

    Yields:
        The known ones first, the others as they finish.

    Raises:
        FolderInUseError: Another process prepares videos in this folder.
        DiskFullError: There is no room, or none is left.
        ValueError: Segments are told in frames and ``settings.fps`` changes what the numbers mean, or the encoder is
            missing, or a new file would take the place of a source.
    """
    import av

    settings = settings or PrepareSettings()
    records = [record for record in records if "://" not in record.path]
    if settings.fps is not None and any(record.start_frame or record.end_frame for record in records):
        raise ValueError("The segments are told in frames, whose numbers another frame rate changes: leave fps away.")
    if settings.encoder not in av.codecs_available:
        raise ValueError(
            f"This build of PyAV has no {settings.encoder}: pip install --force-reinstall av (its wheels have it)."
        )
    targets = new_files(records, out, base=base)
    refuse_to_replace(targets)
    known = {source: each for source, each in (known or {}).items() if each.output == str(targets.get(source))}
    parts = Path(out).absolute() / "videos" / ".unfinished"
    tasks = [(source, target) for source, target in targets.items() if source not in known]
    if num_workers is None:
        num_workers = available_cores()
    work = partial(_prepare, parts=parts, settings=settings, encode=encode)
    largest = max((fingerprint(source)[0] or 0 for source, _ in tasks), default=0)
    check_room(Path(out), min(largest, MOST_ROOM), what="The largest video alone")
    with lock_folder(Path(out), what=PREPARATION):
        yield from (known[source] for source in targets if source in known)
        parts.mkdir(parents=True, exist_ok=True)
        try:
            for task, answer in run_isolated(work, tasks, num_workers=num_workers, timeout_seconds=timeout_seconds):
                prepared = _failed(task[0], answer.reason, answer.detail) if isinstance(answer, Lost) else answer
                if prepared.status == _NO_ROOM:
                    raise DiskFullError(
                        f"The disk of {out} is full: make room, and give the same command again; it goes on from there."
                    )
                yield prepared
        finally:
            shutil.rmtree(parts, ignore_errors=True)


def new_files(records: Iterable[VideoRecord], out: str | Path, *, base: str | Path) -> dict[str, Path]:
    """The new file of each video, by source; the arguments are those of ``prepare_videos``."""
    folder = Path(out).absolute() / "videos"
    sources = [record.path for record in records if "://" not in record.path]
    return {source: folder / name for source, name in _names(sources, Path(base)).items()}


def refuse_to_replace(files: Mapping[str, Path], *, made: Iterable[PreparedVideo] | None = None) -> None:
    """Make sure that no new file takes the place of a source; nor of any other file that is not ``made``.

    Args:
        files: New files by source, of ``new_files``.
        made: Whose new files may be replaced; None: all files may be that are no sources.

    Raises:
        ValueError: One would.
    """
    sources = {_identity(source) for source in files}
    ours = None if made is None else {_identity(each.output) for each in made if each.output}
    for source, file in files.items():
        there = _identity(file)
        if there is None:
            continue
        if there in sources:
            raise ValueError(f"{file} is there to be read, and what is made of {source} would replace it: {_ELSEWHERE}")
        if ours is not None and there not in ours:
            raise ValueError(f"{file} is there, and no earlier run made it: {_ELSEWHERE} Or move it away.")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """The same for all names of a file, through links too; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 a million calls
    except OSError:
        return None
    return status.st_dev, status.st_ino


def still_prepared(
    prepared: Iterable[PreparedVideo],
    *,
    settings: PrepareSettings | None = None,
    files: Mapping[str, Path] | None = None,
) -> dict[str, PreparedVideo]:
    """Those that need no work, by source: same settings, the source unchanged, the new file there.

    Args:
        prepared: Rows of earlier runs; of several with the same new file the last one made it.
        settings: What is asked for now.
        files: What ``new_files`` gave: keep only those whose new file is called so.
    """
    wanted = str(settings or PrepareSettings())
    found = {
        each.source: each
        for each in {each.output: each for each in prepared}.values()
        if each.status == "ok"
        and each.settings == wanted
        and (each.source_bytes, each.source_modified_ns) == fingerprint(each.source)
        and each.output_bytes == fingerprint(each.output)[0]
    }
    if files is None:
        return found
    return {
        source: replace(found[source], output=str(file))  # as it is reached from here
        for source, file in files.items()
        if source in found and _identity(found[source].output) == _identity(file)
    }


def _names(sources: Sequence[str], base: Path) -> dict[str, str]:
    """A new name for each source, all different whatever the file system makes of capitals.

    ``a/b.avi`` becomes ``a/b.mp4``; where another source would be called so too, ``a/b.avi.mp4``; where that is taken,
    a hash of the source comes in between.
    """
    inside = {source: _inside(source, base) for source in dict.fromkeys(sources)}
    names = {source: PurePath(name).with_suffix(".mp4").as_posix() for source, name in inside.items()}
    names |= {source: f"{inside[source]}.mp4" for source in _shared(names) if names[source] != inside[source]}
    while shared := _shared(names):
        names |= {source: f"{inside[source]}.{_hash(source + names[source])}.mp4" for source in shared}
    return names


def _shared(names: Mapping[str, str]) -> list[str]:
    """The sources whose name another one has too."""
    count = Counter(name.casefold() for name in names.values())
    return [source for source, name in names.items() if count[name.casefold()] > 1]


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def _inside(source: str, base: Path) -> str:
    path = PurePath(os.path.relpath(source, base))
    if ".." in path.parts or path.is_absolute():
        path = PurePath(f"outside_{_hash(str(PurePath(source).parent))}", PurePath(source).name)
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def _failed(source: str, status: str, detail: str) -> PreparedVideo:
    num_bytes, modified = fingerprint(source)
    return PreparedVideo(source, "", status, detail, source_bytes=num_bytes, source_modified_ns=modified)


def _prepare(task: tuple[str, Path], *, parts: Path, settings: PrepareSettings, encode: Encode | None) -> PreparedVideo:
    """Encode into a part file of this process, look at it, put it into its place.

    Raises:
        OSError: The disk fails, other than by being full.
    """
    from uniformerv2.data.reencode import reencode
    from uniformerv2.media.decoding import open_video

    source, target = task
    part = parts / f"{os.getpid()}.mp4"
    num_bytes, modified = fingerprint(source)  # before it is read: a source that changes meanwhile is done again
    try:
        with open_video(source, decoder="pyav") as video:
            num_frames = (encode or reencode)(video, part, settings)
        with open_video(part, decoder="pyav") as result:
            if len(result) != num_frames:
                return _failed(source, "corrupt", f"{num_frames} frames were encoded, and {len(result)} came out")
            width, height = result.width, result.height
        target.parent.mkdir(parents=True, exist_ok=True)
        output_bytes = part.stat().st_size
        part.replace(target)
    except VideoError as error:
        return _failed(source, error.kind, error.detail)
    except OSError as error:
        if error.errno in NO_ROOM:
            return _failed(source, _NO_ROOM, str(error))
        raise
    return PreparedVideo(
        source=source,
        output=str(target),
        status="ok",
        settings=str(settings),
        source_bytes=num_bytes,
        source_modified_ns=modified,
        output_bytes=output_bytes,
        frames=num_frames,
        width=width,
        height=height,
    )
