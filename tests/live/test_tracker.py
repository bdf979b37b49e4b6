"""Actions that begin, go on and end, from scores made by hand: a stretch of a second each."""

from __future__ import annotations

import numpy as np
import pytest

from uniformerv2.live.options import EventRules
from uniformerv2.live.tracker import EventTracker

PLAIN = EventRules(on=0.6, off=0.3, min_seconds=0.0, merge_seconds=0.0, update_seconds=100.0)


def told(scores, rules=PLAIN, *, is_multi_label=False):
    """What is told after each stretch, and at the end: (when, kind, class, start, end)."""
    rows = [row if isinstance(row, tuple) else (row, 0.0) for row in scores]
    tracker = EventTracker(len(rows[0]), rules, is_multi_label=is_multi_label)
    found = []
    for second, row in enumerate(rows):
        actions = tracker.see(second, second + 1, np.array(row, np.float32))
        found += [(second + 1, one.kind, one.index, one.start_seconds, one.end_seconds) for one in actions]
    return found + [("end", one.kind, one.index, one.start_seconds, one.end_seconds) for one in tracker.finish()]


def test_an_action_begins_at_on_from_where_it_rose_above_off_and_lasts_while_it_is_above_off():
    assert told([0.1, 0.4, 0.7, 0.4, 0.2, 0.1]) == [(3, "new", 0, 1, 3), (5, "end", 0, 1, 4)]


def test_what_never_reaches_on_is_nothing():
    assert told([0.1, 0.5, 0.5, 0.1]) == []


def test_what_lasts_at_the_end_of_the_source_ends_there():
    assert told([0.1, 0.9, 0.9]) == [(2, "new", 0, 1, 2), ("end", "end", 0, 1, 3)]


def test_a_short_action_is_not_told():
    rules = EventRules(on=0.6, off=0.3, min_seconds=3, merge_seconds=0)
    assert told([0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.1], rules) == [(6, "new", 0, 3, 6), (7, "end", 0, 3, 6)]


def test_a_gap_shorter_than_the_rule_is_closed():
    rules = EventRules(on=0.6, off=0.3, min_seconds=0, merge_seconds=2)
    assert told([0.9, 0.1, 0.9, 0.1, 0.1, 0.9], rules) == [
        (1, "new", 0, 0, 1),
        (5, "end", 0, 0, 3),
        (6, "new", 0, 5, 6),
        ("end", "end", 0, 5, 6),
    ]


def test_it_is_told_again_while_it_lasts():
    rules = EventRules(on=0.6, off=0.3, min_seconds=0, merge_seconds=0, update_seconds=2)
    kinds = [(when, kind) for when, kind, *_ in told([0.9] * 6, rules)]
    assert kinds == [(1, "new"), (3, "update"), (5, "update"), ("end", "end")]


def test_of_one_class_the_best_is_told_and_the_other_ends_first():
    scores = [(0.9, 0.05), (0.5, 0.4), (0.3, 0.65), (0.1, 0.9)]
    assert told(scores) == [(1, "new", 0, 0, 1), (3, "end", 0, 0, 2), (3, "new", 1, 2, 3), ("end", "end", 1, 2, 4)]


def test_a_moment_of_another_class_does_not_end_an_action():
    rules = EventRules(on=0.6, off=0.3, min_seconds=2, merge_seconds=2)
    scores = [(0.9, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.1), (0.1, 0.9), (0.9, 0.1)]
    assert told(scores, rules) == [(2, "new", 0, 0, 2), ("end", "end", 0, 0, 6)]


def test_of_several_classes_each_has_its_own_actions():
    scores = [(0.9, 0.1), (0.9, 0.9), (0.1, 0.9)]
    assert told(scores, is_multi_label=True) == [
        (1, "new", 0, 0, 1),
        (2, "new", 1, 1, 2),
        (3, "end", 0, 0, 2),
        ("end", "end", 1, 1, 3),
    ]


def test_the_score_is_the_mean_since_it_began():
    tracker = EventTracker(1, PLAIN, is_multi_label=False)
    tracker.see(0, 1, np.array([0.4], np.float32))
    (new,) = tracker.see(1, 2, np.array([0.8], np.float32))
    assert new.score == pytest.approx(0.6)
    tracker.see(2, 3, np.array([0.9], np.float32))
    (end,) = tracker.finish()
    assert (end.score, end.number) == (pytest.approx(0.7), new.number)
    assert tracker.open_classes == ()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"on": 0.1}, "on and off are scores"),
        ({"off": 0.0}, "on and off are scores"),
        ({"min_seconds": -1}, "min_seconds must be at least 0, got -1"),
        ({"update_seconds": float("nan")}, "update_seconds must be at least 0, got nan"),
    ],
)
def test_rules_that_make_no_sense_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        EventRules(**fields)
