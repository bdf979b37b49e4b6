"""``VideoDataModule``: a folder or a list of videos, made ready for Lightning's ``Trainer``.

    data = VideoDataModule("videos", preprocessing, batch_size=8)
    trainer.fit(VideoClassifier(network), datamodule=data)

A step receives a ``VideoBatch`` on its device, not normalised: a quarter of the bytes, and the classifier knows how. A
checkpoint holds the position in the epoch: training continues with the very next batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as lightning

from uniformerv2.data.annotations import VideoRecord, class_names, read_records
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import VideoDataset, balanced_weights
from uniformerv2.data.labels import class_names_of
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.splits import Split, by_split, check_labelled
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import Decoder

__all__ = ["VideoDataModule"]

Videos = str | Path | Sequence[VideoRecord]


class VideoDataModule(lightning.LightningDataModule):
    """Training, validation and test videos.

    Validation sees one view of a video, testing all that the preprocessing says.

    Args:
        train: Records; or what ``read_records`` reads: a folder per class, a list, a benchmark's annotations. What a
            path marks as ``val`` and ``test`` is used as such, where ``val`` and ``test`` are not given.
        preprocessing: What the network wants.
        val: Records or a path: what it marks as ``val``, or all of it where it marks nothing so. Names get the class
            numbers of ``train``.
        test: As ``val``.
        augmentation: Augmentation of the training videos; None is ``TrainAugmentation`` at the network's size.
        batch_size: Videos of a step, in each process.
        eval_batch_size: Videos of a validation or test step, with all their views; None is ``batch_size``.
        num_workers: See ``VideoLoader``; validation has as many of its own.
        balanced: Draw all classes equally often.
        weights: How often each training record is drawn.
        repeats: Augmented clips of each training video in a step.
        multi_label: Labels are multi-hot; None: where a training record has several.
        classes: Class names in head order, or the name of a label space.
        root: Where the relative paths of lists start.
        seed: Decides every draw of the data.
        decoder: See ``open_video``.
        timeout_seconds: See ``VideoDataset``.
        max_failed: Which part of the training videos may be unreadable.

    Attributes:
        records: Records of each split.
        class_names: In head order.
        sorts_names: The order is that of the sorted names, as nothing else told it.

    Raises:
        ValueError: An argument outside what is allowed, no training videos, or some without a class.
    """

    def __init__(
        self,
        train: Videos,
        preprocessing: Preprocessing,
        *,
        val: Videos | None = None,
        test: Videos | None = None,
        augmentation: TrainAugmentation | None = None,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int | None = None,
        balanced: bool = False,
        weights: Sequence[float] | None = None,
        repeats: int = 1,
        multi_label: bool | None = None,
        classes: str | Sequence[str] | None = None,
        root: str | Path | None = None,
        seed: int = 0,
        decoder: Decoder = "auto",
        timeout_seconds: float | None = None,
        max_failed: float = 0.01,
    ) -> None:
        super().__init__()
        if balanced and weights is not None:
            raise ValueError("balanced and weights both say how often a record is drawn; give one of them")
        self.preprocessing = preprocessing
        self.augmentation = augmentation or TrainAugmentation(image_size=preprocessing.image_size)
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.num_workers = num_workers
        self.repeats = repeats
        self.seed = seed
        self.decoder: Decoder = decoder
        self.timeout_seconds = timeout_seconds
        self.max_failed = max_failed
        self.records = _split(train, val, test, classes=classes, root=root)
        self.class_names = _names([record for part in self.records.values() for record in part], classes)
        named = any(record.label_name is not None for record in self.records["train"])
        self.sorts_names = classes is None and named
        self.weights = balanced_weights(self.records["train"]) if balanced else weights
        several = any(isinstance(record.label, tuple) for record in self.records["train"])
        self.multi_label = several if multi_label is None else multi_label
        if not self.multi_label:
            check_labelled(self.records["train"], what="training videos")
        self._loaders: list[VideoLoader] = []

    @property
    def num_classes(self) -> int:
        """Classes of the head."""
        return len(self.class_names)

    def train_dataloader(self) -> VideoLoader:
        """Augmented clips."""
        dataset = self._dataset("train", self.preprocessing, self.augmentation, self.repeats)
        return self._loader(dataset, batch_size=self.batch_size, weights=self.weights)

    def val_dataloader(self) -> VideoLoader | list[VideoLoader]:
        """One view of each validation video; an empty list without validation videos."""
        return self._eval_loader("val", dataclasses.replace(self.preprocessing, num_clips=1, num_crops=1))

    def test_dataloader(self) -> VideoLoader | list[VideoLoader]:
        """All views of each test video; of the validation videos where there are no test videos."""
        return self._eval_loader("test" if self.records["test"] else "val", self.preprocessing)

    def teardown(self, stage: str) -> None:
        """End the workers."""
        while self._loaders:
            self._loaders.pop().close()

    def _eval_loader(self, split: Split, preprocessing: Preprocessing) -> VideoLoader | list[VideoLoader]:
        if not self.records[split]:
            return []
        return self._loader(self._dataset(split, preprocessing), batch_size=self.eval_batch_size)

    def _dataset(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augmentation: TrainAugmentation | None = None,
        repeats: int = 1,
    ) -> VideoDataset:
        return VideoDataset(
            self.records[split],
            preprocessing,
            augmentation=augmentation,
            repeats=repeats,
            num_classes=self.num_classes if self.multi_label else None,
            seed=self.seed,
            decoder=self.decoder,
            timeout_seconds=self.timeout_seconds,
        )

    def _loader(self, dataset: VideoDataset, *, batch_size: int, weights: Sequence[float] | None = None) -> VideoLoader:
        loader = VideoLoader(
            dataset,
            batch_size=batch_size,
            num_workers=self._num_workers(dataset),
            weights=weights,
            max_failed=self.max_failed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )
        self._loaders.append(loader)
        return loader

    def _num_workers(self, dataset: VideoDataset) -> int | None:
        return self.num_workers


def _split(
    train: Videos,
    val: Videos | None,
    test: Videos | None,
    *,
    classes: str | Sequence[str] | None,
    root: str | Path | None,
) -> dict[Split, list[VideoRecord]]:
    """Records of each split; numbers of classes are those of ``train``.

    Raises:
        ValueError: There are no training videos, or some of an unknown split.
    """

    def read(videos: Videos, names: str | Sequence[str] | None, val_fraction: float | None) -> list[VideoRecord]:
        if not isinstance(videos, str | Path):
            return list(videos)
        return read_records(videos, classes=names, root=root, val_fraction=val_fraction)

    whole = read(train, classes, None if val is None else 0.0)
    records: dict[Split, list[VideoRecord]] = {"train": whole, "val": [], "test": []}
    if isinstance(train, str | Path):
        records = by_split(whole, train)
    if not records["train"]:
        raise ValueError(f"{train} has no training videos; give the list or the folder that has them")
    known = class_names(whole) if classes is None else classes
    splits: tuple[tuple[Split, Videos | None], ...] = (("val", val), ("test", test))
    for split, videos in splits:
        if videos is not None:
            found = read(videos, known, 0.0)
            records[split] = [record for record in found if record.split == split] or found
    return records


def _names(records: Sequence[VideoRecord], classes: str | Sequence[str] | None) -> tuple[str, ...]:
    return class_names(records) if classes is None else class_names_of(classes).names
