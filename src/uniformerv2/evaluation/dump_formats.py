"""How a dump lies on disk, a pair of functions per format: a head, which is JSON, and one row per video.

A row has ``index``, ``id``, ``path``, ``label`` (a list of class numbers; None where nobody says), ``error``,
``duration_seconds``, ``scores`` [K], and perhaps ``one_view_scores`` [K], ``view_scores`` [V, K], and where its segment
of the file starts and ends.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.limits import check_parquet, get_limits
from uniformerv2.core.optional import require
from uniformerv2.evaluation.safe_pickle import read_pickle
from uniformerv2.evaluation.scores import SEGMENT

__all__ = ["FORMATS", "NUMBERS", "Head", "Row", "numbers"]

Head = Mapping[str, Any]
Row = dict[str, Any]
Writer = Callable[[Path, Head, Sequence[Row]], None]
Reader = Callable[[Path], tuple[Head, list[Row]]]

HEAD: Final = "test"
SCORES: Final = ("scores", "one_view_scores", "view_scores")
NUMBERS: Final = {"duration_seconds": float, **SEGMENT}
COLUMNS: Final = ("index", "id", "path", "label", "label_name", "predicted_name", "error", *NUMBERS)
FEW_VIDEOS: Final = 256
"""Rows of a Parquet file that are unpacked at a time."""

NO_CLASS: Final = "none"
"""The label of a video of no class in a CSV, where an empty one says that nobody knows it."""


VIDEO_BYTES: Final = 4096
"""What a video counts besides its scores."""


class Size:
    """What a dump's videos take in memory, counted while they are read.

    Args:
        path: The dump.

    Raises:
        ValueError: The file is larger than the limit ``dump_bytes``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._num_bytes = 0
        get_limits().check("dump_bytes", path.stat().st_size, what=f"{path}: a file of this size")

    def add(self, *, videos: int = 0, values: int = 0) -> None:
        """Count some more.

        Raises:
            ValueError: The sum is above the limit ``dump_bytes``.
        """
        self._num_bytes += videos * VIDEO_BYTES + 4 * values
        get_limits().check("dump_bytes", self._num_bytes, what=f"{self._path}: {self._num_bytes} bytes of scores")


def numbers(values: Any, *, where: str) -> NDArray[Any]:
    """Numbers that a file holds, as an array: itself, or lists of them, at most one within the other.

    Args:
        values: What the file holds.
        where: Its name, for the message.

    Raises:
        ValueError: Anything else, which numpy would turn into numbers, or try to.
    """
    rows = values if isinstance(values, list) else [values]
    flat = [item for row in rows for item in (row if isinstance(row, list) else (row,))]
    if all(type(item) in {int, float} or isinstance(item, np.generic) for item in flat):
        values = np.array(values)
    elif isinstance(values, list) and all(isinstance(row, np.ndarray) for row in rows):
        values = np.stack(rows)
    if not isinstance(values, np.ndarray) or (values.size and values.dtype.kind not in "iufb"):
        raise ValueError(f"{where} is no list of numbers")
    return values


def _open(path: Path, mode: str = "r") -> IO[str]:
    """UTF-8; names of files are bytes, and those that are no UTF-8 are written as they are."""
    return cast(IO[str], path.open(mode, encoding="utf-8", errors="surrogateescape", newline=""))


def _write_pickle(path: Path, head: Head, rows: Sequence[Row]) -> None:
    """A list of dictionaries, as MMAction2 writes it, with numpy arrays in place of tensors."""
    import pickle

    shared = dict(head)  # one object for all rows: a pickle holds it once
    num_classes = len(head["class_names"])
    entries = [
        {
            "pred_score": row["scores"],
            "pred_label": np.array([row["scores"].argmax()]),
            "gt_label": _gt_label(row["label"], num_classes, is_multi_label=head["is_multi_label"]),
            **{name: value for name, value in row.items() if name != "scores"},
            HEAD: shared,
        }
        for row in rows
    ]
    with path.open("wb") as file:
        pickle.dump(entries, file, protocol=4)


