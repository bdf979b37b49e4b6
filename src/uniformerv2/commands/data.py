"""``uniformerv2 data check`` and ``uniformerv2 data prepare``: look at videos before training does; make them quick."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from uniformerv2.commands.console import write_line
from uniformerv2.commands.data_tables import show_checks, show_prepared
from uniformerv2.commands.options import UsageError
from uniformerv2.commands.progress import Progress
from uniformerv2.core.files import lock_file, lock_folder, refuse_held, telling_full_disk
from uniformerv2.core.terminal import harmless
from uniformerv2.data.annotations import VideoRecord, check_files, find_videos
from uniformerv2.data.check import VideoCheck, check_videos, summarize_checks, unchanged_checks
from uniformerv2.data.list_files import LIST_NAMES, check_lists, numbered_anew, write_lists
from uniformerv2.data.manifest import ManifestJournal, journal_path
from uniformerv2.data.prepare import (
    PREPARATION,
    PreparedVideo,
    PrepareSettings,
    new_files,
    prepare_videos,
    refuse_to_replace,
    still_prepared,
)
from uniformerv2.data.shards import write_shards

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Check or prepare; 1 where a video is bad.

    Args:
        options: As ``arguments.data`` made them.
    """
    return (_check if options.task == "check" else _prepare)(options)


def _check(options: argparse.Namespace) -> int:
    manifest = options.manifest
    if manifest:
        refuse_held(manifest, what="A check")
    _check_journal(options)  # what is refused leaves no lock behind
    if not manifest:
        return _check_all(options)
    with lock_file(manifest, what="A check"), telling_full_disk(manifest):
        return _check_all(options)


def _check_all(options: argparse.Namespace) -> int:
    journal = _check_journal(options)
    records = _local_records(options)
    with journal or nullcontext():
        checks = _run_checks(records, journal, options)
        if journal:
            journal.finish(checks)
    summary = summarize_checks(records, checks)
    show_checks(checks, summary, options)
    return 0 if summary.is_good else 1


def _check_journal(options: argparse.Namespace) -> ManifestJournal[VideoCheck] | None:
    if options.manifest is None:
        if options.resume:
            raise UsageError("--resume goes on from the manifest of the run before: give --manifest FILE too.")
        return None
    left = journal_path(options.manifest)
    if left.exists() and not options.resume:
        raise UsageError(f"{left} is left of a run that was stopped: add --resume to go on from it, or delete it.")
    try:
        return ManifestJournal(options.manifest, VideoCheck, resume=options.resume)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _run_checks(
    records: Sequence[VideoRecord], journal: ManifestJournal[VideoCheck] | None, options: argparse.Namespace
) -> list[VideoCheck]:
    """The checks in the order of the list.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was done is in the journal.
    """
    paths = _local_paths(records)
    known = unchanged_checks(journal.rows, deep=options.deep) if journal else {}
    checks: dict[str, VideoCheck] = {}
    running = check_videos(
        records,
        deep=options.deep,
        min_frames=options.min_frames,
        num_workers=options.workers,
        timeout_seconds=options.timeout,
        known=known,
    )
    try:
        with (
            closing(running),
            Progress("check", len(paths), done=sum(path in known for path in paths)) as progress,
        ):
            for check in running:
                checks[check.path] = check
                _write_json(check, options)
                if check.path not in known:
                    progress.advance(is_bad=check.status != "ok")
                    if journal:
                        journal.add(check)
    except KeyboardInterrupt:
        more = "; the same command with --resume goes on from there" if journal else ""
        sys.stderr.write(f"{len(checks)} of {len(paths)} videos were checked{more}.\n")
        raise
    return [checks[path] for path in paths]


def _prepare(options: argparse.Namespace) -> int:
    settings = _settings(options)
    new = options.out / "videos"
    if options.source.is_dir() and new.resolve().is_relative_to(options.source.resolve()):
        raise UsageError(
            f"The new files would go to {new}, among those of {options.source}: a second run would take the results "
            "for sources. Choose another OUT."
        )
    refuse_held(options.out, what=PREPARATION)
    records = _local_records(options)
    listed = _listed(records)
    base = options.root or (options.source if options.source.is_dir() else options.source.parent)
    files = new_files(records, options.out, base=base)
    _prepare_journal(listed, files, options)  # what is refused leaves no lock behind
    with lock_folder(options.out, what=PREPARATION), telling_full_disk(options.out):
        return _prepare_all(records, listed, files, base, settings, options)


def _prepare_all(
    records: list[VideoRecord],
    listed: list[VideoRecord],
    files: Mapping[str, Path],
    base: Path,
    settings: PrepareSettings,
    options: argparse.Namespace,
) -> int:
    with _prepare_journal(listed, files, options) as journal:
        prepared = _run_prepare(records, files, journal, base, settings, options)
        journal.finish([*_made_before(journal.rows, prepared), *prepared.values()])
    good = [replace(r, path=prepared[r.path].output) for r in listed if prepared[r.path].status == "ok"]
    if not good:
        raise ValueError(f"Not one of {len(listed)} videos could be prepared; {journal.manifest} tells why.")
    good = numbered_anew(good)
    written = write_lists(good, options.out)
    if options.shards:
        written += _write_shards(good, options)
    show_prepared(list(prepared.values()), written, settings, options)
    return 0 if all(video.status == "ok" for video in prepared.values()) else 1


