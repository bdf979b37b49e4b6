"""The examples, as far as they are not the commands of a page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.made_videos import make_video
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


def places_of_the_disc(frames):
    """Column of the middle of what is not in every frame, for each frame."""
    moving = np.abs(frames - np.median(frames, axis=0)).sum(axis=1) > 60
    return [float(np.nonzero(frame)[1].mean()) for frame in moving]


def test_motion_clips_differ_in_direction_alone(made):
    for pair in (0, 1):
        right = frames_of(made / f"motion/val/right/000{pair}.mp4")
        left = frames_of(made / f"motion/val/left/000{pair}.mp4")
        assert len(right) == 16
        assert np.abs(right - left[::-1]).mean() < 4  # coded anew
        steps = np.diff(places_of_the_disc(right))
        assert 30 < steps.sum() < 100
        assert (steps > 0).mean() > 0.8
        assert (np.diff(places_of_the_disc(left)) < 0).mean() > 0.8


def test_shuffled_clips_have_the_same_frames(made):
    for name in ("left", "right"):
        for pair in (0, 1):
            moving, shuffled = (
                frames_of(made / f"{where}/val/{name}/000{pair}.mp4") for where in ("motion", "shuffled")
            )
            nearest = [int(np.abs(moving - frame).mean(axis=(1, 2, 3)).argmin()) for frame in shuffled]
            assert sorted(nearest) == list(range(16))
            assert nearest not in (list(range(16)), list(range(16))[::-1])
