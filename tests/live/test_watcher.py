"""Watching files, pipes and files that grow: the windows of ``timeline``, events, an end from every state."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tests.inference.test_windows import NETWORKS, WHOLE, scorer_of
from tests.live.watched import EASY, assert_windows_of_timeline, states, wait_until, watched
from tests.media import write_video
from tests.media.made_videos import make_video
from uniformerv2.live.events import ActionEvent
from uniformerv2.live.watcher import Watcher
from uniformerv2.media.live_source import LiveSource


@pytest.mark.parametrize("name", ["scene", "motion", "tubelets"])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_a_file_has_the_windows_of_timeline(name, num_crops, tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=43, fps=10)
    scorer = scorer_of(NETWORKS[name], window_seconds=1.6, stride_seconds=0.4, num_crops=num_crops, views_per_batch=7)
    assert (scorer.way == "whole windows") == (name in WHOLE)
    windows, events = watched(scorer, str(video))
    assert_windows_of_timeline(scorer, video, windows)
    assert states(events) == ["connecting", "running", "ended"]


@pytest.mark.parametrize("ticks", [[0, 40, 80, 1000, 1040, 2000, 2500, 2600, 3000, 3960], [0], [0, 100, 200]])
def test_so_has_one_of_a_variable_rate_and_a_short_one(ticks, tmp_path):
    video = make_video(tmp_path / "vfr.mp4", frames=len(ticks), ticks=ticks)
    scorer = scorer_of(window_seconds=1.0, stride_seconds=0.5)
    windows, _ = watched(scorer, str(video))
    assert_windows_of_timeline(scorer, video, windows)


def test_stretches_of_windows_cover_the_whole_time_once(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=43, fps=10)
    windows, events = watched(scorer_of(window_seconds=1.0, stride_seconds=0.25), str(video))
    bounds = [bound for window in windows for bound in window.stretch]
    assert (bounds[0], bounds[-1]) == (0.0, pytest.approx(4.3))
    np.testing.assert_allclose(bounds[1:-1:2], bounds[2::2])
    actions = [event for event in events if isinstance(event, ActionEvent)]
    assert {actions[0].kind, actions[-1].kind} == {"new", "end"}
    assert actions[-1].end_seconds == pytest.approx(4.3)
    assert actions[-1].start_time is None
    assert all(0 <= action.latency_seconds < 60 for action in actions)


def test_it_stops_in_the_middle_of_a_file(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=400, fps=10)
    with Watcher(scorer_of(window_seconds=0.4, stride_seconds=0.1), str(video), rules=EASY) as watcher:
        found = []
        for event in watcher:
            found.append(event)
            if len(found) == 4:
                watcher.stop()
    assert states(found)[-1] == watcher.state == "stopped"
    kinds = [event.kind for event in found if isinstance(event, ActionEvent)]
    assert kinds.count("new") == kinds.count("end") > 0
    wait_until(lambda: not reading_threads())


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name == "watch"]


def test_what_is_no_video_fails_with_the_reason(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing at all")
    with Watcher(scorer_of(), str(tmp_path / "a.mp4")) as watcher:
        (_, last) = list(watcher)
    assert (last.state, watcher.state) == ("failed", "failed")
    assert "not a video" in last.reason


def test_scores_that_are_no_numbers_fail(tmp_path):
    import torch

    scorer = scorer_of()
    with torch.no_grad():
        scorer.predictor.model.head.bias.fill_(float("nan"))
    _, events = watched(scorer, str(write_video(tmp_path / "a.mp4")))
    assert states(events)[-1] == "failed"
    assert "no finite number" in events[-1].reason


def test_a_file_that_grows_is_followed_to_its_end(tmp_path):
    whole = make_video(tmp_path / "whole.ts", frames=60, fps=10, gop=10)
    content, grown = whole.read_bytes(), tmp_path / "grown.ts"
    grown.write_bytes(content[: len(content) // 2])

    def grow():
        with grown.open("ab") as file:
            for begin in range(len(content) // 2, len(content), 2000):
                file.write(content[begin : begin + 2000])
                file.flush()
                time.sleep(0.01)

    writer = threading.Thread(target=grow)
    writer.start()
    scorer = scorer_of(window_seconds=1.0, stride_seconds=0.5)
    windows, events = watched(scorer, LiveSource.of(str(grown), end_after_seconds=0.5))
    writer.join()
    assert_windows_of_timeline(scorer, whole, windows)
    assert states(events)[-1] == "ended"
    actions = [event for event in events if isinstance(event, ActionEvent)]
    assert actions[0].start_time is not None


def test_a_file_that_does_not_grow_ends_once(tmp_path):
    """FFmpeg reads at the end more than once: each of these is not another wait."""
    whole = make_video(tmp_path / "whole.ts", frames=60, fps=10, gop=10)
    scorer = scorer_of(window_seconds=1.0, stride_seconds=0.5)
    start = time.monotonic()
    windows, events = watched(scorer, LiveSource.of(str(whole), end_after_seconds=2.0))
    assert time.monotonic() - start < 6
    assert_windows_of_timeline(scorer, whole, windows)
    assert states(events)[-1] == "ended"


def test_a_file_in_which_nothing_comes(tmp_path):
    (tmp_path / "empty.ts").touch()
    _, events = watched(scorer_of(), LiveSource.of(str(tmp_path / "empty.ts"), end_after_seconds=0.3))
    assert (events[-1].state, events[-1].reason) == ("failed", "not one byte came; --end-after may be longer")
