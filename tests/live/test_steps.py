"""Frames as they come on a grid without end: times that jump, that are missing, that come twice; gaps; drops."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.inference.test_windows import scorer_of
from uniformerv2.live.ring import FrameRing
from uniformerv2.live.steps import Step, StepMaker, StretchEnd, _Sampler
from uniformerv2.live.windows import SlidingWindows

SCORER = scorer_of(window_seconds=0.4, stride_seconds=0.2)
"""Four steps of 0.1 s in a window."""


def pushed(times, *, is_live=True, elapsed=None, fps=10.0, sizes=None):
    """What becomes of frames at these times, by the source's clock; ``elapsed`` is when they come."""
    sampler = _Sampler(StepMaker(scorer=SCORER), fps, is_live=is_live, path=Path("camera"))
    items = []
    for number, seconds in enumerate(times):
        width, height = (32, 24) if sizes is None else sizes[number]
        frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 5 * number, np.uint8), format="rgb24")
        came = number / 10 if elapsed is None else elapsed[number]
        items += sampler.push(seconds, frame, now=1000 + came, elapsed=came)
    return items + list(sampler.end())


def told(items):
    """Start of the grid, first step, repeats; of an end its seconds."""
    rows = []
    for item in items:
        if isinstance(item, Step):
            rows.append((round(item.grid.start_seconds, 3), item.first, item.repeats))
        else:
            rows.append(round(item.end_seconds, 3))
    return rows


def test_each_step_has_the_frame_on_the_screen():
    assert told(pushed([50.0, 50.1, 50.2, 50.3])) == [(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1), 0.4]
    assert told(pushed([0, 0.02, 0.04, 0.22, 0.3], is_live=False)) == [(0, 0, 2), (0, 2, 1), (0, 3, 1), 0.4]


def test_frames_without_times_follow_each_other_at_the_rate():
    assert told(pushed([None] * 4)) == told(pushed([0.0, 0.1, 0.2, 0.3]))


def test_a_time_that_comes_twice_or_a_little_late_is_left_out():
    assert told(pushed([0.0, 0.1, 0.1, 0.05, 0.2, 0.3])) == told(pushed([0.0, 0.1, 0.2, 0.3]))


@pytest.mark.parametrize("jump", [1e6, -1e6, 2.0])
def test_a_clock_that_jumps_begins_a_stretch_where_the_time_is(jump):
    times = [0.0, 0.1, 0.2, 0.3, *(jump + second for second in (0.4, 0.5, 0.6, 0.7))]
    assert told(pushed(times)) == [
        *((0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1), 0.4),
        *((0.4, 0, 1), (0.4, 1, 1), (0.4, 2, 1), (0.4, 3, 1), 0.8),
    ]


def test_after_a_pause_of_a_live_source_the_time_is_that_of_the_clock_on_the_wall():
    items = pushed([0.0, 0.1, 60.0, 60.1], elapsed=[0.0, 0.1, 60.0, 60.1])
    starts = {round(item.grid.start_seconds, 3) for item in items}
    assert starts == {0.0, 60.0}
    assert [row for row in told(items) if isinstance(row, float)] == [0.2, 60.2]


def test_in_a_file_a_frame_may_stay_for_long():
    items = pushed([0.0, 0.1, 30.0], is_live=False)
    assert len({id(item.grid) for item in items}) == 1
    assert sum(item.repeats for item in items if isinstance(item, Step)) == 301


def test_a_stretch_shorter_than_a_window_is_one_that_ends_with_it():
    items = pushed([0.0, 0.1])
    (window,) = SlidingWindows(SCORER, name="camera").push(items)
    assert (window.start_seconds, window.stretch) == (0.0, (0.0, pytest.approx(0.2)))
    assert isinstance(items[-1], StretchEnd)


def test_frames_of_every_size_become_crops_of_one():
    items = pushed([0.0, 0.1, 0.2, 0.3], sizes=[(32, 24), (64, 48), (24, 32), (33, 25)])
    assert {tuple(item.crops.shape) for item in items if isinstance(item, Step)} == {(1, 3, 32, 32)}


def test_no_window_lies_across_a_cut_or_a_drop():
    first = pushed([number / 10 for number in range(12)])
    windows = SlidingWindows(SCORER, name="camera")
    dropped = [item for place, item in enumerate(first) if place not in {4, 5}]
    seen = list(windows.push(dropped))
    assert [round(window.start_seconds, 3) for window in seen] == [0.0, 0.6, 0.8]
    assert [window.arrived_at for window in seen] == pytest.approx([1000.3, 1000.9, 1001.1])
    assert seen[1].stretch[0] >= 0.5


def test_a_ring_drops_the_oldest_frame_or_makes_the_reader_wait():
    items = pushed([0.0, 0.1, 0.2, 0.3])
    ring = FrameRing(2)
    assert ring.put(items[-1], drops=False, timeout=0)
    assert all(ring.put(item, drops=True, timeout=0) for item in items[:4])
    assert ring.num_dropped == 2
    assert not ring.put(items[0], drops=False, timeout=0.01)
    assert ring.take(9, timeout=0) == [items[-1], items[2], items[3]]
    assert ring.take(9, timeout=0.01) == []
    assert ring.put(items[0], drops=False, timeout=0)
