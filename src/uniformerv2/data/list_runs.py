"""Check or prepare a whole list of videos: resumed from a journal, locked for one process, with lists at the end.

checks, summary = check_list("videos", manifest="checked.csv")
preparation = prepare_list("videos", "prepared", settings=PrepareSettings(short_side=320))
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.console import Progress
from uniformerv2.core.files import lock_file, lock_folder, refuse_held, telling_full_disk
from uniformerv2.core.messages import UsageError, counted, usage_errors
from uniformerv2.core.terminal import harmless
from uniformerv2.data.annotations import VideoRecord, check_files, find_videos
from uniformerv2.data.check import CheckSummary, VideoCheck, check_videos, summarize_checks, unchanged_checks
from uniformerv2.data.list_files import (
    LIST_NAMES,
    ManifestJournal,
    check_lists,
    journal_path,
    numbered_anew,
    write_lists,
)
from uniformerv2.data.prepare import (
    PREPARATION,
    new_files,
    prepare_videos,
    refuse_to_replace,
    still_prepared,
)
from uniformerv2.data.prepared_video import PreparedVideo, PrepareSettings
from uniformerv2.data.shards import write_shards

__all__ = ["Preparation", "check_list", "prepare_list"]

CHECK: Final = "A check"
OnRow = Callable[[Any], None]


@dataclass(frozen=True)
class Preparation:
    """What became of a list.

    Attributes:
        videos: One row per video, in the order of the list.
        written: Lists and shards that were written.
        settings: How the videos were encoded.
    """

    videos: tuple[PreparedVideo, ...]
    written: tuple[Path, ...]
    settings: PrepareSettings


def check_list(
    source: Path,
    *,
    root: Path | None = None,
    deep: bool = False,
    min_frames: int = 2,
    manifest: Path | None = None,
    resume: bool = False,
    num_workers: int | None = None,
    timeout_seconds: float | None = None,
    on_row: OnRow = lambda row: None,
) -> tuple[list[VideoCheck], CheckSummary]:
    """Open and decode every video of a list or folder.

    Args:
        source: A list in any known format, or a folder.
        root: Where relative paths of a list start.
        deep: Decode every frame.
        min_frames: Videos with fewer are too short.
        manifest: Table to write; a run that was stopped leaves a journal beside it.
        resume: Look only at what is new or has changed since the manifest.
        num_workers: Processes; None: one per core.
        timeout_seconds: Time limit per video.
        on_row: Told each check as soon as it is there.

    Returns:
        The checks in the order of the list, and a summary of them.

    Raises:
        UsageError: A journal that must not be overwritten, or a list without videos.
        FolderInUseError: Another check writes this manifest.
        KeyboardInterrupt: Ctrl-C; what was done is in the journal.
    """
    if manifest is not None:
        refuse_held(manifest, what=CHECK)
        _check_journal(manifest, resume=resume)  # what is refused leaves no lock behind
    with ExitStack() as held:
        if manifest is not None:
            held.enter_context(lock_file(manifest, what=CHECK))
            held.enter_context(telling_full_disk(manifest))
        journal = _check_journal(manifest, resume=resume)
        records = _local_records(source, root)
        known = unchanged_checks(journal.rows, deep=deep) if journal else {}
        running = check_videos(
            records,
            deep=deep,
            min_frames=min_frames,
            num_workers=num_workers,
            timeout_seconds=timeout_seconds,
            known=known,
        )
        more = "; the same command with --resume goes on from there" if journal else ""
        with journal or nullcontext():
            told = f"were checked{more}"
            found = _carry_out(running, records, known, journal, what="check", on_row=on_row, told=told)
            checks = list(found.values())
            if journal:
                journal.finish(checks)
        return checks, summarize_checks(records, checks)


def prepare_list(
    source: Path,
    out: Path,
    *,
    root: Path | None = None,
    settings: PrepareSettings | None = None,
    shards: Mapping[str, int] | None = None,
    num_workers: int | None = None,
    timeout_seconds: float | None = None,
    on_row: OnRow = lambda row: None,
) -> Preparation:
    """Re-encode the videos of a list or folder so that training reads them fast, and write lists of the results.

    Args:
        source: A list in any known format, or a folder.
        out: Folder to write; what is done there is kept.
        root: Where relative paths of a list start.
        settings: How to encode; None: the defaults.
        shards: Also pack the result into shards; ``max_bytes`` and ``max_count`` of ``write_shards``.
        num_workers: Processes; None: one per core.
        timeout_seconds: Time limit per video.
        on_row: Told each video as soon as it is done.

    Raises:
        UsageError: A result would replace a source, or a file that no earlier run wrote.
        FolderInUseError: Another preparation writes to this folder.
        ValueError: Not one video could be prepared.
        KeyboardInterrupt: Ctrl-C; what was done is in the journal.
    """
    settings, new = settings or PrepareSettings(), out / "videos"
    if source.is_dir() and new.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"The new files would go to {new}, among those of {source}: a second run would take the results for "
            "sources. Choose another OUT."
        )
    refuse_held(out, what=PREPARATION)
    records = _local_records(source, root)
    listed = _listed(records)
    base = root or (source if source.is_dir() else source.parent)
    files = new_files(records, out, base=base)
    _prepare_journal(source, out, listed, files)  # what is refused leaves no lock behind
    with lock_folder(out, what=PREPARATION), telling_full_disk(out):
        with _prepare_journal(source, out, listed, files) as journal:
            known = still_prepared(journal.rows, settings=settings, files=files)
            for path in _paths(records):
                if path not in known:  # a file that a stopped run leaves without another row is known as ours
                    journal.add(PreparedVideo(path, str(files[path]), "unfinished"))
            limit: dict[str, Any] = {} if timeout_seconds is None else {"timeout_seconds": timeout_seconds}
            running = prepare_videos(
                records,
                out,
                base=base,
                settings=settings,
                num_workers=num_workers,
                known=known,
                **limit,
            )
            told = "are prepared; the same command goes on from there"
            done = _carry_out(running, records, known, journal, what="prepare", on_row=on_row, told=told)
            journal.finish([*_made_before(journal.rows, done), *done.values()])
        good = [replace(r, path=done[r.path].output) for r in listed if done[r.path].status == "ok"]
        if not good:
            raise ValueError(
                f"Not one of {counted(len(listed), 'video')} could be prepared; {journal.manifest} tells why."
            )
        good = numbered_anew(good)
        written = write_lists(good, out)
        if shards is not None:
            written += _write_shards(good, out, shards)
    return Preparation(tuple(done.values()), tuple(written), settings)


def _carry_out(
    running: Generator[Any],
    records: Sequence[VideoRecord],
    known: Mapping[str, Any],
    journal: ManifestJournal[Any] | None,
    *,
    what: str,
    on_row: OnRow,
    told: str,
) -> dict[str, Any]:
    """Path -> its row, in the order of the list; new ones are in the journal as soon as they are there.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    paths, done = _paths(records), {}
    try:
        with closing(running), Progress(what, len(paths), done=sum(path in known for path in paths)) as progress:
            for row in running:
                path = row.path if isinstance(row, VideoCheck) else row.source
                done[path] = row
                on_row(row)
                if path not in known:
                    progress.advance(is_bad=row.status != "ok")
                    if journal:
                        journal.add(row)
    except KeyboardInterrupt:
        sys.stderr.write(f"{len(done)} of {counted(len(paths), 'video')} {told}.\n")
        raise
    return {path: done[path] for path in paths}


