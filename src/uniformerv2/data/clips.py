"""From a record or a path to its clips: the one path from disk to tensor, for training, testing, predicting and shards.

Letters: K clips, T frames, C colours, H x W pixels of a frame, h x w of the network's input, V views (K times crops).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from uniformerv2.core.limits import get_limits
from uniformerv2.core.watch import Watch
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import Decoder, VideoError, VideoErrorKind, VideoReader, open_video
from uniformerv2.media.frame_sources import torchcodec_decoder
from uniformerv2.media.video_error import check_limit

if TYPE_CHECKING:  # brings torchvision, which takes as long to import as torch; testing needs none of it
    from uniformerv2.data.augmentation import Label, TrainAugmentation

__all__ = [
    "Candidate",
    "ClipReader",
    "SampleKey",
    "TooManyFailuresError",
    "VideoFailure",
    "VideoSample",
]

Result = TypeVar("Result")
FileOf = Callable[[], AbstractContextManager[str]]
Candidate = tuple[int, VideoRecord, FileOf | None]
"""Number of a record, the record, and what brings the video to a file where its path is none."""

MAX_ATTEMPTS: Final = 10
"""Records drawn for one sample. Where one in a hundred is broken, so many in a row have a chance of 1e-20."""


class TooManyFailuresError(RuntimeError):
    """More videos cannot be read than is allowed."""


@dataclass(frozen=True)
class SampleKey:
    """Which sample: together with the dataset's seed it decides every random draw.

    Attributes:
        index: Number of the record (of the view, where every view is an item).
        epoch: Number of the epoch, from 0.
        draw: How often the record came before in this epoch, where sampling repeats records.
    """

    index: int
    epoch: int = 0
    draw: int = 0


@dataclass(frozen=True)
class VideoFailure:
    """A video that could not be read.

    Attributes:
        index: Number of its record.
        path: The file, or the shard and the member of it.
        kind: What is wrong, as in ``VideoError``.
        detail: What was found.
        attempt: 0 for the record that was drawn, 1 and more for those drawn in its place.
    """

    index: int
    path: str
    kind: VideoErrorKind
    detail: str
    attempt: int = 0

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.detail}"


@dataclass(frozen=True)
class VideoSample:
    """A video, or one clip of it, made ready for the network: the item of a dataset.

    Attributes:
        video: [T, C, h, w] in training, [V, T, C, h, w] in testing; 0 to 255, not normalised. uint8, except where
            the test protocol does not round: then float32.
        label: Class number; -1, as a tensor knows no None, where there is none. Multi-label: one float per class, 0.0
            or 1.0.
        index: Number of the record that is shown; in training not always the one that was drawn.
        readable: False in testing where the video cannot be read; it is all zeros then.
        failures: What could not be read on the way.
        duration_seconds: Duration of the record's segment, in testing; None where nothing tells it.
        frame_indices: Frames of each clip, K tuples of T, in testing.
        decode_seconds: Time to open the video and to decode, in testing.
        preprocess_seconds: Time to resize and to crop, in testing.
    """

    video: Tensor
    label: Tensor
    index: int
    readable: bool = True
    failures: tuple[VideoFailure, ...] = ()
    duration_seconds: float | None = None
    frame_indices: tuple[tuple[int, ...], ...] = ()
    decode_seconds: float = 0.0
    preprocess_seconds: float = 0.0

    def __repr__(self) -> str:
        """Shapes instead of pixels."""
        broken = "" if self.readable else ", readable=False"
        shown = f"{self.video.dtype} {list(self.video.shape)}, label={self.label.tolist()}, index={self.index}"
        return f"VideoSample({shown}{broken})"


@dataclass(frozen=True, kw_only=True)
class ClipReader:
    """Reads records: decode, sample, augment or crop. Each video is opened once, and under a time limit.

    In testing one frame at a time is held at its full size; in training the frames of a clip are, as what changes
    whole frames comes before the crop (``bytes_per_request`` limits them).

    Attributes:
        preprocessing: What the network wants; in testing also how many clips and crops.
        augmentation: Training where given, testing where None.
        repeats: Augmented clips from one decode, in training.
        num_classes: Makes labels multi-hot vectors of this length; None: class numbers.
        seed: Decides every random draw; 0 or above.
        decoder: See ``open_video``. One thread decodes.
        timeout_seconds: How long one video may take to read; None: the limit ``seconds_per_video``.
    """

    preprocessing: Preprocessing
    augmentation: TrainAugmentation | None = None
    repeats: int = 1
    num_classes: int | None = None
    seed: int = 0
    decoder: Decoder = "auto"
    timeout_seconds: float | None = None
    _hung: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _watch: Watch = field(default_factory=Watch, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0")
        if self.decoder == "torchcodec":
            torchcodec_decoder()  # said here, not for each video by a worker process
        if self.timeout_seconds is not None and not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds is {self.timeout_seconds}; it must be above 0, or None")
        if self.repeats < 1 or (self.repeats > 1 and self.augmentation is None):
            raise ValueError(f"repeats is {self.repeats}; it must be at least 1, and more only with an augmentation")
        if self.augmentation is None:
            return
        size = self.augmentation.image_size
        if (size, size) != self.preprocessing.input_size and size != self.preprocessing.input_size:
            wanted = self.preprocessing.image_size
            raise ValueError(f"The augmentation's image_size is {size}, the preprocessing's {wanted}; make them equal")

    @property
    def seconds_per_video(self) -> float:
        """The time limit in force."""
        return self.timeout_seconds or get_limits().seconds_per_video

    @property
    def num_views(self) -> int:
        """V in testing."""
        return self.preprocessing.num_clips * self.preprocessing.num_crops

    def first_readable(self, candidates: Iterable[Candidate], *, key: SampleKey) -> list[VideoSample]:
        """Train on the first of a few records that can be read.

        Args:
            candidates: The first is the one that was drawn.
            key: Decides the draws, whichever record is shown.

        Returns:
            One sample per repeat; the first names what could not be read.

        Raises:
            TooManyFailuresError: None of the first ten can be read.
        """
        failures: list[VideoFailure] = []
        for attempt, (index, record, file) in zip(range(MAX_ATTEMPTS), candidates, strict=False):
            try:
                clips = self._train_clips(record, key, attempt, file)
            except VideoError as error:
                failures.append(VideoFailure(index, record.path, error.kind, error.detail, attempt))
                continue
            noted = [tuple(failures), *[()] * (len(clips) - 1)]
            return [
                VideoSample(clip, self._target(label), index, True, failed)
                for (clip, label), failed in zip(clips, noted, strict=True)
            ]
        listed = "\n".join(f"  {failure}" for failure in failures)
        raise TooManyFailuresError(f"{len(failures)} videos in a row cannot be read:\n{listed}")

    def test(
        self, record: VideoRecord, *, index: int = 0, view: int | None = None, file: FileOf | None = None
    ) -> VideoSample:
        """Read a record; where its video cannot be read, the sample says so, is all zeros, and is never replaced."""
        try:
            return self.read(record, index=index, view=view, file=file)
        except VideoError as error:
            failures = (VideoFailure(index, record.path, error.kind, error.detail),)
            return VideoSample(self._blank(view), self._target(record.label), index, False, failures)

    def read(
        self, video: VideoRecord | str | Path, *, index: int = 0, view: int | None = None, file: FileOf | None = None
    ) -> VideoSample:
        """All test views of a video or of a segment of it, or one of them.

        Args:
            video: A record, or a path.
            index: Number of the record.
            view: Gives [T, C, h, w]: the crops of the first clip come first. None: all, [V, T, C, h, w].
            file: What brings the video to a file, if its path is none.

        Returns:
            The sample.

        Raises:
            VideoError: The video cannot be read.
        """
        record = video if isinstance(video, VideoRecord) else VideoRecord(str(video))
        num_crops = self.preprocessing.num_crops
        wanted = slice(None) if view is None else slice(view // num_crops, view // num_crops + 1)

        def read(reader: VideoReader, start: int, stop: int) -> VideoSample:
            clips = self._in_order(record, self.preprocessing.indices(stop - start, start=start)[wanted])
            pixels, seconds = self._resized(reader, clips)
            return VideoSample(
                pixels if view is None else pixels[view % num_crops],
                self._target(record.label),
                index,
                duration_seconds=reader.segment_seconds(*record.segment),
                frame_indices=tuple(map(tuple, clips)),
                decode_seconds=perf_counter() - begin - seconds,
                preprocess_seconds=seconds,
            )

        begin = perf_counter()
        return self.visit(record, read, file=file)

    def from_frames(self, frames: Tensor) -> VideoSample:
        """All test views of a video that is decoded already.

        Args:
            frames: uint8 RGB [T, C, H, W], the whole video.
        """
        begin = perf_counter()
        indices = self.preprocessing.indices(len(frames))
        views = torch.cat([self.preprocessing.resize_and_crop(frames[clip]) for clip in indices])
        seconds = perf_counter() - begin
        found = tuple(map(tuple, indices))
        return VideoSample(views, self._target(None), 0, frame_indices=found, preprocess_seconds=seconds)

    def visit(
        self, record: VideoRecord, read: Callable[[VideoReader, int, int], Result], *, file: FileOf | None = None
    ) -> Result:
        """What ``read`` makes of the open video and of the record's segment, first frame and one past the last.

        Raises:
            VideoError: The video cannot be read, or takes too long, or did before.
        """

        def open_and_read() -> Result:
            with file() if file else nullcontext(record.path) as path, open_video(path, decoder=self.decoder) as reader:
                return read(reader, *reader.segment_frames(*record.segment))

        return self.within_time(record.path, open_and_read)

    def within_time(self, path: str, call: Callable[[], Result]) -> Result:
        """The result of ``call``, which reads of a video; always in the same thread.

        Raises:
            VideoError: It takes longer than a video may, or did before.
        """
        seconds = self.seconds_per_video
        if path in self._hung:
            raise VideoError(path, "timeout", f"it took more than {seconds:g} s before")
        try:
            return self._watch(call, seconds=seconds)
        except TimeoutError as error:
            self._hung.add(path)
            raise VideoError(path, "timeout", f"it took more than {seconds:g} s") from error

    def crops(
        self,
        reader: VideoReader,
        numbers: Iterable[int],
        *,
        look: Callable[[list[int], Tensor], object] | None = None,
    ) -> Iterator[tuple[list[int], Tensor, float]]:
        """Frames of an open video, each made small as it comes.

        Args:
            reader: The video.
            numbers: Of its frames.
            look: Called with each frame at its full size [1, C, H, W], and where in ``numbers`` it is wanted.

        Yields:
            Where in ``numbers`` the frame is wanted, its crops [crops, 1, C, h, w], and the seconds that they took.

        Raises:
            VideoError: A frame is too large when it covers the input, or cannot be decoded.
        """
        height, width = self.preprocessing.covering_size(reader.height, reader.width)
        what = f"a frame of {reader.width} x {reader.height} pixels, which covers the input at {width} x {height},"
        check_limit(reader.path, "pixels_per_frame", height * width, what=what)
        for places, frame in reader.stream(numbers):
            begin = perf_counter()
            crops = self.preprocessing.resize_and_crop(frame)
            if look is not None:
                look(places, frame)
            del frame  # before the next is decoded
            yield places, crops, perf_counter() - begin

    def _resized(self, reader: VideoReader, clips: list[list[int]]) -> tuple[Tensor, float]:
        """Views [V, T, C, h, w] of the frames, each made small as it comes, and the seconds that this took."""
        length = self.preprocessing.num_frames
        views: Tensor | None = None
        seconds = 0.0
        for places, crops, spent in self.crops(reader, (number for clip in clips for number in clip)):
            if views is None:
                views = crops.new_empty(len(clips), len(crops), length, *crops.shape[2:])
            for place in places:
                views[place // length, :, place % length] = crops[:, 0]
            seconds += spent
        assert views is not None  # a clip has frames
        return views.flatten(0, 1), seconds

    def _train_clips(
        self, record: VideoRecord, key: SampleKey, attempt: int, file: FileOf | None
    ) -> list[tuple[Tensor, Label]]:
        if self.augmentation is None:
            raise TypeError("ClipReader has no augmentation: it reads for testing")
        rng = np.random.default_rng((self.seed, key.epoch, key.index, key.draw, attempt))

        def read(reader: VideoReader, start: int, stop: int) -> Tensor:
            clips = self.preprocessing.indices(stop - start, self.repeats, rng=rng, start=start)
            frames = reader.frames([number for clip in self._in_order(record, clips) for number in clip])
            return frames.unflatten(0, (len(clips), -1))

        return [self.augmentation(clip, record.label, rng=rng) for clip in self.visit(record, read, file=file)]

    def _in_order(self, record: VideoRecord, clips: list[list[int]]) -> list[list[int]]:
        """The frames of each clip as the record wants them shown."""
        return clips

    def _blank(self, view: int | None) -> Tensor:
        """Zeros of the shape and type of what ``read`` gives."""
        frames = torch.zeros(self.preprocessing.num_frames, 3, *self.preprocessing.input_size, dtype=torch.uint8)
        one = self.preprocessing.resize_and_crop(frames, 1)
        return one.repeat(self.num_views, 1, 1, 1, 1) if view is None else one[0]

    def _target(self, label: Label) -> Tensor:
        if self.num_classes is None:
            return torch.tensor(-1 if label is None else label)
        classes = [] if label is None else [label] if isinstance(label, int) else list(label)
        target = torch.zeros(self.num_classes)
        target[classes] = 1.0
        return target
