"""Metrics against torchmetrics; bootstrap intervals against what they stand for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional import classification as reference

from tests.evaluation.made_evaluations import make_evaluation
from uniformerv2.evaluation.metrics import ScoreTable, average_precision, calibration_error, hits, measure
from uniformerv2.evaluation.summary import summarize


def tensors(evaluation):
    scores = torch.from_numpy(evaluation.scores)
    return scores, torch.tensor([video.label for video in evaluation.videos])


@pytest.mark.parametrize(("num_videos", "num_classes"), [(40, 7), (500, 40), (3, 6)])
def test_single_label_numbers_are_torchmetrics(num_videos, num_classes):
    evaluation = make_evaluation(num_videos=num_videos, num_classes=num_classes)
    scores, label = tensors(evaluation)
    found = measure(ScoreTable.of(evaluation))
    wanted = {
        "top1": reference.multiclass_accuracy(scores, label, num_classes, average="micro"),
        "top5": reference.multiclass_accuracy(scores, label, num_classes, average="micro", top_k=5),
        "calibration_error": reference.multiclass_calibration_error(scores, label, num_classes, n_bins=15),
        "loss": F.nll_loss(scores.log(), label),
    }
    occurs = torch.bincount(label, minlength=num_classes) > 0
    per_class = reference.multiclass_accuracy(scores, label, num_classes, average="none")
    wanted["mean_class_accuracy"] = per_class[occurs].mean()
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(float(value), abs=1e-6), name


def test_multi_label_numbers_are_torchmetrics():
    evaluation = make_evaluation(num_videos=90, num_classes=12, multi_label=True)
    table = ScoreTable.of(evaluation)
    scores, target = torch.from_numpy(table.scores), torch.from_numpy(table.target).long()
    found = measure(table)
    wanted = {
        "mean_ap": reference.multilabel_average_precision(scores, target, 12),
        "loss": F.binary_cross_entropy(scores, target.float()),
        "calibration_error": reference.binary_calibration_error(scores.ravel(), target.ravel(), n_bins=15),
    }
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(float(value), abs=1e-6), name


def test_average_precision_takes_equal_scores_together():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (200, 3)).astype(np.float32) / 4
    target = rng.random((200, 3)) < 0.4
    wanted = reference.multilabel_average_precision(torch.from_numpy(scores), torch.from_numpy(target).long(), 3)
    assert float(average_precision(scores, target, np.ones(200))) == pytest.approx(float(wanted), abs=1e-6)


def test_a_class_that_does_not_occur_has_no_average_precision():
    scores, target = np.eye(3, dtype=np.float32), np.eye(3, dtype=bool)
    target[2] = False
    assert average_precision(scores, target, np.ones(3)) == 1


def test_the_edges_of_calibration_bins_are_torchmetrics():
    confidence = np.array([0.0, 1 / 3, 0.2, 0.2, 0.6, 1.0], dtype=np.float32)
    correct = np.array([False, True, True, False, False, True])
    wanted = reference.binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct), n_bins=15)
    assert float(calibration_error(confidence, correct, np.ones(6))) == pytest.approx(float(wanted), abs=1e-6)


def test_a_weight_of_two_is_a_video_that_comes_twice():
    for multi_label in (False, True):
        evaluation = make_evaluation(num_videos=30, multi_label=multi_label, unreadable={3, 4})
        rows = np.random.default_rng(1).integers(30, size=30)
        again = [replace(evaluation.videos[row], index=number) for number, row in enumerate(rows)]
        wanted = measure(ScoreTable.of(replace(evaluation, videos=tuple(again))))
        weight = np.bincount(rows, minlength=30).astype(float)
        found = measure(ScoreTable.of(evaluation), np.stack([weight, np.ones(30)]))
        whole = measure(ScoreTable.of(evaluation))
        for name, value in wanted.items():
            assert found[name].shape == (2,)
            np.testing.assert_allclose(found[name], [value, whole[name]], rtol=1e-9)


def test_of_equal_scores_the_first_class_comes_first():
    scores = np.full((3, 6), 1 / 6, np.float32)
    assert hits(scores, np.array([0, 1, 5])).tolist() == [True, False, False]
    assert hits(scores, np.array([0, 4, 5]), k=5).tolist() == [True, True, False]


def test_an_unreadable_video_is_a_miss_and_has_no_loss():
    whole = make_evaluation(num_videos=20)
    some = make_evaluation(num_videos=20, unreadable={0, 7})
    summary = summarize(some, num_resamples=0)
    read = [video.scores.argmax() == video.label for video in whole.videos if video.index not in {0, 7}]
    assert summary.num_unreadable == 2
    assert summary.all_videos["top1"].value == pytest.approx(sum(read) / 20)
    assert summary.readable["top1"].value == pytest.approx(sum(read) / 18)
    assert summary.all_videos["loss"].value == summary.readable["loss"].value
    several = measure(ScoreTable.of(make_evaluation(multi_label=True, unreadable={0})))
    assert several["mean_ap"] < measure(ScoreTable.of(make_evaluation(multi_label=True)))["mean_ap"]


def test_nothing_readable_nothing_labelled():
    summary = summarize(make_evaluation(num_videos=3, unreadable={0, 1, 2}), num_resamples=20)
    assert summary.all_videos["top1"].value == summary.all_videos["top1"].low == 0
    assert "loss" not in summary.all_videos
    assert summary.readable == {}
    summary = summarize(make_evaluation(num_videos=3, unlabelled={0, 1, 2}))
    assert (summary.num_videos, summary.num_labelled, summary.all_videos) == (3, 0, {})


def test_one_view_beside_all_views():
    evaluation = make_evaluation()
    summary = summarize(evaluation, num_resamples=0)
    one = measure(ScoreTable.of(evaluation, one_view=True))
    assert summary.num_views == 6
    assert summary.one_view["top1"].value == one["top1"] != summary.all_videos["top1"].value
    bare = tuple(replace(video, one_view_scores=None) for video in evaluation.videos)
    assert summarize(replace(evaluation, videos=bare), num_resamples=0).one_view == {}
    assert summarize(replace(evaluation, num_clips=1, num_crops=1), num_resamples=0).one_view == {}
    with pytest.raises(ValueError, match=r"one view of folder/ü 0\.mp4 were not kept"):
        ScoreTable.of(replace(evaluation, videos=bare), one_view=True)


def test_intervals_hold_the_value_and_repeat_with_the_seed():
    evaluation = make_evaluation(num_videos=200)
    first, again, other = (summarize(evaluation, num_resamples=400, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    for name, found in first.all_videos.items():
        assert found.low < found.high
        if name != "calibration_error":  # few videos in a bin look worse calibrated than many
            assert found.low < found.value < found.high


def test_the_interval_of_the_accuracy_is_the_binomial_one():
    evaluation = make_evaluation(num_videos=1000)
    found = summarize(evaluation, num_resamples=1000).all_videos["top1"]
    half = 1.96 * np.sqrt(found.value * (1 - found.value) / 1000)
    assert found.high - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.low == pytest.approx(half, rel=0.15)


@pytest.mark.parametrize("all_right", [True, False])
def test_all_right_or_all_wrong_has_an_interval_too(all_right):
    evaluation = make_evaluation(num_videos=112)
    shift = 0 if all_right else 1
    eye = np.eye(7, dtype=np.float32)
    videos = tuple(replace(video, scores=eye[(video.label + shift) % 7]) for video in evaluation.videos)
    found = summarize(replace(evaluation, videos=videos), num_resamples=50).all_videos
    for name in ("top1", "mean_class_accuracy"):
        interval = (found[name].low, found[name].high)
        assert found[name].value == (1.0 if all_right else 0.0)
        assert interval == pytest.approx((0.9668, 1.0) if all_right else (0.0, 0.0332), abs=1e-4)
    assert np.isnan(summarize(replace(evaluation, videos=videos), num_resamples=0).all_videos["top1"].low)


def test_a_probability_of_zero_has_a_finite_loss():
    evaluation = make_evaluation(num_videos=1)
    scores = np.zeros(7, np.float32)
    scores[(evaluation.videos[0].label + 1) % 7] = 1
    sure = replace(evaluation, videos=(replace(evaluation.videos[0], scores=scores),))
    assert measure(ScoreTable.of(sure))["loss"] == pytest.approx(87.3, abs=0.1)
    several = make_evaluation(num_videos=1, multi_label=True)
    wrong = np.ones(7, np.float32)
    several = replace(several, videos=(replace(several.videos[0], scores=wrong, label=(1,)),))
    assert np.isfinite(measure(ScoreTable.of(several))["loss"])


def test_a_negative_number_of_resamples_is_refused():
    with pytest.raises(ValueError, match="num_resamples is -1"):
        summarize(make_evaluation(), num_resamples=-1)
