"""Dumps: the scores of a test in a file, for later. The suffix says the format.

==========  ===================================================================================================
.pkl        a list of dictionaries, ``pred_score`` and ``gt_label`` and more, as MMAction2's users know it
.parquet    a row a video; needs pyarrow
.jsonl      a line of JSON a video
.npz        numpy arrays over all videos
.csv        a row a video, a column a class; without the scores of single views
==========  ===================================================================================================
"""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniformerv2._require import require
from uniformerv2.evaluation.dump_formats import FORMATS, Row, replacing
from uniformerv2.evaluation.scores import Evaluation, VideoScores

__all__ = ["check_dump_path", "read_dump", "write_dump"]


def check_dump_path(path: str | Path, *, view_scores: bool = False) -> Path:
    """Refuse now what could not be written when a long test is done.

    Args:
        path: Of the dump.
        view_scores: Whether it will hold the scores of each view.

    Returns:
        The path.

    Raises:
        ValueError: No format has this suffix, or it has no room for the scores of views.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"A dump is called {', '.join('*' + suffix for suffix in FORMATS)}, got {path.name!r}.")
    if path.suffix == ".csv" and view_scores:
        raise ValueError("A CSV has no room for the scores of each view: use .pkl, .parquet, .jsonl or .npz.")
    if path.suffix == ".parquet":
        require("pyarrow.parquet", extra="tables")
    return path


def write_dump(path: str | Path, evaluation: Evaluation) -> Path:
    """Write the scores of a test, whole or not at all.

    Args:
        path: Its suffix is the format.
        evaluation: At least one video.

    Returns:
        The path.

    Raises:
        ValueError: Another suffix, or no videos.
    """
    path = check_dump_path(path)
    if not evaluation.videos:
        raise ValueError(f"There are no scores to write to {path}.")
    head = {
        "class_names": list(evaluation.class_names),
        "is_multi_label": evaluation.is_multi_label,
        "num_clips": evaluation.num_clips,
        "num_crops": evaluation.num_crops,
        "num_videos": len(evaluation.videos),
        "info": json.loads(json.dumps(dict(evaluation.info))),
    }
    write, _ = FORMATS[path.suffix]
    with replacing(path) as beside:
        write(beside, head, [_row(video) for video in evaluation.videos])
    return path


def read_dump(path: str | Path) -> Evaluation:
    """The scores that a dump holds; nothing of the file is run.

    Args:
        path: What ``write_dump`` wrote; or a pickle with ``pred_score`` and ``gt_label`` as numpy arrays, whose classes
            then are called by their numbers.

    Returns:
        The scores.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Another suffix, damage, or no dump.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    _, read = FORMATS[check_dump_path(path).suffix]
    try:
        head, rows = read(path)
        if not rows:
            raise ValueError("it has no videos")
        if len(rows) != head.get("num_videos", len(rows)):
            raise ValueError(f"it has {len(rows)} of {head['num_videos']} videos")
        videos = tuple(_video(row, is_multi_label=head["is_multi_label"]) for row in rows)
        num_classes = len(videos[0].scores)
        found = Evaluation(
            videos=tuple(sorted(videos, key=lambda video: video.index)),
            class_names=tuple(head.get("class_names", map(str, range(num_classes)))),
            is_multi_label=bool(head["is_multi_label"]),
            num_clips=int(head.get("num_clips", 1)),
            num_crops=int(head.get("num_crops", 1)),
            info=head.get("info", {}),
        )
        _check_labels(found)
    except (ValueError, KeyError, TypeError, IndexError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        said = str(error)
        raise ValueError(said if str(path) in said else f"{path} is damaged or no dump of a test: {error}") from error
    return found


def _row(video: VideoScores) -> Row:
    row: Row = {
        "index": video.index,
        "id": video.id,
        "path": video.path,
        "label": list(video.labels),
        "error": video.error,
        "duration_seconds": video.duration_seconds,
        "scores": video.scores,
    }
    for name in ("one_view_scores", "view_scores"):
        if (scores := getattr(video, name)) is not None:
            row[name] = scores
    return row


def _video(row: Row, *, is_multi_label: bool) -> VideoScores:
    label = tuple(int(number) for number in row["label"])
    scores = _scores(row["scores"])
    if scores is None or scores.ndim != 1:
        raise ValueError(f"the scores of {row['path']} are no list of numbers")
    return VideoScores(
        index=int(row["index"]),
        path=str(row["path"]),
        id=str(row["id"]),
        label=label if is_multi_label and label else (label[0] if label else -1),
        scores=scores,
        view_scores=_scores(row.get("view_scores")),
        error=str(row.get("error", "")),
        duration_seconds=row.get("duration_seconds"),
        one_view_scores=_scores(row.get("one_view_scores")),
    )


def _scores(values: Any) -> NDArray[np.float32] | None:
    if values is None:
        return None
    scores = np.array(values, dtype=np.float32)
    if not np.isfinite(scores).all():
        raise ValueError("a score is no finite number")
    return scores


def _check_labels(evaluation: Evaluation) -> None:
    for video in evaluation.videos:
        highest = max(video.labels, default=-1)
        if highest >= len(evaluation.class_names):
            raise ValueError(
                f"{video.path} has the label {highest}; there are {len(evaluation.class_names)} classes, from 0 on"
            )
