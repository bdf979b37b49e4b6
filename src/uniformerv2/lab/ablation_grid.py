"""All runs of a suite: what is done already, what is left, and what it will cost.

::

    OUT/runs/VARIANT_seed_0_KEY.json    a result, or the error that a run ended with
    OUT/features                        tokens of a frozen image ViT, shared by all runs; see ``feature_cache``

KEY is of the settings, the seed, and what is in the weights file and in the videos: where one of them changes, it is
another run.
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
from re import search
from typing import Any, Final, Literal

from uniformerv2.core.files import DiskFullError, lock_folder
from uniformerv2.data.annotations import VideoRecord, records_digest
from uniformerv2.data.annotations.held_out import GROUP_PATTERNS
from uniformerv2.data.annotations.record import content_digest
from uniformerv2.data.splits import Splits, read_splits
from uniformerv2.lab.ablation import PRETRAINED, RANDOM, Suite
from uniformerv2.lab.ablation_run import Measured, prepare, run_variant, shared_tokens
from uniformerv2.lab.arrow_of_time import DIRECTIONS, both_directions
from uniformerv2.zoo.files import read_json, write_json

__all__ = ["Grid", "Run", "RunResult", "Task", "read_task", "source_of"]

Task = Literal["classes", "arrow_of_time"]

FORMAT: Final = 2
"""Counts the changes of what a run means."""


@dataclass(frozen=True)
class Run:
    """One variant with one seed.

    Attributes:
        variant: Its name.
        seed: Its seed.
        key: 64 hex digits.
    """

    variant: str
    seed: int
    key: str

    @property
    def file_name(self) -> str:
        """Of its result."""
        return f"{self.variant}_seed_{self.seed}_{self.key[:12]}.json"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        variant: Its name.
        seed: Its seed.
        key: 64 hex digits.
        seconds: It took so long.
        measured: None where it failed.
        error: Type and message; None where it did not fail.
    """

    variant: str
    seed: int
    key: str
    seconds: float
    measured: Measured | None = None
    error: str | None = None

    @property
    def top1(self) -> float:
        """Part of the validation samples, 0 to 1; NaN where it failed."""
        hits = self.measured.hits if self.measured else ()
        return sum(hits) / len(hits) if hits else float("nan")


def read_task(data: str | Path, task: Task, *, limit: int | None = None) -> Splits:
    """The videos of a folder or a list, as the task has them.

    Args:
        data: See ``read_splits``; its own division into training and validation holds for both tasks.
        task: "arrow_of_time": each video forward and reversed, whatever its class.
        limit: So many videos of each split, from all over it.

    Raises:
        ValueError: Videos with several classes each.
    """
    splits = read_splits(data)
    if splits.is_multi_label and task == "classes":
        raise ValueError("An ablation measures top-1, but videos of these data have several classes each.")
    train, val = (_spread(records, limit) for records in (splits.train, splits.val))
    if task == "classes":
        return replace(splits, train=tuple(train), val=tuple(val), test=())
    directed = (tuple(both_directions(records)) for records in (train, val))
    return replace(splits, train=next(directed), val=next(directed), test=(), class_names=DIRECTIONS)


def source_of(record: VideoRecord) -> str:
    """What the clips of one source share; of a clip of its own, its path."""
    path = Path(record.path)
    found = next((match for pattern in GROUP_PATTERNS if (match := search(pattern, path.stem))), None)
    return found.group() if found else record.path


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A suite on its videos.

    Attributes:
        suite: What is asked.
        splits: From ``read_task``.
        out: Folder of everything that is written.
        only: Variants to run; empty: all.
        num_workers: Processes that read videos.
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
        """File of the result of a run."""
        return self.out / "runs" / run.file_name

    def done(self, run: Run) -> RunResult | None:
        """The result of a run that ended well; None where it is yet to be run."""
        if not self.path(run).is_file():
            return None
        content = read_json(self.path(run))
        if content["error"] is not None:
            return None
        measured = Measured(**{**content["measured"], "hits": tuple(map(bool, content["measured"]["hits"]))})
        return RunResult(
            **{**{name: content[name] for name in ("variant", "seed", "key", "seconds")}, "measured": measured}
        )

    def carry_out(
        self,
        *,
        callbacks: Callable[[Run], Sequence[Any]] = lambda run: (),
        on_start: Callable[[Run], None] = lambda run: None,
        on_clips: Callable[[int], None] = lambda count: None,
    ) -> Iterator[RunResult]:
        """Run what is not done yet; a run that fails is noted, and the others go on.

        Args:
            callbacks: For Lightning, of each run.
            on_start: Told which run begins.
            on_clips: See ``run_variant``.

        Yields:
            The result of each run, also of those that were done before.

        Raises:
            FolderInUseError: Another process runs a suite in this folder.
        """
        with lock_folder(self.out, what="An ablation"):
            for run in self.runs:
                done = self.done(run)
                if done is None:
                    on_start(run)
                    done = self._carried_out(run, callbacks(run), on_clips)
                yield done

    def _carried_out(self, run: Run, callbacks: Sequence[Any], on_clips: Callable[[int], None]) -> RunResult:
        start = time.monotonic()
        measured, error, trace = None, None, None
        try:
            measured = self._measured(run, callbacks, on_clips)
        except DiskFullError:  # no fault of the variant
            raise
        except Exception as problem:
            error, trace = f"{type(problem).__name__}: {problem}", traceback.format_exc()
        result = RunResult(
            variant=run.variant,
            seed=run.seed,
            key=run.key,
            seconds=time.monotonic() - start,
            measured=measured,
            error=error,
        )
        settings = self.suite.settings(run.variant).to_dict()
        content = {**asdict(result), "settings": settings, "suite": self.suite.name, "traceback": trace}
        if measured is not None:
            content["measured"]["hits"] = [int(hit) for hit in measured.hits]
            content["top1"] = result.top1
        write_json(self.path(run), content)
        return result

    def _measured(self, run: Run, callbacks: Sequence[Any], on_clips: Callable[[int], None]) -> Measured:
        settings = self.suite.settings(run.variant)
        every = [self.suite.settings(name) for name in self.suite.variants]
        prepared = prepare(
            settings,
            self.splits,
            seed=run.seed,
            tokens=shared_tokens(settings, every),
            cache_folder=self.features,
            num_workers=self.num_workers,
        )
        return run_variant(
            prepared, seed=run.seed, epochs=settings.epochs, folder=self.out, callbacks=callbacks, on_clips=on_clips
        )

    def _key(self, variant: str, seed: int, videos: str) -> str:
        settings = self.suite.settings(variant)
        material = {"format": FORMAT, "settings": {**settings.to_dict(), "weights": _weights_name(settings.weights)}}
        text = json.dumps({**material, "seed": seed, "videos": videos}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _weights_name(weights: str) -> str:
    """A word, or what is in the file."""
    if weights in {PRETRAINED, RANDOM} or not Path(weights).is_file():
        return weights
    with Path(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _spread(records: Sequence[VideoRecord], limit: int | None) -> Sequence[VideoRecord]:
    if limit is None or limit >= len(records):
        return records
    return [records[number * len(records) // limit] for number in range(limit)]
