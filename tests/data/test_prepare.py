"""Preparing videos: the same frames at the same times, the same labels, fewer frames to decode; nothing done twice."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch

from tests.media.made_videos import make_video
from tests.media.mutants import write_mutants
from tests.media.test_rare_videos import ONE, with_matrix
from uniformerv2.data.annotations import VideoRecord, find_videos, read_records
from uniformerv2.data.list_files import check_lists, numbered_anew, write_lists
from uniformerv2.data.prepare import (
    new_files,
    prepare_videos,
    refuse_to_replace,
    still_prepared,
)
from uniformerv2.data.prepared_video import PrepareSettings
from uniformerv2.data.reencode import measure_sparse_decoding, reencode
from uniformerv2.data.shards import write_shards
from uniformerv2.media.decoding import open_video


def prepare(records, out, *, base, **options):
    """By source path."""
    return {each.source: each for each in prepare_videos(records, out, base=base, **options)}


def same_pixels(before, after, numbers, *, limit):
    """Mean difference of the frames in levels of grey, after the first ones were brought to the size of the others."""
    with open_video(before, decoder="pyav") as one, open_video(after, decoder="pyav") as other:
        old, new = one.frames(numbers).float(), other.frames(numbers).float()
    if old.shape != new.shape:
        old = torch.nn.functional.interpolate(old, new.shape[-2:], mode="bicubic", antialias=True)
    difference = old - new
    assert difference.abs().mean() < limit
    assert difference.mean((0, 2, 3)).abs().max() < 1.0  # no channel gets brighter or darker


def test_a_prepared_video(tmp_path):
    source = make_video(tmp_path / "in" / "a.mkv", frames=50, size=(320, 200), fps=20, audio=True)
    [done] = prepare_videos(
        [VideoRecord(str(source))],
        tmp_path / "out",
        base=tmp_path / "in",
        settings=PrepareSettings(short_side=100, crf=10),
    )
    assert (done.status, done.output) == ("ok", str(tmp_path / "out/videos/a.mp4"))
    assert (done.frames, done.width, done.height) == (50, 160, 100)
    assert (done.source_bytes, done.output_bytes) == (source.stat().st_size, Path(done.output).stat().st_size)
    with open_video(done.output, decoder="pyav") as video:
        assert (video.info.codec, video.info.container, video.info.gop_length) == ("h264", "mov", 8)
        assert (video.info.fps, video.info.constant_rate) == (20.0, True)
        assert video.timestamps == pytest.approx([number / 20 for number in range(50)])
        assert video.keyframes == tuple(range(0, 50, 8))
    with av.open(str(source)) as before, av.open(done.output) as after:
        assert [stream.type for stream in before.streams] == ["video", "audio"]
        assert [stream.type for stream in after.streams] == ["video"]
        assert after.streams.video[0].codec_context.pix_fmt == "yuv420p"
    same_pixels(source, done.output, [0, 24, 49], limit=4.0)
    assert sorted(file.name for file in (tmp_path / "out/videos").iterdir()) == ["a.mp4"]


# name: frames, size after, rotation that was applied
ODD = {
    "decord/video_90.mov": (3, (256, 454)),
    "decord/video_180.mov": (3, (454, 256)),
    "decord/video_270.mov": (3, (256, 454)),
    "firefox/720p.png.bt709.bt709.pc.yuv420p.vp9.webm": (1, (456, 256)),
    "firefox/720p.png.bt709.bt709.tv.gbrp.h264.mp4": (1, (456, 256)),
    "firefox/320x240.webm": (8, (320, 240)),
    "torchcodec/h265_10bits.mp4": (30, (200, 200)),
    "torchcodec/animated.gif": (4, (64, 48)),
    "torchcodec/bt709_full_range.mp4": (30, (456, 256)),
    "torchcodec/nasa_13013_rotated.mp4": (17, (256, 456)),
    "torchcodec/testsrc2_odd_height_and_width_vp9.mp4": (25, (320, 240)),
    "decord/unordered.mov": (4, (50, 50)),
}


def test_odd_videos_keep_frames_times_colours_and_stand_upright(tmp_path, shared):
    base = shared("data/odd_videos")
    records = [VideoRecord(str(base / name)) for name in ODD]
    done = prepare(records, tmp_path, base=base, settings=PrepareSettings(short_side=256, crf=5))
    for name, (frames, size) in ODD.items():
        result = done[str(base / name)]
        assert (result.status, result.frames, (result.width, result.height)) == ("ok", frames, size), name
        with open_video(base / name, decoder="pyav") as one, open_video(result.output, decoder="pyav") as other:
            assert other.info.rotation == 0
            assert other.timestamps == pytest.approx(one.timestamps, abs=1e-3)
            assert other.info.constant_rate == one.info.constant_rate
        if name != "torchcodec/animated.gif":  # its colours change within the blocks that share one in 4:2:0
            same_pixels(base / name, result.output, [0, frames // 2], limit=5.0)


@pytest.mark.parametrize("matrix", [(-ONE, 0, 0, ONE), (ONE, 0, 0, -ONE), (0, ONE, ONE, 0)], ids=str)
def test_mirrored_videos_stand_as_they_are_shown(tmp_path, matrix):
    plain = make_video(tmp_path / "plain.mp4", frames=6)
    mirrored = with_matrix(plain, **dict(zip("abcd", matrix, strict=True)))
    [done] = prepare_videos([VideoRecord(str(mirrored))], tmp_path / "out", base=tmp_path)
    same_pixels(mirrored, done.output, [0, 5], limit=3)


def test_variable_rate_is_kept_or_made_constant(tmp_path):
    ticks = [0, 40, 80, 400, 440, 1000, 1040, 1080]
    source = str(make_video(tmp_path / "a.mkv", frames=8, ticks=ticks))
    [kept] = prepare_videos([VideoRecord(source)], tmp_path / "kept", base=tmp_path)
    with open_video(kept.output, decoder="pyav") as video:
        assert video.timestamps == pytest.approx([tick / 1000 for tick in ticks], abs=1e-4)
        assert not video.info.constant_rate
    [even] = prepare_videos(
        [VideoRecord(source)], tmp_path / "even", base=tmp_path, settings=PrepareSettings(fps=10, crf=5)
    )
    with open_video(even.output, decoder="pyav") as video, open_video(source, decoder="pyav") as original:
        assert (video.info.fps, video.info.constant_rate) == (10.0, True)
        assert video.info.duration_seconds == pytest.approx(original.info.duration_seconds, abs=0.1)
        nearest = [min(range(8), key=lambda old: abs(ticks[old] - 100 * new)) for new in range(len(video))]
        shown, wanted = video.frames(range(len(video))).float(), original.frames(nearest).float()
        assert (shown - wanted).abs().mean((1, 2, 3)).max() < 4
        assert (shown - original.frames([0]).float()).abs().mean((1, 2, 3)).max() > 8  # frames do differ


def test_frame_folder_becomes_a_video(tmp_path):
    from PIL import Image

    folder = tmp_path / "in" / "clip"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (40, 30), (0, 50 * number, 0)).save(folder / f"img_{number:05d}.png")
    [done] = prepare_videos([VideoRecord(str(folder))], tmp_path / "out", base=tmp_path / "in")
    assert (done.output, done.frames) == (str(tmp_path / "out/videos/clip.mp4"), 5)
    with open_video(done.output, decoder="pyav") as video:
        assert [round(float(frame[1].float().mean())) for frame in video.frames(range(5))] == pytest.approx(
            [0, 50, 100, 150, 200], abs=3
        )


def test_names_never_meet(tmp_path):
    names = ["a.mp4", "a.avi", "A.mkv", "b.mkv", "x/a.mp4"]
    sources = [str(make_video(tmp_path / "in" / name, frames=3 + len(name))) for name in names]
    sources.append(str(make_video(tmp_path / "elsewhere" / "a.mp4", frames=20)))
    done = prepare(map(VideoRecord, sources), tmp_path / "out", base=tmp_path / "in")
    outputs = [os.path.relpath(done[source].output, tmp_path / "out/videos") for source in sources]
    assert outputs[:5] == ["a.mp4", "a.avi.mp4", "A.mkv.mp4", "b.mp4", "x/a.mp4"]
    assert outputs[5].startswith("outside_")
    assert outputs[5].endswith("/a.mp4")
    assert [done[source].frames for source in sources] == [3 + len(name) for name in names] + [20]


@pytest.mark.parametrize(
    "names",
    [
        ["a.avi", "a.mov", "a.avi.mp4"],
        ["a.avi", "a.mov", "a.avi.mp4", "a.mov.mp4", "a.mp4"],
        ["a.mp4", "A.mp4", "A.MP4"],
        ["a.mp4", "./a.mp4", "x/../a.mp4"],
        [b"\xe9.mp4".decode("utf-8", "surrogateescape"), "\\udce9.mp4"],
    ],
)
def test_no_two_sources_get_one_name(tmp_path, names):
    records = [VideoRecord(f"in/{name}") for name in names]
    files = new_files(records, tmp_path, base="in")
    assert len({str(file).casefold() for file in files.values()}) == len(names) == len(files)
    assert {file.suffix for file in files.values()} == {".mp4"}
    assert new_files(records, tmp_path, base="in") == files


def test_a_new_file_that_became_another_sources_is_made_again(tmp_path):
    cat, dog = (make_video(tmp_path / "in" / name, frames=n) for name, n in (("a.avi", 11), ("a.mp4", 22)))
    first = prepare([VideoRecord(str(cat))], tmp_path / "out", base=tmp_path / "in")
    assert Path(first[str(cat)].output).name == "a.mp4"
    records = [VideoRecord(str(cat)), VideoRecord(str(dog))]
    files = new_files(records, tmp_path / "out", base=tmp_path / "in")
    assert still_prepared(first.values(), files=files) == {}
    both = prepare(records, tmp_path / "out", base=tmp_path / "in", known=still_prepared(first.values()))
    assert {source: (Path(each.output).name, each.frames) for source, each in both.items()} == {
        str(cat): ("a.avi.mp4", 11),
        str(dog): ("a.mp4", 22),
    }
    rows = [*first.values(), replace(both[str(dog)], output_bytes=first[str(cat)].output_bytes)]
    Path(both[str(dog)].output).write_bytes(bytes(first[str(cat)].output_bytes))  # as large as the one before
    assert still_prepared(rows).keys() == {str(dog)}


def test_the_way_to_the_folder_may_change(tmp_path):
    source = make_video(tmp_path / "in" / "a.mp4")
    first = prepare([VideoRecord(str(source))], tmp_path / "out", base=tmp_path / "in")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    files = new_files([VideoRecord(str(source))], tmp_path / "link", base=tmp_path / "in")
    known = still_prepared(first.values(), files=files)
    assert known[str(source)].output == str(tmp_path / "link/videos/a.mp4")
    refuse_to_replace(files, made=first.values())


def test_sources_are_never_replaced(tmp_path):
    plain, linked = make_video(tmp_path / "videos" / "a.mp4"), tmp_path / "in" / "b.mp4"
    linked.parent.mkdir()
    linked.symlink_to(make_video(tmp_path / "videos" / "b.mp4", frames=20))
    content = {file: file.read_bytes() for file in (plain, linked)}
    for source, base in ((plain, tmp_path / "videos"), (linked, tmp_path / "in")):
        with pytest.raises(ValueError, match=r"is there to be read, and what is made of .* would replace it"):
            next(prepare_videos([VideoRecord(str(source))], tmp_path, base=base))
    assert {file: file.read_bytes() for file in content} == content


def test_files_that_no_run_made_are_never_replaced(tmp_path):
    records = [VideoRecord(str(make_video(tmp_path / "in" / "a.mp4")))]
    files = new_files(records, tmp_path, base=tmp_path / "in")
    refuse_to_replace(files, made=[])
    own = make_video(tmp_path / "videos" / "a.mp4", frames=20)
    refuse_to_replace(files)
    with pytest.raises(ValueError, match=r"videos/a\.mp4 is there, and no earlier run made it"):
        refuse_to_replace(files, made=[])
    [made] = prepare_videos(records, tmp_path / "out", base=tmp_path / "in")
    refuse_to_replace(files, made=[replace(made, output=str(own))])


def test_nothing_is_done_twice_and_what_changed_is_done_again(tmp_path):
    records = [VideoRecord(str(make_video(tmp_path / "in" / name))) for name in ("a.mp4", "b.mp4", "c.mp4")]
    first = prepare(records, tmp_path / "out", base=tmp_path / "in")
    assert still_prepared(first.values()) == first
    times = {each.output: Path(each.output).stat().st_mtime_ns for each in first.values()}
    assert prepare(records, tmp_path / "out", base=tmp_path / "in", known=still_prepared(first.values())) == first
    assert times == {output: Path(output).stat().st_mtime_ns for output in times}

    make_video(tmp_path / "in" / "a.mp4", frames=40)
    Path(first[records[1].path].output).unlink()
    known = still_prepared(first.values())
    assert known.keys() == {records[2].path}
    again = prepare(records, tmp_path / "out", base=tmp_path / "in", known=known)
    assert [again[record.path].frames for record in records] == [40, 30, 30]
    assert Path(first[records[2].path].output).stat().st_mtime_ns == times[first[records[2].path].output]
    assert still_prepared(again.values(), settings=PrepareSettings(gop_length=4)) == {}


def test_bad_sources_are_told_and_leave_nothing(tmp_path, shared):
    (tmp_path / "in").mkdir()
    corrupted = shutil.copy(shared("data/odd_videos/decord/corrupted.mp4"), tmp_path / "in/a.mp4")
    (tmp_path / "in" / "b.mp4").write_text("no video")
    good = make_video(tmp_path / "in" / "c.mp4")
    done = prepare(find_videos(tmp_path / "in"), tmp_path / "out", base=tmp_path / "in")
    assert {Path(each.source).name: each.status for each in done.values()} == {
        "a.mp4": "corrupt",
        "b.mp4": "not a video",
        "c.mp4": "ok",
    }
    assert "frame 30 of 50" in done[str(corrupted)].detail
    assert [file.name for file in (tmp_path / "out/videos").iterdir()] == [good.name]


def slow_encoder(video, part, settings):
    """Writes half a file and hangs or dies."""
    part.write_bytes(b"half")
    if "hangs" in video.path.name:
        time.sleep(60)
    if "dies" in video.path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return reencode(video, part, settings)


def test_an_encoder_that_dies_or_hangs_leaves_nothing_behind(tmp_path):
    names = ["a.mp4", "dies.mp4", "hangs.mp4", "b.mp4"]
    records = [VideoRecord(str(make_video(tmp_path / "in" / name))) for name in names]
    done = prepare(
        records, tmp_path / "out", base=tmp_path / "in", timeout_seconds=3.0, num_workers=2, encode=slow_encoder
    )
    assert [done[record.path].status for record in records] == ["ok", "crashed", "timeout", "ok"], done
    assert sorted(file.name for file in (tmp_path / "out/videos").iterdir()) == ["a.mp4", "b.mp4"]


def forgetful_encoder(video, part, settings):
    """Says that it wrote one frame more."""
    return reencode(video, part, settings) + 1


def test_a_new_file_that_lacks_frames_does_not_take_the_place_of_an_old_one(tmp_path):
    records = [VideoRecord(str(make_video(tmp_path / "in" / "a.mp4")))]
    [old] = prepare(records, tmp_path / "out", base=tmp_path / "in").values()
    content = Path(old.output).read_bytes()
    settings = PrepareSettings(gop_length=4)
    [new] = prepare(
        records, tmp_path / "out", base=tmp_path / "in", settings=settings, encode=forgetful_encoder
    ).values()
    assert (new.status, new.detail) == ("corrupt", "31 frames were encoded, and 30 came out")
    assert Path(old.output).read_bytes() == content


def test_settings_are_checked():
    for wrong in ({"short_side": 255}, {"short_side": 8}, {"fps": 0.0}, {"fps": -1.0}, {"gop_length": 0}, {"crf": 52}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PrepareSettings(**wrong)


def test_frame_segments_and_another_rate_are_refused(tmp_path):
    record = VideoRecord(str(make_video(tmp_path / "a.mp4")), start_frame=3, end_frame=9)
    with pytest.raises(ValueError, match="segments are told in frames"):
        list(prepare_videos([record], tmp_path / "out", base=tmp_path, settings=PrepareSettings(fps=10)))
    assert not (tmp_path / "out").exists()


LISTS = {
    "names": 'path,label,split,note\na.mp4,run,train,x\nb.mp4,7,val,"y, z"\nc.mp4,walk,train,\n',
    "numbers": "path,label,split,start_seconds,end_seconds\na.mp4,3,train,.125,1.1\na.mp4,0,train,.5,\nb.mp4,3,val,,\n",
    "several": "path,label,id,start_frame,end_frame\na.mp4,run;walk,one,0,7\nb.mp4,run,two,3,9\n",
    "one of several": "path,label\na.mp4,run;\nb.mp4,walk;\n",
    "no labels": "path\na.mp4\nb.mp4\n",
    "own split": "path,label,split\na.mp4,run,extra\nb.mp4,run,train\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read_back_to_the_same_records(tmp_path, name):
    (tmp_path / "list.csv").write_text(LISTS[name])
    records = read_records(tmp_path / "list.csv", classes=["walk", "stand", "run", "7"] if name == "names" else None)
    moved = [replace(r, path=str(tmp_path / "out/videos" / Path(r.path).name)) for r in records]
    files = write_lists(moved, tmp_path / "out")
    if name in {"names", "numbers"}:
        assert [file.name for file in files] == ["train.csv", "val.csv"]
        assert sorted(read_records(tmp_path / "out"), key=str) == sorted(moved, key=str)
    else:
        assert [file.name for file in files] == ["videos.csv"]
        known = tmp_path / "out" / "classes.txt"
        classes = known.read_text().splitlines() if known.exists() else None
        assert read_records(tmp_path / "out" / "videos.csv", classes=classes) == moved


def test_lists_refuse_names_they_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="class name 'a;b'"):
        write_lists([VideoRecord("a.mp4", label=0, label_name="a;b", split="train")], tmp_path)
    with pytest.raises(ValueError, match="no records"):
        write_lists([], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_lists_that_no_longer_hold_are_removed(tmp_path):
    videos = tmp_path / "videos"
    records = [VideoRecord(str(videos / f"{s}.mp4"), 0, "run", id=s, split=s) for s in ("train", "val", "test")]
    write_lists(records, tmp_path)
    write_lists(records[:2], tmp_path)
    assert sorted(file.name for file in tmp_path.glob("[!.]*")) == ["classes.txt", "train.csv", "val.csv"]
    assert read_records(tmp_path) == records[:2]
    numbers = [replace(record, label_name=None, split=None) for record in records]
    write_lists(numbers, tmp_path)
    assert [file.name for file in tmp_path.glob("[!.]*")] == ["videos.csv"]
    assert read_records(tmp_path / "videos.csv") == numbers


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "videos.csv", "classes.txt"])
def test_lists_of_the_user_are_neither_replaced_nor_removed(tmp_path, name):
    records = [VideoRecord(str(tmp_path / "videos/a.mp4"), 0, "run", split="train")]
    (tmp_path / name).write_text("mine")
    for refusing in (check_lists, write_lists):
        with pytest.raises(ValueError, match=f"{name} is no list that was written here before"):
            refusing(records, tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "mine"}


def test_a_list_that_the_user_changed_is_kept(tmp_path):
    records = [VideoRecord(str(tmp_path / "videos/a.mp4"), 0, "run", split="train")]
    [train] = write_lists(records, tmp_path)
    check_lists(records, tmp_path)
    changed = train.read_text() + "videos/b.mp4,run,b\n"
    train.write_text(changed)
    with pytest.raises(ValueError, match=r"train\.csv .* was changed since"):
        write_lists(records[:1], tmp_path)
    assert train.read_text() == changed


def test_classes_without_a_video_leave_no_number_behind():
    one = [VideoRecord("a", 3, "run"), VideoRecord("b", 1, "jump"), VideoRecord("c", 3, "run"), VideoRecord("d")]
    assert [record.label for record in numbered_anew(one)] == [1, 0, 1, None]
    several = [VideoRecord("a", (4, 2), ("run", "jump")), VideoRecord("b", (4,), ("run",))]
    assert [record.label for record in numbered_anew(several)] == [(1, 0), (1,)]
    numbers = [VideoRecord("a", 3), VideoRecord("b", 1)]
    assert numbered_anew(numbers) == numbers


def test_sparse_decoding_of_a_long_gop_gets_at_least_twice_as_fast(tmp_path):
    source = make_video(tmp_path / "in" / "a.mp4", frames=250, size=(640, 360), gop=250)
    done = prepare([VideoRecord(str(source))], tmp_path / "out", base=tmp_path / "in")
    measured = measure_sparse_decoding(list(done.values()))
    assert (measured.num_videos, measured.num_frames) == (1, 8)
    assert measured.before_seconds / measured.after_seconds > 2, str(measured)
    assert "times faster" in str(measured)
    assert measure_sparse_decoding([]) is None


def test_prepared_videos_go_into_shards(tmp_path):
    names = [f"{place}.mp4" for place in range(5)]
    records = [VideoRecord(str(make_video(tmp_path / "in" / name)), label=1, split="train") for name in names]
    done = prepare(records, tmp_path / "out", base=tmp_path / "in")
    index = write_shards([replace(r, path=done[r.path].output) for r in records], tmp_path / "shards", max_count=2)
    assert [shard.num_samples for shard in index.shards] == [2, 2, 1]


@pytest.mark.slow
def test_ucf_clips_decode_at_least_twice_as_fast(tmp_path, shared):
    base = shared("data/ucf101_6class")
    records = read_records(base)[::10]
    done = prepare(records, tmp_path, base=base)
    assert {each.status for each in done.values()} == {"ok"}
    measured = measure_sparse_decoding(list(done.values()), num_videos=len(records))
    assert measured.before_seconds / measured.after_seconds > 2, str(measured)
    for record in records:
        with open_video(record.path, decoder="pyav") as one, open_video(done[record.path].output) as other:
            assert len(one) == len(other)
            assert other.timestamps == pytest.approx(one.timestamps, abs=1e-3)
        same_pixels(record.path, done[record.path].output, [0, len(one) // 2], limit=6.0)


@pytest.mark.slow
def test_fuzzed_mutants_are_prepared_or_told(tmp_path, shared):
    (tmp_path / "in").mkdir()
    mutants = write_mutants(shared("data/odd_videos"), tmp_path / "in", count=200, max_bytes=60_000)
    done = prepare(
        [VideoRecord(str(path)) for path in mutants], tmp_path / "out", base=tmp_path / "in", timeout_seconds=60.0
    )
    assert len(done) == 200
    assert not [each for each in done.values() if each.status in {"crashed", "timeout"}]
    for each in done.values():
        if each.status == "ok":
            with open_video(each.output, decoder="pyav") as video:
                assert len(video) == each.frames
