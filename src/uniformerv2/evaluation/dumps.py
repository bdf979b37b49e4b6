"""Dumps: the scores of a test in a file, for later. The suffix says the format.

==========  ===================================================================================================
.pkl        a list of dictionaries, ``pred_score`` and ``gt_label`` and more, as MMAction2's users know it
.parquet    one row per video; needs pyarrow
.csv        one row per video, one column per class; without the scores of single views
==========  ===================================================================================================
"""

from __future__ import annotations

import json
from collections import Counter
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.files import write_whole
from uniformerv2.core.limits import get_limits
from uniformerv2.core.optional import require
from uniformerv2.evaluation.dump_formats import FORMATS, NUMBERS, Head, Row, numbers
from uniformerv2.evaluation.scores import SEGMENT, Evaluation, VideoScores

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
        raise ValueError("A CSV has no room for the scores of each view: use .pkl or .parquet.")
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
    rows = [_row(video) for video in evaluation.videos]
    write_whole(path, lambda temporary: write(temporary, head, rows))
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
        ValueError: Another suffix, damage, no dump, or scores that are no probabilities.
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
        _check_head(head)
        videos = tuple(_video(row, head) for row in rows)
        num_classes = len(videos[0].scores)
        get_limits().check("width", num_classes, what=f"scores of {num_classes} classes")
        found = Evaluation(
            videos=tuple(sorted(videos, key=lambda video: video.index)),
            class_names=tuple(head.get("class_names", map(str, range(num_classes)))),
            is_multi_label=head["is_multi_label"],
            num_clips=int(head.get("num_clips", 1)),
            num_crops=int(head.get("num_crops", 1)),
            info=head.get("info", {}),
        )
    except Exception as error:  # the parsers meet damage with anything, from KeyError to MemoryError
        said = str(error)
        raise ValueError(said if str(path) in said else f"{path} cannot be read as a dump: {error}") from error
    return found


def _row(video: VideoScores) -> Row:
    row: Row = {
        "index": video.index,
        "id": video.id,
        "path": video.path,
        "label": None if video.label is None else list(video.labels),
        "error": video.error,
        "duration_seconds": video.duration_seconds,
        "scores": video.scores,
    }
    for name in ("one_view_scores", "view_scores", *SEGMENT):
        if (value := getattr(video, name)) is not None:
            row[name] = value
    return row


def _check_head(head: Head) -> None:
    names, kind, info = head.get("class_names", []), head.get("is_multi_label"), head.get("info", {})
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class_names are no list of names")
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"its class_names have {doubled[0]!r} more than once")
    if not isinstance(kind, bool):
        raise ValueError(f"its is_multi_label is {_shown(kind)}, neither true nor false")
    if not isinstance(info, dict) or not isinstance(info.get("fingerprint", {}), dict):
        raise ValueError("its info, or the fingerprint in it, is no JSON object")


def _video(row: Row, head: Head) -> VideoScores:
    """One video, of strict types: what int() or str() would make of another value is none of the file's.

    Raises:
        ValueError: A value is of another type.
    """
    for name in ("id", "path", "error"):
        if not isinstance(row.get(name, ""), str | None):
            raise ValueError(f"the {name} of a video is a {type(row[name]).__name__}, no text")
    path = row["path"]
    scores = _scores(row["scores"], f"the scores of {path}")
    if scores is None or scores.ndim != 1 or not scores.size:
        raise ValueError(f"the scores of {path} are no list of numbers")
    return VideoScores(
        index=_number(row["index"], int, f"the index of {path}"),
        path=path,
        id=row["id"],
        label=_label(row["label"], head, path),
        scores=scores,
        view_scores=_scores(row.get("view_scores"), f"the view_scores of {path}"),
        error=row.get("error") or "",
        one_view_scores=_scores(row.get("one_view_scores"), f"the one_view_scores of {path}"),
        **{
            name: _number(row[name], kind, f"{name} of {path}")
            for name, kind in NUMBERS.items()
            if row.get(name) is not None
        },
    )


def _label(label: Any, head: Head, path: str) -> int | tuple[int, ...] | None:
    """None where nobody says; several are left to be refused where the data have one.

    Raises:
        ValueError: It is no list, or not of whole numbers.
    """
    if not isinstance(label, list | None):
        raise ValueError(f"the label of {path} is no list of class numbers")
    if label is None:
        return None
    found = tuple(_number(item, int, f"the label of {path}") for item in label)
    if head["is_multi_label"]:
        return found
    return found[0] if len(found) == 1 else found or None


def _scores(values: Any, what: str) -> NDArray[np.float32] | None:
    if values is None:
        return None
    scores = numbers(values, where=what).astype(np.float32, copy=False)
    if not np.isfinite(scores).all():
        raise ValueError(f"{what} hold what is no finite number")
    return scores


def _number(value: Any, kind: type, what: str) -> Any:
    """A number of this type, of any type that numbers have in a file.

    Args:
        value: What a file holds.
        kind: ``int``, a whole one, or ``float``, a finite one.
        what: Its name, for the message.

    Raises:
        ValueError: It is none.
    """
    is_number = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
    if not is_number or (value % 1 if kind is int else not isfinite(value)):
        raise ValueError(f"{what} is {_shown(value)}, no {'whole' if kind is int else 'finite'} number")
    return kind(value)


def _shown(value: Any) -> str:
    """A short value as it is, any other by its type: a list may be long, or hold itself."""
    return repr(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
