"""Uploads are decoded in worker processes: a file that crashes or hangs its decoder costs that process alone.

What travels between the processes are arrays: tensors would travel by shared memory, and outlive a killed worker.

Letters: V views, T frames, F frames of a piece, h x w of the network's input, H x W pixels of a picture.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, TypeVar

import numpy as np
import torch
import torchvision.transforms.v2  # noqa: F401  # seconds, once: workers are forked from a process that has it
from numpy.typing import NDArray

from uniformerv2.core.limits import get_limits, set_limits
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader, FileOf, VideoSample
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.explanations.view import ViewPlace, read_view
from uniformerv2.inference.window_frames import GridFrame, WindowFrames, WindowPlan
from uniformerv2.media.decoding import VideoError, VideoReader

__all__ = [
    *(
        "PRELOAD",
        "UPLOAD",
        "FramesTask",
        "Piece",
        "SeenTask",
        "SeenUpload",
        "UploadReader",
        "UploadTask",
        "Views",
        "ViewsTask",
    ),
    *("decode_upload", "views_bytes"),
]

Result = TypeVar("Result")
UPLOAD: Final = "upload"
"""What answers call a video: its own name is the client's, the name of the file on disk the server's."""
PRELOAD: Final = __name__
"""What the process that forks workers imports."""


@dataclass(frozen=True, kw_only=True)
class UploadReader(ClipReader):
    """Reads an upload: a ``ClipReader`` that refuses long videos once they are open.

    Attributes:
        max_seconds: The longest that is read.
    """

    max_seconds: float

    def visit(
        self, record: VideoRecord, read: Callable[[VideoReader, int, int], Result], *, file: FileOf | None = None
    ) -> Result:
        """See ``ClipReader``."""

        def checked(reader: VideoReader, start: int, stop: int) -> Result:
            self.check_duration(reader)
            return read(reader, start, stop)

        return super().visit(record, checked, file=file)

    def check_duration(self, reader: VideoReader) -> None:
        """Refuse a long video.

        Raises:
            VideoError: It is longer than ``max_seconds``.
        """
        seconds = reader.info.duration_seconds
        if seconds > self.max_seconds:
            detail = f"it lasts {seconds:.1f} seconds, and at most {self.max_seconds:g} are read"
            raise VideoError(reader.path, "too large", detail)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What a worker sends back.

    Attributes:
        decode_seconds: Time to open the video and to decode.
        preprocess_seconds: Time to resize and to crop, where it is told apart.
    """

    decode_seconds: float
    preprocess_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class UploadTask:
    """One upload for a worker.

    Attributes:
        path: Where it lies.
        reader: How it becomes views.
        max_pixels: Of its frames.
    """

    path: str
    reader: UploadReader
    max_pixels: int

    @abstractmethod
    def read(self) -> Decoded:
        """What the worker does.

        Raises:
            VideoError: The video cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class Views(Decoded):
    """All views of an upload, a ``VideoSample`` without tensors."""

    pixels: NDArray[Any]
    frame_indices: tuple[tuple[int, ...], ...]
    duration_seconds: float | None

    def sample(self) -> VideoSample:
        """For the network."""
        return VideoSample(
            torch.from_numpy(self.pixels),
            torch.tensor(-1),
            0,
            duration_seconds=self.duration_seconds,
            frame_indices=self.frame_indices,
            decode_seconds=self.decode_seconds,
            preprocess_seconds=self.preprocess_seconds,
        )


class ViewsTask(UploadTask):
    """An upload as views."""

    def read(self) -> Views:
        """See ``UploadTask``."""
        found = self.reader.read(self.path)
        return Views(
            pixels=found.video.numpy(),
            frame_indices=found.frame_indices,
            duration_seconds=found.duration_seconds,
            decode_seconds=found.decode_seconds,
            preprocess_seconds=found.preprocess_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Piece(Decoded):
    """Some frames of the windows of an upload.

    Attributes:
        crops: [F, crops, 3, h, w].
        plan: Of all windows, with the first piece.
        broken: What ended the piece before its last frame.
    """

    crops: NDArray[Any]
    plan: WindowPlan | None = None
    broken: VideoError | None = None

    def frames(self, plan: WindowPlan, start: int) -> list[GridFrame]:
        """For the network; ``start`` is the place of the first frame in the plan."""
        numbers, repeats = plan.numbers[start:].tolist(), plan.repeats[start:].tolist()
        return [GridFrame(*frame) for frame in zip(numbers, repeats, torch.from_numpy(self.crops), strict=False)]


@dataclass(frozen=True, kw_only=True)
class FramesTask(UploadTask):
    """Some frames of the windows of an upload: it is opened anew for each piece, by whichever worker is free.

    Attributes:
        source: Reads them.
        size: Frames of a piece.
        numbers: Which; None: the first ones, and the plan.
    """

    source: WindowFrames
    size: int
    numbers: tuple[int, ...] | None = None

    def read(self) -> Piece:
        """See ``UploadTask``.

        Raises:
            VideoError: Not one of the frames can be read.
        """
        begin = perf_counter()
        crops: list[NDArray[Any]] = []
        broken, plan, numbers = None, None, self.numbers
        with self.source.opened() as video:
            self.reader.check_duration(video)
            if numbers is None:
                plan = self._plan(video)
                numbers = tuple(plan.numbers[: self.size].tolist())
            try:
                crops.extend(one.numpy() for one in self.source.crops(video, numbers))
            except VideoError as error:
                if not crops:
                    raise
                broken = error
        return Piece(crops=np.stack(crops), plan=plan, broken=broken, decode_seconds=perf_counter() - begin)

    def _plan(self, video: VideoReader) -> WindowPlan:
        try:
            return self.source.plan(video)
        except ValueError as error:  # lengths that only this video's rate makes wrong
            raise VideoError(video.path, "unsupported", str(error).rstrip(".")) from error


@dataclass(frozen=True, kw_only=True)
class SeenUpload(Decoded):
    """One view of an upload, and its frames as they are shown.

    Attributes:
        pixels: Of the view [T, 3, h, w].
        place: Where it lies.
        pictures: The T frames, not cropped, [T, H, W, 3]; none where none were asked for.
        duration_seconds: Of the upload.
    """

    pixels: NDArray[Any]
    place: ViewPlace
    pictures: NDArray[np.uint8] | None
    duration_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class SeenTask(UploadTask):
    """The view of an upload that is explained.

    Attributes:
        side: Pixels of the longer side of its frames as pictures, at most; None: no pictures.
    """

    side: int | None

    def read(self) -> SeenUpload:
        """See ``UploadTask``."""
        begin = perf_counter()
        seen = read_view(self.reader, VideoRecord(self.path), 0, picture_side=self.side)
        return SeenUpload(
            pixels=seen.pixels.numpy(),
            place=seen.place,
            pictures=np.stack([np.asarray(one) for one in seen.pictures]) if seen.pictures else None,
            duration_seconds=seen.duration_seconds,
            decode_seconds=perf_counter() - begin,
        )


def decode_upload(task: UploadTask | None) -> Decoded | VideoError | None:
    """What a worker does; nothing for None, which makes it start."""
    if task is None:
        return None
    try:
        with set_limits(pixels_per_frame=min(task.max_pixels, get_limits().pixels_per_frame)):
            return task.read()
    except VideoError as error:
        return error


def views_bytes(preprocessing: Preprocessing) -> int:
    """Memory that the views of a video take, before anything is decoded: V T 3 h w values, twice while they travel.

    >>> views_bytes(Preprocessing(num_frames=8, image_size=224, num_clips=4, num_crops=3)) / 2**20
    110.25
    """
    height, width = preprocessing.input_size
    size = np.dtype(np.float32 if preprocessing.resize == "bilinear_float" else np.uint8).itemsize
    views = preprocessing.num_clips * preprocessing.num_crops
    return 2 * views * preprocessing.num_frames * 3 * height * width * size
