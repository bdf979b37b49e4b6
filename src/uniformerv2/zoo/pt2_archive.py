"""The archive of a ``.pt2`` file: its texts, and its tensors as plain bytes. No pickle in it is opened.

Source:
    https://github.com/pytorch/pytorch/blob/main/torch/csrc/export/pt2_archive_constants.h
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final, Self, cast

import torch
from torch import Tensor

from uniformerv2.core.limits import check_items, get_limits
from uniformerv2.zoo.files import ArchiveError, check_archive

__all__ = ["GRAPH_ENTRY", "METADATA_ENTRY", "Pt2Archive", "read_dtype"]

GRAPH_ENTRY: Final = "models/model.json"
METADATA_ENTRY: Final = "uniformerv2.json"
"""Under which ``extra/`` of an archive has our JSON."""
DTYPES: Final = {1: torch.uint8, 5: torch.int64, 7: torch.float32, 12: torch.bool}
"""The schema's numbers of the types that our graphs use."""
DAMAGED: Final = (zipfile.BadZipFile, RuntimeError, EOFError, OSError)
"""What zipfile raises."""


class Pt2Archive:
    """The entries of a zip archive, which all lie in one folder.

    Args:
        path: The file.

    Raises:
        ValueError: It is none, or one that two readers may read in two ways.
    """

    def __init__(self, path: Path) -> None:
        try:
            check_archive(path)
            self._file = zipfile.ZipFile(path)
        except ArchiveError as error:
            raise ValueError(f"it is {error}") from error
        except DAMAGED as error:
            raise ValueError(f"it is damaged or no file of torch.export ({error})") from error
        self._names = set(self._file.namelist())
        self._root = next(iter(self._file.namelist()), "").partition("/")[0]
        self.has_metadata = f"{self._root}/extra/{METADATA_ENTRY}" in self._names

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, entry: str) -> bytes:
        """An entry that is text.

        Raises:
            ValueError: It is absent, damaged, or too large.
        """
        name = f"{self._root}/{entry}"
        if name not in self._names:
            raise ValueError(f"it is damaged or no file of torch.export ({entry} is absent)")
        get_limits().check("text_bytes", self._file.getinfo(name).file_size, what=f"{entry}: a text of this size")
        try:
            return self._file.read(name)
        except DAMAGED as error:
            raise ValueError(f"it is damaged ({error})") from error

    def json(self, entry: str) -> dict[str, Any]:
        """An entry that is an object of JSON.

        Raises:
            ValueError: It is none.
        """
        text = self.read(entry).decode("utf-8")
        check_items(text, where=entry)
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"{entry} is no object")
        return content

    def tensors(self, sources: Mapping[str, str]) -> dict[str, Tensor]:
        """Name in the graph -> tensor.

        Args:
            sources: Name in the graph -> name of the tensor in the archive.

        Raises:
            ValueError: A tensor is pickled, absent, or of another size than its entry.
        """
        places = {
            name: (folder, place)
            for folder, kind in (("data/constants", "constants"), ("data/weights", "weights"))
            for name, place in self.json(f"{folder}/model_{kind}_config.json")["config"].items()
        }
        flat: dict[str, Tensor] = {}
        found = {}
        for name, source in sources.items():
            folder, place = places[source]
            if place["use_pickle"]:
                raise ValueError(f"{source} is pickled, which could run code: uniformerv2 export never writes so")
            entry = f"{self._root}/{folder}/{place['path_name']}"
            if entry not in flat:
                flat[entry] = self._bytes(entry)
            found[name] = _view(flat[entry], place["tensor_meta"], source)
        return found

    def _bytes(self, entry: str) -> Tensor:
        if entry not in self._names:
            raise ValueError(f"it is damaged ({entry} is absent)")
        content = torch.empty(self._file.getinfo(entry).file_size, dtype=torch.uint8)
        view, start = content.numpy().data, 0
        try:
            with self._file.open(entry) as file:
                while count := cast(BufferedIOBase, file).readinto(view[start:]):
                    start += count
        except DAMAGED as error:
            raise ValueError(f"it is damaged ({error})") from error
        return content


def _view(content: Tensor, about: Mapping[str, Any], name: str) -> Tensor:
    """A tensor on the bytes of an entry.

    Raises:
        ValueError: It would reach beyond them, or be more than they are.
    """
    dtype = read_dtype(about["dtype"])
    if len(content) % dtype.itemsize:
        raise ValueError(f"{name} takes {len(content)} bytes, which is no whole number of {dtype}")
    values = content.view(dtype)
    sizes, strides = ([_number(one) for one in about[key]] for key in ("sizes", "strides"))
    start = _number(about["storage_offset"])
    reach = start + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    is_inside = min([*sizes, *strides, start]) >= 0 and (reach < len(values) or 0 in sizes)
    if not is_inside or math.prod(sizes) > len(values):
        raise ValueError(f"{name} of shape {sizes} does not lie in its {len(values)} numbers")
    return values.as_strided(sizes, strides, start)


def read_dtype(number: int) -> torch.dtype:
    """The type of a number of the schema.

    Raises:
        ValueError: Our graphs have none of it.
    """
    if number not in DTYPES:
        raise ValueError(f"it holds numbers of type {number!r}, which uniformerv2 export never writes")
    return DTYPES[number]


def _number(size: Mapping[str, Any]) -> int:
    number = size["as_int"]
    if type(number) is not int:
        raise ValueError(f"a size is {number!r}")
    return number
