"""A graph as an ONNX file, in float32 or with weights in float16; one file, without names or paths of this machine."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from uniformerv2.core.files import in_words
from uniformerv2.core.optional import require
from uniformerv2.zoo.exported import INPUT, LOGITS, METADATA_KEY, SCORES, ExportedNetwork

__all__ = ["check_size", "quietly", "to_onnx", "write_onnx"]

MOST_BYTES: Final = 2**31 - 2**24
"""A message of Protocol Buffers ends at 2 GiB; the graph around the weights takes a few MiB."""
LARGEST_HALF: Final = 65504.0


def check_size(num_bytes: int) -> None:
    """Refuse weights that one ONNX file cannot hold.

    Raises:
        ValueError: They are larger.
    """
    if num_bytes > MOST_BYTES:
        raise ValueError(
            f"The weights take {in_words(num_bytes)}, and an ONNX file, of which OpenVINO's is made too, holds less "
            "than 2 GiB: take precision='fp16'."
        )


def to_onnx(program: torch.export.ExportedProgram) -> Any:
    """The graph as an ``onnx.ModelProto``."""
    require("onnx", extra="export")
    require("onnxscript", extra="export")
    with quietly():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[LOGITS, SCORES],
            dynamic_shapes=None,
            verbose=False,
        )
    assert exported is not None  # as it writes no file itself
    graph = exported.model_proto
    _forget_origin(graph)
    return graph


def write_onnx(graph: Any, contract: ExportedNetwork, path: Path, *, is_half: bool = False) -> None:
    """Write a graph with its metadata.

    Args:
        graph: An ``onnx.ModelProto``; changed.
        contract: What travels with it.
        path: The file.
        is_half: Keep the weights in float16.

    Raises:
        ValueError: A weight is too large for float16.
    """
    onnx = require("onnx", extra="export")
    if is_half:
        _halve(graph)
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(contract.to_dict(), ensure_ascii=False)})
    onnx.save(graph, path)


def _forget_origin(graph: Any) -> None:
    """Leave out where each node came from: paths of this machine, and more bytes than the nodes."""
    del graph.graph.value_info[:]  # shapes from before the exporter joined operators
    for part in (
        graph,
        graph.graph,
        *graph.graph.node,
        *graph.graph.initializer,
        *graph.graph.input,
        *graph.graph.output,
    ):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def _halve(graph: Any) -> None:
    """Keep the weights in float16 and make them float32 where they are read: half the bytes, and no overflow.

    Raises:
        ValueError: A weight is too large.
    """
    onnx = require("onnx", extra="export")
    casts = []
    for weight in graph.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1:
            values = onnx.numpy_helper.to_array(weight)
            largest = float(np.abs(values).max(initial=0.0))
            if largest > LARGEST_HALF:
                raise ValueError(f"{weight.name} holds {largest:.3g}, float16 ends at {LARGEST_HALF:.0f}: take fp32.")
            name = weight.name
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


@contextmanager
def quietly() -> Iterator[None]:
    """The tools' advice on how to call them, and warnings of their own code, are not for who calls us."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
