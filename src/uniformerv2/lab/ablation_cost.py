"""What a suite will cost on this machine, measured on a few steps of each variant before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import torch

from uniformerv2.core.devices import best_device
from uniformerv2.lab.ablation import RANDOM, AblationSettings
from uniformerv2.lab.ablation_grid import Grid
from uniformerv2.lab.ablation_run import SharedTokens, prepare, shared_tokens
from uniformerv2.training.feature_cache import token_shape
from uniformerv2.training.frozen import CachedDataModule

__all__ = ["GridCost", "VariantCost", "grid_cost"]

TIMED_VIDEOS: Final = 3


@dataclass(frozen=True, kw_only=True)
class VariantCost:
    """What a variant takes with one seed.

    Attributes:
        variant: Its name.
        step_seconds: A training step, with reading.
        run_seconds: Training and measuring, without the cache.
        is_cached: Whether it reads cached tokens.
    """

    variant: str
    step_seconds: float
    run_seconds: float
    is_cached: bool


@dataclass(frozen=True, kw_only=True)
class GridCost:
    """What is left of a suite takes on this machine.

    Attributes:
        variants: Each.
        cache_seconds: To compute all tokens, which all variants and seeds share.
        cache_bytes: Of all tokens.
        total_seconds: All.
        errors: Type and message, by the name of a variant that cannot be measured; it is not in the sums.
    """

    variants: tuple[VariantCost, ...]
    cache_seconds: float
    cache_bytes: int
    total_seconds: float
    errors: dict[str, str]


def grid_cost(grid: Grid) -> GridCost:
    """Measure two steps of each variant and the reading of three videos, and multiply by what is left of the suite.

    Weights are random here: nothing is fetched to learn how long it takes. A variant that fails is noted, as in a run.
    """
    left = [run.variant for run in grid.runs if grid.done(run) is None]
    costs: dict[str, VariantCost] = {}
    caches: dict[SharedTokens, tuple[float, int]] = {}
    errors: dict[str, str] = {}
    for name in dict.fromkeys(left):
        try:
            trial = _Trial(grid, name)
            if trial.tokens is not None and trial.tokens not in caches:
                caches[trial.tokens] = trial.cache_seconds(), trial.cache_bytes()
            costs[name] = trial.cost()
        except Exception as problem:
            errors[name] = f"{type(problem).__name__}: {problem}"
    cache_seconds = sum(seconds for seconds, _ in caches.values())
    return GridCost(
        variants=tuple(costs.values()),
        cache_seconds=cache_seconds,
        cache_bytes=sum(num_bytes for _, num_bytes in caches.values()),
        total_seconds=cache_seconds + sum(costs[name].run_seconds for name in left if name in costs),
        errors=errors,
    )


class _Trial:
    """A few steps of a variant on noise.

    Args:
        grid: Its videos.
        variant: Name.
    """

    def __init__(self, grid: Grid, variant: str) -> None:
        self.variant, self.splits = variant, grid.splits
        every = [_without_weights(grid.suite.settings(name)) for name in grid.suite.variants]
        self.settings = _without_weights(grid.suite.settings(variant))
        self.tokens = shared_tokens(self.settings, every)
        self.prepared = prepare(
            self.settings,
            grid.splits,
            seed=0,
            tokens=self.tokens,
            cache_folder=grid.features,
            num_workers=0,
        )
        self.prepared.classifier.to(best_device())
        self.prepared.classifier.preprocessing = self.prepared.data.preprocessing

    def cost(self) -> VariantCost:
        """Of one seed."""
        settings = self.settings
        size = settings.batch_size * settings.repeats
        weights = [weight for weight in self.prepared.network.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights)
        batch = self._noise(size)

        def step() -> None:
            with self._autocast():
                logits = self.prepared.classifier(batch)
            self.prepared.classifier.criterion(
                logits, torch.zeros(size, dtype=torch.long, device=batch.device)
            ).backward()
            optimizer.step()
            optimizer.zero_grad()

        step()
        reading = 0.0 if self.tokens else self.reading_seconds()
        step_seconds = min(_seconds(step), _seconds(step)) + reading * settings.batch_size
        with torch.no_grad():
            val_seconds = _seconds(lambda: self.prepared.classifier(batch)) / size + reading
        steps = settings.epochs * max(1, len(self.splits.train) // settings.batch_size)
        return VariantCost(
            variant=self.variant,
            step_seconds=step_seconds,
            run_seconds=steps * step_seconds + len(self.splits.val) * val_seconds,
            is_cached=self.tokens is not None,
        )

    def cache_seconds(self) -> float:
        """To compute all tokens."""
        source = self.prepared.source
        if source is None or not isinstance(self.prepared.data, CachedDataModule):
            return 0.0
        source = source.eval().to(best_device())
        size = (self.settings.batch_size, self.settings.num_frames, 3, *self.prepared.data.preprocessing.input_size)
        video = torch.randn(size, device=best_device())
        with torch.no_grad(), self._autocast():
            source.read_tokens(video)
            seconds = _seconds(lambda: source.read_tokens(video)) / self.settings.batch_size
        return self.prepared.data.num_clips * (seconds + self.reading_seconds())

    def cache_bytes(self) -> int:
        """Of all tokens."""
        data = self.prepared.data
        if self.prepared.source is None or not isinstance(data, CachedDataModule):
            return 0
        return data.num_bytes(self.prepared.source)

    def reading_seconds(self) -> float:
        """Of one training clip."""
        videos = self.prepared.data._dataset("train", self.prepared.data.preprocessing, self.prepared.data.augmentation)
        start = time.perf_counter()
        chosen = range(0, len(videos), max(1, len(videos) // TIMED_VIDEOS))[:TIMED_VIDEOS]
        for index in chosen:
            videos[index]
        return (time.perf_counter() - start) / len(chosen)

    def _noise(self, size: int) -> torch.Tensor:
        device, data = best_device(), self.prepared.data
        if self.prepared.source is not None:
            return torch.randn(size, *token_shape(self.prepared.source, data.preprocessing), device=device)
        shape = (size, self.settings.num_frames, 3, *data.preprocessing.input_size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    def _autocast(self) -> torch.autocast:
        is_bfloat16 = self.prepared.precision.startswith("bf16")
        return torch.autocast(best_device().type, dtype=torch.bfloat16, enabled=is_bfloat16)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _without_weights(settings: AblationSettings) -> AblationSettings:
    return replace(settings, weights=RANDOM)
