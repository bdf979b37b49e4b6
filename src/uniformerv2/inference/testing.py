"""A test from its beginning to its dump: in one process or several, interrupted and resumed.

    run = prepare_test("model", "videos.csv", dump="scores.pkl", num_clips=4, num_crops=3)
    for video in run.videos():
        ...
    evaluation = run.finish()

Process r of W has the videos r, r + W, r + 2 W, ...: none twice, none missing, whatever the remainder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.devices import best_device
from uniformerv2.core.messages import UsageError, usage_errors
from uniformerv2.core.processes import Place
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.named_videos import (
    TestVideos,
    in_head_order,
    read_classes,
    read_test_videos,
    recipe_views,
    subset,
)
from uniformerv2.evaluation.dumps import check_dump_path, read_dump, write_dump
from uniformerv2.evaluation.journal import ScoreJournal, differences
from uniformerv2.evaluation.scores import Evaluation, VideoScores
from uniformerv2.inference.engines import EngineName, Network, Precision, load_network
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.scoring import Average, VideoScorer, decoding_workers
from uniformerv2.media.decoding import Decoder
from uniformerv2.zoo.exported import ExportedNetwork

__all__ = ["TestRun", "failures_unlogged", "prepare_test"]

PATIENCE_SECONDS: Final = 3600.0
"""How long the first process waits for a sign of life of the others."""


class TestRun:
    """One test, or the share of it that one of several processes has.

    Args:
        scorer: What scores the videos.
        records: All of them, the same in every process.
        dump: What to write; a stopped test continues from the journal beside it. None: nothing is written.
        rank: Number of this process.
        world_size: Processes. They meet in the journal, so that there must be a ``dump``, on a disk that all share.
        info: What shall stand in the dump beside the scores, in plain values.

    Attributes:
        num_videos: Videos of this process's share.
        num_done: How many of these an earlier run has scored.
        tested: Where the videos come from, and how their classes were matched; None where records were given.

    Raises:
        ValueError: A label beyond the classes; several processes without a dump; a dump or a journal of another test.
    """

    __test__ = False  # pytest takes a class of this name for tests

    def __init__(
        self,
        scorer: VideoScorer,
        records: Sequence[VideoRecord],
        *,
        dump: str | Path | None = None,
        rank: int = 0,
        world_size: int = 1,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with world_size={world_size} it must be from 0 to {world_size - 1}.")
        if world_size > 1 and dump is None:
            raise ValueError(
                "Several processes meet in the journal of a dump: give one, on a disk that all of them see."
            )
        _check_labels(records, len(scorer.predictor.class_names))
        self.scorer = scorer
        self.records = records
        self.tested: TestVideos | None = None
        self.rank = rank
        self.dump = None if dump is None else check_dump_path(dump, view_scores=scorer.keep_view_scores)
        self.fingerprint = scorer.fingerprint(records)
        self.info = dict(info or {})
        self.journal = None if self.dump is None else ScoreJournal(self.dump, self.fingerprint, rank=rank)
        self._found = {} if self.journal is None else self.journal.read()
        self._finished = self._earlier()  # after the journal was read, which is removed only when there is a dump
        share = range(rank, len(records), world_size)
        self.num_videos = len(share)
        self._left = [index for index in share if index not in self._found and self._finished is None]
        self.num_done = self.num_videos - len(self._left)

    @property
    def is_finished(self) -> bool:
        """Whether the dump was there already."""
        return self._finished is not None

    def videos(self) -> Iterator[VideoScores]:
        """Score what is left of the share.

        Yields:
            Each video, when it is safe in the journal.
        """
        if not self._left:
            return
        with self.journal or nullcontext() as journal:
            for video in self.scorer(self.records, self._left):
                if journal is not None:
                    journal.add(video)
                else:
                    self._found[video.index] = video
                yield video

    def finish(self, *, patience_seconds: float = PATIENCE_SECONDS) -> Evaluation | None:
        """Wait for the other processes, and write the dump.

        Args:
            patience_seconds: How long the others may give no sign of life.

        Returns:
            The scores of all videos, in the process of rank 0; None in the others.
        """
        if self.rank > 0:
            return None
        if self._finished is not None:
            return self._finished
        if self.journal is not None:
            self._found = self.journal.wait(len(self.records), patience_seconds=patience_seconds)
        preprocessing = self.scorer.predictor.preprocessing
        evaluation = Evaluation(
            videos=tuple(self._found[index] for index in range(len(self.records))),
            class_names=self.scorer.predictor.class_names,
            is_multi_label=self.scorer.is_multi_label,
            num_clips=preprocessing.num_clips,
            num_crops=preprocessing.num_crops,
            info={**self.info, "fingerprint": self.fingerprint},
        )
        if self.dump is not None and self.journal is not None:
            write_dump(self.dump, evaluation)
            self.journal.remove()
        return evaluation

    def _earlier(self) -> Evaluation | None:
        """What a run that came to its end has dumped.

        Raises:
            ValueError: It was another test.
        """
        if self.dump is None or not self.dump.exists():
            return None
        before = read_dump(self.dump)
        now = json.loads(json.dumps(self.fingerprint))
        if before.info.get("fingerprint") != now:
            changed = differences(before.info.get("fingerprint", {}), now)
            raise ValueError(f"{self.dump} is the dump of another test: {changed}. Give another --dump, or delete it.")
        return before


def prepare_test(
    model: str | Path | Network,
    source: str | Path,
    *,
    data: str | Path | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    only_classes: Sequence[str] | None = None,
    max_videos: int | None = None,
    classes: str | Sequence[str] | None = None,
    head_classes: str | Sequence[str] | None = None,
    preprocessing: Any = None,
    num_clips: int | None = None,
    num_crops: int | None = None,
    average: Average = "softmax",
    is_multi_label: bool | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    engine: EngineName = "auto",
    decoder: Decoder = "auto",
    views_per_batch: int | None = None,
    num_workers: int | None = None,
    keep_view_scores: bool = False,
    dump: str | Path | None = None,
    place: Place | None = None,
) -> TestRun:
    """Read the videos and the network of a test, and match their classes: what ``uniformerv2 test`` does.

    Args:
        model: What ``Predictor`` takes.
        source: A list or a folder; with a recipe its name.
        data: See ``read_test_videos``, as ``root``, ``split``, ``recipe`` and ``classes``.
        root: See there.
        split: See there.
        recipe: See there.
        only_classes: Leave out the videos of other classes.
        max_videos: Test on the first of them only.
        classes: See there.
        head_classes: Names of the network's classes, where it does not know them: a label space, a file, or the names.
        preprocessing: Used instead of the network's own; see ``Predictor``.
        num_clips: Clips of a video; None: those of the recipe, else of the network.
        num_crops: Crops of a clip; None: likewise.
        average: See ``VideoScorer``.
        is_multi_label: A video may have several classes; None: where the list or the network says so.
        device: See ``Predictor``; with several processes on a machine "auto" is a GPU for each of them.
        precision: See ``Predictor``.
        engine: See ``Predictor``.
        decoder: See ``Predictor``.
        views_per_batch: See ``Predictor``.
        num_workers: Processes that decode, for each device; None: see ``decoding_workers``.
        keep_view_scores: Keep the scores of each view in the dump.
        dump: File to write.
        place: Which of several processes this one is; None: it is the only one.

    Raises:
        UsageError: There are no such videos or no such network, or they do not fit each other.
    """
    place = place or Place()
    with usage_errors():
        network = load_network(model) if isinstance(model, str | Path) else model
    if head_classes is not None:
        network = _name_head(network, head_classes)
    found = read_test_videos(source, data=data, root=root, classes=classes, split=split, recipe=recipe)
    records, matched = in_head_order(
        subset(found.records, only_classes=only_classes, max_videos=max_videos), network.info.class_names
    )
    with usage_errors():
        predictor = Predictor(
            network,
            preprocessing,
            device=_own_device(device, place),
            precision=precision,
            engine=engine,
            decoder=decoder,
            views_per_batch=views_per_batch,
        )
        own = predictor.preprocessing
        views = {"num_clips": own.num_clips, "num_crops": own.num_crops, **recipe_views(found.recipe, own)}
        num_clips, num_crops = num_clips or views["num_clips"], num_crops or views["num_crops"]
        predictor.preprocessing = replace(own, num_clips=num_clips, num_crops=num_crops)
        if num_workers is None:
            num_workers = decoding_workers(predictor.device, num_devices=place.local_size)
        if is_multi_label is None:
            has_several = any(isinstance(record.label, tuple) for record in records)
            is_multi_label = predictor.is_multi_label or has_several
        scorer = VideoScorer(
            predictor,
            average=average,
            is_multi_label=is_multi_label,
            keep_view_scores=keep_view_scores,
            num_workers=num_workers,
        )
        run = TestRun(scorer, records, dump=dump, rank=place.rank, world_size=place.world_size)
    run.tested = replace(found, matched=matched)
    run.info = {
        "checkpoint": str(model) if isinstance(model, str | Path) else "",
        "source": network.info.source,
        "data": f"{found.source} ({found.split})",
        "preprocessing": predictor.preprocessing.to_dict(),
        "average": average,
        "precision": predictor.precision,
    }
    return run


@contextmanager
def failures_unlogged() -> Iterator[None]:
    """Keep the loader from warning of videos whose errors are listed at the end."""
    logger = logging.getLogger("uniformerv2.data.loader")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _name_head(network: Network, classes: str | Sequence[str]) -> Network:
    names = read_classes(classes)
    if len(names) != network.num_classes:
        raise UsageError(
            f"--head-classes {classes} has {len(names)} names, the checkpoint {network.num_classes} classes."
        )
    info = replace(network.info, class_names=names)
    if isinstance(network, ExportedNetwork):
        return replace(network, info=info)
    network.info = info
    return network


def _own_device(device: str, place: Place) -> str:
    """A GPU for each process of a machine. Threads stay as many: on a CPU the last bit of a score depends on them."""
    if place.local_size > 1 and device == "auto" and best_device().type == "cuda":
        import torch

        return f"cuda:{place.local_rank % torch.cuda.device_count()}"
    return device


def _check_labels(records: Sequence[VideoRecord], num_classes: int) -> None:
    if not records:
        raise ValueError("There are no videos to test on.")
    for record in records:
        if any(label >= num_classes for label in record.labels):
            raise ValueError(
                f"{record.path} has the label {record.label}, the network has {num_classes} classes: 0 to "
                f"{num_classes - 1} are allowed."
            )
