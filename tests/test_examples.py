"""The examples, as far as they are not the commands of a page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.media.made_videos import make_video
from uniformerv2 import open_video

EXAMPLES = Path(__file__).parents[1] / "examples"


def frames_of(path):
    with open_video(path) as video:
        return video.frames(range(len(video))).numpy().astype(np.int16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Clips from two videos, one of each split."""
    folder = tmp_path_factory.mktemp("motion")
    for split, frames in (("train", 5), ("val", 6)):
        make_video(folder / "data" / split / "noise" / f"{frames}.mp4", frames=frames, size=(224, 168))
    command = [sys.executable, EXAMPLES / "motion_clips.py", folder / "data", folder / "out"]
    subprocess.run([*command, "--clips", "4", "--val-clips", "4"], check=True, capture_output=True, timeout=100)
    return folder / "out"


def test_motion_clips_are_what_they_are_called(made):
    assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*.mp4")) == [
        f"{where}/{name}/000{pair}.mp4"
        for where in ("motion/train", "motion/val", "shuffled/val")
        for name in ("left", "right")
        for pair in (0, 1)
    ]


def test_motion_clips_differ_in_direction_alone(made):
    """Where the camera pans to the right, all that is seen moves to the left; backwards it is the other class."""
    for pair in (0, 1):
        right = frames_of(made / f"motion/val/right/000{pair}.mp4")
        left = frames_of(made / f"motion/val/left/000{pair}.mp4")
        assert len(right) == 16
        assert np.abs(right - left[::-1]).mean() < 4  # coded anew
        errors = {
            shift: np.abs(right[1:, ..., 16 - shift : 96 - shift] - right[:-1, ..., 16:96]).mean()
            for shift in range(-8, 9)
        }
        assert 2 <= min(errors, key=errors.__getitem__) <= 7


def test_shuffled_clips_have_the_same_frames(made):
    for name in ("left", "right"):
        for pair in (0, 1):
            moving, shuffled = (
                frames_of(made / f"{where}/val/{name}/000{pair}.mp4") for where in ("motion", "shuffled")
            )
            distances = np.abs(moving[:, None] - shuffled[None]).mean(axis=(2, 3, 4))
            order = distances.argmin(axis=1)
            assert sorted(order) == list(range(16))
            assert distances.min(axis=1).max() < 4  # coded anew
            assert (np.diff(order) != 1).sum() > 5


def test_a_picture_too_small_to_pan_over_is_named(tmp_path):
    make_video(tmp_path / "data" / "train" / "noise" / "small.mp4", frames=5, size=(128, 96))
    command = [sys.executable, EXAMPLES / "motion_clips.py", tmp_path / "data", tmp_path / "out"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert run.returncode == 1
    assert "ValueError: A picture of 128 x 96 pixels is too small to pan over" in run.stderr
    assert not (tmp_path / "out").exists()
