"""All runs of a suite: what is done already, what is left, and what it will cost.

::

    OUT/runs/VARIANT_seed_0_KEY.json    a result, or the error that a run ended with
    OUT/features                        tokens of a frozen image ViT, shared by all runs; see ``feature_cache``

KEY is a digest of the settings, the seed, the content of the weights file and of the videos: where one of them changes,
it is another run.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from uniformerv2.autotrain.fitting import quiet_lightning
from uniformerv2.autotrain.measure import ROUGHLY, ROUGHLY_READ, Trial, reading_seconds
from uniformerv2.core.devices import best_device
from uniformerv2.core.files import DiskFullError, lock_folder
from uniformerv2.data.annotations import records_digest
from uniformerv2.data.annotations.record import content_digest
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.splits import Splits
from uniformerv2.lab.ablation import PRETRAINED, RANDOM, Suite
from uniformerv2.lab.ablation_run import Measured, SharedTokens, Variant, prepare, run_variant, shared_tokens
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.feature_cache import token_shape
from uniformerv2.training.frozen import CachedDataModule
from uniformerv2.zoo.files import read_json, write_json

__all__ = ["Grid", "GridCost", "Run", "RunResult", "VariantCost", "grid_cost"]

FORMAT: Final = 3
"""Counts the changes of what a run means."""


@dataclass(frozen=True)
class Run:
    """One variant with one seed.

    Attributes:
        variant: The name of the variant.
        seed: Its seed.
        key: 64 hex digits.
    """

    variant: str
    seed: int
    key: str

    @property
    def file_name(self) -> str:
        """The name of the file with its result."""
        return f"{self.variant}_seed_{self.seed}_{self.key[:12]}.json"


@dataclass(frozen=True, kw_only=True)
class RunResult(Run):
    """How a run ended.

    Attributes:
        seconds: How long it took.
        measured: None where it failed.
        error: Type and message; None where it did not fail.
    """

    seconds: float
    measured: Measured | None = None
    error: str | None = None

    @property
    def top1(self) -> float:
        """Share of the validation samples that were hits, 0 to 1; NaN where the run failed."""
        hits = self.measured.hits if self.measured else ()
        return sum(hits) / len(hits) if hits else float("nan")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A suite on its videos.

    Attributes:
        suite: What is asked.
        splits: From ``read_task``.
        out: Folder of everything that is written.
        only: Variants to run; empty: all.
        num_workers: Processes that read videos.

    Raises:
        ValueError: ``only`` names a variant that the suite does not have.
    """

    suite: Suite
    splits: Splits
    out: Path
    only: tuple[str, ...] = ()
    num_workers: int = 0

    def __post_init__(self) -> None:
        if wrong := [name for name in self.only if name not in self.suite.variants]:
            raise ValueError(f"Suite '{self.suite.name}' has {', '.join(self.suite.variants)}, got '{wrong[0]}'.")

    @property
    def variants(self) -> tuple[str, ...]:
        """Those that are run, in the order of the suite."""
        return tuple(name for name in self.suite.variants if not self.only or name in self.only)

    @property
    def features(self) -> Path:
        """The folder of cached tokens."""
        return self.out / "features"

    @cached_property
    def runs(self) -> list[Run]:
        """Seed by seed, so that what is done early can be compared; this reads every video's bytes, once."""
        digest = _videos_digest(self.splits)
        return [Run(name, seed, self._key(name, seed, digest)) for seed in self.suite.seeds for name in self.variants]

    def path(self, run: Run) -> Path:
        """The file with the result of a run."""
        return self.out / "runs" / run.file_name

    def done(self, run: Run) -> RunResult | None:
        """The result of a run that ended well; None where it is yet to be run."""
        if not self.path(run).is_file():
            return None
        content = read_json(self.path(run))
        if content["error"] is not None:
            return None
        measured = Measured(**{**content["measured"], "hits": tuple(map(bool, content["measured"]["hits"]))})
        return RunResult(**asdict(run), seconds=content["seconds"], measured=measured)

    def carry_out(
        self,
        *,
        callbacks: Callable[[Run], Sequence[Any]] = lambda run: (),
        on_start: Callable[[Run], None] = lambda run: None,
        progress: bool = False,
    ) -> Iterator[RunResult]:
        """Run what is not done yet; a run that fails is noted, and the others go on.

        Args:
            callbacks: Makes Lightning callbacks for each run.
            on_start: Told which run begins.
            progress: Show on stderr how far each run is.

        Yields:
            The result of each run, also of those that were done before.

        Raises:
            FolderInUseError: Another process runs a suite in this folder.
        """
        with lock_folder(self.out, what="An ablation"), quiet_lightning():
            for run in self.runs:
                done = self.done(run)
                if done is None:
                    on_start(run)
                    done = self._carried_out(run, callbacks(run), progress=progress)
                yield done

    def prepared(self, suite: Suite, variant: str, *, seed: int, num_workers: int) -> Variant:
        """Network, data and optimiser of a variant.

        Args:
            suite: All variants, which share the tokens of the same images.
            variant: Its name.
            seed: Its seed.
            num_workers: Processes that read videos.
        """
        settings = suite.settings(variant)
        return prepare(
            settings,
            self.splits,
            seed=seed,
            tokens=shared_tokens(settings, [suite.settings(name) for name in suite.variants]),
            cache_folder=self.features,
            num_workers=num_workers,
        )

    def _carried_out(self, run: Run, callbacks: Sequence[Any], *, progress: bool) -> RunResult:
        start = time.monotonic()
        measured, error, trace = None, None, None
        try:
            variant = self.prepared(self.suite, run.variant, seed=run.seed, num_workers=self.num_workers)
            measured = run_variant(variant, seed=run.seed, folder=self.out, callbacks=callbacks, progress=progress)
        except DiskFullError:  # no fault of the variant
            raise
        except Exception as problem:
            error, trace = f"{type(problem).__name__}: {problem}", traceback.format_exc()
        result = RunResult(**asdict(run), seconds=time.monotonic() - start, measured=measured, error=error)
        about = {"settings": self.suite.settings(run.variant).to_dict(), "suite": self.suite.name, "traceback": trace}
        top1 = {} if measured is None else {"top1": result.top1}
        write_json(self.path(run), {**asdict(result), **about, **top1})
        return result

    def _key(self, variant: str, seed: int, videos: str) -> str:
        settings = self.suite.settings(variant)
        material = {"format": FORMAT, "settings": {**settings.to_dict(), "weights": _weights_name(settings.weights)}}
        text = json.dumps({**material, "seed": seed, "videos": videos}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _weights_name(weights: str) -> str:
    """A word, or the digest of the file."""
    return weights if weights in {PRETRAINED, RANDOM} else _content(weights) or weights


def _videos_digest(splits: Splits) -> str:
    records = (*splits.train, *splits.val)
    contents = {path: _content(path) for path in {record.path for record in records}}
    videos = records_digest(records, ((record.path, contents[record.path] or "") for record in records))
    return hashlib.sha256(json.dumps([len(splits.train), splits.class_names, videos]).encode()).hexdigest()


def _content(path: str) -> str | None:
    """None where it is not here: an address, or a file that a run will count as unreadable."""
    try:
        return content_digest(path)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, kw_only=True)
