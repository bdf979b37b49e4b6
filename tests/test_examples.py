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
        for name in ("enter", "leave")
        for pair in (0, 1)
    ]


def test_motion_clips_differ_in_direction_alone(made):
    """The disc is in the picture in half of the frames or so: in the last ones where it enters."""
    for pair in (0, 1):
        enter = frames_of(made / f"motion/val/enter/000{pair}.mp4")
        leave = frames_of(made / f"motion/val/leave/000{pair}.mp4")
        assert len(enter) == 16
        assert np.abs(enter - leave[::-1]).mean() < 4  # coded anew
        to_first, to_last = (np.abs(enter - enter[end]).mean(axis=(1, 2, 3)) for end in (0, -1))
        assert to_last[12:].max() < 0.2 * to_last[0]  # it rests
        assert to_first[-1] > 3 * to_first[1]


def test_shuffled_clips_have_the_same_frames(made):
    for name in ("enter", "leave"):
        for pair in (0, 1):
            moving, shuffled = (
                frames_of(made / f"{where}/val/{name}/000{pair}.mp4") for where in ("motion", "shuffled")
            )
            before, after = (frames.mean(axis=(1, 2, 3)) for frames in (moving, shuffled))
            assert np.abs(np.sort(before) - np.sort(after)).max() < 1
            steps = [np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)).sum() for frames in (moving, shuffled)]
            assert steps[1] > 1.3 * steps[0]  # it jumps
