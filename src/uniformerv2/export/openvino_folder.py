"""A graph as OpenVINO's two files, made of its ONNX form, so that both compute the same."""

from __future__ import annotations

import json
from pathlib import Path

from uniformerv2.core.optional import require
from uniformerv2.zoo.exported import METADATA_KEY, OPENVINO_FILE, ExportedNetwork

__all__ = ["write_openvino"]


def write_openvino(onnx_file: Path, contract: ExportedNetwork, folder: Path) -> None:
    """Convert an ONNX file of ours.

    Args:
        onnx_file: In float32, or with products in 8 bits.
        contract: What travels with it.
        folder: Where ``model.xml`` and ``model.bin`` are written.
    """
    openvino = require("openvino", extra="openvino")
    graph = openvino.convert_model(onnx_file)
    graph.set_rt_info(json.dumps(contract.to_dict(), ensure_ascii=False), METADATA_KEY)
    # Its float16 moved scores of the demo model by 0.19, ONNX's by 0.0004.
    openvino.save_model(graph, folder / OPENVINO_FILE, compress_to_fp16=False)
