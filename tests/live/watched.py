"""Sources watched by the tests, to their end or in a thread."""

from __future__ import annotations

import threading
import time

import numpy as np

from tests.inference.test_windows import scorer_of
from uniformerv2.live.events import StateEvent
from uniformerv2.live.options import EventRules, LinkRules
from uniformerv2.live.watcher import Watcher

EASY = EventRules(on=0.01, off=0.01, min_seconds=0, merge_seconds=0)
"""Every class of the tiny networks is on."""
QUICK = LinkRules(open_seconds=5, stall_seconds=0.5, give_up_seconds=1.2, max_wait=0.5)


def watched(scorer, source, **options):
    """The windows and the events of a source, watched to its end."""
    windows = []
    with Watcher(scorer, source, tell=windows.append, rules=EASY, **options) as watcher:
        events = list(watcher)
    return windows, events


def states(events):
    return [event.state for event in events if isinstance(event, StateEvent)]


def assert_windows_of_timeline(scorer, video, windows):
    wanted = scorer(video)
    np.testing.assert_allclose([window.start_seconds for window in windows], wanted.starts, atol=1e-6)
    np.testing.assert_allclose([window.end_seconds for window in windows], wanted.ends, atol=1e-6)
    np.testing.assert_allclose([window.scores for window in windows], wanted.scores, atol=1e-5)


def wait_until(is_so, seconds=10.0):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


class Watched:
    """A watcher in a thread: its events so far."""

    def __init__(self, address, **options):
        self.windows, self.events = [], []
        scorer = scorer_of(window_seconds=0.4, stride_seconds=0.1)
        settings = {"rules": EASY, "link": QUICK, "tell": self.windows.append, "picture_height": 100, **options}
        self.watcher = Watcher(scorer, address, **settings)
        self.thread = threading.Thread(target=lambda: self.events.extend(self.told()))
        self.thread.start()

    def told(self):
        for event in self.watcher:
            self.events.append(event)
        return ()

    @property
    def states(self):
        return [event.state for event in self.events if isinstance(event, StateEvent)]

    def wait_for(self, *states, seconds=20.0):
        """Until the states so far end with these, or went through them."""
        wait_until(lambda: self.states[-len(states) :] == list(states), seconds)

    def stop(self):
        begin = time.monotonic()
        self.watcher.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        return time.monotonic() - begin
