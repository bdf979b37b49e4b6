"""Frame indices against the published sampler, and what must hold for every length of video."""

from __future__ import annotations

import json

import numpy as np
import pytest

from uniformerv2.data.sampling import dense_clips, random_dense_clip, random_segment_clip, segment_clips

LENGTHS = (1, 2, 5, 8, 31, 300)


def test_segments_are_the_published_frames(shared):
    cases = json.loads(shared("goldens/sampling.json").read_text())
    assert len(cases) == 132
    for case in cases:
        found = segment_clips(case["frames_in_video"], case["num_frames"], case["num_clips"])
        assert found == case["indices"], case


@pytest.mark.parametrize("length", LENGTHS)
def test_start_moves_every_index_by_itself(length):
    def moved(clips):
        return [[index + 1000 for index in clip] for clip in clips]

    assert segment_clips(length, 8, 3, start=1000) == moved(segment_clips(length, 8, 3))
    assert dense_clips(length, 8, 3, frame_stride=4, start=1000) == moved(dense_clips(length, 8, 3, frame_stride=4))
    at_zero, at_thousand = (
        [
            random_segment_clip(length, 8, rng=np.random.default_rng(5), start=start),
            random_dense_clip(length, 8, frame_stride=4, rng=np.random.default_rng(5), start=start),
        ]
        for start in (0, 1000)
    )
    assert at_thousand == moved(at_zero)


def test_random_segments_reach_every_frame_of_their_segment_and_no_other():
    rng = np.random.default_rng(0)
    draws = np.array([random_segment_clip(13, 4, rng=rng) for _ in range(2000)])
    for segment, column in enumerate(draws.T):
        frames, counts = np.unique(column, return_counts=True)
        assert frames.tolist() == list(range(3 * segment, 3 * segment + 4))
        assert counts.min() > 400  # 500 expected; 5 standard deviations are 97


@pytest.mark.parametrize("length", LENGTHS)
def test_random_clips_stay_in_the_video_and_in_order(length):
    rng = np.random.default_rng(1)
    for clip in (random_segment_clip(length, 8, rng=rng), random_dense_clip(length, 8, frame_stride=3, rng=rng)):
        assert len(clip) == 8
        assert clip == sorted(clip)
        assert clip[0] >= 0
        assert clip[-1] < length
        assert all(type(index) is int for index in clip)


def test_the_same_generator_draws_the_same_frames():
    def draws(*seed):
        return [random_segment_clip(250, 16, rng=np.random.default_rng(seed)) for _ in range(2)]

    first, second = draws(7, 0, 3)
    assert first == second
    assert draws(7, 1, 3)[0] != first


def test_dense_clips_span_the_video():
    clips = dense_clips(100, 8, 4, frame_stride=2)
    assert [clip[0] for clip in clips] == [0, 28, 57, 85]
    assert clips[-1] == [85, 87, 89, 91, 93, 95, 97, 99]
    assert dense_clips(100, 8, frame_stride=2) == [[42, 44, 46, 48, 50, 52, 54, 56]]


def test_dense_clips_repeat_the_last_frame_of_a_short_video():
    assert dense_clips(5, 8, 2, frame_stride=2) == [[0, 2, 4, 4, 4, 4, 4, 4]] * 2
    assert random_dense_clip(1, 3, frame_stride=4, rng=np.random.default_rng(0)) == [0, 0, 0]


def test_random_dense_clip_reaches_every_start():
    rng = np.random.default_rng(0)
    firsts = {random_dense_clip(10, 4, frame_stride=2, rng=rng)[0] for _ in range(200)}
    assert firsts == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: segment_clips(0, 8), "num_frames_in_video is 0"),
        (lambda: segment_clips(10, 0), "num_frames is 0"),
        (lambda: segment_clips(10, 8, 0), "num_clips is 0"),
        (lambda: segment_clips(10, 8, start=-1), "start is -1"),
        (lambda: dense_clips(10, 8, frame_stride=0), "frame_stride is 0"),
        (lambda: dense_clips(10, 8, -2, frame_stride=1), "num_clips is -2"),
        (lambda: random_segment_clip(0, 8, rng=np.random.default_rng()), "num_frames_in_video is 0"),
        (lambda: random_dense_clip(4, 8, frame_stride=-1, rng=np.random.default_rng()), "frame_stride is -1"),
    ],
)
def test_impossible_counts_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