def _gt_label(label: Sequence[int] | None, num_classes: int, *, is_multi_label: bool) -> NDArray[np.int64]:
    """A number [1]; of multi-label data 0 and 1 for each class [K]; -1 where nobody says."""
    if label is None:
        return np.full(num_classes if is_multi_label else 1, -1)
    if not is_multi_label:
        return np.array(label)
    several = np.zeros(num_classes, dtype=np.int64)
    several[list(label)] = 1
    return several


def _read_pickle(path: Path) -> tuple[Head, list[Row]]:
    entries = read_pickle(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "pred_score" in entry for entry in entries):
        raise ValueError(f"{path} is no dump: a list with one dictionary per video, with 'pred_score', is needed.")
    size = Size(path)
    size.add(videos=len(entries))
    rows = []
    for number, entry in enumerate(entries):
        row = {"index": number, "id": str(number), "path": str(number), **entry}
        row["scores"] = numbers(row.pop("pred_score"), where=f"pred_score of entry {number}")
        size.add(values=sum(row[name].size for name in SCORES if isinstance(row.get(name), np.ndarray)))
        if "label" not in row:
            row["label"] = _label_of(_gt_label_of(entry, number), len(row["scores"]))
        rows.append(row)
    if entries and HEAD in entries[0]:
        return _head_of(entries[0][HEAD], path), rows
    foreign = any(len(_gt_label_of(entry, number)) > 1 for number, entry in enumerate(entries))
    return {"is_multi_label": foreign}, rows


def _gt_label_of(entry: Mapping[str, Any], number: int) -> NDArray[Any]:
    return numbers(entry.get("gt_label", -1), where=f"gt_label of entry {number}").ravel()


def _label_of(label: NDArray[Any], num_classes: int) -> list[Any] | None:
    """Class numbers.

    Raises:
        ValueError: A mark of several classes is neither 0 nor 1.
    """
    if label.size and (label == -1).all():
        return None
    if len(label) > 1 and len(label) == num_classes:
        if not np.isin(label, (0, 1)).all():
            raise ValueError("gt_label has a mark for each class that is neither 0 nor 1")
        return np.flatnonzero(label).tolist()
    return label.tolist()


