"""Temporal average precision: ActivityNet's own numbers, and files that hold no detections."""

from __future__ import annotations

import json
import math

import pytest

from uniformerv2.evaluation.localization import (
    ACTIVITYNET_THRESHOLDS,
    THUMOS_THRESHOLDS,
    Detection,
    TrueSegment,
    localize,
    read_detections,
    read_truth,
    share_of_seconds,
)

GRIDS = {"0.5:0.05:0.95": ACTIVITYNET_THRESHOLDS, "0.3:0.1:0.7": THUMOS_THRESHOLDS}


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("grid", GRIDS)
def test_the_numbers_are_activitynets(shared, tmp_path, number, grid):
    case = json.loads(shared("goldens/localization.json").read_text())[number]
    (tmp_path / "truth.json").write_text(json.dumps({"database": case["truth"]}))
    (tmp_path / "found.json").write_text(json.dumps({"results": case["predictions"]}))
    truth, videos = read_truth(tmp_path / "truth.json")
    found = localize(truth, read_detections(tmp_path / "found.json"), thresholds=GRIDS[grid])
    wanted = case["expected"][grid]
    assert videos == set(case["truth"])
    assert found.per_class.keys() == wanted["per_class"].keys()
    for name, values in wanted["per_class"].items():
        assert found.per_class[name] == pytest.approx(values, abs=1e-9)
    assert found.mean_ap == pytest.approx(wanted["mAP"], abs=1e-9)
    assert found.average_map == pytest.approx(wanted["average_mAP"], abs=1e-9)
    assert found.to_dict()["mean_ap"] == list(found.mean_ap)


def test_a_true_segment_is_found_once_and_unknown_classes_do_not_count():
    truth = [TrueSegment("v", "a", 0, 10), TrueSegment("v", "a", 20, 30), TrueSegment("v", "b", 0, 5)]
    found = [
        Detection("v", "a", 0, 10, 0.9),
        Detection("v", "a", 0, 10, 0.8),  # a second time: false
        Detection("v", "a", 20, 30, 0.7),
        Detection("w", "a", 20, 30, 0.95),  # in a video of which the truth knows nothing: false
        Detection("v", "c", 0, 5, 1.0),
    ]
    measured = localize(truth, found, thresholds=(0.5,))
    assert measured.per_class == {"a": (pytest.approx((1 / 2 + 2 / 4) / 2),), "b": (0.0,)}
    assert (measured.num_true, measured.num_found) == ({"a": 2, "b": 1}, {"a": 4, "b": 0})


def test_an_overlap_of_exactly_the_threshold_counts():
    truth, found = [TrueSegment("v", "a", 0, 10)], [Detection("v", "a", 0, 5, 1.0)]
    assert localize(truth, found, thresholds=(0.5, 0.55)).per_class["a"] == (1.0, 0.0)
    assert localize(truth, [Detection("v", "a", 3, 3, 1.0)], thresholds=(0.1,)).per_class["a"] == (0.0,)


def test_without_truth_or_with_other_thresholds_nothing_is_measured():
    with pytest.raises(ValueError, match="no true segment"):
        localize([], [], thresholds=(0.5,))
    with pytest.raises(ValueError, match=r"above 0 and at most 1, got 0.5, 1.5"):
        localize([TrueSegment("v", "a", 0, 1)], [], thresholds=(0.5, 1.5))


def test_seconds_are_right_where_the_label_is():
    truth = [TrueSegment("v", "a", 0, 4), TrueSegment("v", "b", 4, 8)]
    found = [Detection("v", "a", 0, 5, 1.0), Detection("v", "b", 6, 8, 1.0), Detection("w", "b", 5, 6, 1.0)]
    assert share_of_seconds(truth, found) == pytest.approx(6 / 8)
    assert math.isnan(share_of_seconds([], found))


def test_only_the_validation_subset_is_measured(tmp_path):
    one = {"annotations": [{"label": "a", "segment": [0, 1]}]}
    videos = {"x": {**one, "subset": "training"}, "y": {**one, "subset": "validation"}}
    (tmp_path / "truth.json").write_text(json.dumps({"database": videos}))
    truth, names = read_truth(tmp_path / "truth.json")
    assert [segment.video for segment in truth] == ["y"]
    assert names == {"y"}


def test_lines_of_timelines_are_detections(tmp_path):
    segments = [{"start_seconds": 1.0, "end_seconds": 2.5, "label": "a", "score": 0.9, "index": 0}]
    lines = [{"video": "films/x.mp4", "segments": segments}, {"video": "broken.mp4", "error": "it is broken"}]
    for count in (1, 2):
        (tmp_path / "found.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:count]))
        assert read_detections(tmp_path / "found.jsonl") == [Detection("x", "a", 1.0, 2.5, 0.9)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "is no JSON .*: give what uniformerv2 timeline wrote"),
        ("[1, 2]", "holds no detections|no timeline"),
        ('{"results": {"v": 3}}', "holds no detections"),
        ('{"results": {"v": [{"label": "a", "segment": [0]}]}}', r"is not \{'label'"),
        ('{"results": {"v": [{"label": "a", "segment": [0, 1]}]}}', "has the score None"),
        ('{"results": {"v": [{"label": "a", "segment": [0, 1], "score": NaN}]}}', "has the score nan"),
        ('{"video": "a", "segments": [{"label": "a"}]}', "no start_seconds"),
    ],
)
def test_files_that_hold_no_detections_are_told(tmp_path, text, said):
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_detections(tmp_path / "found.json")


@pytest.mark.parametrize(
    ("text", "said"), [("[]", "holds no annotations"), ('{"database": {"v": {"annotations": [{}]}}}', "is not")]
)
def test_files_that_hold_no_annotations_are_told(tmp_path, text, said):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_truth(tmp_path / "truth.json")