class VariantCost:
    """How long a variant takes with one seed.

    Attributes:
        variant: The name of the variant.
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
    """What the runs that are left of a suite take on this machine.

    Attributes:
        variants: Each variant that is left.
        cache_seconds: Time to compute all tokens, which all variants and seeds share.
        cache_bytes: Size of all tokens.
        total_seconds: All of it.
        errors: Type and message, by the name of a variant that cannot be measured; it is not in the sums.
    """

    variants: tuple[VariantCost, ...]
    cache_seconds: float
    cache_bytes: int
    total_seconds: float
    errors: dict[str, str]


def grid_cost(grid: Grid) -> GridCost:
    """Measure a step of each variant and the reading of three videos, and multiply by what is left of the suite.

    Weights are random here: nothing is fetched to learn how long it takes. A variant that fails is noted, as in a run.
    """
    suite = replace(
        grid.suite.with_base({"weights": RANDOM}),
        variants={name: {**own, "weights": RANDOM} for name, own in grid.suite.variants.items()},
    )
    left = [run.variant for run in grid.runs if grid.done(run) is None]
    costs: dict[str, VariantCost] = {}
    caches: dict[SharedTokens, tuple[float, int]] = {}
    errors: dict[str, str] = {}
    for name in dict.fromkeys(left):
        try:
            prepared = grid.prepared(suite, name, seed=0, num_workers=0)
            if prepared.tokens is not None and prepared.tokens not in caches:
                caches[prepared.tokens] = _cache_cost(prepared)
            costs[name] = _variant_cost(name, prepared)
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


def _variant_cost(name: str, variant: Variant) -> VariantCost:
    """Time a step and a forward pass on noise."""
    settings, data = variant.settings, variant.data
    size = settings.batch_size * settings.repeats
    pixels = (settings.num_frames, 3, *data.preprocessing.input_size)
    shape = pixels if variant.source is None else token_shape(variant.source, data.preprocessing)
    trial = Trial(variant.classifier, torch.randn(size, *shape, device=best_device()), variant.precision, runs=ROUGHLY)
    reading = reading_seconds(_videos(data), ROUGHLY_READ) if variant.tokens is None else 0.0
    step_seconds = trial.step_seconds() + reading * settings.batch_size
    val_seconds = trial.eval_seconds() / size + reading
    num_train, num_val = len(data.records["train"]), len(data.records["val"])
    steps = settings.epochs * max(1, num_train // settings.batch_size)
    run_seconds = steps * step_seconds + num_val * val_seconds
    is_cached = variant.tokens is not None
    return VariantCost(variant=name, step_seconds=step_seconds, run_seconds=run_seconds, is_cached=is_cached)


def _cache_cost(variant: Variant) -> tuple[float, int]:
    """Seconds and bytes of all tokens."""
    source, data, settings = variant.source, variant.data, variant.settings
    if source is None or not isinstance(data, CachedDataModule):
        return 0.0, 0
    size = (settings.batch_size, settings.num_frames, 3, *data.preprocessing.input_size)
    noise = torch.randn(size, device=best_device())
    trial = Trial(
        source, noise, variant.precision, forward=lambda network, batch: network.read_tokens(batch), runs=ROUGHLY
    )
    seconds = trial.eval_seconds() / settings.batch_size + reading_seconds(_videos(data), ROUGHLY_READ)
    return data.num_clips * seconds, data.num_bytes(source)


def _videos(data: VideoDataModule) -> VideoDataset:
    return data._dataset("train", data.preprocessing, data.augmentation)
