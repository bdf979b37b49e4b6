"""States, watchdog and tries of a link, by a clock that the tests turn."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from uniformerv2.live.link import MOST_LEFT, Link
from uniformerv2.live.options import LinkRules
from uniformerv2.media.live_stream import SourceError

RULES = {"open_seconds": 5.0, "stall_seconds": 3.0, "give_up_seconds": 10.0, "max_wait": 8.0}


@dataclass
class Fake:
    """A try that does what a test says."""

    last_frame_at: float | None = None
    is_over: bool = False
    error: SourceError | None = None
    has_end: bool = False
    is_cancelled: bool = False

    def cancel(self):
        self.is_cancelled = True


class Bench:
    """A link with a clock and its tries."""

    def __init__(self, *, is_live=True, **rules):
        self.now, self.tries = 100.0, []
        settings = {"clock": lambda: self.now, "draw": lambda: 1.0}
        self.link = Link(self.start, LinkRules(**{**RULES, **rules}), is_live=is_live, **settings)

    def start(self):
        self.tries.append(Fake())
        return self.tries[-1]

    def look(self, seconds=0.0, *, is_drained=True):
        self.now += seconds
        return [(change.state, change.reason) for change in self.link.look(is_drained=is_drained)]

    def frame(self):
        self.tries[-1].last_frame_at = self.now

    def running(self):
        self.look()
        self.frame()
        assert self.look() == [("running", "")]


def test_a_source_connects_runs_stalls_and_runs_again():
    bench = Bench()
    assert bench.look() == [("connecting", "")]
    assert bench.look(4) == []
    bench.frame()
    assert bench.look() == [("running", "")]
    assert bench.look(2) == []
    assert bench.look(2) == [("stalled", "no frame came for 3 s")]
    assert bench.look(2) == []
    bench.frame()
    assert bench.look() == [("running", "")]


def test_a_silent_source_is_left_and_opened_anew():
    bench = Bench()
    bench.running()
    assert bench.look(11) == [("reconnecting", "no frame came for 10 s")]
    assert bench.tries[0].is_cancelled
    assert bench.look(0.4) == []
    assert bench.look(0.2) == [("connecting", "")]
    bench.frame()
    assert bench.look() == [("running", "")]
    assert len(bench.tries) == 2


def test_a_source_that_never_gives_a_frame_is_left():
    bench = Bench()
    bench.look()
    assert bench.look(10) == []
    assert bench.look(1) == [("reconnecting", "no frame came in 10 s")]


def test_waits_grow_up_to_the_most_and_begin_anew_after_a_good_connection():
    bench = Bench()
    waits = []
    for _ in range(7):
        bench.look(10)
        bench.tries[-1].is_over, bench.tries[-1].error = True, SourceError("Connection refused")
        (change,) = bench.link.look(is_drained=True)
        assert (change.state, change.reason) == ("reconnecting", "Connection refused")
        waits.append(change.wait_seconds)
    assert waits == [0.5, 1, 2, 4, 8, 8, 8]
    bench.look(10)
    bench.frame()
    bench.look()
    bench.now += 6
    bench.tries[-1].is_over, bench.tries[-1].last_frame_at = True, bench.now
    (change,) = bench.link.look(is_drained=True)
    assert (change.reason, change.wait_seconds) == ("the source ended", 0.5)


def test_a_random_part_of_a_wait_is_left_out():
    for draw, wait in ((0.0, 0.25), (1.0, 0.5)):
        bench = Bench()
        bench.link._draw = lambda draw=draw: draw
        bench.look()
        bench.tries[0].is_over = True
        (change,) = bench.link.look(is_drained=True)
        assert change.wait_seconds == wait


def test_with_a_number_of_retries_it_fails_after_them():
    bench = Bench(retries=1)
    for state in ("reconnecting", "failed"):
        bench.look(10)
        bench.tries[-1].is_over, bench.tries[-1].error = True, SourceError("Connection refused")
        assert bench.look() == [(state, "Connection refused")]
    assert bench.look(100) == []
    assert len(bench.tries) == 2


def test_an_error_that_stays_is_not_tried_again():
    bench = Bench()
    bench.look()
    bench.tries[0].is_over, bench.tries[0].error = True, SourceError("no video", is_final=True)
    assert bench.look() == [("failed", "no video")]


@pytest.mark.parametrize("is_live", [True, False])
def test_an_end_counts_when_all_is_computed(is_live):
    bench = Bench(is_live=is_live)
    bench.running()
    bench.tries[0].is_over, bench.tries[0].has_end = True, is_live
    assert bench.look(is_drained=False) == []
    assert bench.look() == [("ended", "")]
    assert bench.look(100) == []


def test_a_file_may_be_silent_and_its_error_is_the_end():
    bench = Bench(is_live=False)
    bench.look()
    assert bench.look(1000) == []
    bench.frame()
    assert bench.look() == [("running", "")]
    assert bench.look(1000) == [("stalled", "no frame came for 3 s")]
    bench.tries[0].is_over, bench.tries[0].error = True, SourceError("Invalid data")
    assert bench.look() == [("failed", "Invalid data")]


def test_threads_that_hang_are_left_up_to_a_number():
    bench = Bench()
    for number in range(MOST_LEFT):
        assert bench.look(100) == [("connecting", "")], number
        assert bench.look(100) == [("reconnecting", "no frame came in 10 s")]
    assert bench.look(1000) == []
    bench.tries[0].is_over = True
    assert bench.look() == [("connecting", "")]


def brought_to(state):
    bench = Bench()
    if state != "nothing":
        bench.look()
    if state in {"running", "stalled", "reconnecting"}:
        bench.frame()
        bench.look()
    if state in {"stalled", "reconnecting"}:
        bench.look(4 if state == "stalled" else 11)
    if state in {"ended", "failed"}:
        bench.tries[0].is_over = bench.tries[0].has_end = True
        bench.tries[0].error = SourceError("broken", is_final=True) if state == "failed" else None
        bench.look()
    assert bench.link.state == (state if state != "nothing" else "connecting")
    return bench


@pytest.mark.parametrize("state", ["nothing", "connecting", "running", "stalled", "reconnecting"])
def test_it_stops_from_every_state(state):
    bench = brought_to(state)
    assert bench.link.stop().state == "stopped"
    assert all(one.is_cancelled for one in bench.tries)
    assert bench.look(1000) == []


@pytest.mark.parametrize("state", ["ended", "failed"])
def test_what_has_ended_stays_so(state):
    bench = brought_to(state)
    bench.link.close()
    assert bench.look(1000) == []
    assert bench.link.state == state


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_wait": 0.0}, "max_wait must be at least 0.1, got 0.0"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"give_up_seconds": 1.0}, "give_up_seconds must be at least stall_seconds"),
    ],
)
def test_rules_that_make_no_sense_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        LinkRules(**fields)