def _write_csv(path: Path, head: Head, rows: Sequence[Row]) -> None:
    """A table for people and spreadsheets: a column a class, no scores of single views."""
    names = head["class_names"]
    with _open(path, "w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*COLUMNS, *names, HEAD])
        for number, row in enumerate(rows):
            label = row["label"] or []
            numbers = NO_CLASS if row["label"] == [] else "; ".join(map(str, label))
            named = "; ".join(names[number] for number in label)
            predicted = "" if row["error"] else names[row["scores"].argmax()]
            fixed = [row["index"], row["id"], row["path"], numbers, named, predicted, row["error"]]
            fixed += ["" if row.get(name) is None else row[name] for name in NUMBERS]
            last = "" if number else json.dumps(head, ensure_ascii=False)
            table.writerow([*fixed, *map(str, row["scores"]), last])


def _read_csv(path: Path) -> tuple[Head, list[Row]]:
    size = Size(path)
    before = csv.field_size_limit(2**30)  # the head of many classes is one long field
    try:
        with _open(path) as file:
            lines = csv.reader(file)
            titles = next(lines, [])
            if tuple(titles[: len(COLUMNS)]) != COLUMNS or titles[-1] != HEAD:
                raise ValueError(f"{path} is no dump: its columns are {', '.join(titles[:5])} ...")
            head, rows = "", []
            for line in lines:
                head = head or line[-1]
                rows.append(_csv_row(line))
                size.add(videos=1, values=len(line))
    finally:
        csv.field_size_limit(before)
    return _head_of(json.loads(head or "null"), path), rows


def _csv_row(line: Sequence[str]) -> Row:
    fixed = dict(zip(COLUMNS, line, strict=False))
    row: Row = {name: fixed[name] for name in ("id", "path", "error")}
    row["index"] = int(fixed["index"])
    listed = "" if fixed["label"] == NO_CLASS else fixed["label"]
    row["label"] = [int(number) for number in listed.split("; ") if number] if fixed["label"] else None
    row.update({name: float(fixed[name]) for name in NUMBERS if fixed.get(name)})
    row["scores"] = np.array(line[len(COLUMNS) : -1], dtype=np.float32)
    return row


def _write_parquet(path: Path, head: Head, rows: Sequence[Row]) -> None:
    arrow = require("pyarrow", extra="tables")
    parquet = require("pyarrow.parquet", extra="tables")
    number = arrow.list_(arrow.float32())
    kinds = {
        "index": arrow.int64(),
        "id": arrow.string(),
        "path": arrow.string(),
        "label": arrow.list_(arrow.int64()),
        "error": arrow.string(),
        "duration_seconds": arrow.float64(),
        **{name: arrow.float64() if kind is float else arrow.int64() for name, kind in SEGMENT.items()},
        "scores": number,
        "one_view_scores": number,
        "view_scores": arrow.list_(number),
    }
    schema = arrow.schema(kinds, metadata={HEAD: json.dumps(head, ensure_ascii=False)})
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in kinds}
    for name in ("id", "path", "error"):  # Parquet holds UTF-8 alone
        columns[name] = [text.encode(errors="backslashreplace").decode() for text in columns[name]]
    columns["view_scores"] = [None if views is None else list(views) for views in columns["view_scores"]]
    parquet.write_table(arrow.table(columns, schema=schema), path)


def _read_parquet(path: Path) -> tuple[Head, list[Row]]:
    """Text columns stay packed until their rows are read: a dictionary can repeat one long text without end."""
    parquet = require("pyarrow.parquet", extra="tables")
    names = (*(name for name in COLUMNS if not name.endswith("_name")), *SCORES)
    size, rows = Size(path), []
    with parquet.ParquetFile(path) as file:
        check_parquet(file, limit="dump_bytes", columns=names, where=path)
        head = (file.schema_arrow.metadata or {}).get(HEAD.encode())
        there = [name for name in names if name in file.schema_arrow.names]
    texts = [name for name in ("id", "path", "error") if name in there]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(FEW_VIDEOS, columns=there):
            few: list[Row] = [{} for _ in range(batch.num_rows)]
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for row, item in zip(few, column, strict=True):
                    row[name] = _array_of(item) if name in SCORES else item.as_py()
            for row in few:
                letters = sum(len(row[name] or "") for name in texts)
                size.add(videos=1, values=letters + sum(row[name].size for name in SCORES if row.get(name) is not None))
            rows += few
    return _head_of(json.loads(head) if head else None, path), rows


def _array_of(item: Any) -> NDArray[Any] | None:
    """Numbers of a list, or of lists of one length, without Python objects in between."""
    if not item.is_valid:
        return None
    parts = [part.values for part in item.values] if hasattr(item.values.type, "value_type") else None
    if parts is not None:
        return np.stack([part.to_numpy(zero_copy_only=False) for part in parts])
    found: NDArray[Any] = item.values.to_numpy(zero_copy_only=False)
    return found


def _head_of(head: Any, path: Path) -> Head:
    if not isinstance(head, dict):
        raise ValueError(f"{path} is no dump of a test: it does not say of which classes its scores are.")
    return head


FORMATS: Final[Mapping[str, tuple[Writer, Reader]]] = {
    ".pkl": (_write_pickle, _read_pickle),
    ".parquet": (_write_parquet, _read_parquet),
    ".csv": (_write_csv, _read_csv),
}
"""Suffix -> how to write and how to read it."""