def _listed(records: list[VideoRecord]) -> list[VideoRecord]:
    """Those for the lists: not the stray files of a folder, which have no class where others have one."""
    if all(record.label is None for record in records):
        return records
    stray = [record.path for record in records if record.label is None and record.split is None]
    if stray:
        sys.stderr.write(
            f"In no class, and so in no list: {len(stray)} videos, for instance {harmless(str(stray[0]))}.\n"
        )
    return [record for record in records if record.label is not None or record.split is not None]


def _prepare_journal(
    listed: Sequence[VideoRecord], files: Mapping[str, Path], options: argparse.Namespace
) -> ManifestJournal[PreparedVideo]:
    """The journal of OUT.

    Raises:
        UsageError: A list or a new file would replace something there that no earlier run wrote.
    """
    if options.source.resolve() in {(options.out / name).resolve() for name in LIST_NAMES}:
        raise UsageError(f"{options.source} would be replaced by a list of the results: choose another OUT.")
    try:
        journal = ManifestJournal(options.out / "prepared.csv", PreparedVideo, resume=True)
        check_lists(listed, options.out)
        refuse_to_replace(files, made=journal.rows)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return journal


def _made_before(rows: Iterable[PreparedVideo], prepared: Mapping[str, PreparedVideo]) -> list[PreparedVideo]:
    """What earlier runs made that is still there: the manifest knows every file that may be replaced."""
    now = {"", *(video.output for video in prepared.values())}
    before = {row.output: row for row in rows if row.output not in now}
    return [row for row in before.values() if Path(row.output).exists()]


def _write_shards(records: Sequence[VideoRecord], options: argparse.Namespace) -> list[Path]:
    """Each split in a folder of its own, ``shards/train``; those of no split in ``shards``."""
    bounds = {"max_bytes": options.shard_megabytes << 20, "max_count": options.shard_videos}
    written = []
    for split in dict.fromkeys(record.split for record in records):
        folder = options.out / "shards" / (split or "")
        index = write_shards([record for record in records if record.split == split], folder, **bounds)
        written.append(folder / f"({len(index.shards)} shards)")
    return written


def _settings(options: argparse.Namespace) -> PrepareSettings:
    try:
        return PrepareSettings(short_side=options.short_side, fps=options.fps, gop_length=options.gop, crf=options.crf)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _run_prepare(
    records: Sequence[VideoRecord],
    files: Mapping[str, Path],
    journal: ManifestJournal[PreparedVideo],
    base: Path,
    settings: PrepareSettings,
    options: argparse.Namespace,
) -> dict[str, PreparedVideo]:
    """What became of each path, in the order of the list.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was done is in the journal.
    """
    paths = _local_paths(records)
    known = still_prepared(journal.rows, settings=settings, files=files)
    for path in paths:
        if path not in known:  # a file that a stopped run leaves without another row is known as ours
            journal.add(PreparedVideo(path, str(files[path]), "unfinished"))
    prepared: dict[str, PreparedVideo] = {}
    running = prepare_videos(
        records,
        options.out,
        base=base,
        settings=settings,
        num_workers=options.workers,
        known=known,
        **({} if options.timeout is None else {"timeout_seconds": options.timeout}),
    )
    try:
        with (
            closing(running),
            Progress("prepare", len(paths), done=sum(path in known for path in paths)) as progress,
        ):
            for video in running:
                prepared[video.source] = video
                _write_json(video, options)
                if video.source not in known:
                    progress.advance(is_bad=video.status != "ok")
                    journal.add(video)
    except KeyboardInterrupt:
        sys.stderr.write(f"{len(prepared)} of {len(paths)} videos are prepared; the same command goes on from there.\n")
        raise
    return {path: prepared[path] for path in paths}


def _local_records(options: argparse.Namespace) -> list[VideoRecord]:
    found = find_videos(options.source, root=options.root)
    records = [record for record in found if "://" not in record.path]
    if not records:
        raise UsageError(f"{options.source} holds addresses only; download the videos first.")
    if len(records) < len(found):
        sys.stderr.write(f"{len(found) - len(records)} addresses with :// are left out.\n")
    check_files(records)  # a wrong root is one error, not a million bad rows
    return records


def _local_paths(records: Iterable[VideoRecord]) -> list[str]:
    return list(dict.fromkeys(record.path for record in records))


def _write_json(row: VideoCheck | PreparedVideo, options: argparse.Namespace) -> None:
    if options.json:
        write_line(json.dumps(asdict(row)))
