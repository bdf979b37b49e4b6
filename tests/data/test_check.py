"""Checking videos: real odd files against ffprobe, damage made by hand, decoders that die, and fuzzed mutants."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from tests.media.made_videos import make_video
from tests.media.mutants import write_mutants
from uniformerv2.data.annotations import AnnotationError, VideoRecord, find_videos
from uniformerv2.data.check import VideoCheck, beyond_end, check_videos, probe_video, summarize_checks, unchanged_checks
from uniformerv2.media.video_error import VideoErrorKind

STATUSES = {"ok", *get_args(VideoErrorKind), "too short", "timeout", "crashed"}


def by_name(checks):
    return {Path(check.path).name: check for check in checks}


@pytest.fixture(scope="module")
def odd(shared):
    """The 185 odd videos: their folder, what ffprobe says, the checks, the seconds it took."""
    folder = shared("data/odd_videos")
    with (folder / "ffprobe.tsv").open(encoding="utf-8") as lines:
        truth = {row["file"]: row for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)}
    start = time.monotonic()
    checks = list(check_videos(find_videos(folder)))
    return folder, truth, checks, time.monotonic() - start


def test_odd_videos_are_all_classified_in_time(odd):
    folder, truth, checks, seconds = odd
    assert {os.path.relpath(check.path, folder) for check in checks} == set(truth)
    assert len(checks) == 185
    assert seconds < 120
    assert {check.status for check in checks} <= STATUSES - {"timeout", "crashed"}
    assert Counter(check.status for check in checks) == {
        "ok": 91,
        "no video": 43,
        "too short": 27,
        "encrypted": 15,
        "corrupt": 6,
        "too large": 1,  # a fragment that says it has 16,711,689 packets
        "truncated": 1,
        "not a video": 1,
    }


def test_odd_videos_agree_with_ffprobe(odd):
    folder, truth, checks, _ = odd
    compared, other_size = 0, set()
    for check in checks:
        row = truth[os.path.relpath(check.path, folder)]
        if row["ffmpeg_message"]:
            continue
        assert (check.frames or 0) == int(row["frames_decoded"]), check
        if check.frames:
            assert check.codec == row["codec"]
            size = (check.height, check.width) if check.rotation in {90, 270} else (check.width, check.height)
            if size != (int(row["width"]), int(row["height"])):
                other_size.add(Path(check.path).name)
            compared += 1
    assert compared > 110
    # The frames of these have another size than the header says, which is what ffprobe tells.
    assert other_size == {
        "1393272.webm",
        "bipbop_short_pixel_metadata_bigger_than_in_stream_vp8.webm",
        "bipbop_short_pixel_metadata_narrower_than_in_stream_vp8.webm",
    }
    names = by_name(checks)
    assert names["video_90.mov"].rotation != names["video_0.mov"].rotation == 0
    assert names["var_fps_video.mp4"].constant_rate is False
    assert names["testsrc2.mp4"].constant_rate is True
    assert names["bipbop-cenc-video-10s.mp4"].status == "encrypted"


def test_deep_finds_what_three_frames_do_not(shared):
    path = str(shared("data/odd_videos/decord/corrupted.mp4"))
    [shallow] = check_videos([VideoRecord(path)])
    [deep] = check_videos([VideoRecord(path)], deep=True)
    assert (shallow.status, shallow.all_decoded) == ("ok", False)
    assert (deep.status, deep.all_decoded) == ("corrupt", True)
    assert "frame 30 of 50" in deep.detail


def test_what_is_told_of_a_good_video(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=60, size=(96, 64), gop=25, fps=20)
    [check] = check_videos([VideoRecord(str(path))])
    assert check == VideoCheck(
        path=str(path),
        status="ok",
        frames=60,
        fps=20.0,
        constant_rate=True,
        duration_seconds=pytest.approx(3.0),
        width=96,
        height=64,
        rotation=0,
        codec="h264",
        container="mov",
        gop_length=25,
        bytes=path.stat().st_size,
        modified_ns=path.stat().st_mtime_ns,
        checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    [unread] = check_videos([VideoRecord(str(path))], checksums=False)
    assert unread == replace(check, checksum="")


def test_damage_by_kind(tmp_path, shared):
    good = make_video(tmp_path / "good.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:-300])
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "nothing_inside").mkdir()
    paths = [
        str(tmp_path / name)
        for name in (
            "good.mp4",
            "empty.mp4",
            "text.mp4",
            "cut.mp4",
            "pipe.mp4",
            "gone.mp4",
            "nothing_inside",
            "zero\0byte.mp4",
        )
    ]
    statuses = {Path(check.path).name: check.status for check in check_videos(map(VideoRecord, paths))}
    assert statuses == {
        "good.mp4": "ok",
        "empty.mp4": "empty",
        "text.mp4": "not a video",
        "cut.mp4": "truncated",
        "pipe.mp4": "unreadable",
        "gone.mp4": "missing",
        "nothing_inside": "empty",
        "zero\0byte.mp4": "missing",
    }


def test_folder_of_frames(tmp_path):
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (32, 24), (number, 0, 0)).save(tmp_path / f"img_{number:05d}.jpg")
    [check] = check_videos(find_videos(tmp_path))
    assert (check.status, check.frames, check.width, check.container) == ("ok", 3, 32, "folder")
    assert check.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    before = check.checksum
    Image.new("RGB", (32, 24), (9, 9, 9)).save(tmp_path / "img_00001.jpg")
    [check] = check_videos(find_videos(tmp_path))
    assert check.checksum != before


def test_too_short_for_the_list(tmp_path):
    path = str(make_video(tmp_path / "a.mp4", frames=30))  # 1.2 seconds
    cases = {
        VideoRecord(path): "ok",
        VideoRecord(path, start_seconds=1.1, end_seconds=5.0): "ok",  # what reaches beyond the end is cut off
        VideoRecord(path, start_seconds=1.2, end_seconds=5.0): "too short",
        VideoRecord(path, start_frame=29, end_frame=60): "ok",
        VideoRecord(path, start_frame=30, end_frame=60): "too short",
    }
    for record, status in cases.items():
        [check] = check_videos([VideoRecord(path), record])
        assert check.status == status, record
        assert beyond_end(check, record) == check.detail
        assert not beyond_end(check, VideoRecord(path))
    assert "segment starts at frame 30" in check.detail
    [check] = check_videos([VideoRecord(path)], min_frames=31)
    assert (check.status, check.detail) == ("too short", "30 of at least 31 frames")


def kill_or_hang(path):
    """Stands for a decoder with a defect."""
    if "kills" in Path(path).name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hangs" in Path(path).name:
        time.sleep(60)
    return probe_video(path, deep=False)


def test_a_decoder_that_dies_or_hangs_costs_only_its_video(tmp_path):
    names = ["a.mp4", "kills.mp4", "b.mp4", "hangs.mp4", "c.mp4"]
    records = [VideoRecord(str(make_video(tmp_path / name))) for name in names]
    checks = by_name(check_videos(records, probe=kill_or_hang, timeout_seconds=2.0, num_workers=2))
    assert {name: check.status for name, check in checks.items()} == {
        "a.mp4": "ok",
        "b.mp4": "ok",
        "c.mp4": "ok",
        "kills.mp4": "crashed",
        "hangs.mp4": "timeout",
    }
    assert "SIGSEGV" in checks["kills.mp4"].detail
    assert checks["hangs.mp4"].bytes == (tmp_path / "hangs.mp4").stat().st_size
    assert unchanged_checks(checks.values()).keys() == {r.path for r in records if r.path[-5] in "abc"}


def never(path):
    """No probe may be needed."""
    raise AssertionError(path)


def test_only_what_has_changed_is_looked_at_again(tmp_path):
    records = [VideoRecord(str(make_video(tmp_path / name))) for name in ("a.mp4", "b.mp4", "c.mp4")]
    first = sorted(check_videos(records), key=lambda check: check.path)
    known = unchanged_checks(first)
    assert sorted(check_videos(records, known=known, probe=never), key=lambda check: check.path) == first
    make_video(tmp_path / "b.mp4", frames=40)
    (tmp_path / "c.mp4").unlink()
    assert unchanged_checks(first).keys() == {records[0].path}
    assert unchanged_checks(first, deep=True) == {}
    [short] = check_videos(records[:1], known=known, probe=never, min_frames=50)
    assert short.status == "too short"
    [again] = check_videos(records[:1], known={short.path: short}, probe=never)
    assert again == first[0]


def test_summary_finds_leaks_repeats_and_tells_what_to_do(tmp_path):
    a = str(make_video(tmp_path / "a.mp4", frames=60, gop=250))
    b = str(make_video(tmp_path / "b.mp4", frames=20, gop=5))
    copy, again = str(tmp_path / "copy.mp4"), str(tmp_path / "again.mp4")
    shutil.copy(a, copy)
    shutil.copy(b, again)
    records = [
        VideoRecord(a, label=1, label_name="run", split="train"),
        VideoRecord(copy, label=1, label_name="run", split="val"),
        VideoRecord(b, label=0, label_name="walk", split="train"),
        VideoRecord(again, label=0, label_name="walk", split="train"),
        VideoRecord(str(tmp_path / "gone.mp4"), label=0, label_name="walk", split="train"),
    ]
    summary = summarize_checks(records, list(check_videos(records)))
    assert summary.statuses == {"ok": 4, "missing": 1}
    assert [(each.name, each.videos, each.bad, each.median_frames) for each in summary.classes] == [
        ("walk", 3, 1, 20),
        ("run", 2, 0, 60),
    ]
    assert [(repeat.paths, repeat.is_leak) for repeat in summary.repeats] == [((a, copy), True), ((again, b), False)]
    assert summary.num_bad == 1
    assert not summary.is_good
    text = "\n".join(summary.suggestions)
    assert "2 of 4 videos have runs of 50 frames or more without a keyframe (the longest 60)" in text
    assert "also in another split: 1" in text
    assert "more than once: 1" in text

    same_path = [VideoRecord(b, split="train"), VideoRecord(b, split="val")]
    summary = summarize_checks(same_path, list(check_videos(same_path)))
    assert [(repeat.paths, repeat.splits) for repeat in summary.leaks] == [((b,), ("train", "val"))]
    assert summary.num_bad == 0
    assert not summary.is_good

    tests_only = [VideoRecord(b, split="test"), VideoRecord(b, split="val")]
    summary = summarize_checks(tests_only, list(check_videos(tests_only)))
    assert [(repeat.splits, repeat.is_leak) for repeat in summary.repeats] == [(("test", "val"), False)]
    assert summary.is_good

    fine = summarize_checks(records[2:3], list(check_videos(records[2:3])))
    assert fine.is_good
    assert fine.suggestions == ()


def test_several_labels_count_in_each_class(tmp_path):
    path = str(make_video(tmp_path / "a.mp4"))
    records = [VideoRecord(path, label=(0, 2), label_name=("run", "shout"))]
    summary = summarize_checks(records, list(check_videos(records)))
    assert [(each.name, each.videos) for each in summary.classes] == [("run", 1), ("shout", 1)]


def test_find_videos_in_folders_with_and_without_classes(tmp_path):
    flat = tmp_path / "flat"
    for name in ("b.mp4", "a.AVI", "no_suffix", ".hidden.mp4", "notes.txt", "cover.jpg"):
        flat.mkdir(exist_ok=True)
        (flat / name).write_bytes(b"x")
    assert [(r.id, r.label) for r in find_videos(flat)] == [("a.AVI", None), ("b.mp4", None), ("no_suffix", None)]

    classes = tmp_path / "classes"
    for name in ("run/a.mp4", "run/a.wrong", "walk/b.mp4", "loose.mp4", ".cache/c.mp4"):
        (classes / name).parent.mkdir(parents=True, exist_ok=True)
        (classes / name).write_bytes(b"x")
    found = {r.id: r.label_name for r in find_videos(classes)}
    assert found == {"run/a.mp4": "run", "walk/b.mp4": "walk", "loose.mp4": None, "run/a.wrong": None}

    (tmp_path / "list.csv").write_text("path,label\nclasses/run/a.mp4,run\n")
    assert [r.path for r in find_videos(tmp_path / "list.csv")] == [str(classes / "run/a.mp4")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="holds no videos"):
        find_videos(tmp_path / "empty")


def check_by_command(folder, *, timeout):
    """The command in a process of its own: exit code, rows, what went to stderr."""
    words = [sys.executable, "-m", "uniformerv2.cli", "data", "check", str(folder), "--deep", "--json"]
    program = "import sys; from uniformerv2.cli import main; sys.exit(main())"
    words[1:3] = ["-c", program]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def assert_survived(mutants, code, rows, errors):
    assert code == 1, errors[-2000:]
    assert "Traceback" not in errors
    assert sorted(row["path"] for row in rows) == sorted(map(str, mutants))
    assert {row["status"] for row in rows} <= STATUSES
    assert {"ok", "corrupt", "truncated"} <= {row["status"] for row in rows}


def test_fuzzed_mutants(tmp_path, shared):
    mutants = write_mutants(shared("data/odd_videos"), tmp_path, count=60, max_bytes=60_000)
    assert_survived(mutants, *check_by_command(tmp_path, timeout=120))


@pytest.mark.slow
def test_500_fuzzed_mutants(tmp_path, shared):
    mutants = write_mutants(shared("data/odd_videos"), tmp_path, count=500, max_bytes=200_000)
    assert_survived(mutants, *check_by_command(tmp_path, timeout=280))
