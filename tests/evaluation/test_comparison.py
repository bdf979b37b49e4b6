"""Ensembles and comparisons of dumps."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from tests.evaluation.made_evaluations import make_evaluation
from uniformerv2.evaluation.comparison import align, compare, ensemble, mcnemar, paired_difference

NAMES = ["a.pkl", "b.pkl"]


def shuffled(evaluation, order, *, rename=False):
    """The videos in another order; with ``rename`` at other paths."""
    videos = [replace(evaluation.videos[row], index=number) for number, row in enumerate(order)]
    videos = [replace(video, path=f"other/{video.path}") if rename else video for video in videos]
    return replace(evaluation, videos=tuple(videos))


def permuted(evaluation, order):
    """The classes in another order."""
    place = {old: new for new, old in enumerate(order)}
    videos = [
        replace(
            video,
            scores=video.scores[order],
            one_view_scores=video.one_view_scores[order],
            label=place[video.label],
        )
        for video in evaluation.videos
    ]
    return replace(evaluation, videos=tuple(videos), class_names=tuple(evaluation.class_names[old] for old in order))


def test_videos_are_matched_by_id_in_any_order():
    first, second = make_evaluation(num_videos=10), make_evaluation(num_videos=10, seed=5)
    mixed = shuffled(second, np.random.default_rng(0).permutation(10), rename=True)
    aligned = align([first, mixed], NAMES)[1]
    assert [video.id for video in aligned.videos] == [video.id for video in first.videos]
    assert np.array_equal(aligned.scores, second.scores)


def test_without_ids_videos_are_matched_by_path():
    first, second = (
        replace(item, videos=tuple(replace(video, id="x") for video in item.videos))
        for item in (make_evaluation(num_videos=6), make_evaluation(num_videos=6, seed=5))
    )
    aligned = align([first, shuffled(second, [5, 4, 3, 2, 1, 0])], NAMES)[1]
    assert np.array_equal(aligned.scores, second.scores)


def test_segments_of_one_video_are_matched_by_number():
    first, second = (
        replace(item, videos=tuple(replace(video, id="x", path="x.mp4") for video in item.videos))
        for item in (make_evaluation(num_videos=6), make_evaluation(num_videos=6, seed=5))
    )
    assert np.array_equal(align([first, second], NAMES)[1].scores, second.scores)


def test_classes_are_matched_by_name():
    first, second = make_evaluation(), make_evaluation(seed=5)
    aligned = align([first, permuted(second, [3, 1, 0, 2, 6, 5, 4])], NAMES)[1]
    assert aligned.class_names == first.class_names
    assert np.array_equal(aligned.scores, second.scores)
    assert [video.label for video in aligned.videos] == [video.label for video in first.videos]


def test_what_is_missing_is_listed():
    first, second = make_evaluation(num_videos=10), make_evaluation(num_videos=10, seed=5)
    shorter = replace(second, videos=second.videos[:8])
    with pytest.raises(ValueError, match=r"b\.pkl lacks 2 videos: id8, id9\."):
        align([first, shorter], NAMES)
    with pytest.raises(ValueError, match=r"a\.pkl lacks 2 videos: id8, id9\."):
        align([replace(first, videos=first.videos[:8]), second], NAMES)
    other = replace(second, class_names=(*second.class_names[:6], "new"))
    with pytest.raises(ValueError, match=r"not in the second: 'class, 6'"):
        align([first, other], NAMES)
    with pytest.raises(ValueError, match=r"has the label .* tests of different lists"):
        align([first, make_evaluation(num_videos=10, label_seed=1)], NAMES)


def test_an_ensemble_is_the_weighted_mean():
    parts = align([make_evaluation(), make_evaluation(seed=5, unreadable={4})], NAMES)
    found = ensemble(parts, weights=[1, 3])
    wanted = (parts[0].scores.astype(float) + 3 * parts[1].scores) / 4
    np.testing.assert_allclose(found.scores[:4], wanted[:4], rtol=1e-6)
    assert found.videos[4].error == parts[1].videos[4].error
    assert not found.videos[4].scores.any()
    assert found.num_clips * found.num_crops == 12
    np.testing.assert_array_equal(ensemble(parts).scores, ensemble(parts, weights=[2, 2]).scores)
    for weights in ([1], [1, -1], [0, 0], [1, float("inf")]):
        with pytest.raises(ValueError, match="weights"):
            ensemble(parts, weights=weights)


def test_a_comparison_names_what_changed():
    first, second = align([make_evaluation(), make_evaluation(seed=5, unreadable={4}, unlabelled=())], NAMES)
    found = compare(first, second)
    was = [int(video.scores.argmax()) == video.label for video in first.videos]
    now = [int(video.scores.argmax()) == video.label and not video.error for video in second.videos]
    pairs = list(zip(was, now, strict=True))
    assert (found.both_right, found.neither_right) == (pairs.count((True, True)), pairs.count((False, False)))
    assert (len(found.gained), len(found.lost)) == (pairs.count((False, True)), pairs.count((True, False)))
    assert found.num_videos == 40
    assert found.p_value == mcnemar(len(found.gained), len(found.lost))
    assert found.difference.value == pytest.approx((sum(now) - sum(was)) / 40)
    assert found.difference.low < found.difference.value < found.difference.high
    paths = [video.path for video, pair in zip(first.videos, pairs, strict=True) if pair == (True, False)]
    assert [change.path for change in found.lost] == paths
    if was[4]:
        assert next(item for item in found.lost if item.path == first.videos[4].path).after == "unreadable"


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ((36, 12, 2, 0), (0.2, 0.0569, 0.3404)),
        ((54, 0, 0, 0), (0.0, -0.0664, 0.0664)),
        ((14, 5, 0, 22), (0.1220, 0.0115, 0.2265)),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(counts, wanted):
    """The first two are examples of Newcombe (1998), the third of Altman et al., "Statistics with confidence"."""
    names = ("both", "gained", "lost", "neither")
    found = paired_difference(**dict(zip(names, counts, strict=True)))
    assert (found.value, found.low, found.high) == pytest.approx(wanted, abs=6e-5)
    both, gained, lost, neither = counts
    turned = paired_difference(both=both, gained=lost, lost=gained, neither=neither)
    assert (turned.value, turned.low, turned.high) == pytest.approx([-wanted[0], -wanted[2], -wanted[1]], abs=6e-5)


def test_the_interval_of_a_difference_is_that_of_a_bootstrap_over_many_videos():
    found = paired_difference(both=700, gained=150, lost=90, neither=60)
    drawn = np.random.default_rng(0).multinomial(1000, [0.7, 0.15, 0.09, 0.06], size=20_000)
    low, high = np.percentile((drawn[:, 1] - drawn[:, 2]) / 1000, (2.5, 97.5))
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-3)
    assert np.isnan(paired_difference(both=0, gained=0, lost=0, neither=0).low)


def test_unlabelled_videos_are_not_compared():
    parts = align([make_evaluation(unlabelled={0}), make_evaluation(seed=1, unlabelled={0})], NAMES)
    assert compare(*parts).num_videos == 39


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (8, 2), (3, 3), (12, 25)])
def test_mcnemar_is_the_binomial_test(gained, lost):
    total = gained + lost
    tail = sum(comb(total, taken) for taken in range(min(gained, lost) + 1)) / 2**total
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_of_many_changes_does_not_overflow():
    assert mcnemar(5000, 5000) == 1
    assert 0 < mcnemar(5200, 4800) < 1e-4
