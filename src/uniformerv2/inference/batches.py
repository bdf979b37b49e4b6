"""Views of many videos through the network: batches of one size, across videos, results in order.

::

    views     A A A B B B C C C
    batches  [A A A B][B B C C][C]      A leaves after the first batch, B after the second, C at the end

At most one batch and one video wait, however many videos come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["Computed", "compute_in_batches"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Computed(Generic[Item]):
    """What came of one video.

    Attributes:
        item: What stood for the video.
        rows: A result for each of its views [V, ...]; None where it came without views.
        seconds: Its share of the time of the batches that it was in.
    """

    item: Item
    rows: Tensor | None
    seconds: float


def compute_in_batches(
    videos: Iterable[tuple[Item, Tensor | None]], compute: Callable[[Tensor], Tensor], *, views_per_batch: int
) -> Iterator[Computed[Item]]:
    """Compute the views of each video.

    Args:
        videos: What stands for a video, and its views [V, ...], all of one shape; None where it could not be read.
        compute: [views, ...] -> [views, ...].
        views_per_batch: Views of a batch, at least 1; the last may have fewer.

    Yields:
        The videos in the order in which they came, each as soon as it and all before it are computed.
    """
    waiting: deque[tuple[Item, int | None]] = deque()
    rows: deque[tuple[Tensor, float]] = deque()
    batch: list[Tensor] = []
    for item, views in videos:
        waiting.append((item, None if views is None else len(views)))
        while views is not None and len(views):
            free = views_per_batch - sum(map(len, batch))
            batch.append(views[:free])
            views = views[free:]
            if len(batch[-1]) == free:
                rows.extend(_rows(batch, compute))
                batch.clear()
        yield from _complete(waiting, rows)
    if batch:
        rows.extend(_rows(batch, compute))
    yield from _complete(waiting, rows)


def _rows(batch: list[Tensor], compute: Callable[[Tensor], Tensor]) -> list[tuple[Tensor, float]]:
    start = perf_counter()
    rows = compute(batch[0] if len(batch) == 1 else torch.cat(batch)).unbind()
    seconds = (perf_counter() - start) / len(rows)
    return [(row, seconds) for row in rows]


def _complete(waiting: deque[tuple[Item, int | None]], rows: deque[tuple[Tensor, float]]) -> Iterator[Computed[Item]]:
    """Take away and give back the first videos, as long as all their rows are there."""
    while waiting and (waiting[0][1] or 0) <= len(rows):
        item, num_views = waiting.popleft()
        own = [rows.popleft() for _ in range(num_views or 0)]
        stacked = torch.stack([row for row, _ in own]) if own else None
        yield Computed(item, stacked, sum(seconds for _, seconds in own))
