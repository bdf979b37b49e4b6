"""What is said beside a prediction, of made ones and of real files."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from uniformerv2.inference.notes import is_sure, notes_of
from uniformerv2.inference.prediction import Prediction, Timings
from uniformerv2.inference.predictor import Predictor


def made(*, frames, seconds, score=0.9):
    scores = np.array([1 - score, score], np.float32)
    return Prediction("a.mp4", scores, scores[None], ("run", "jump"), frames, Timings(0, 0, 0), seconds)


def spread(num_clips, *, num_frames=8, length=27_000):
    """Clips of a video of that many frames."""
    step = length // (num_clips * num_frames)
    return tuple(tuple(range(clip * step, length, num_clips * step))[:num_frames] for clip in range(num_clips))


@pytest.mark.parametrize(
    ("num_clips", "seconds", "note"),
    [
        (
            1,
            1083.0,
            "One label for 18 min 3 s: 8 frames were looked at, one in 135 s, .*--clips 28 .num_clips=28. looks",
        ),
        (2, 100.0, r"One label for 1 min 40 s: 16 frames were looked at, one in 6 s, .* --clips 3 "),
        (1, 7200.0, "One label for 120 min 0 s: .* --clips 32 "),
        (32, 7200.0, r"One label for 120 min 0 s: 256 frames .* goes unseen\.$"),
    ],
)
def test_a_long_video_has_one_label_of_few_frames(num_clips, seconds, note):
    (said,) = notes_of(made(frames=spread(num_clips), seconds=seconds))
    assert re.search(note, said)


@pytest.mark.parametrize(("num_clips", "seconds"), [(1, 10.0), (1, 39.0), (4, 150.0), (1, None)])
def test_nothing_is_said_of_what_was_looked_at_well(num_clips, seconds):
    assert notes_of(made(frames=spread(num_clips), seconds=seconds)) == ()


def test_few_frames():
    assert notes_of(made(frames=((0,) * 8,), seconds=60.0)) == (
        "It has a single frame: the label is of what that shows, not of a movement.",
    )
    (note,) = notes_of(made(frames=((0, 0, 0, 1, 1, 1, 2, 2),), seconds=0.3))
    assert note.startswith("It has 3 frames, fewer than the 8 of a clip")


def test_threshold():
    prediction = made(frames=spread(1), seconds=10.0, score=0.75)
    assert [is_sure(prediction, threshold) for threshold in (None, 0.0, 0.75, 0.76)] == [None, True, True, False]
    assert notes_of(prediction, threshold=0.75) == ()
    assert notes_of(prediction, threshold=0.8) == ("No class is sure: the highest score, 0.7500, is below 0.8.",)


def test_the_duration_is_that_of_the_file(tmp_path):
    predictor = Predictor(make(TINY))
    result = predictor(write_video(tmp_path / "a.mp4", num_frames=24))
    assert result.duration_seconds == pytest.approx(2.0, abs=0.1)
    assert predictor(np.zeros((5, 3, 40, 40), np.uint8)).duration_seconds is None
