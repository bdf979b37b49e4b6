"""``VideoDataset``: records -> clips by number, and ``VideoBatch``, what a training or test step receives.

    dataset = VideoDataset(read_records("videos", split="train"), preprocessing, augmentation=TrainAugmentation())
    for batch in VideoLoader(dataset, batch_size=8):
        logits = model(preprocessing.normalize(batch.video))

An item is a function of the dataset's seed and of its ``SampleKey`` (index, epoch, draw) alone: the same clip in any
number of workers, and after a resume.

Letters: B samples of a batch, V views, T frames, C colours, h x w of the network's input.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from uniformerv2.core.optional import require
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import Candidate, ClipReader, SampleKey, TooManyFailuresError, VideoFailure, VideoSample
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import Decoder

if TYPE_CHECKING:  # the augmentation brings torchvision and, with it, torch's compiler; testing needs neither
    from matplotlib.figure import Figure

    from uniformerv2.data.augmentation import TrainAugmentation

__all__ = [
    "SampleKey",
    "TooManyFailuresError",
    "VideoBatch",
    "VideoDataset",
    "VideoFailure",
    "VideoSample",
    "balanced_weights",
    "collate",
]

Item = TypeVar("Item")
Views = Literal["stacked", "separate"]


@dataclass(frozen=True)
class VideoBatch:
    """Samples of a batch; see ``VideoSample``.

    Attributes:
        video: [B, T, C, h, w], or [B, V, T, C, h, w] with stacked views; 0 to 255, not normalised.
        label: Class numbers [B], or multi-hot [B, num_classes].
        index: Numbers of the records shown, [B].
        readable: [B]; where False the video is all zeros, and its score counts as failed.
        failures: What could not be read, of the whole batch.
        duration_seconds: Duration of each sample, as in ``VideoSample``.
    """

    video: Tensor
    label: Tensor
    index: Tensor
    readable: Tensor
    failures: tuple[VideoFailure, ...] = ()
    duration_seconds: tuple[float | None, ...] = ()

    def to(self, device: torch.device | str) -> Self:
        """Copy the batch to a device; from pinned memory to a GPU without waiting."""
        non_blocking = torch.device(device).type == "cuda"
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy the batch to memory that a GPU reads directly; a ``DataLoader`` calls it."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return dataclasses.replace(self, **changed)

    def __repr__(self) -> str:
        """Shapes instead of pixels."""
        broken = "" if self.readable.all() else f", {int((~self.readable).sum())} unreadable"
        return f"VideoBatch({self.video.dtype} {list(self.video.shape)}, label={self.label.tolist()}{broken})"


class VideoDataset(Dataset[VideoSample | list[VideoSample]]):
    """Records by number. With an ``augmentation`` it trains, without one it tests.

    ============  =======================================  ==========================================
    what          training                                 testing
    ============  =======================================  ==========================================
    frames        drawn                                    the published ones
    an item       a clip; with repeats a list of clips     all views, or one view
    broken video  noted, and another record is drawn       noted, zeros, ``readable`` is False
    ============  =======================================  ==========================================

    A video of which the decoding takes longer than ``timeout_seconds`` counts as broken; the worker goes on, does not
    try it again, and loses the thread that hangs. A decoder that crashes takes the worker with it: ``uniformerv2 data
    check`` finds such files.

    Args:
        records: What a reader of ``uniformerv2.data.annotations`` returns. Workers share one packed copy.
        preprocessing: What the network wants.
        augmentation: Makes this a training set; None makes it a test set.
        num_clips: Clips per video in testing; None is the preprocessing's own number.
        num_crops: Crops per clip in testing, 1 or 3; None is the preprocessing's own number.
        views: In testing, ``"stacked"`` gives a video's views in one item, ``"separate"`` makes each of them an item.
        repeats: Clips per video in training, each with its own draws, from one decode (repeated augmentation).
        num_classes: Length of multi-hot labels; needed where a record has several labels.
        seed: Decides every random draw; 0 or above.
        decoder: See ``open_video``.
        timeout_seconds: Time limit per video; None is the limit ``seconds_per_video``.

    Raises:
        ValueError: No records; several labels without ``num_classes``; labels beyond it; an argument not allowed.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        preprocessing: Preprocessing,
        *,
        augmentation: TrainAugmentation | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        views: Views = "stacked",
        repeats: int = 1,
        num_classes: int | None = None,
        seed: int = 0,
        decoder: Decoder = "auto",
        timeout_seconds: float | None = None,
    ) -> None:
        if views not in get_args(Views):
            raise ValueError(f"views is {views!r}; it must be 'stacked' or 'separate'")
        counts = {"num_clips": num_clips, "num_crops": num_crops}
        given: dict[str, Any] = {name: count for name, count in counts.items() if count is not None}
        if augmentation is not None and (given or views != "stacked"):
            raise ValueError("num_clips, num_crops and views are for testing; training clips are drawn: give repeats")
        check_labels(records, num_classes)
        self.records = PackedRecords(records)
        self.reader = ClipReader(
            preprocessing=dataclasses.replace(preprocessing, **given),
            augmentation=augmentation,
            repeats=repeats,
            num_classes=num_classes,
            seed=seed,
            decoder=decoder,
            timeout_seconds=timeout_seconds,
        )
        self.views = views

    def __len__(self) -> int:
        return len(self.records) * (self.reader.num_views if self.views == "separate" else 1)

    def __getitem__(self, key: SampleKey | int) -> VideoSample | list[VideoSample]:
        """The item of a record, or of a view: ``index`` is then record * V + view.

        Args:
            key: An index alone is of epoch 0.

        Returns:
            One sample; in training with repeats a list of them.

        Raises:
            IndexError: There is no such item.
            TooManyFailuresError: Training drew ten records in a row that cannot be read.
        """
        key = key if isinstance(key, SampleKey) else SampleKey(key)
        if not 0 <= key.index < len(self):
            raise IndexError(f"there is no item {key.index}: the {len(self)} items are 0 to {len(self) - 1}")
        if self.reader.augmentation is not None:
            samples = self.reader.first_readable(self._candidates(key), key=key)
            return samples if self.reader.repeats > 1 else samples[0]
        index, view = key.index, None
        if self.views == "separate":
            index, view = divmod(key.index, self.reader.num_views)
        _, record, file = self._candidate(index)
        return self.reader.test(record, index=index, view=view, file=file)

    def _view_names(self, key: SampleKey | int) -> list[str]:
        """What the rows of a plot are called."""
        if self.reader.augmentation is not None:
            return [f"clip {number}" for number in range(1, self.reader.repeats + 1)]
        num_crops, num_views = self.reader.preprocessing.num_crops, self.reader.num_views
        names = [f"clip {view // num_crops + 1}, crop {view % num_crops + 1}" for view in range(num_views)]
        number = key.index if isinstance(key, SampleKey) else key
        return [names[number % num_views]] if self.views == "separate" else names

    def _candidate(self, index: int) -> Candidate:
        return index, self.records[index], None

    def _candidates(self, key: SampleKey) -> Iterator[Candidate]:
        """The record itself, then any others."""
        rng = np.random.default_rng((self.reader.seed, key.epoch, key.index, key.draw))
        index = key.index
        while True:
            yield self._candidate(index)
            index = int(rng.integers(len(self.records)))

    def __repr__(self) -> str:
        """How many records there are, and what becomes of them."""
        reader = self.reader
        shape = [reader.preprocessing.num_frames, 3, *reader.preprocessing.input_size]
        if reader.augmentation is not None:
            items = f"training, {reader.repeats} clip{'s' * (reader.repeats > 1)} {shape} of each"
        else:
            items = f"testing, {reader.num_views} view{'s' * (reader.num_views > 1)} {shape} of each, {self.views}"
        return f"{type(self).__name__}({len(self.records)} records; {items})"

    def plot(self, key: SampleKey | int, *, num_frames: int = 8) -> Figure:
        """Show an item as the network will see it: a row of frames for each clip or view, named at its left.

        Args:
            key: Number of the item, or its ``SampleKey``.
            num_frames: Frames shown per clip at most, evenly spread.

        Returns:
            A matplotlib figure; needs the extra ``plot``.
        """
        figure_module = require("matplotlib.figure", extra="plot")
        item = self[key]
        samples = item if isinstance(item, list) else [item]
        clips = torch.cat([sample.video.reshape(-1, *sample.video.shape[-4:]) for sample in samples])
        record = self.records[samples[0].index]
        shown = np.linspace(0, clips.shape[1] - 1, min(num_frames, clips.shape[1])).round().astype(int)
        figure: Figure = figure_module.Figure(figsize=(1.5 * len(shown), 1.5 * len(clips) + 0.4), layout="constrained")
        rows = figure.subplots(len(clips), len(shown), squeeze=False)
        for row, name, clip in zip(rows, self._view_names(key), clips, strict=True):
            for axes, number in zip(row, shown, strict=True):
                axes.imshow(clip[number].permute(1, 2, 0).round().to(torch.uint8).numpy())
                axes.set(xticks=[], yticks=[], frame_on=False)
            row[0].set_ylabel(name, fontsize=8)
        names = ", ".join(record.label_names or map(str, record.labels)) or "no class"
        broken = "" if samples[0].readable else " (cannot be read)"
        figure.suptitle(f"{Path(record.path).name}: {names}{broken}", fontsize=9)
        return figure


