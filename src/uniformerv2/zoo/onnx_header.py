"""What an ONNX file declares, read from its bytes: metadata, inputs and outputs. Nothing of its graph is computed.

A session of ONNX Runtime computes the constant parts of a graph, and opens the other files that it names, while it is
made; so a file is looked through before. What no exporter of ours writes is refused: tensors in other files, graphs
inside nodes, functions, operators of other domains.

Source:
    ONNX's messages, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; their encoding,
    https://protobuf.dev/programming-guides/encoding/. The numbers below are those of the fields.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["OnnxHeader", "TensorType", "read_onnx_header"]

ELEMENT_TYPES: Final = {1: "float32", 2: "uint8"}
DOMAINS: Final = frozenset({"", "ai.onnx", "com.microsoft"})
"""The standard's operators, and those of ONNX Runtime, which 8-bit networks are made of."""
MOST_FIELDS: Final = 2_000_000
"""A network of 64 blocks has a tenth of it."""
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5

OF_MODEL: Final = {"graph": 7, "metadata": 14}
REFUSED_OF_MODEL: Final = {20: "instructions for a training", 25: "functions"}
OF_GRAPH: Final = {"node": 1, "initializer": 5, "input": 11, "output": 12}
REFUSED_OF_GRAPH: Final = {15: "sparse tensors"}
OF_NODE: Final = {"attribute": 5, "domain": 7}
OF_ATTRIBUTE: Final = {"tensor": 5}
REFUSED_OF_ATTRIBUTE: Final = {
    6: "a graph inside a node",
    10: "lists of tensors",
    11: "graphs inside a node",
    22: "sparse tensors",
    23: "sparse tensors",
}
REFUSED_OF_TENSOR: Final = {13: "tensors that lie in other files", 14: "tensors that lie in other files"}

Value = int | memoryview


@dataclass(frozen=True)
class TensorType:
    """The type of an input or output.

    Attributes:
        dtype: "float32" or "uint8"; the number of the type where it is another.
        shape: A number, or a name where the size is free.
    """

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class OnnxHeader:
    """What a file declares.

    Attributes:
        metadata: Its own words about itself.
        inputs: Name -> type.
        outputs: Name -> type.
    """

    metadata: Mapping[str, str]
    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]


def read_onnx_header(path: Path) -> OnnxHeader:
    """Look through a file.

    Args:
        path: The file.

    Raises:
        ValueError: It is no ONNX file, or holds what no exporter of ours writes.
    """
    with path.open("rb") as file:
        try:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:  # an empty file
            raise ValueError(f"{path} is no ONNX file: it is empty.") from error
    try:
        return _header(_Reader(content))
    except (_NotOnnxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or no ONNX file: {error}.") from error
    except _RefusedError as error:
        raise ValueError(f"{path} holds {error}, which uniformerv2 export never writes: it is not opened.") from error


class _NotOnnxError(Exception):
    """The bytes are no such messages."""


class _RefusedError(Exception):
    """What is not opened; goes on from "FILE holds"."""


class _Reader:
    """Fields of messages, counted."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self._num_left = MOST_FIELDS

    def fields(self, message: memoryview, refused: Mapping[int, str] | None = None) -> Iterator[tuple[int, Value]]:
        """The number and the value of each field of a message.

        Raises:
            _NotOnnxError: They are no fields.
            _RefusedError: One is refused, or there are too many.
        """
        position = 0
        while position < len(message):
            self._num_left -= 1
            if self._num_left < 0:
                raise _RefusedError(f"more than {MOST_FIELDS:,} fields")
            tag, position = _varint(message, position)
            number, kind = tag >> 3, tag & 7
            value: Value
            if kind == VARINT:
                value, position = _varint(message, position)
            else:
                if kind == BYTES:
                    length, position = _varint(message, position)
                elif kind in {EIGHT_BYTES, FOUR_BYTES}:
                    length = 8 if kind == EIGHT_BYTES else 4
                else:
                    raise _NotOnnxError(f"a field of the unknown kind {kind}")
                value, position = message[position : position + length], position + length
                if position > len(message):
                    raise _NotOnnxError("it ends in the middle of a field")
            if refused and number in refused:
                raise _RefusedError(refused[number])
            yield number, value

    def messages(
        self, message: memoryview, wanted: int, refused: Mapping[int, str] | None = None
    ) -> Iterator[memoryview]:
        """The values of one field, which are messages or words."""
        for number, value in self.fields(message, refused):
            if number == wanted:
                yield _bytes(value)


def _header(reader: _Reader) -> OnnxHeader:
    metadata: dict[str, str] = {}
    graphs = []
    for number, value in reader.fields(reader.content, REFUSED_OF_MODEL):
        if number == OF_MODEL["graph"]:
            graphs.append(_bytes(value))
        elif number == OF_MODEL["metadata"]:
            entry = {key: _text(word) for key, word in reader.fields(_bytes(value))}
            metadata[entry.get(1, "")] = entry.get(2, "")
    if len(graphs) != 1:
        raise _NotOnnxError(f"it has {len(graphs)} graphs")
    types: dict[int, dict[str, TensorType]] = {OF_GRAPH["input"]: {}, OF_GRAPH["output"]: {}}
    for number, value in reader.fields(graphs[0], REFUSED_OF_GRAPH):
        if number == OF_GRAPH["node"]:
            _check_node(reader, _bytes(value))
        elif number == OF_GRAPH["initializer"]:
            _check_tensor(reader, _bytes(value))
        elif number in types:
            name, kind = _typed(reader, _bytes(value))
            if name in types[number]:
                raise _RefusedError(f"two values that are called {name!r}")
            types[number][name] = kind
    return OnnxHeader(metadata, types[OF_GRAPH["input"]], types[OF_GRAPH["output"]])


def _check_node(reader: _Reader, node: memoryview) -> None:
    for number, value in reader.fields(node):
        if number == OF_NODE["domain"] and _text(value) not in DOMAINS:
            raise _RefusedError(f"operators of the domain {_text(value)!r}")
        if number == OF_NODE["attribute"]:
            for tensor in reader.messages(_bytes(value), OF_ATTRIBUTE["tensor"], REFUSED_OF_ATTRIBUTE):
                _check_tensor(reader, tensor)


def _check_tensor(reader: _Reader, tensor: memoryview) -> None:
    for number, value in reader.fields(tensor):
        if number in REFUSED_OF_TENSOR and value != 0:
            raise _RefusedError(REFUSED_OF_TENSOR[number])


def _typed(reader: _Reader, value: memoryview) -> tuple[str, TensorType]:
    """Name and type of an input or output."""
    name, dtype, shape = "", "", []
    for number, part in reader.fields(value):
        if number == 1:
            name = _text(part)
        elif number == 2:
            for tensor in reader.messages(_bytes(part), 1):
                for inner, word in reader.fields(tensor):
                    if inner == 1:
                        dtype = ELEMENT_TYPES.get(int(word) if isinstance(word, int) else -1, f"type {word!r}")
                    elif inner == 2:
                        shape = [_size(reader, one) for one in reader.messages(_bytes(word), 1)]
    return name, TensorType(dtype, tuple(shape))


def _size(reader: _Reader, dimension: memoryview) -> int | str:
    for number, value in reader.fields(dimension):
        if number == 1 and isinstance(value, int):
            return value
        if number == 2:
            return _text(value)
    return ""


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _NotOnnxError("a number has no end")


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise _NotOnnxError("a number stands where a message must")
    return value


def _text(value: Value) -> str:
    return bytes(_bytes(value)).decode("utf-8")
