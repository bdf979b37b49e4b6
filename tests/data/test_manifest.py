"""Journal and manifest: what is written is read, and a crash loses at most the row it cut."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from uniformerv2.data.check import VideoCheck
from uniformerv2.data.list_files import ManifestJournal, journal_path, read_manifest, write_manifest

ROWS = [
    VideoCheck(
        'a,b "c"\nd é.mp4',
        "ok",
        "",
        250,
        29.97002997002997,
        True,
        8.34,
        320,
        240,
        90,
        "h264",
        "mov",
        12,
        9,
        7,
        "ab",
        True,
    ),
    VideoCheck("missing.mp4", "missing", "there is no such file"),
    VideoCheck("still.gif", "too short", "1 of at least 2 frames", 1, 0.0, False, 0.0, 4, 4, 0, "gif", "gif", 1, 1, 2),
]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_rows_come_back_as_they_were(tmp_path, name):
    write_manifest(tmp_path / name, ROWS)
    assert read_manifest(tmp_path / name, VideoCheck) == ROWS
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_journal_becomes_manifest(tmp_path, name):
    with ManifestJournal(tmp_path / name, VideoCheck, resume=False) as journal:
        for row in reversed(ROWS):
            journal.add(row)
            assert not journal.manifest.exists()
        journal.finish(ROWS)
    assert read_manifest(tmp_path / name, VideoCheck) == ROWS
    assert not journal.path.exists()
    assert ManifestJournal(tmp_path / name, VideoCheck, resume=True).rows == ROWS


def test_rows_are_on_disk_when_they_are_added_and_a_torn_one_is_dropped(tmp_path):
    with ManifestJournal(tmp_path / "rows.csv", VideoCheck, resume=False) as journal:
        journal.add(ROWS[1])
        journal.add(ROWS[0])
        whole = journal.path.read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 60, -1):  # anywhere in the last row
        journal.path.write_bytes(whole[:cut])
        with ManifestJournal(tmp_path / "rows.csv", VideoCheck, resume=True) as resumed:
            assert resumed.rows == [ROWS[1]]
            resumed.add(ROWS[2])
        with ManifestJournal(tmp_path / "rows.csv", VideoCheck, resume=True) as again:
            assert again.rows == [ROWS[1], ROWS[2]]


def test_not_resuming_starts_anew(tmp_path):
    with ManifestJournal(tmp_path / "rows.csv", VideoCheck, resume=False) as journal:
        journal.add(ROWS[0])
    with ManifestJournal(tmp_path / "rows.csv", VideoCheck, resume=False) as journal:
        assert journal.rows == []


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_a_file_that_is_no_manifest_is_not_replaced(tmp_path, name):
    @dataclass(frozen=True)
    class Listed:
        path: str

    content = write_manifest(tmp_path / name, [Listed("a.mp4")]).read_bytes()
    for resume in (False, True):
        with pytest.raises(ValueError, match=f"{name} is no manifest of this kind: its columns are path. Name another"):
            ManifestJournal(tmp_path / name, VideoCheck, resume=resume)
    assert (tmp_path / name).read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_names_that_are_not_utf8_do_not_stop_a_run(tmp_path):
    odd = replace(ROWS[0], path=b"caf\xe9.mp4".decode("utf-8", "surrogateescape"))
    for name in ("rows.csv", "rows.parquet"):
        with ManifestJournal(tmp_path / name, VideoCheck, resume=False) as journal:
            journal.add(odd)
            journal.finish([odd])
        assert read_manifest(tmp_path / name, VideoCheck)[0].path == "caf\\udce9.mp4"


def test_refusals(tmp_path):
    @dataclass(frozen=True)
    class Other:
        name: str

    with pytest.raises(ValueError, match=r"called \*.csv or \*.parquet, not 'rows.txt'"):
        ManifestJournal(tmp_path / "rows.txt", VideoCheck, resume=False)
    with pytest.raises(ValueError, match="no rows"):
        write_manifest(tmp_path / "rows.csv", [])
    for name in ("rows.csv", "rows.parquet"):
        write_manifest(tmp_path / name, ROWS)
        with pytest.raises(ValueError, match=f"{name} is no manifest of this kind"):
            read_manifest(tmp_path / name, Other)
    assert not journal_path(tmp_path / "rows.txt").exists()
