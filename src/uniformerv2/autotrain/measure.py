"""What a training will cost, measured on a few steps and counted."""

from __future__ import annotations

import contextlib
import copy
import operator
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor, nn

from uniformerv2.autotrain.plan import DEFAULT_CACHE_VIEWS, TrainingPlan
from uniformerv2.core.devices import memory_bytes
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.summary import summarize
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.feature_cache import clip_bytes, token_grid, token_shape

__all__ = ["Estimate", "Trial", "estimate", "largest_batch_size", "reading_seconds"]

MEMORY_SHARE: Final = {"cpu": 0.5, "cuda": 0.85}
"""Of all memory, what a step may take."""
LARGEST: Final = {"cpu": 16, "cuda": 64}
READ: Final = 7
ROUGHLY_READ: Final = 3
"""Videos that are read to learn how long one takes; the first one warms up."""
CAREFULLY: Final = range(3, 10)
ROUGHLY: Final = range(1, 2)
ENOUGH_SECONDS: Final = 5.0
"""What is timed is run as often as the least of these numbers, or more often within this time."""
BYTES: Final = 4
COPIES: Final = 3
"""Gradient and two moments of AdamW, beside each trainable weight."""
MOST_CLIPS: Final = 2000
"""More would tell a probe no more about what tells the classes apart."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan will cost on this machine.

    Attributes:
        num_parameters: All weights.
        num_trainable: Those that learn.
        memory_bytes: Of the network in a training step: measured on a GPU, counted elsewhere.
        step_seconds: A training step, reading included; 0 of a probe alone.
        total_seconds: Caching, training, validation after each epoch, the final test.
        cache_bytes: Of cached features; 0 where there are none.
        cached_bytes: Those of them that are there already.
        cache_seconds: To compute the others.
        frozen_seconds: The same with a frozen image ViT and cached features: they, and the final test; the steps from
            them are a small part of it. 0 where features are cached, or cannot be.
        clip_seconds: Reading one clip, and the network's forward pass of it.
        epoch_seconds: The steps of an epoch, and its validation.
        test_seconds: The final test.
    """

    num_parameters: int
    num_trainable: int
    memory_bytes: int
    step_seconds: float
    total_seconds: float
    cache_bytes: int = 0
    cached_bytes: int = 0
    cache_seconds: float = 0.0
    frozen_seconds: float = 0.0
    clip_seconds: float = 0.0
    epoch_seconds: float = 0.0
    test_seconds: float = 0.0


def largest_batch_size(
    network: UniFormerV2, preprocessing: Preprocessing, *, wanted: int, device: torch.device, precision: str
) -> int:
    """The largest batch that the memory holds: tried on a GPU, counted elsewhere; never above 64, or 16 without a GPU.

    Args:
        network: Left as it is.
        preprocessing: Decides the size of a clip.
        wanted: No larger one is of use.
        device: Where training will run.
        precision: Lightning's word.

    Returns:
        A power of two, from 1 on.

    Raises:
        ValueError: Not even one clip fits.
    """
    size = 1 << (min(wanted, LARGEST[device.type]).bit_length() - 1)
    while size >= 1:
        if device.type == "cpu":
            fits = _counted_bytes(network, preprocessing, size) < MEMORY_SHARE["cpu"] * memory_bytes()
        else:
            fits = _is_held(network, preprocessing, size, device, precision)
        if fits:
            return size
        size //= 2
    raise ValueError(
        "The memory does not hold a single clip: take a smaller --image-size or --num-frames, or --freeze-backbone."
    )