def _check_journal(manifest: Path | None, *, resume: bool) -> ManifestJournal[VideoCheck] | None:
    if manifest is None:
        if resume:
            raise UsageError("--resume goes on from the manifest of the run before: give --manifest FILE too.")
        return None
    left = journal_path(manifest)
    if left.exists() and not resume:
        raise UsageError(f"{left} is left of a run that was stopped: add --resume to go on from it, or delete it.")
    with usage_errors():
        return ManifestJournal(manifest, VideoCheck, resume=resume)


def _prepare_journal(
    source: Path, out: Path, listed: Sequence[VideoRecord], files: Mapping[str, Path]
) -> ManifestJournal[PreparedVideo]:
    """The journal of ``out``.

    Raises:
        UsageError: A list or a new file would replace something there that no earlier run wrote.
    """
    if source.resolve() in {(out / name).resolve() for name in LIST_NAMES}:
        raise UsageError(f"{source} would be replaced by a list of the results: choose another OUT.")
    with usage_errors():
        journal = ManifestJournal(out / "prepared.csv", PreparedVideo, resume=True)
        check_lists(listed, out)
        refuse_to_replace(files, made=journal.rows)
    return journal


def _listed(records: list[VideoRecord]) -> list[VideoRecord]:
    """The records for the lists: not the stray files of a folder, which have no class where others have one."""
    if all(record.label is None for record in records):
        return records
    stray = [record.path for record in records if record.label is None and record.split is None]
    if stray:
        sys.stderr.write(
            f"In no class, and so in no list: {len(stray)} videos, for instance {harmless(str(stray[0]))}.\n"
        )
    return [record for record in records if record.label is not None or record.split is not None]


def _made_before(rows: Iterable[PreparedVideo], prepared: Mapping[str, PreparedVideo]) -> list[PreparedVideo]:
    """What earlier runs made that is still there: the manifest knows every file that may be replaced."""
    now = {"", *(video.output for video in prepared.values())}
    before = {row.output: row for row in rows if row.output not in now}
    return [row for row in before.values() if Path(row.output).exists()]


def _write_shards(records: Sequence[VideoRecord], out: Path, bounds: Mapping[str, int]) -> list[Path]:
    """Each split in a folder of its own, ``shards/train``; those of no split in ``shards``."""
    written = []
    for split in dict.fromkeys(record.split for record in records):
        folder = out / "shards" / (split or "")
        index = write_shards([record for record in records if record.split == split], folder, **bounds)
        written.append(folder / f"({len(index.shards)} shards)")
    return written


def _local_records(source: Path, root: Path | None) -> list[VideoRecord]:
    found = find_videos(source, root=root)
    records = [record for record in found if "://" not in record.path]
    if not records:
        raise UsageError(f"{source} holds addresses only; download the videos first.")
    if len(records) < len(found):
        sys.stderr.write(f"{len(found) - len(records)} addresses with :// are left out.\n")
    check_files(records)  # a wrong root is one error, not a million bad rows
    return records


def _paths(records: Iterable[VideoRecord]) -> list[str]:
    return list(dict.fromkeys(record.path for record in records))
