"""Batches across videos: sizes, order, what comes when, and what waits."""

from __future__ import annotations

import pytest
import torch

from uniformerv2.inference.batches import compute_in_batches


def numbered(*num_views):
    """Videos named by their position; a view is a number of its own, a video of None views cannot be read."""
    counter = iter(range(100))
    for index, count in enumerate(num_views):
        yield index, None if count is None else torch.tensor([[next(counter)] for _ in range(count)])


@pytest.mark.parametrize("views_per_batch", [1, 2, 3, 4, 7, 50])
@pytest.mark.parametrize("num_views", [(3, 3, 3), (1, None, 5, 1), (None,), (12, 2, None, None, 1), ()])
def test_every_view_is_computed_once_in_order(num_views, views_per_batch):
    sizes = []

    def compute(views):
        sizes.append(len(views))
        return views * 10

    found = list(compute_in_batches(numbered(*num_views), compute, views_per_batch=views_per_batch))
    assert [video.item for video in found] == list(range(len(num_views)))
    for video, (_, views) in zip(found, numbered(*num_views), strict=True):
        if views is None:
            assert video.rows is None
            assert video.seconds == 0
        else:
            assert torch.equal(video.rows, views * 10)
            assert video.seconds > 0
    total = sum(filter(None, num_views))
    assert all(size == views_per_batch for size in sizes[:-1])
    assert sum(sizes) == total
    assert len(sizes) == -(-total // views_per_batch)


def test_a_video_leaves_as_soon_as_it_is_computed():
    taken = []

    def watched():
        for item, views in numbered(3, 3, None, 3):
            taken.append(item)
            yield item, views

    computed = compute_in_batches(watched(), lambda views: views, views_per_batch=4)
    assert (next(computed).item, taken) == (0, [0, 1])  # a batch needs a view of the second
    assert (next(computed).item, taken) == (1, [0, 1, 2, 3])
    assert (next(computed).item, taken) == (2, [0, 1, 2, 3])
    assert (next(computed).item, taken) == (3, [0, 1, 2, 3])


def test_an_error_of_the_network_is_not_swallowed():
    def fail(views):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(compute_in_batches(numbered(2), fail, views_per_batch=1))
