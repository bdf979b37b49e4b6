"""``uniformerv2 data check`` and ``data prepare`` as a user runs them: processes, Ctrl-C, resume, exit codes."""

from __future__ import annotations

import csv
import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.locks import held_elsewhere
from tests.media.made_videos import make_video
from uniformerv2.cli import main
from uniformerv2.core.files import FolderInUseError, lock_file
from uniformerv2.data.annotations import find_videos, read_records
from uniformerv2.data.check import VideoCheck
from uniformerv2.data.list_files import ManifestJournal, journal_path, read_manifest
from uniformerv2.data.prepare import prepare_videos
from uniformerv2.data.prepared_video import PreparedVideo
from uniformerv2.data.reencode import reencode
from uniformerv2.media.decoding import open_video

COMMAND = [sys.executable, "-c", "import sys; from uniformerv2.cli import main; sys.exit(main())", "data"]


def run(*words, **options):
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120, check=False, **options
    )


def interrupt(words, journal, *, rows):
    """Start, wait until so many rows are in the journal, send what Ctrl-C sends to the whole group."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") <= rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors, process.pid


def assert_group_is_gone(group):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("processes of the run are still there")


@pytest.fixture
def videos(tmp_path):
    """Two classes of three videos."""
    for label in ("run", "walk"):
        for number in range(3):
            make_video(tmp_path / "in" / label / f"{number}.mp4", frames=20 + number + 10 * (label == "run"))
    return tmp_path / "in"


def test_all_good(videos, capsys):
    assert main(["data", "check", str(videos)]) == 0
    text = capsys.readouterr().out
    assert "6 videos: 6 ok" in text
    assert re.search(r"run +3 +0 +0\.00 +31", text)
    assert re.search(r"ok +run/2\.mp4 +32 +25 +1\.28 +64x48 +h264 +32", text)


def test_bad_ones_make_exit_code_1_and_rows_of_json(videos, tmp_path):
    (videos / "run" / "9.mp4").touch()
    done = run("check", videos, "--json", "--manifest", tmp_path / "rows.csv")
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted((os.path.relpath(row["path"], videos), row["status"]) for row in rows)[3] == ("run/9.mp4", "empty")
    assert "7 videos: 6 ok, 1 empty" in done.stderr
    assert "Traceback" not in done.stderr
    with (tmp_path / "rows.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == sorted(row["path"] for row in rows)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "rows.csv"]


def test_a_wrong_root_is_one_error(videos, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("run/0.mp4 0\nrun/1.mp4 0\n")
    assert main(["data", "check", str(tmp_path / "list.txt")]) == 1
    assert f"The first was looked for at '{tmp_path / 'run/0.mp4'}'" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "list.txt"), "--root", str(videos)]) == 0


def test_the_same_video_in_train_and_val_is_told(videos, tmp_path, capsys):
    shutil.copy(videos / "run/0.mp4", videos / "run/copy.mp4")
    (tmp_path / "list.csv").write_text(
        "path,label,split\nin/walk/0.mp4,walk,train\nin/run/0.mp4,run,train\nin/run/copy.mp4,run,val\n"
    )
    assert main(["data", "check", str(tmp_path / "list.csv")]) == 1
    text = capsys.readouterr().out.replace("\n", "")
    assert "3 videos: 3 ok" in text
    assert f"in train and val: {videos / 'run/0.mp4'} = {videos / 'run/copy.mp4'}" in text


def test_a_video_over_the_time_limit_costs_only_itself(shared, tmp_path, capsys):
    videos = shared("data/odd_videos/firefox")
    (tmp_path / "list.txt").write_text("TestPatternHDR.mp4 0\nwhite-short.webm 0\n")
    words = ["check", tmp_path / "list.txt", "--root", videos, "--deep", "--timeout", "1.5", "--workers", "1", "--json"]
    assert main(["data", *map(str, words)]) == 1
    out, errors = capsys.readouterr()
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["timeout", "ok"]
    assert "try --timeout with more seconds" in errors


def test_check_goes_on_after_ctrl_c(shared, tmp_path):
    (tmp_path / "in").mkdir()
    for file in sorted(shared("data/ucf101_6class/Archery").iterdir())[:80]:
        shutil.copyfile(file, tmp_path / "in" / file.name)
    manifest = tmp_path / "rows.csv"
    words = ["check", tmp_path / "in", "--deep", "--manifest", manifest]
    code, _, errors, group = interrupt(words, journal_path(manifest), rows=10)
    assert code == 130
    assert "of 80 videos were checked; the same command with --resume goes on from there" in errors
    assert "Traceback" not in errors
    assert_group_is_gone(group)
    assert not manifest.exists()

    rows = ManifestJournal(manifest, VideoCheck, resume=True).rows
    before = [Path(row.path) for row in rows]
    assert 10 <= len(before) < 80
    for path in before:  # other bytes, but size and time as they were: whoever looks again finds them bad
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert main(["data", *map(str, words)]) == 2
    assert main(["data", *map(str, words), "--resume"]) == 0
    rows = read_manifest(manifest, VideoCheck)
    assert [row.path for row in rows] == sorted(str(path) for path in (tmp_path / "in").iterdir())
    assert {row.status for row in rows} == {"ok"}
    assert not journal_path(manifest).exists()


def test_prepare_goes_on_after_ctrl_c(shared, tmp_path, capsys):
    for number, file in enumerate(sorted(shared("data/ucf101_6class/Archery").iterdir())[:24]):
        (tmp_path / "in" / ("run", "walk")[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "in" / ("run", "walk")[number % 2])
    out = tmp_path / "out"
    words = ["prepare", tmp_path / "in", out, "--workers", "2"]
    code, _, errors, group = interrupt(words, journal_path(out / "prepared.csv"), rows=24 + 4)  # each is noted first
    assert code == 130
    assert "of 24 videos are prepared; the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert_group_is_gone(group)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.mp4")}
    assert 4 <= len(before) < 24
    for file in before:
        with open_video(file, decoder="pyav") as video:
            assert len(video) > 1
    assert not (out / "train.csv").exists()

    assert main(["data", *map(str, words)]) == 0
    told = capsys.readouterr().out
    assert "24 of 24 videos prepared: short side 256, own rate, GOP 8, libx264 crf 23" in told
    assert re.search(r"8 evenly spread frames of a video: .* times faster", told)
    again = [file for file in before if file.stat().st_mtime_ns != before[file]]
    assert len(again) <= 2  # of each worker one that was whole and not yet noted
    assert len(list(out.rglob("*.mp4"))) == 24
    assert sorted(file.name for file in out.iterdir()) == [
        ".written_lists",
        "classes.txt",
        "prepared.csv",
        "train.csv",
        "val.csv",
        "videos",
    ]
    old, new = read_records(tmp_path / "in"), read_records(out)
    facts = [
        [(r.id, r.label, r.label_name, r.split) for r in sorted(records, key=lambda r: r.id)] for records in (old, new)
    ]
    assert facts[0] == facts[1]


def test_prepare_leaves_bad_ones_out_and_says_so(videos, tmp_path, capsys):
    (videos / "run" / "9.mp4").write_text("no video")
    words = ["--short-side", "32", "--shards", "--shard-videos", "4", "--json"]
    assert main(["data", "prepare", str(videos), str(tmp_path / "out"), *words]) == 1
    out, errors = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert sorted(row["status"] for row in rows) == ["not a video"] + ["ok"] * 6
    assert "6 of 7 videos prepared" in errors
    assert f"not a video: {videos / 'run/9.mp4'}" in errors.replace("\n", "")
    records = read_records(tmp_path / "out")
    assert len(records) == 6
    with open_video(records[0].path, decoder="pyav") as video:
        assert (video.width, video.height) == (42, 32)
    shards = tmp_path / "out/shards"
    num_samples = {index.parent.name: json.loads(index.read_text())["shards"] for index in shards.glob("*/index.json")}
    assert num_samples == {
        split: [{"name": f"{number:06}.tar", "num_samples": count} for number, count in enumerate(counts)]
        for split, counts in (("train", [4]), ("val", [2]))
    }
    assert Counter(record.split for record in records) == {"train": 4, "val": 2}


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "videos", "."], "would go to videos, among those of videos"),
        (["prepare", "videos/list.csv", "."], "is there to be read"),
        (["prepare", "more", "."], "videos/run/0.mp4 is there, and no earlier run made it"),
        (["prepare", "own/train.csv", "own", "--root", "more"], "train.csv would be replaced by a list of the results"),
        (["prepare", "more", "own"], "train.csv is no list that was written here before"),
        (["prepare", "more", "other"], "prepared.csv is no manifest of this kind"),
        (
            ["check", "own/train.csv", "--manifest", "own/../own/train.csv"],
            "would write to own/../own/train.csv, which this command reads",
        ),
        (["check", "videos", "--manifest", "own/train.csv"], "train.csv is no manifest of this kind"),
    ],
)
def test_what_the_user_has_is_never_replaced(videos, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    videos.rename("videos")
    shutil.copytree("videos", "more")
    listed = "path,label\nrun/0.mp4,run\nwalk/0.mp4,walk\n"
    for file in (Path("videos/list.csv"), Path("own/train.csv"), Path("other/prepared.csv")):
        file.parent.mkdir(exist_ok=True)
        file.write_text(listed)
    before = contents(tmp_path)
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_second_run_into_the_same_place_is_refused(videos, tmp_path, capsys):
    """Two would take each other's unfinished files away, and call good videos crashed."""
    out, manifest = tmp_path / "out", tmp_path / "rows.csv"
    with held_elsewhere(out), held_elsewhere(manifest, lock=lock_file):
        before = contents(tmp_path)
        assert main(["data", "prepare", str(videos), str(out)]) == 1
        assert f"A preparation of videos is running in {out}: wait until it ends" in capsys.readouterr().err
        with pytest.raises(FolderInUseError):
            next(prepare_videos(find_videos(videos), out, base=videos))
        assert main(["data", "check", str(videos), "--manifest", str(manifest)]) == 1
        assert f"A check that writes {manifest} is running: wait until it ends" in capsys.readouterr().err
        assert contents(tmp_path) == before
    assert main(["data", "check", str(videos), "--manifest", str(manifest)]) == 0


