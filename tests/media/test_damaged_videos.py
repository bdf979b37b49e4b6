"""A frame of a damaged video is the same pixels, or the same error, whatever was read before it."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.made_videos import make_video
from tests.media.test_rare_videos import grey_frames, write
from uniformerv2.media.decoding import VideoError, open_video
from uniformerv2.media.frame_sources import PyAVFrames
from uniformerv2.media.video_file import VideoFile


def read(video, number):
    """The frame's bytes, or the kind of its error."""
    try:
        return video.frames([number]).numpy().tobytes()
    except VideoError as error:
        return error.kind


def check(path, numbers):
    with open_video(path) as video:
        in_order = {number: read(video, number) for number in range(len(video))}
        numbers = [number for number in numbers if number < len(video)]  # damage may have cost some
        for number in reversed(numbers):
            assert read(video, number) == in_order[number], f"frame {number}, read backwards"
    for number in numbers:
        with open_video(path) as video:
            assert read(video, number) == in_order[number], f"frame {number}, read alone"
    return in_order


def test_a_vp8_file_whose_decoder_says_nothing(shared):
    frames = check(shared("cases/hostile/fuzz_066_video-crash.webm"), [0, 19, 20, 78])
    assert len(frames) == 79


def moving_blocks(num_frames):
    blocks = np.random.default_rng(0).integers(0, 255, (8, 10, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    for number in range(num_frames):
        picture = np.roll(blocks, 3 * number, axis=1)
        picture[::3] ^= np.uint8(number)
        yield av.VideoFrame.from_ndarray(picture, format="rgb24")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx"])
def test_damaged_copies(tmp_path, codec):
    """30 frames with a keyframe at every tenth, and one to 64 bits of the pictures flipped."""
    options = {"g": "10", "bf": "0" if codec == "libvpx" else "2"}
    whole = write(tmp_path / "whole.mkv", codec, moving_blocks(30), pixels="yuv420p", **options).read_bytes()
    num_damaged = 0
    for seed in range(12):
        draw, content = random.Random(seed), bytearray(whole)
        for _ in range(draw.choice([1, 4, 16, 64])):
            content[draw.randrange(len(content) // 8, len(content) - 200)] ^= 1 << draw.randrange(8)
        path = tmp_path / f"{seed}.mkv"
        path.write_bytes(content)
        try:
            check(path, [3, *range(10, 30, 3)])
        except VideoError:  # of opening: nothing to compare
            continue
        num_damaged += 1
    assert num_damaged >= 5


def test_a_keyframe_that_comes_after_its_group():
    """H.264 whose frame 10 is damaged and given out behind frame 16; a seek to it leads past it."""
    assert check(Path(__file__).with_name("late_keyframe.mkv"), [3, *range(10, 30, 3)])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_an_intact_video_is_never_opened_twice(tmp_path, monkeypatch, name):
    path, restart, restarts = make_video(tmp_path / name, frames=30, gop=6), VideoFile.restart, []
    monkeypatch.setattr(VideoFile, "restart", lambda self: restarts.append(1) or restart(self))
    with open_video(path) as video:
        for number in (29, 0, 17, 5, 6):
            assert isinstance(read(video, number), bytes)
    assert len(restarts) == 1


def test_vp8_has_the_pixels_that_ffmpegs_own_decoder_gives(tmp_path, monkeypatch):
    path = write(tmp_path / "a.webm", "libvpx", grey_frames(range(12)), pixels="yuv420p", g="5")
    with open_video(path) as video:
        ours = video.frames(range(12)).numpy()
    monkeypatch.setattr("av.codecs_available", frozenset())
    file = VideoFile(path, num_threads=1)
    assert file._decoder is file.stream.codec_context
    theirs = np.stack([frame.numpy() for frame in PyAVFrames(file).read(list(range(12)))]).transpose(0, 3, 1, 2)
    file.close()
    assert np.array_equal(ours, theirs)
