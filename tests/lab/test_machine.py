"""The clock: turns, what counts, the spread; memory of a fresh process."""

from __future__ import annotations

import sys

import pytest

from tests.lab.made_runs import MEBIBYTE, fail, make_heavy_to_call
from uniformerv2.lab.benchmark.machine import Times, peak_bytes, time_in_turns


def test_things_are_timed_in_turns_and_every_second_call_counts():
    calls = []
    times = time_in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert calls == list("aabb" * 3)
    assert [len(timed.seconds) for timed in times.values()] == [3, 3]
    calls.clear()
    time_in_turns({"a": lambda: calls.append("a")}, repeats=2, warm=False)
    assert calls == ["a", "a"]


def test_the_spread_is_from_quartile_to_quartile():
    times = Times((5.0, 1.0, 2.0, 3.0, 4.0))
    assert times.to_row() == {"seconds": 3.0, "seconds_low": 2.0, "seconds_high": 4.0}
    assert Times((7.0,)).to_row() == {"seconds": 7.0, "seconds_low": 7.0, "seconds_high": 7.0}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be forgotten")
def test_the_peak_is_what_stays_and_what_calls_take_but_not_what_making_took():
    assert 140 * MEBIBYTE < peak_bytes(make_heavy_to_call) < 200 * MEBIBYTE


def test_what_fails_in_the_other_process_fails_here():
    with pytest.raises(ValueError, match="no such network"):
        peak_bytes(fail)
