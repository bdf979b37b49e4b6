"""Timelines: segments cut from scores, and the files that show them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from uniformerv2.evaluation.localization import Detection, read_detections
from uniformerv2.inference.timelines.files import to_activitynet, to_csv, to_srt, to_vtt
from uniformerv2.inference.timelines.rules import SegmentRules
from uniformerv2.inference.timelines.segments import find_runs, score_curve, smoothed
from uniformerv2.inference.timelines.timeline import FORMAT, find_actions, timeline_of
from uniformerv2.inference.window_grid import WindowGrid
from uniformerv2.inference.window_scores import WindowScores

PLAIN = SegmentRules(on=0.5, off=0.3, smooth_seconds=0, min_seconds=0, merge_seconds=0)


def curve_of(*rows):
    """A row per class, a digit per step: 7 is 0.7."""
    return np.array([[int(digit) / 10 for digit in row] for row in rows], np.float32).T


def cut(*rows, step_seconds=1.0, is_multi_label=False, **rules):
    runs = find_runs(curve_of(*rows), replace(PLAIN, **rules), step_seconds=step_seconds, is_multi_label=is_multi_label)
    return [(run.start, run.stop, run.label) for run in runs]


def windows_of(
    scores, *, start=0.0, features=None, stride_steps=1, is_multi_label=False, names=None, broken=None, num_frames=2
):
    """Windows of 1 s, of ``num_frames`` steps."""
    scores = np.array(scores, np.float32)
    firsts = stride_steps * np.arange(len(scores))
    step = 1.0 / num_frames
    num_steps = int(firsts[-1]) + num_frames
    grid = WindowGrid(
        start_seconds=start,
        end_seconds=start + num_steps * step,
        step_seconds=step,
        num_steps=num_steps,
        num_frames=num_frames,
        stride_steps=stride_steps,
    )
    return WindowScores(
        video="films/match.mp4",
        class_names=names or tuple("abcdef"[: scores.shape[1]]),
        is_multi_label=is_multi_label,
        starts=start + firsts * step,
        ends=start + (firsts + num_frames) * step,
        scores=scores,
        features=features,
        grid=grid,
        fps=25.0,
        way="shared frames",
        duration_seconds=grid.end_seconds,
        broken=broken,
    )


def test_a_segment_reaches_the_upper_threshold_and_lasts_above_the_lower_one():
    assert cut("0344643104420") == [(1, 7, 0)]
    assert cut("0344643104420", on=0.7) == []
    assert cut("0344643104420", on=0.4, off=0.4) == [(2, 6, 0), (9, 11, 0)]


def test_of_single_labels_the_best_class_has_a_step():
    assert cut("999640000", "000469999") == [(0, 4, 0), (4, 9, 1)]
    # where both are on, the higher one counts; nothing where none is
    assert cut("95550", "04445") == [(0, 4, 0), (4, 5, 1)]
    assert cut("1111", "2222") == []


def test_of_several_labels_segments_overlap():
    assert cut("0990", "0099", is_multi_label=True) == [(1, 3, 0), (2, 4, 1)]
    assert cut("9990999", "0000000", is_multi_label=True, merge_seconds=2) == [(0, 7, 0)]
    assert cut("9009990", is_multi_label=True, min_seconds=2) == [(3, 6, 0)]


def test_gaps_are_closed_and_short_segments_go_to_their_neighbour():
    assert cut("99009900", merge_seconds=3) == [(0, 6, 0)]
    assert cut("99009900", merge_seconds=2) == [(0, 2, 0), (4, 6, 0)]
    # another class in the gap is no gap
    assert cut("990099", "009900", merge_seconds=3) == [(0, 2, 0), (2, 4, 1), (4, 6, 0)]
    assert cut("999199999", "000900000", min_seconds=2) == [(0, 9, 0)]
    # between two classes, the one that scores higher there
    assert cut("99910000", "00090000", "00039999", min_seconds=2) == [(0, 3, 0), (3, 8, 2)]
    assert cut("00900000", "00000999", min_seconds=2) == [(5, 8, 1)]
    # a whole video that is shorter than the shortest segment
    assert cut("999", min_seconds=60) == [(0, 3, 0)]


def test_steps_take_the_mean_of_their_windows_the_nearer_the_more():
    windows = windows_of([[0.0], [1.0], [1.0]])
    assert score_curve(windows, smooth_seconds=0)[:, 0] == pytest.approx([0, 0.5, 1, 1])
    whole = windows_of([[0.0], [0.0], [1.0]], num_frames=3)
    # hat of 3 steps: 1/2, 1, 1/2 of 2 + 1/2 ... the last window counts for its own steps alone at the end
    curve = score_curve(whole, smooth_seconds=0)[:, 0]
    assert curve[0] == curve[1] == 0
    assert curve[-1] == 1
    assert np.all(np.diff(curve) >= 0)


def test_smoothing_keeps_a_constant_and_lowers_a_peak():
    windows = windows_of(np.full((40, 2), 0.4))
    assert smoothed(windows, 8) == pytest.approx(0.4)
    peak = np.zeros((41, 1))
    peak[20] = 1
    smooth = smoothed(windows_of(peak), 8)[:, 0]  # without features over 2 s: a deviation of two strides
    assert smooth.argmax() == 20
    assert smooth[20] == pytest.approx(1 / sum(np.exp(-0.5 * (k / 2) ** 2) for k in range(-6, 7)))
    assert smooth == pytest.approx(smooth[::-1])
    assert smooth[13] == 0
    assert smoothed(windows_of(peak), 0) == pytest.approx(peak)


def test_smoothing_stops_at_a_cut():
    scores = np.array([[0.9], [0.7]] * 10 + [[0.1], [0.3]] * 10)
    features = np.repeat([[1.0, 0.0], [0.0, 1.0]], 20, axis=0).astype(np.float16)
    smooth = smoothed(windows_of(scores, features=features), 4)[:, 0]
    assert np.abs(smooth[:20] - 0.8).max() < 0.05
    assert np.abs(smooth[20:] - 0.2).max() < 0.05
    blurred = smoothed(windows_of(scores, features=np.ones_like(features)), 4)[:, 0]
    assert 0.3 < blurred[19] < 0.7


def test_a_timeline_in_seconds():
    scores = [[0.9, 0.1]] * 6 + [[0.2, 0.2]] * 6 + [[0.1, 0.9]] * 6
    timeline = timeline_of(windows_of(scores, start=10.0), PLAIN)
    assert [(one.label, one.index) for one in timeline.segments] == [("a", 0), ("b", 1)]
    first, second = timeline.segments
    assert (first.start_seconds, second.end_seconds) == (10.0, 19.5)
    assert timeline.nothing == ((first.end_seconds, second.start_seconds),)
    assert 0.7 < first.score <= 0.9
    assert repr(timeline).startswith("<Timeline of 'films/match.mp4': 10.0-13.")
    assert timeline.times[0] == 10.25
    overlapping = timeline_of(windows_of([[0.9, 0.9]] * 4, is_multi_label=True), PLAIN)
    assert len(overlapping.segments) == 2
    assert overlapping.nothing == ()


def test_the_schema_of_the_json():
    timeline = timeline_of(windows_of([[0.9, 0.1]] * 3, broken="corrupt: at frame 80"), SegmentRules())
    content = json.loads(timeline.to_json())
    assert content == {
        "format": FORMAT,
        "video": "films/match.mp4",
        "duration_seconds": 2.0,
        "segments": [{"start_seconds": 0.0, "end_seconds": 2.0, "label": "a", "index": 0, "score": 0.9}],
        "nothing": [],
        "window_seconds": 1.0,
        "stride_seconds": 0.5,
        "num_windows": 3,
        "way": "shared frames",
        "rules": {"on": 0.4, "off": 0.2, "smooth_seconds": 4.0, "min_seconds": 1.0, "merge_seconds": 1.0},
        "is_multi_label": False,
        "broken": "corrupt: at frame 80",
    }
    more = json.loads(timeline.to_json(windows=True))
    assert more["class_names"] == ["a", "b"]
    assert more["windows"][1] == {"start_seconds": 0.5, "end_seconds": 1.5, "scores": [0.9, 0.1]}


@pytest.mark.parametrize(
    "rules", [{"on": 0.1}, {"off": 0.0}, {"on": 1.1}, {"smooth_seconds": -1.0}, {"min_seconds": float("inf")}]
)
def test_rules_that_make_no_sense_are_refused(rules):
    with pytest.raises(ValueError, match=r"on and off are scores|must be at least 0"):
        SegmentRules(**rules)


@pytest.fixture
def timeline():
    names = ("<b>a & b</b> --> x\n\ny", 'say "c", d')
    scores = [[0.9, 0.1]] * 8 + [[0.1, 0.9]] * 8
    return timeline_of(windows_of(scores, names=names), PLAIN)


def test_subtitles_say_the_label_and_nothing_that_ends_a_cue(timeline):
    border = timeline.segments[0].end_seconds
    cues = to_vtt(timeline).split("\n\n")
    assert cues[0] == "WEBVTT"
    assert cues[1] == f"00:00:00.000 --> 00:00:0{border:.3f}\n&lt;b&gt;a &amp; b&lt;/b&gt; --&gt; x y 0.86"
    assert len(cues) == 3
    first, second = to_srt(timeline).split("\n\n")
    assert first.splitlines() == [
        "1",
        f"00:00:00,000 --> 00:00:0{border:.3f}".replace(".", ","),
        "<b>a & b</b> --> x y 0.86",
    ]
    assert second.startswith("2\n")


def test_rows_and_detections_are_read_back(timeline, tmp_path):
    header, *rows = csv.reader(StringIO(to_csv([timeline])))
    assert header == ["video", "start_seconds", "end_seconds", "label", "score"]
    assert [row[3] for row in rows] == list(timeline.windows.class_names)
    (tmp_path / "found.json").write_text(to_activitynet([timeline]))
    found = read_detections(tmp_path / "found.json")
    assert found == [
        Detection("match", one.label, round(one.start_seconds, 3), round(one.end_seconds, 3), round(one.score, 6))
        for one in timeline.segments
    ]


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("torchcodec/frame_exceeds_screen.gif", None),  # one frame
        ("torchcodec/var_fps_video.mp4", None),
        ("torchcodec/nasa_13013_rotated.mp4", 0.57),
        ("torchvision/v_SoccerJuggling_g23_c01.avi", 8.0),  # no presentation times
        ("decord/corrupted.mp4", None),
    ],
)
def test_odd_videos_have_a_timeline_to_their_end(shared, name, seconds):
    from tests.inference.test_windows import scorer_of
    from uniformerv2.media.decoding import open_video

    video = shared("data/odd_videos") / name
    timeline = find_actions(video, scorer_of(), rules=replace(PLAIN, on=0.01, off=0.01))
    with open_video(video) as reader:
        assert timeline.segments[-1].end_seconds == pytest.approx(reader.info.duration_seconds)
    if seconds:
        assert timeline.windows.duration_seconds == pytest.approx(seconds, abs=0.1)
    assert timeline.windows.broken is None


def test_a_video_from_end_to_end(tmp_path):
    from tests.inference.test_windows import scorer_of
    from tests.media import write_video

    video = write_video(tmp_path / "a.mp4", num_frames=50, fps=10)
    scorer = scorer_of(window_seconds=1.0)
    told = []
    timeline = find_actions(
        video, scorer, rules=replace(PLAIN, on=0.01, off=0.01), tell=lambda *count: told.append(count)
    )
    assert told[0] == (1, 17)
    assert told[-1] == (17, 17)
    assert timeline.segments[0].start_seconds == 0
    assert timeline.segments[-1].end_seconds == 5.0
    again = find_actions(video, scorer.predictor)
    assert again.windows.grid.window_seconds == 1.0
