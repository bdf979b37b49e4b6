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


def test_motion_clips_differ_in_direction_alone(made):
    """The window moves to the right, so what it sees moves to the left; the other class is the same film backwards."""
    for pair in (0, 1):
        right = frames_of(made / f"motion/val/right/000{pair}.mp4")
        left = frames_of(made / f"motion/val/left/000{pair}.mp4")
        assert len(right) == 16
        assert np.abs(right - left[::-1]).mean() < 4  # coded anew
        first, last = right[0], right[-1]
        differences = [np.abs(first[..., shift:] - last[..., : first.shape[-1] - shift]).mean() for shift in range(91)]
        shift = int(np.argmin(differences))
        assert 15 <= shift <= 90
        assert differences[shift] < 0.3 * differences[0]


def test_shuffled_clips_have_the_same_frames(made):
    for name in ("left", "right"):
        for pair in (0, 1):
            moving, shuffled = (
                frames_of(made / f"{where}/val/{name}/000{pair}.mp4") for where in ("motion", "shuffled")
            )
            nearest = [int(np.abs(moving - frame).mean(axis=(1, 2, 3)).argmin()) for frame in shuffled]
            assert sorted(nearest) == list(range(16))
            assert nearest not in (list(range(16)), list(range(16))[::-1])
