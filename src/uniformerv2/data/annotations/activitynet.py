"""ActivityNet 1.3 (Caba Heilbron et al., 2015) and HACS Segments (Zhao et al., 2019): one JSON with a ``database``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from uniformerv2.data.annotations.record import AnnotationError, VideoRecord
from uniformerv2.data.annotations.rows import Classes, Row, finish, standard_split
from uniformerv2.data.annotations.table import read_json

__all__ = ["ACTIVITYNET_FILE", "activitynet_rows", "read_activitynet", "read_hacs"]

ACTIVITYNET_FILE: Final = "v_{id}.mp4"
"""The file name that the download scripts of ActivityNet and HACS give a video."""

_log = logging.getLogger(__name__)


def read_activitynet(
    path: str | Path,
    *,
    classes: Classes | None = "activitynet",
    root: str | Path | None = None,
    split: str | None = None,
    file_name: str = ACTIVITYNET_FILE,
) -> list[VideoRecord]:
    """ActivityNet 1.3, read for recognition as the paper does it.

    Training: one record per annotated segment. Validation: one record per whole video, with the label of its first
    segment. Testing: whole videos without label. Segments of no length, and videos to train or validate on that have
    no segment, are left out, and their numbers are logged.

    Args:
        path: For instance ``activity_net.v1-3.min.json``.
        classes: Class names in head order, or a label space.
        root: Where the videos lie; the JSON's folder where None.
        split: Keep only these records.
        file_name: Where a video lies under ``root``, from ``{id}``, ``{label}`` and ``{label_}`` (underscores for
            blanks): ``"{label_}/v_{id}.mp4"`` for class folders.
    """
    return finish(activitynet_rows(path, file_name=file_name), source=path, classes=classes, root=root, split=split)


def read_hacs(
    path: str | Path,
    *,
    classes: Classes | None = "hacs",
    root: str | Path | None = None,
    split: str | None = None,
    file_name: str = ACTIVITYNET_FILE,
) -> list[VideoRecord]:
    """HACS Segments (``HACS_segments_v1.1.1.json``), read as `read_activitynet` reads ActivityNet."""
    return finish(activitynet_rows(path, file_name=file_name), source=path, classes=classes, root=root, split=split)


def activitynet_rows(path: str | Path, *, file_name: str = ACTIVITYNET_FILE) -> Iterator[Row]:
    """The rows of a ``database`` JSON.

    Raises:
        AnnotationError: No ``database``, or a broken video, which is named.
    """
    value = read_json(path)
    database = value.get("database") if isinstance(value, dict) else None
    if not isinstance(database, dict):
        raise AnnotationError("no ActivityNet file: an object with the key 'database' is needed.", file=path)
    empty = without = 0
    for number, (identity, video) in enumerate(database.items(), start=1):
        try:
            split, segments = standard_split(video["subset"]), _segments(video)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"the video {identity!r} is broken ({type(error).__name__}: {error})."
            raise AnnotationError(message, file=path, line=number) from error
        if not segments and split in {"train", "val"}:
            without += 1
            continue
        first = segments[0][0] if segments else None
        name = file_name.format(id=identity, label=first or "", label_=(first or "").replace(" ", "_"))
        if split != "train":
            yield Row(str(path), number, name, first if split == "val" else None, id=identity, split=split)
            continue
        for label, start, end in segments:
            if start < end:
                yield Row(str(path), number, name, label, id=identity, split=split, seconds=(start, end))
            else:
                empty += 1
    if empty:
        _log.warning("%s: %d training segments of no length were left out", path, empty)
    if without:
        _log.warning("%s: %d videos without a segment were left out", path, without)


def _segments(video: dict[str, Any]) -> list[tuple[str, float, float]]:
    found = []
    for annotation in video.get("annotations") or ():
        start, end = annotation["segment"]
        found.append((str(annotation["label"]), max(0.0, float(start)), float(end)))
    return found
