"""``FeatureIndex``: the features of many videos in one Parquet file, and which of them are nearest to another.

::

    path            string          as it was named
    start_seconds   double          of the segment; null where only a frame number is known
    end_seconds     double
    label           string          several classes are separated by ``;``; null where nobody knows it
    vector          float[C]        a fixed-size list, of length 1

    metadata, key ``uniformerv2``: JSON with ``format``, ``model`` (digest), ``dim``, ``preprocessing``, ``failures``

A product of two vectors is their cosine. The search is exact: all products are computed. The file is also a list of
videos for every verb that reads one.

Letters: N rows, C channels, K classes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.files import write_whole
from uniformerv2.core.limits import check_items, check_parquet, get_limits
from uniformerv2.core.optional import require

__all__ = ["FORMAT", "ClassCentre", "FeatureIndex", "Neighbour", "read_head", "write_index"]

KEY: Final = b"uniformerv2"
FORMAT: Final = "uniformerv2-features-1"
"""Stands in the JSON and in the Parquet file; another number means other fields."""
COLUMNS: Final = ("path", "start_seconds", "end_seconds", "label", "vector")
HOW: Final = "uniformerv2 features VIDEO... --whole --model MODEL --out FOLDER writes one"
FEW_ROWS: Final = 1024
LENGTH_TOLERANCE: Final = 1e-3
"""How far the length of a vector may be from 1."""


@dataclass(frozen=True)
class Neighbour:
    """A video or segment of an index that is near to what was asked for.

    Attributes:
        video: The path, as the index has it.
        start_seconds: Of the segment; None where the index does not say it.
        end_seconds: Likewise.
        label: Name of its class, or names separated by ``;``; None where the index has none.
        cosine: -1 to 1; 1 is the same direction.
    """

    video: str
    start_seconds: float | None
    end_seconds: float | None
    label: str | None
    cosine: float


@dataclass(frozen=True)
class ClassCentre:
    """How near a class of an index is.

    Attributes:
        label: Its name.
        cosine: With the mean of its vectors.
        num_videos: Rows of the index that are of it.
    """

    label: str
    cosine: float
    num_videos: int


@dataclass(frozen=True, eq=False)
class FeatureIndex:
    """The rows of a file.

    Attributes:
        path: The file.
        videos: Path of each row [N].
        bounds: Start and end in seconds [N, 2]; NaN where they are not known.
        labels: Name of the class of each; None where there is none.
        vectors: [N, C], of length 1.
        model: Digest of the network that made them.
        preprocessing: What the videos went through, for ``Preprocessing.from_dict``.
    """

    path: Path
    videos: tuple[str, ...]
    bounds: NDArray[np.float64]
    labels: tuple[str | None, ...]
    vectors: NDArray[np.float32]
    model: str
    preprocessing: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<FeatureIndex {self.path}: {len(self.videos)} vectors of {self.vectors.shape[1]} numbers>"

    @classmethod
    def read(cls, path: str | Path) -> FeatureIndex:
        """Read a file, whoever wrote it.

        Args:
            path: What ``uniformerv2 features --whole`` wrote.

        Raises:
            ValueError: It is no such file, is damaged, or above the limit ``dump_bytes``.
            FileNotFoundError: There is none.
            ModuleNotFoundError: pyarrow is not installed.
        """
        path = Path(path)
        head = read_head(path)
        dim = _whole_number(head, "dim", path)
        if not isinstance(head.get("model"), str) or not isinstance(head.get("preprocessing"), dict):
            raise ValueError(f"{path} does not say which model made it: {HOW}.")
        videos: list[str] = []
        labels: list[str | None] = []
        bounds, vectors = [np.empty((0, 2))], [np.empty((0, dim), np.float32)]
        for batch in _batches(path, dim):
            columns = {name: batch.column(name) for name in COLUMNS}
            videos += columns["path"].to_pylist()
            labels += columns["label"].to_pylist()
            times = (columns[name].to_numpy(zero_copy_only=False) for name in ("start_seconds", "end_seconds"))
            bounds.append(np.stack([np.asarray(each, np.float64) for each in times], axis=1))
            vectors.append(columns["vector"].flatten().to_numpy(zero_copy_only=False).reshape(-1, dim))
        index = cls(
            path=path,
            videos=tuple(videos),
            bounds=np.concatenate(bounds),
            labels=tuple(labels),
            vectors=np.concatenate(vectors),
            model=head["model"],
            preprocessing=head["preprocessing"],
        )
        index._check()
        return index

    def nearest(self, vector: NDArray[np.float32], *, k: int) -> list[Neighbour]:
        """The ``k`` rows of the highest cosine, best first; all of them where there are fewer.

        Args:
            vector: [C], of length 1.
            k: At least 1.
        """
        cosines = self.vectors @ vector
        order = np.argsort(-cosines, kind="stable")[:k]
        return [self._neighbour(row, float(cosines[row])) for row in order]

    def nearest_classes(self, vector: NDArray[np.float32], *, k: int) -> list[ClassCentre]:
        """The ``k`` classes whose centres have the highest cosine, best first: a classifier without training.

        The centre of a class is the mean of its vectors, divided by its length.

        Args:
            vector: [C], of length 1.
            k: At least 1.

        Raises:
            ValueError: The index has no classes.
        """
        names, centres, counts = self._centres
        if not names:
            raise ValueError(f"{self.path} has no classes: give features a list or a folder per class.")
        cosines = centres @ vector
        order = np.argsort(-cosines, kind="stable")[:k]
        return [ClassCentre(names[place], float(cosines[place]), counts[place]) for place in order]

    def _neighbour(self, row: int, cosine: float) -> Neighbour:
        start, end = (None if np.isnan(value) else float(value) for value in self.bounds[row])
        return Neighbour(self.videos[row], start, end, self.labels[row], cosine)

    @cached_property
    def _centres(self) -> tuple[list[str], NDArray[np.float32], list[int]]:
        """Names, centres [K, C] and number of rows of the classes."""
        rows: dict[str, list[int]] = {}
        for row, label in enumerate(self.labels):
            for name in label.split(";") if label else ():
                rows.setdefault(name, []).append(row)
        means = [self.vectors[places].astype(np.float64).mean(axis=0) for places in rows.values()]
        centres = [mean / max(float(np.linalg.norm(mean)), 1e-12) for mean in means]
        return list(rows), np.array(centres, np.float32), [len(places) for places in rows.values()]

    def _check(self) -> None:
        """Refuse rows that cannot be.

        Raises:
            ValueError: There are some, or there is no row.
        """
        if not self.videos:
            raise ValueError(f"{self.path} has no rows: {HOW}.")
        for row, length in enumerate(np.linalg.norm(self.vectors, axis=1)):
            if not abs(length - 1) < LENGTH_TOLERANCE:
                raise ValueError(
                    f"{self.path}: the vector of row {row + 1} has the length {length:g}, and must have 1."
                )
        if np.isinf(self.bounds).any():
            raise ValueError(f"{self.path}: a start or an end is infinite.")


def read_head(path: Path) -> dict[str, Any]:
    """What a file says of itself, after it was walked through.

    Raises:
        ValueError: It is no file of features, is damaged, or above the limit ``dump_bytes``.
        FileNotFoundError: There is none.
        ModuleNotFoundError: pyarrow is not installed.
    """
    arrow = require("pyarrow", extra="tables")
    parquet = require("pyarrow.parquet", extra="tables")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: {HOW}.")
    try:
        with parquet.ParquetFile(path) as file:
            check_parquet(file, limit="dump_bytes", columns=COLUMNS, where=path)
            text = ((file.schema_arrow.metadata or {}).get(KEY) or b"{}").decode()
        check_items(text, where=path)
        head = json.loads(text)
    except (arrow.ArrowException, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no readable Parquet file of features ({error}).") from error
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ValueError(f"{path} is no file of features of this package ({FORMAT}): {HOW}.")
    return head


def write_index(path: Path, rows: Iterable[Mapping[str, Any]], *, head: Mapping[str, Any], dim: int) -> None:
    """Write a file, whole or not at all, some rows at a time.

    Args:
        path: The file.
        rows: ``video``, ``start_seconds``, ``end_seconds``, ``label``, and ``vector`` as float32 in base64.
        head: What it says of itself.
        dim: C.
    """
    arrow = require("pyarrow", extra="tables")
    parquet = require("pyarrow.parquet", extra="tables")
    kinds = (arrow.string(), arrow.float64(), arrow.float64(), arrow.string(), arrow.list_(arrow.float32(), dim))
    text = json.dumps(head, ensure_ascii=False).encode(errors="backslashreplace")
    schema = arrow.schema(zip(COLUMNS, kinds, strict=True), metadata={KEY: text})
    rows = iter(rows)

    def write(temporary: Path) -> None:
        with parquet.ParquetWriter(temporary, schema) as writer:
            while some := list(islice(rows, FEW_ROWS)):
                flat = np.frombuffer(b"".join(base64.b64decode(row["vector"]) for row in some), "<f4")
                columns = [[row[name] for row in some] for name in ("start_seconds", "end_seconds", "label")]
                paths = [row["video"].encode(errors="backslashreplace").decode() for row in some]  # UTF-8 alone
                vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(flat), dim)
                writer.write_table(arrow.table([paths, *columns, vectors], schema=schema))

    write_whole(path, write)


def _batches(path: Path, dim: int) -> Iterator[Any]:
    """The columns of a file whose head was read, some rows at a time.

    Raises:
        ValueError: It is damaged, or has other columns.
    """
    arrow = require("pyarrow", extra="tables")
    parquet = require("pyarrow.parquet", extra="tables")
    compute = require("pyarrow.compute", extra="tables")
    wanted = {"path": "string", "start_seconds": "double", "end_seconds": "double", "label": "string"}
    letters = 0
    try:
        with parquet.ParquetFile(path) as file:
            kinds = {field.name: field.type for field in file.schema_arrow}
        for name, kind in wanted.items():
            if str(kinds.get(name)) != kind:
                raise ValueError(f"{path}: the column {name!r} must be {kind}, it is {kinds.get(name, 'absent')}.")
        if kinds.get("vector") != arrow.list_(arrow.float32(), dim):
            found = kinds.get("vector", "absent")
            raise ValueError(f"{path}: the column 'vector' must be a fixed-size list of {dim} floats, it is {found}.")
        with parquet.ParquetFile(path, read_dictionary=["path", "label"]) as file:  # may repeat a long text without end
            for batch in file.iter_batches(FEW_ROWS, columns=list(COLUMNS)):
                for name in ("path", "label"):
                    lengths = compute.binary_length(batch.column(name).dictionary)
                    letters += compute.sum(lengths.take(batch.column(name).indices)).as_py() or 0
                get_limits().check("text_bytes", letters, what=f"{path}: {letters} letters")
                if batch.column("path").null_count or batch.column("vector").null_count:
                    raise ValueError(f"{path}: a row has no path or no vector.")
                if batch.column("vector").flatten().null_count:
                    raise ValueError(f"{path}: a vector has a number that is missing.")
                yield batch
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no readable Parquet file of features ({error}).") from error


def _whole_number(head: Mapping[str, Any], name: str, path: Path) -> int:
    value = head.get(name)
    if type(value) is not int or value < 1:
        raise ValueError(f"{path}: {name} must be a whole number of at least 1, got {value!r}.")
    get_limits().check("width", value, what=f"{path}: a vector of {value} numbers")
    return value