def estimate(
    network: UniFormerV2,
    plan: TrainingPlan,
    preprocessing: Preprocessing,
    augmentation: TrainAugmentation,
    records: Sequence[VideoRecord],
    *,
    device: torch.device,
    is_rough: bool = False,
) -> Estimate:
    """Measure a few steps and the reading of a few videos, and multiply.

    Args:
        network: Left as it is.
        plan: What will be done.
        preprocessing: Of the network.
        augmentation: Of the training clips.
        records: Training videos.
        device: Where training will run.
        is_rough: Time each thing once, after once to warm up, and without a GPU with one clip instead of a batch.
    """
    speed = _speed(network, plan, preprocessing, augmentation, records, device=device, is_rough=is_rough)
    both: Callable[[float, float], float] = max if device.type == "cuda" else operator.add  # they share the cores
    clip = both(speed.passing, speed.reading)
    step, val = both(speed.step, speed.reading * speed.batch_size), clip * plan.num_val * speed.batch_size
    num_cached = plan.cache_views and plan.cache_views * plan.num_train + plan.num_val
    if speed.cached is not None:
        step, val = speed.cached[0], speed.cached[1] * plan.num_val * speed.batch_size
    epoch = plan.steps_per_epoch * step + val / plan.batch_size
    views = plan.num_clips * plan.num_crops
    test = both(views * speed.passing, plan.num_clips * speed.reading) * (plan.num_test or plan.num_val)
    is_cacheable = not (plan.probe or plan.cache_views or network.config.num_local_steps)
    num_kept = min(DEFAULT_CACHE_VIEWS, plan.epochs) * plan.num_train + plan.num_val
    training = clip * min(plan.num_train, MOST_CLIPS) if plan.probe else clip * num_cached + plan.epochs * epoch
    return Estimate(
        num_parameters=sum(weight.numel() for weight in network.parameters()),
        num_trainable=sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
        memory_bytes=speed.memory,
        step_seconds=0.0 if plan.probe else step,
        total_seconds=training + test,
        cache_bytes=num_cached * clip_bytes(network, preprocessing, plan.cache_dtype),
        cache_seconds=clip * num_cached,
        frozen_seconds=clip * num_kept + test if is_cacheable else 0.0,
        clip_seconds=clip,
        epoch_seconds=epoch,
        test_seconds=test,
    )


@dataclass(frozen=True, kw_only=True)
class _Speed:
    """What was measured.

    Attributes:
        batch_size: Videos of a step, of one GPU; without one, of all processes, which share the cores.
        step: Seconds of a step of the network, without reading; 0 where none will be made.
        passing: Seconds of a clip through the network.
        reading: Seconds of reading a clip.
        cached: Seconds of a step from cached tokens, and of a clip; None where there are none.
        memory: Bytes of a step.
    """

    batch_size: int
    step: float
    passing: float
    reading: float
    cached: tuple[float, float] | None
    memory: int


