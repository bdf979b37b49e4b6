"""What a hostile video asks for: frames and tables beyond the limits, pipes for images. Nothing grows or waits."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tests.media.made_videos import make_video
from uniformerv2.core.limits import set_limits
from uniformerv2.data import check
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader
from uniformerv2.data.shards import INDEX, ShardDataset
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import VideoError, open_video
from uniformerv2.media.mp4_tables import declared_packets


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("videos") / "a.mp4", frames=12)


def refused(path, words, **options):
    with pytest.raises(VideoError, match=words) as error, open_video(path, **options):
        pass
    return error.value


# Frames


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gif_16000.gif", "a frame of 16000 x 16000 pixels is above the limit pixels_per_frame=67108864"),
        ("mov_3x50M_frames.mov", "a file of 150000000 packets is above the limit packets_per_file"),
    ],
)
def test_a_bomb_is_refused_before_it_is_unpacked(shared, name, words):
    assert refused(shared(f"cases/hostile/{name}"), words).kind == "too large"


def test_frames_above_the_limit_are_refused_and_those_at_it_are_not(video, tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "img_1.png")
    for path in (video, tmp_path):
        with set_limits(pixels_per_frame=64 * 48), open_video(path) as reader:
            assert reader.frames([0]).shape == (1, 3, 48, 64)
        with set_limits(pixels_per_frame=64 * 48 - 1):
            error = refused(path, "64 x 48 pixels,? is above the limit pixels_per_frame=3071; to allow it: --limit")
            assert error.kind == "too large"


def test_an_image_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (8200, 8200)).save(tmp_path / "img_1.png")
    assert refused(tmp_path, r"img_1\.png, an image of 8200 x 8200 pixels, is above").kind == "too large"


@pytest.mark.parametrize("protocol", ["official", "mmaction2"])
@pytest.mark.parametrize("view", [None, 4])
def test_views_need_memory_for_one_frame_and_have_the_same_bits(video, protocol, view):
    """4 x 9,216 bytes of frames at full size are refused together; one by one they become 3 x 2 views of 4 x 768."""
    preprocessing = getattr(Preprocessing, protocol)(num_frames=4, image_size=16, num_clips=2, num_crops=3)
    with open_video(video) as reader:
        clips = [reader.frames(numbers) for numbers in preprocessing.indices(len(reader))]
        wanted = torch.cat([preprocessing.resize_and_crop(clip) for clip in clips])
    with set_limits(bytes_per_request=30_000 if protocol == "mmaction2" else 80_000):
        with open_video(video) as reader, pytest.raises(VideoError, match=r"12 frames of 64 x 48 .* bytes_per_request"):
            reader.frames(range(12))
        views = ClipReader(preprocessing=preprocessing).read(video, view=view)
    assert torch.equal(views.video, wanted if view is None else wanted[view])
    assert views.duration_seconds == pytest.approx(12 / 25, abs=0.1)


def test_a_frame_that_would_be_resized_beyond_the_limit_is_refused(tmp_path):
    Image.new("RGB", (20_000, 1)).save(tmp_path / "img_1.png")
    with pytest.raises(VideoError, match="covers the input at 4480000 x 224, is above the limit pixels_per_frame"):
        ClipReader(preprocessing=Preprocessing()).read(tmp_path)


@pytest.mark.parametrize(("height", "width"), [(1792, 300), (1793, 40), (3001, 17)])
def test_of_a_tall_frame_only_what_is_read_becomes_floating(height, width):
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8))
    frame = frame.permute(0, 3, 1, 2)
    preprocessing = Preprocessing(image_size=(112, 16))
    size = preprocessing.covering_size(height, width)
    whole = torch.nn.functional.interpolate(frame.to(torch.float32), size=size, mode="bilinear")
    assert torch.equal(preprocessing._resize(frame, size), whole)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_clips": 100_000}, "100000 clips x 1 crops x 8 frames is above the limit frames_per_video=16384"),
        ({"image_size": 20_000}, "an input of 20000 x 20000 pixels is above the limit image_size=4096"),
        ({"image_size": 4096, "num_clips": 4}, "4 clips .* 6442450944 bytes, is above the limit bytes_per_request"),
    ],
)
def test_a_preprocessing_beyond_the_limits_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Preprocessing(**fields)
    assert Preprocessing(num_frames=64, image_size=336, num_clips=4, num_crops=3)  # the largest published


# Tables


def box(name, *content):
    content = b"".join(content)
    return struct.pack(">I4s", 8 + len(content), name) + content


def numbers(*values):
    return struct.pack(f">{len(values)}I", *values)


def track(samples, *, kind=b"vide", edits=0, stts=(1, 25)):
    tables = (
        box(b"stsz", numbers(0, 100, samples)),
        box(b"stts", numbers(0, 1, stts[0] * samples, stts[1])),
        box(b"stsc", numbers(0, 1, 1, samples, 1)),
        box(b"stco", numbers(0, 1, 28)),
    )
    media = box(b"mdia", box(b"hdlr", numbers(0, 0), kind), box(b"minf", box(b"stbl", *tables)))
    return box(b"trak", box(b"edts", box(b"elst", numbers(0, edits))), media)


def compressed(moov):
    content = zlib.compress(moov)
    return box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", numbers(len(moov)), content)))


TWO_TRACKS = box(b"moov", track(50_000_000), track(7, edits=3))


@pytest.mark.parametrize(
    ("content", "packets"),
    [
        (box(b"ftyp", b"qt  ") + TWO_TRACKS, 50_000_021),
        (struct.pack(">I4sQ", 1, b"moov", 16 + len(TWO_TRACKS)) + TWO_TRACKS[8:], 50_000_021),
        (compressed(TWO_TRACKS), 50_000_021),
        (compressed(compressed(TWO_TRACKS)), 2**26),
        (box(b"moov", box(b"cmov", box(b"cmvd", numbers(2**31), b"x"))), 2**26),
        (box(b"moov", box(b"cmov", box(b"cmvd", numbers(9), b"no zlib"))), 0),
        (box(b"moov", track(44_100 * 3600, kind=b"soun", stts=(1, 1))), 44_100 * 3600 // 1024 + 1),
        (box(b"moov", track(44_100 * 3600, stts=(1, 1))), 44_100 * 3600),
        (box(b"moof", box(b"traf", box(b"trun", numbers(0, 2**31)), box(b"trun", numbers(0, 1)))), 2**31 + 1),
        (b"\x1a\x45\xdf\xa3 no tables here", 0),
        (b"", 0),
    ],
    ids=[
        "plain",
        "64 bits",
        "compressed",
        "twice",
        "bomb",
        "damaged",
        "sound",
        "no sound",
        "fragment",
        "other",
        "empty",
    ],
)
def test_packets_are_added_up_from_the_tables(content, packets):
    assert declared_packets(BytesIO(content)) == packets


def test_packets_are_counted_where_no_table_tells_them(tmp_path):
    path = make_video(tmp_path / "a.mkv", frames=12)
    with set_limits(packets_per_file=12), open_video(path) as reader:
        assert len(reader) == 12
    with set_limits(packets_per_file=11):
        assert refused(path, "a file of 12 packets is above the limit packets_per_file=11").kind == "too large"


# Files that are none


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with named pipes")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("number", [1, 2])
def test_a_pipe_among_the_images_is_refused_and_not_waited_for(tmp_path, number):
    for other in (1, 2):
        Image.new("RGB", (8, 6)).save(tmp_path / f"img_{other}.png")
    (tmp_path / f"img_{number}.png").unlink()
    os.mkfifo(tmp_path / f"img_{number}.png")
    words = f"img_{number}.png is neither a regular file"
    with pytest.raises(VideoError, match=words) as error, open_video(tmp_path) as reader:
        reader.frames([0, 1])
    assert (error.value.kind, error.value.path) == ("unreadable", tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with named pipes")
@pytest.mark.timeout(20)
def test_a_pipe_for_the_index_of_shards_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / INDEX)
    with pytest.raises(FileNotFoundError, match="no regular file"):
        ShardDataset(tmp_path, Preprocessing())


@pytest.mark.parametrize(("deep", "seconds"), [(False, 7), (True, 70)])
def test_checks_take_as_long_as_the_limit_allows(monkeypatch, deep, seconds):
    asked = []
    monkeypatch.setattr(check, "run_isolated", lambda *_, timeout_seconds, **__: asked.append(timeout_seconds) or [])
    with set_limits(seconds_per_video=7):
        assert list(check.check_videos([VideoRecord("a.mp4")], deep=deep)) == []
    assert asked == [seconds]
