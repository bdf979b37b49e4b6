"""Indexes from the container's tables: the same as from all packets, and made once for a long video."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from tests.media.made_videos import make_video
from uniformerv2.core.limits import set_limits
from uniformerv2.media import index_cache, sample_table
from uniformerv2.media.decoding import VideoError, open_video
from uniformerv2.media.index_cache import IndexCache, IndexFolder
from uniformerv2.media.video_file import VideoFile


def both_indexes(path):
    """By the tables, and by the packets; None where it is no video that opens."""
    try:
        file = VideoFile(path, num_threads=1)
    except VideoError:
        return None
    try:
        tables = file._index_samples()
        file.restart()
        return tables, file._index_packets()
    except VideoError as error:
        return None, error
    finally:
        file.close()


def test_tables_and_packets_say_the_same_of_every_odd_video(shared):
    files = sorted(path for path in shared("data/odd_videos").rglob("*") if path.is_file() and path.suffix != ".tsv")
    found = {path.name: both_indexes(path) for path in [*files, *sorted(shared("data/fights").rglob("*.mp4"))[::8]]}
    opened = {name: pair for name, pair in found.items() if pair}
    by_tables = {name: pair for name, pair in opened.items() if pair[0]}
    assert len(by_tables) > 70
    assert [name for name, (tables, packets) in by_tables.items() if tables != packets] == []


@pytest.mark.parametrize("name", ["plain", "variable", "long groups"])
def test_made_videos_are_indexed_by_their_tables(name, tmp_path):
    options = {
        "plain": {"gop": 5},
        "variable": {"ticks": [0, 40, 90, 1000, 1040, 2500, *range(3000, 3960, 40)]},
        "long groups": {"frames": 120, "audio": True},
    }[name]
    path = make_video(tmp_path / "a.mp4", **options)
    tables, packets = both_indexes(path)
    assert tables is not None
    assert tables == packets


def test_a_video_of_tables_is_opened_without_its_packets(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", frames=200, gop=20)
    read = 0
    packets = VideoFile.packets

    def counted(file):
        nonlocal read
        for packet in packets(file):
            read += 1
            yield packet

    monkeypatch.setattr(VideoFile, "packets", counted)
    monkeypatch.setattr(sample_table, "PROBED", 4)
    with open_video(path) as video:
        assert len(video) == 200
        assert video.info.gop_length == 20
    assert read < 20


@pytest.mark.parametrize("place", [0, 101, 199])
def test_where_packets_and_tables_differ_the_packets_count(place, tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", frames=200, gop=20)
    wanted = both_indexes(path)[1]
    right = sample_table.composition_offsets

    def wrong(file, track):
        offsets = right(file, track)
        offsets[place] += 1
        return offsets

    monkeypatch.setattr(sample_table, "composition_offsets", wrong)
    tables, packets = both_indexes(path)
    if place:  # of the first, all times are measured
        assert tables is None
    assert packets == wanted
    with open_video(path) as video:
        assert len(video.frames([150])) == 1


@pytest.fixture
def cache(monkeypatch):
    """An empty one, which keeps short videos too."""
    fresh = IndexCache()
    monkeypatch.setattr("uniformerv2.media.video_file.INDEXES", fresh)
    monkeypatch.setattr(index_cache, "LEAST_FRAMES", 10)
    return fresh


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_the_second_time_an_index_is_not_made(suffix, cache, tmp_path, monkeypatch):
    path = make_video(tmp_path / f"a.{suffix}", frames=40, gop=10)
    with open_video(path) as video:
        info, times, frames = video.info, video.timestamps, video.frames([0, 13, 39])
    for name in ("_index_samples", "_index_packets", "_index_frames"):
        monkeypatch.setattr(VideoFile, name, lambda *_: pytest.fail("made again"))
    with open_video(path) as video:
        assert (video.info, video.timestamps) == (info, times)
        assert torch.equal(video.frames([0, 13, 39]), frames)


def test_a_file_that_was_changed_is_another_file(cache, tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=40)
    with open_video(path) as video:
        assert len(video) == 40
    before = path.stat()
    path.write_bytes(make_video(tmp_path / "b.mp4", frames=30).read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with open_video(path) as video:
        assert len(video) == 30


def test_few_indexes_are_kept_and_the_latest_stay(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(index_cache, "MOST_FRAMES", 50)
    paths = [make_video(tmp_path / f"{count}.mp4", frames=count) for count in (20, 25, 21, 60, 5)]
    for path in (*paths[:2], paths[0], *paths[2:]):
        open_video(path).close()
    kept = [path.name for path in paths if _is_kept(cache, path)]
    assert kept == ["20.mp4", "21.mp4"]


def _is_kept(cache, path):
    with path.open("rb") as file:
        return cache.get(file) is not None


def test_a_limit_holds_also_for_what_is_kept(cache, tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=40)
    open_video(path).close()
    with set_limits(packets_per_file=20), pytest.raises(VideoError, match="packets_per_file"):
        open_video(path)


@pytest.fixture
def folder(cache, tmp_path, monkeypatch):
    """Where indexes are kept on disk; each call of ``process`` is a new process, which remembers nothing."""
    monkeypatch.setenv("UNIFORMERV2_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "frame_indexes"


@pytest.fixture
def process(folder, monkeypatch):
    def begin():
        monkeypatch.setattr("uniformerv2.media.video_file.INDEXES", IndexCache(IndexFolder()))

    return begin


def old_video(path, **options):
    """A video that was written an hour ago."""
    make_video(path, **options)
    hour_ago = path.stat().st_mtime - 3600
    os.utime(path, (hour_ago, hour_ago))
    return path


def refuse_to_index(monkeypatch):
    for name in ("_index_samples", "_index_packets", "_index_frames"):
        monkeypatch.setattr(VideoFile, name, lambda *_: pytest.fail("made again"))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "h264"])
def test_the_next_process_finds_the_index_on_disk(suffix, process, folder, tmp_path, monkeypatch):
    path = old_video(tmp_path / f"a.{suffix}", frames=40, gop=10)
    process()
    with open_video(path) as video:
        info, times, keyframes, frames = video.info, video.timestamps, video.keyframes, video.frames([0, 13, 39])
    assert len(list(folder.iterdir())) == 1
    process()
    refuse_to_index(monkeypatch)
    with open_video(path) as video:
        assert (video.info, video.timestamps, video.keyframes) == (info, times, keyframes)
        assert torch.equal(video.frames([0, 13, 39]), frames)


def test_a_file_that_may_still_be_written_is_not_kept_on_disk(process, folder, tmp_path):
    process()
    open_video(make_video(tmp_path / "a.mkv", frames=40)).close()
    assert not folder.exists()


def test_another_file_of_the_same_name_is_not_taken_for_it(process, tmp_path):
    path = old_video(tmp_path / "a.mkv", frames=40)
    process()
    open_video(path).close()
    path.unlink()
    old_video(path, frames=30)
    process()
    with open_video(path) as video:
        assert len(video) == 30


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"no archive"])
def test_a_broken_index_on_disk_is_made_again(content, process, folder, tmp_path):
    path = old_video(tmp_path / "a.mkv", frames=40)
    process()
    open_video(path).close()
    [kept] = folder.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(content)
    process()
    with open_video(path) as video:
        assert len(video) == 40
    assert kept.read_bytes() == whole


@pytest.mark.parametrize(
    "columns", [{"keys": [0, 0, 1]}, {"keyframes": [0, 70]}, {"times": [0, 1]}, {"seek_points": [9]}]
)
def test_an_index_on_disk_that_contradicts_itself_is_made_again(columns, process, folder, tmp_path):
    path = old_video(tmp_path / "a.mkv", frames=40)
    process()
    open_video(path).close()
    [kept] = folder.iterdir()
    with np.load(kept) as arrays:
        wrong = dict(arrays) | {name: np.diff(column, prepend=0) for name, column in columns.items()}
    np.savez(kept, **wrong)
    process()
    with open_video(path) as video:
        assert len(video) == 40
        assert video.keyframes[-1] < 40


def test_where_nothing_can_be_kept_videos_open_as_before(process, folder, tmp_path):
    folder.parent.write_text("a file where the folder would be")
    path = old_video(tmp_path / "a.mkv", frames=40)
    process()
    with open_video(path) as video:
        assert len(video) == 40


def test_the_indexes_that_were_written_first_go(process, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(index_cache, "MOST_FILES", 3)
    process()
    for count in (20, 21, 22, 23):
        open_video(old_video(tmp_path / f"{count}.mkv", frames=count)).close()
    lengths = sorted(len(index_cache._load(kept)) for kept in folder.iterdir())
    assert lengths == [21, 22, 23]


def test_a_limit_holds_also_for_what_is_on_disk(process, tmp_path):
    path = old_video(tmp_path / "a.mkv", frames=40)
    process()
    open_video(path).close()
    process()
    with set_limits(packets_per_file=20), pytest.raises(VideoError, match="packets_per_file"):
        open_video(path)


def test_offsets_that_contradict_themselves_are_not_believed(tmp_path):
    from uniformerv2.media.mp4_tables import composition_offsets

    path = make_video(tmp_path / "a.mp4", frames=40)
    content = bytearray(path.read_bytes())
    with path.open("rb") as file:
        offsets = composition_offsets(file, 1)
        assert len(offsets) == 40
        assert composition_offsets(file, 7) is None
    place = content.find(b"ctts")
    if place > 0:
        content[place + 8 : place + 12] = (2**31).to_bytes(4, "big")
        path.write_bytes(content)
        with path.open("rb") as file:
            assert composition_offsets(file, 1) is None
    assert np.issubdtype(offsets.dtype, np.int64)