def _speed(
    network: UniFormerV2,
    plan: TrainingPlan,
    preprocessing: Preprocessing,
    augmentation: TrainAugmentation,
    records: Sequence[VideoRecord],
    *,
    device: torch.device,
    is_rough: bool,
) -> _Speed:
    """See ``estimate``."""
    runs, num_read = (ROUGHLY, ROUGHLY_READ) if is_rough else (CAREFULLY, READ)
    batch_size = plan.batch_size // (plan.devices if device.type == "cuda" else 1)
    tried = 1 if is_rough and device.type == "cpu" else batch_size  # there, time goes with the clips
    cached = None
    with torch.random.fork_rng():
        trial = Trial(network, _noise(tried, preprocessing, device), plan.precision, runs=runs)
        step = 0.0 if plan.probe else trial.step_seconds() * batch_size / tried
        passing = trial.eval_seconds() / tried
        memory = trial.peak_bytes() or _counted_bytes(network, preprocessing, plan.batch_size)
        if plan.cache_views:
            tokens = torch.randn(batch_size, *token_shape(network, preprocessing), device=device)
            grid = token_grid(network, preprocessing)
            from_cache = Trial(
                network,
                tokens,
                plan.precision,
                forward=lambda network, batch: network.forward_tokens(batch.unbind(1), grid),
                runs=runs,
            )
            cached = from_cache.step_seconds(), from_cache.eval_seconds() / batch_size
    chosen = [replace(record, label=0) for record in records[:: max(1, len(records) // num_read)][:num_read]]
    videos = VideoDataset(chosen, preprocessing, augmentation=augmentation, num_classes=None)
    reading = reading_seconds(videos, num_read) / max(1, plan.num_workers)
    return _Speed(batch_size=batch_size, step=step, passing=passing, reading=reading, cached=cached, memory=memory)


class Trial:
    """Training steps of a copy of a network on noise.

    Args:
        network: Left as it is; it is called with the batch.
        batch: What a step gets, on the device of the trial.
        precision: Lightning's word.
        forward: Called with the copy and the batch, where a step does not call the network itself.
        runs: How often a thing is timed, see ``CAREFULLY``.
    """

    def __init__(
        self,
        network: nn.Module,
        batch: Tensor,
        precision: str,
        *,
        forward: Callable[[Any, Tensor], Any] = operator.call,
        runs: range = CAREFULLY,
    ) -> None:
        self.runs, self.batch, self.device = runs, batch, batch.device
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.is_bfloat16 = precision.startswith("bf16")
        self.network = copy.deepcopy(network).to(self.device).train()
        self.optimizer = torch.optim.AdamW([weight for weight in self.network.parameters() if weight.requires_grad])
        self.forward = partial(forward, self.network, batch)

    def step(self) -> None:
        """Forward, backward, update."""
        with self._autocast():
            loss = self.forward().float().square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def step_seconds(self) -> float:
        """A step."""
        return _typical_seconds(self.step, self._wait, self.runs)

    @torch.no_grad()
    def eval_seconds(self) -> float:
        """A forward pass of the batch."""
        self.network.eval()
        return _typical_seconds(self._forward_as_trained, self._wait, self.runs)

    def peak_bytes(self) -> int:
        """The most memory that the GPU had in use; 0 where there is none."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0

    def _autocast(self) -> AbstractContextManager[object]:
        if not self.is_bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _forward_as_trained(self) -> None:
        with self._autocast():
            self.forward()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _typical_seconds(work: Callable[[], object], wait: Callable[[], object], runs: range) -> float:
    """The median of a few runs after one that warms up: a busy machine makes some of them slow, none of them quick.

    Args:
        work: What is timed.
        wait: Until a device has done it.
        runs: How often.
    """
    seconds: list[float] = []
    for _ in range(runs.stop):
        start = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
        if len(seconds) > runs.start and sum(seconds) > ENOUGH_SECONDS:
            break
    return median(seconds[1:])


def _is_held(
    network: UniFormerV2, preprocessing: Preprocessing, batch_size: int, device: torch.device, precision: str
) -> bool:
    """Whether two steps fit: the second has the optimiser's moments."""
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        trial = Trial(network, _noise(batch_size, preprocessing, device), precision)
        trial.step()
        trial.step()
        return trial.peak_bytes() < MEMORY_SHARE["cuda"] * total
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()


def _counted_bytes(network: UniFormerV2, preprocessing: Preprocessing, batch_size: int) -> int:
    """Weights, gradients and moments, and what the backward pass of so many clips needs."""
    size = network.config.image_size
    area = size * size if isinstance(size, int) else size[0] * size[1]
    height, width = _sides(preprocessing)
    summary = summarize(network, num_frames=preprocessing.num_frames)
    weights = BYTES * (summary.num_parameters + COPIES * summary.num_trainable)
    return weights + round(batch_size * summary.activation_bytes * height * width / area)


def _noise(batch_size: int, preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """Clips [B, T, 3, h, w]."""
    return torch.randn(batch_size, preprocessing.num_frames, 3, *_sides(preprocessing), device=device)


def _sides(preprocessing: Preprocessing) -> tuple[int, int]:
    size = preprocessing.image_size
    return (size, size) if isinstance(size, int) else size


def reading_seconds(videos: VideoDataset, num_read: int) -> float:
    """Decoding and augmenting one clip: the median over some of the videos after one that warms up.

    Args:
        videos: Read without worker processes.
        num_read: How many of them are read, from all over the data.
    """
    chosen = range(0, len(videos), max(1, len(videos) // num_read))[:num_read]
    videos[chosen[0]]
    seconds = []
    for index in chosen[1:] or chosen:
        start = time.perf_counter()
        videos[index]
        seconds.append(time.perf_counter() - start)
    return median(seconds)
