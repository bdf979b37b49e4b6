"""Metrics of a pass over the validation videos, on scores made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multilabel_average_precision

from uniformerv2.training.epoch_metrics import MultiLabelMetrics, SingleLabelMetrics


def test_validation_counts_each_video_once_and_unreadable_ones_as_failed():
    metrics = SingleLabelMetrics()
    log_scores = torch.tensor([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]]).log()
    label, readable = torch.tensor([0, 1, 2, 2]), torch.tensor([True, True, False, True])
    metrics.update(index=torch.tensor([4, 1, 0, 7]), log_scores=log_scores, label=label, readable=readable)
    metrics.update(index=torch.tensor([4]), log_scores=log_scores[:1], label=label[:1], readable=readable[:1])
    metrics.update(index=torch.tensor([9]), log_scores=log_scores[:1], label=torch.tensor([-1]), readable=readable[:1])
    computed = metrics.compute()
    assert computed["top1"] == 2 / 4
    assert computed["top5"] == 3 / 4
    assert computed["top1_readable"] == pytest.approx(2 / 3)
    expected = -sum(map(math.log, (0.9, 0.7, 0.2))) / 3
    assert computed["loss"] == pytest.approx(expected, rel=1e-6)


def test_mean_ap_leaves_out_classes_that_do_not_occur():
    metrics = MultiLabelMetrics()
    scores = torch.tensor([[0.9, 0.2, 0.3], [0.8, 0.6, 0.4], [0.1, 0.7, 0.5]])
    label = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    metrics.update(index=torch.arange(3), log_scores=scores.log(), label=label, readable=torch.ones(3).bool())
    assert metrics.compute()["mean_ap"] == pytest.approx((1 / 2 + 1) / 2)


def test_mean_ap_where_one_class_occurs_or_none():
    """The validation videos of a small set may have a class between them."""
    scores = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    label = (scores + torch.rand(20, 3, generator=torch.Generator().manual_seed(1)) > 1).float()

    def mean_ap(label):
        metrics = MultiLabelMetrics()
        metrics.update(index=torch.arange(20), log_scores=scores.log(), label=label, readable=torch.ones(20).bool())
        return float(metrics.compute()["mean_ap"])

    per_class = multilabel_average_precision(scores, label.long(), 3, average="none")
    assert mean_ap(label) == pytest.approx(float(per_class.mean()))
    for number in range(3):
        alone = label * F.one_hot(torch.tensor(number), 3)
        assert mean_ap(alone) == pytest.approx(float(per_class[number]))
    assert math.isnan(mean_ap(torch.zeros(20, 3)))
