"""Frames for the report, from real files."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.media import write_video
from uniformerv2.evaluation.scores import VideoScores
from uniformerv2.inference.strips import frame_strip, strips_below, strips_of
from uniformerv2.media.decoding import open_video


def video_of(path, **segment):
    return VideoScores(index=0, path=str(path), id="", label=0, scores=np.ones(1, np.float32), **segment)


def frames(path, numbers):
    with open_video(path) as reader:
        return reader.frames(numbers).permute(0, 2, 3, 1).numpy()


def test_frames_are_evenly_spread(tmp_path):
    path = write_video(tmp_path / "clip.mp4", num_frames=10)
    strip = frame_strip(video_of(path), num_frames=5)
    assert strip.shape == (5, 48, 64, 3)
    assert strip.dtype == np.uint8
    np.testing.assert_array_equal(strip, frames(path, [1, 3, 5, 7, 9]))


@pytest.mark.parametrize(
    ("segment", "numbers"),
    [
        ({"start_seconds": 1.0}, [13, 15, 18, 20, 22]),
        ({"end_seconds": 1.0}, [1, 3, 6, 8, 10]),
        ({"start_seconds": 0.5, "end_seconds": 0.75}, [6, 7, 8]),
        ({"start_frame": 10, "end_frame": 20}, [11, 13, 15, 17, 19]),
    ],
)
def test_frames_are_of_the_segment(tmp_path, segment, numbers):
    path = write_video(tmp_path / "clip.mp4", num_frames=24)
    np.testing.assert_array_equal(frame_strip(video_of(path, **segment), num_frames=5), frames(path, numbers))


def test_a_short_video_gives_each_frame_once(tmp_path):
    path = write_video(tmp_path / "clip.mp4", num_frames=2)
    assert len(frame_strip(video_of(path))) == 2
    assert len(frame_strip(video_of(path), num_frames=1)) == 1


def test_what_cannot_be_read_is_none(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00" * 100)
    assert frame_strip(video_of(broken)) is None
    assert frame_strip(video_of(tmp_path / "missing.mp4")) is None
    path = write_video(tmp_path / "clip.mp4", num_frames=12)
    assert frame_strip(video_of(path, start_seconds=9.0)) is None


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        frame_strip(video_of("clip.mp4"), num_frames=0)


def test_a_dump_shows_nothing_outside_the_root(tmp_path, monkeypatch):
    """Neither by its own path, nor by dots, nor by a link; a relative path starts here or at the root."""
    for name in ("root", "private"):
        (tmp_path / name).mkdir()
    inside, outside = (write_video(tmp_path / name / "clip.mp4", num_frames=5) for name in ("root", "private"))
    (tmp_path / "root" / "link.mp4").symlink_to(outside)
    (tmp_path / "root" / "away").symlink_to(outside.parent)
    (tmp_path / "again").symlink_to(tmp_path / "root")
    os.mkfifo(tmp_path / "root" / "pipe.mp4")
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "root", "root", "again"):
        strip = strips_below(root)
        for shown in (inside, "root/clip.mp4", "clip.mp4", "root/../again/clip.mp4", "private/../root/clip.mp4"):
            np.testing.assert_array_equal(strip(video_of(shown)), frames(inside, range(5)))
        hidden = (outside, "private/clip.mp4", "root/../private/clip.mp4", "../private/clip.mp4", "link.mp4")
        for path in (
            *hidden,
            "root/away/clip.mp4",
            "away/clip.mp4",
            "pipe.mp4",
            "gone.mp4",
            "clip\0.mp4",
            "x" * 9000,
            "",
        ):
            assert strip(video_of(path)) is None


def test_a_test_shows_the_videos_that_it_read(tmp_path):
    first, second = (write_video(tmp_path / f"{name}.mp4", num_frames=5) for name in "ab")
    strip = strips_of([str(first)])
    assert strip(video_of(first)).shape == (5, 48, 64, 3)
    assert strip(video_of(second)) is None