def collate(samples: Sequence[VideoSample | list[VideoSample]]) -> VideoBatch:
    """Items -> batch. Clips of one video come B places apart, so that mixing neighbours does not mix it with itself.

    >>> sample = VideoSample(torch.zeros(2, 3, 4, 4), torch.tensor(1), index=5)
    >>> collate([sample, sample]).video.shape
    torch.Size([2, 2, 3, 4, 4])
    """
    repeats = [[item] if isinstance(item, VideoSample) else item for item in samples]
    flat = [sample for group in zip(*repeats, strict=True) for sample in group]
    return VideoBatch(
        video=default_collate([sample.video for sample in flat]),  # a worker stacks right into shared memory
        label=default_collate([sample.label for sample in flat]),
        index=torch.tensor([sample.index for sample in flat]),
        readable=torch.tensor([sample.readable for sample in flat]),
        failures=tuple(chain.from_iterable(sample.failures for sample in flat)),
        duration_seconds=tuple(sample.duration_seconds for sample in flat),
    )


def balanced_weights(records: Sequence[VideoRecord]) -> list[float]:
    """A weight per record with which all classes are drawn equally often: 1 / records of its class.

    A record of several classes has the weight of its rarest, one without a label that of a class of its own.

    >>> balanced_weights([VideoRecord("a", label=0), VideoRecord("b", label=0), VideoRecord("c", label=1)])
    [0.5, 0.5, 1.0]
    """
    counts: dict[int, int] = {}
    for record in records:
        for label in record.labels:
            counts[label] = counts.get(label, 0) + 1
    return [1 / min((counts[label] for label in record.labels), default=1) for record in records]


