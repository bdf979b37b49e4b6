"""``EpochSampler``: which samples an epoch has, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from uniformerv2.data.clips import SampleKey

__all__ = ["EpochSampler"]


class EpochSampler(Sampler[SampleKey]):
    """The keys of an epoch: in order, shuffled, or drawn by weight; the same for the same seed and epoch.

    Args:
        num_items: Items in the dataset.
        shuffle: False: in order.
        weights: One per item: ``num_items`` items are drawn with replacement. None: each item comes once.
        seed: Decides every random draw; 0 or above.
        rank: Number of this process, where several work together.
        world_size: Processes. All get equally many keys.
        drop_last: Leave out the last keys where the processes do not divide them; else start again from the first.

    Raises:
        ValueError: Weights of another number, or not above 0; ``rank`` outside of ``world_size``.
    """

    def __init__(
        self,
        num_items: int,
        *,
        shuffle: bool = True,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with world_size={world_size} it must be from 0 to {world_size - 1}")
        self.num_items = num_items
        self.shuffle = shuffle
        self.chances = None if weights is None else _chances(weights, num_items)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.epoch = 0
        self._skip = 0

    def __len__(self) -> int:
        return self.num_items // self.world_size if self.drop_last else -(-self.num_items // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch, from its beginning."""
        self.epoch, self._skip = epoch, 0

    def start_at(self, num_items: int) -> None:
        """The next pass leaves out so many items."""
        self._skip = num_items

    def __iter__(self) -> Iterator[SampleKey]:
        skip, self._skip = self._skip, 0
        return iter(self._keys()[skip:])

    def _keys(self) -> list[SampleKey]:
        times: dict[int, int] = {}
        keys = []
        for index in islice(cycle(self._order()), len(self) * self.world_size):
            keys.append(SampleKey(index, self.epoch, times.get(index, 0)))
            times[index] = keys[-1].draw + 1
        return keys[self.rank :: self.world_size]

    def _order(self) -> list[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.chances is not None:
            drawn: list[int] = rng.choice(self.num_items, size=self.num_items, p=self.chances).tolist()
            return drawn
        order = rng.permutation(self.num_items) if self.shuffle else np.arange(self.num_items)
        return [int(index) for index in order]


def _chances(weights: Sequence[float], num_items: int) -> NDArray[np.float64]:
    chances = np.asarray(weights, dtype=np.float64)
    if chances.shape != (num_items,):
        raise ValueError(
            f"weights have the shape {list(chances.shape)}, there are {num_items} items; give one per item"
        )
    if not (np.isfinite(chances).all() and (chances >= 0).all() and chances.sum() > 0):
        raise ValueError("weights must be finite and not below 0, and one at least above it")
    return chances / chances.sum()
