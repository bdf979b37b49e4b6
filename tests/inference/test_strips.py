"""Frames for the report, from real files."""

from __future__ import annotations

import numpy as np
import pytest

from tests.media import write_video
from uniformerv2.data.decoding import open_video
from uniformerv2.inference.strips import frame_strip


def test_frames_are_evenly_spread(tmp_path):
    path = write_video(tmp_path / "clip.mp4", num_frames=10)
    strip = frame_strip(str(path))
    with open_video(path) as video:
        expected = video.frames([1, 3, 5, 7, 9]).permute(0, 2, 3, 1).numpy()
    assert strip.shape == (5, 48, 64, 3)
    assert strip.dtype == np.uint8
    np.testing.assert_array_equal(strip, expected)


def test_a_short_video_gives_each_frame_once(tmp_path):
    path = write_video(tmp_path / "clip.mp4", num_frames=2)
    assert len(frame_strip(str(path))) == 2
    assert len(frame_strip(str(path), num_frames=1)) == 1


def test_what_cannot_be_read_is_none(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00" * 100)
    assert frame_strip(str(broken)) is None
    assert frame_strip(str(tmp_path / "missing.mp4")) is None


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        frame_strip("clip.mp4", num_frames=0)
