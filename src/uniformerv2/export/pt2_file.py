"""A graph as a ``.pt2`` file of ``torch.export``, for C++ and for PyTorch without this package."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from uniformerv2.export.onnx_file import quietly
from uniformerv2.zoo.exported import ExportedNetwork
from uniformerv2.zoo.pt2_archive import METADATA_ENTRY

__all__ = ["write_pt2"]

ORIGIN = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn")
"""What a node knows of the code that it came from: paths of this machine, and more bytes than the node."""


def write_pt2(program: torch.export.ExportedProgram, contract: ExportedNetwork, path: Path) -> None:
    """Write a graph with its weights and its metadata.

    Args:
        program: The graph; forgets where it came from.
        contract: What travels with it.
        path: The file.
    """
    for node in program.graph.nodes:
        for name in ORIGIN:
            node.meta.pop(name, None)
    with quietly():
        text = json.dumps(contract.to_dict(), ensure_ascii=False)
        torch.export.save(program, path, extra_files={METADATA_ENTRY: text})