def check_labels(records: Sequence[VideoRecord], num_classes: int | None) -> None:
    """Refuse what would fail in the middle of an epoch.

    Raises:
        ValueError: No records, several labels without ``num_classes``, or a label beyond it.
    """
    if not records:
        raise ValueError("There are no records; a dataset needs at least one")
    for record in records:
        if num_classes is None and isinstance(record.label, tuple):
            raise ValueError(f"{record.path} has several labels, {record.label}; give num_classes")
        worst = max(record.labels, default=0)
        if num_classes is not None and worst >= num_classes:
            raise ValueError(
                f"{record.path} has label {worst}; num_classes={num_classes} allows 0 to {num_classes - 1}"
            )


class PackedRecords(Sequence[Item]):
    """Records as bytes in two tensors, which worker processes share: a million cost 200 MB once, not in each worker.

    Args:
        records: At least one.
    """

    def __init__(self, records: Sequence[Item]) -> None:
        packed = [pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL) for record in records]
        self._ends = torch.tensor(list(accumulate(map(len, packed))))
        self._bytes = torch.frombuffer(bytearray().join(packed), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """Unpack; nothing but this process and its parent wrote the bytes."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = int(self._ends[number - 1]) if number else 0
        record: Item = pickle.loads(self._bytes[start : int(self._ends[number])].numpy().tobytes())
        return record
