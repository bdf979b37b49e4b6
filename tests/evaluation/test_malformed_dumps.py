"""What is no dump, or holds no probabilities: refused in one line that says why, and never measured."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.made_evaluations import make_evaluation
from uniformerv2 import cli
from uniformerv2.evaluation.dumps import read_dump, write_dump


@pytest.fixture
def entries(tmp_path):
    """The entries of a dump, each with its head."""
    return pickle.loads(write_dump(tmp_path / "whole.pkl", make_evaluation(num_videos=3)).read_bytes())


def dumped(tmp_path, entries):
    path = tmp_path / "dump.pkl"
    path.write_bytes(pickle.dumps(entries))
    return path


HEADS = [
    ({"info": "text"}, "its info, or the fingerprint in it, is no JSON object"),
    ({"info": [1]}, "its info, or"),
    ({"info": None}, "its info, or"),
    ({"info": {"fingerprint": "x"}}, "its info, or the fingerprint"),
    ({"class_names": [1, 2, 3, 4, 5, 6, 7]}, "its class_names are no list of names"),
    ({"class_names": "abcdefg"}, "its class_names are no list of names"),
    ({"class_names": list("abcdefa")}, "its class_names have 'a' more than once"),
    ({"class_names": ["a", "b"]}, r"scores of shape \(7,\), but there are 2 classes"),
    ({"is_multi_label": "no"}, "its is_multi_label is 'no', neither true nor false"),
    ({"num_clips": -3}, "num_clips is -3, num_crops is 3; both must be at least 1"),
    ({"num_crops": 0}, "num_crops is 0; both must be at least 1"),
    ({"num_clips": float("inf")}, "infinity"),
]


@pytest.mark.parametrize(("change", "said"), HEADS)
def test_a_wrong_head_is_told(tmp_path, entries, change, said):
    path = dumped(tmp_path, [entries[0] | {"test": entries[0]["test"] | change}, *entries[1:]])
    with pytest.raises(ValueError, match=rf"dump\.pkl cannot be read as a dump: .*{said}"):
        read_dump(path)


ROWS = [
    ({"one_view_scores": [0.5]}, r"one_view_scores of shape \(1,\), but there are 7 classes"),
    ({"view_scores": [0.5] * 7}, r"view_scores of shape \(7,\), but"),
    ({"label": [-7]}, "has the label -7; there are 7 classes, from 0 on"),
    ({"label": [0, 3]}, r"has the label \(0, 3\); these data have one label a video"),
    ({"label": 3}, "cannot be read as a dump"),
    ({"pred_score": []}, "no list of numbers"),
    ({"duration_seconds": "long"}, "duration_seconds of .* is 'long', no finite number"),
    ({"duration_seconds": True}, "duration_seconds of .* is True, no finite number"),
    ({"label": [0.9]}, r"the label of .* is 0\.9, no whole number"),
    ({"index": 0.7}, r"the index of .* is 0\.7, no whole number"),
    ({"id": 7}, "the id of a video is a int, no text"),
    ({"pred_score": ["0.2"] * 7}, "pred_score of entry 1 is no list of numbers"),
    ({"pred_score": [0.2 / 7] * 7}, r"scores that sum up to 0\.2; these are no probabilities"),
    ({"start_frame": []}, "cannot be read as a dump"),
]


@pytest.mark.parametrize(("change", "said"), ROWS)
def test_a_wrong_row_is_told(tmp_path, entries, change, said):
    with pytest.raises(ValueError, match=said):
        read_dump(dumped(tmp_path, [entries[0], entries[1] | change, entries[2]]))


@pytest.mark.parametrize("number", [-1, 7])
def test_labels_of_several_classes_are_in_range(tmp_path, number):
    path = write_dump(tmp_path / "dump.pkl", make_evaluation(num_videos=1, multi_label=True))
    line = pickle.loads(path.read_bytes())[0] | {"label": [0, number]}
    with pytest.raises(ValueError, match=rf"has the label \(0, {number}\); there are 7 classes"):
        read_dump(dumped(tmp_path, [line]))


def test_a_video_without_an_error_was_read(tmp_path, entries):
    found = read_dump(dumped(tmp_path, [entries[0] | {"error": None}, *entries[1:]]))
    assert [video.is_readable for video in found.videos] == [True] * 3


@pytest.mark.parametrize("first", [5, [1], None, {}, {"test": {}}])
def test_an_entry_of_anything_else_is_told(tmp_path, entries, first):
    with pytest.raises(ValueError, match=r"dump\.pkl is no dump: a list with one dictionary per video"):
        read_dump(dumped(tmp_path, [first, *entries[1:]]))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("x", "does not say"),
        (None, "does not say"),
        ([], "does not say"),
        (5, "does not say"),
        ({}, "its is_multi_label is None"),
        ({"is_multi_label": 3}, "is_multi_label is 3"),
    ],
)
def test_a_pickle_with_another_head_is_told(tmp_path, head, said):
    content = [{"pred_score": np.array([0.2, 0.8]), "gt_label": 1, "test": head}]
    (tmp_path / "dump.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"dump\.pkl .*{said}"):
        read_dump(tmp_path / "dump.pkl")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_flipped_bytes_give_scores_or_one_kind_of_error(tmp_path, suffix):
    evaluation = make_evaluation(num_videos=4, unreadable={1}, view_scores=suffix != ".csv")
    path = write_dump(tmp_path / f"dump{suffix}", evaluation)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    told = []
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_dump(path)
        except ValueError as error:
            told.append(str(error))
    assert told
    assert all(str(path) in message for message in told)


LOGITS = {
    "softmax": ([np.array([3.5, -1.2, 0.3])], "scores from -1.2 to 3.5"),
    "above 1": ([np.array([0.1, 0.2, 1.1])], "scores from 0.1 to 1.1"),
    "below 0": ([np.array([-0.01, 0.2, 0.3])], "scores from -0.01 to 0.3"),
    "a later video": ([np.array([0.1, 0.2, 0.7]), np.array([2.0, 9.0, 4.0])], "scores from 2 to 9"),
}


@pytest.mark.parametrize(("scores", "said"), LOGITS.values(), ids=LOGITS)
def test_scores_that_are_no_probabilities_are_refused(tmp_path, capsys, scores, said):
    """As MMAction2 writes them with ``average_clips='score'``."""
    path = tmp_path / "theirs.pkl"
    path.write_bytes(pickle.dumps([{"pred_score": row, "gt_label": np.array([0])} for row in scores]))
    with pytest.raises(ValueError, match=f"{said}; these are no probabilities: apply softmax"):
        read_dump(path)
    assert cli.main(["evaluate", str(path)]) == 2
    assert "these are no probabilities" in capsys.readouterr().err


def test_scores_that_were_rounded_are_probabilities(tmp_path):
    path = tmp_path / "theirs.pkl"
    path.write_bytes(pickle.dumps([{"pred_score": np.array([0.0, 1.0005]), "gt_label": np.array([0])}]))
    assert read_dump(path).videos[0].scores.max() == np.float32(1.0005)


def test_logits_are_not_dumped_either():
    evaluation = make_evaluation(num_videos=1)
    logits = np.log(evaluation.videos[0].scores)[None]
    with pytest.raises(ValueError, match=r"view_scores from -.* these are no probabilities"):
        replace(evaluation, videos=(replace(evaluation.videos[0], view_scores=logits),))