def on_a_full_disk(video, part, settings):
    """What an encoder does there; a mark makes room."""
    if (part.parents[2] / "room").exists():
        return reencode(video, part, settings)
    part.write_bytes(b"begun")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_makes_no_video_bad(videos, tmp_path, monkeypatch, capsys):
    """And the same command goes on when there is room."""
    out = tmp_path / "out"
    monkeypatch.setattr("uniformerv2.data.list_runs.prepare_videos", partial(prepare_videos, encode=on_a_full_disk))
    words = ["data", "prepare", str(videos), str(out), "--workers", "1", "--json"]
    assert main(words) == 1
    told, errors = capsys.readouterr()
    assert told == ""
    assert errors.endswith(
        f"The disk of {out} is full: make room, and give the same command again; it goes on from there.\n"
    )
    assert {row.status for row in ManifestJournal(out / "prepared.csv", PreparedVideo, resume=True).rows} == {
        "unfinished"
    }
    assert not list(out.rglob("*.mp4"))
    (out / "room").touch()
    assert main(words) == 0
    assert {json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()} == {"ok"}


def test_without_room_for_one_video_nothing_starts(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    assert main(["data", "prepare", str(videos), str(tmp_path / "out")]) == 1
    assert "The largest video alone needs about" in capsys.readouterr().err
    assert not list(tmp_path.rglob("out/videos/*"))


def test_a_source_that_comes_back_finds_its_file(videos, tmp_path):
    listed, out = tmp_path / "in/list.csv", tmp_path / "out"
    words = ["data", "prepare", str(listed), str(out)]
    times = []
    for names in (["run/0", "walk/0"], ["run/0"], ["run/0", "walk/0"]):
        listed.write_text("path,label\n" + "".join(f"{name}.mp4,{name[:-2]}\n" for name in names))
        assert main(words) == 0
        assert len(read_records(out / "videos.csv")) == len(names)
        times.append((out / "videos/walk/0.mp4").stat().st_mtime_ns)
    assert len(set(times)) == 1
    (videos / "walk/0.mp4").write_text("no video")
    assert main(words) == 1
    make_video(videos / "walk/0.mp4", frames=40)
    assert main(words) == 0  # its file of before is known as ours
    with open_video(out / "videos/walk/0.mp4", decoder="pyav") as video:
        assert len(video) == 40


def test_files_of_a_stopped_run_are_known_though_it_never_heard_of_them(videos, tmp_path, monkeypatch):
    def stopped(*words, **options):
        yield from list(prepare_videos(*words, **options))[:0]
        raise KeyboardInterrupt

    words = ["data", "prepare", str(videos), str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr("uniformerv2.data.list_runs.prepare_videos", stopped)
        assert main(words) == 130
    assert len(list((tmp_path / "out/videos").rglob("*.mp4"))) == 6
    assert main(words) == 0
    rows = read_manifest(tmp_path / "out/prepared.csv", PreparedVideo)
    assert [row.status for row in rows] == ["ok"] * 6


def test_another_way_to_the_same_folder_does_nothing_twice(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("deep").mkdir()
    Path("deep/link").symlink_to(tmp_path / "out")
    times = []
    for out in ("out", "in/../out", "deep/link"):
        assert main(["data", "prepare", "in", out]) == 0
        times.append([file.stat().st_mtime_ns for file in sorted(Path("out/videos").rglob("*.mp4"))])
        assert all(Path(record.path).is_file() for record in read_records(out))
    assert len(times[0]) == 6
    assert times[0] == times[1] == times[2]


def test_a_video_more_does_not_mix_up_the_others(tmp_path):
    listed, out = tmp_path / "in/list.csv", tmp_path / "out"
    rows = {"a.avi": ("cat", 11), "b.mp4": ("cow", 12), "a.mp4": ("dog", 13)}
    for name, (_, frames) in rows.items():
        make_video(tmp_path / "in" / name, frames=frames)
    for count in (2, 3, 3):
        listed.write_text("path,label\n" + "".join(f"{name},{rows[name][0]}\n" for name in list(rows)[:count]))
        assert main(["data", "prepare", str(listed), str(out)]) == 0
        found = {}
        for record in read_records(out / "videos.csv"):
            with open_video(record.path, decoder="pyav") as video:
                found[record.id] = (record.label_name, len(video))
        assert found == dict(list(rows.items())[:count])


def test_a_stray_video_is_in_no_list(videos, tmp_path, capsys):
    make_video(videos / "intro.mp4")
    out = tmp_path / "out"
    assert main(["data", "prepare", str(videos), str(out)]) == 0
    first = capsys.readouterr().err.splitlines()[0]  # on a busy machine lines of progress follow
    assert first == f"In no class, and so in no list: 1 videos, for instance {videos / 'intro.mp4'}."
    assert (out / "videos/intro.mp4").exists()
    assert not (out / "videos.csv").exists()
    assert Counter((r.split, r.label_name) for r in read_records(out)) == {
        ("train", "run"): 2,
        ("train", "walk"): 2,
        ("val", "run"): 1,
        ("val", "walk"): 1,
    }


def test_a_test_list_of_an_earlier_run_goes(videos, tmp_path):
    listed, out = tmp_path / "in/list.csv", tmp_path / "out"
    rows = [f"{label}/{n}.mp4,{label},{s}" for label in ("run", "walk") for n, s in enumerate(("train", "val", "test"))]
    for kept in (rows, [row for row in rows if not row.endswith("test")]):
        listed.write_text("\n".join(["path,label,split", *kept]) + "\n")
        assert main(["data", "prepare", str(listed), str(out)]) == 0
        assert sorted(record.id for record in read_records(out)) == sorted(row.split(",")[0] for row in kept)
    assert not (out / "test.csv").exists()


def test_a_class_whose_videos_are_all_broken_is_none(videos, tmp_path):
    (videos / "fly").mkdir()
    (videos / "fly" / "0.mp4").write_text("no video")
    out = tmp_path / "out"
    assert main(["data", "prepare", str(videos), str(out)]) == 1
    assert (out / "classes.txt").read_text() == "run\nwalk\n"
    assert {(record.label, record.label_name) for record in read_records(out)} == {(0, "run"), (1, "walk")}


def test_a_class_name_that_no_list_can_hold_is_told_before_any_work(videos, tmp_path, capsys):
    (videos / "run").rename(videos / "run; fast")
    assert main(["data", "prepare", str(videos), str(tmp_path / "out")]) == 2
    assert "A list cannot hold the class name 'run; fast'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_that_are_not_utf8_are_printed(videos, tmp_path, capsys):
    odd = [videos / label / b"Jos\xe9.mp4".decode("utf-8", "surrogateescape") for label in ("run", "walk")]
    odd[0].write_text("no video")
    (videos / "walk/0.mp4").rename(odd[1])
    done = run("check", videos, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 1
    assert re.search(r"not a video +run/Jos\\udce9\.mp4", done.stdout), done.stderr
    assert re.search(r"ok +walk/Jos\\udce9\.mp4 +20", done.stdout)
    assert main(["data", "prepare", str(videos), str(tmp_path / "out")]) == 1  # pytest's stdout is as strict
    told = capsys.readouterr().out
    assert "6 of 7 videos prepared" in told
    assert r"run/Jos\udce9.mp4: " in told.replace("\n", "")


def test_addresses_are_left_out_and_counted(videos, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("https://host/a.mp4 0\nin/run/0.mp4 1\n")
    assert main(["data", "check", str(listed)]) == 0
    out, errors = capsys.readouterr()
    assert "1 videos: 1 ok" in out
    assert errors == "1 addresses with :// are left out.\n"
    assert main(["data", "prepare", str(listed), str(tmp_path / "out")]) == 0
    assert [record.label for record in read_records(tmp_path / "out/videos.csv")] == [1]
    listed.write_text("https://host/a.mp4 0\n")
    assert main(["data", "check", str(listed)]) == 2
    assert "holds addresses only" in capsys.readouterr().err


def test_nothing_can_be_prepared(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").touch()
    assert main(["data", "prepare", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "Not one of 1 video could be prepared" in capsys.readouterr().err
    assert "empty" in (tmp_path / "out/prepared.csv").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "gone"], "There is no file or folder gone."),
        (["check", "in", "--resume"], "give --manifest FILE too"),
        (
            ["check", "in", "--manifest", "rows.txt"],
            "--manifest writes a file that ends with .csv or .parquet, got rows.txt",
        ),
        (["check", "in", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["check", "in", "--timeout", "0"], "--timeout must be above 0, got 0.0"),
        (["prepare", "in", "in/out"], "would go to in/out/videos, among those of in"),
        (["prepare", "in", "in"], "would go to in/videos, among those of in"),
        (["prepare", "in", "out", "--short-side", "255"], "--short-side is 255; an even number"),
        (["prepare", "in", "out", "--shard-videos", "0"], "--shard-videos must be at least 1, got 0"),
    ],
)
def test_wrong_use_is_told_and_writes_nothing(videos, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_a_terminal_gets_a_bar(videos, capsys):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    words = [*COMMAND, "check", str(videos), "--deep"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux: the other side was closed
                break
            if not piece:
                break
            seen += piece
    os.close(ours)
    assert process.returncode == 0
    assert "━" in seen.decode()
    assert "/6" in seen.decode()
    assert main(["data", "check", str(videos)]) == 0
    lines = capsys.readouterr().err.splitlines()  # no terminal; most often it is done before the first is due
    assert all(re.match(r"check: \d of 6, ", line) for line in lines)
