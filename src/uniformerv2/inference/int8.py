"""``Int8Network``: a network on a CPU with its linear maps in 8-bit integers, through ONNX Runtime.

Weights are rounded once, with a scale for each output channel; activations at each product, with one scale. All else
stays in float32: attention, softmax, LayerNorm, the activation. Measured against bfloat16: docs/performance.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from uniformerv2.core.optional import require

__all__ = ["Int8Network"]


class Int8Network:
    """Calls as the network itself, with clips of one shape.

    Each clip is computed alone: the scale of the activations is that of a product, and would be another beside others.

    Args:
        model: In eval mode, on a CPU.
        clip_shape: T, C, h, w of a clip.

    Raises:
        ModuleNotFoundError: ONNX Runtime, or what writes its files, is not installed.
    """

    def __init__(self, model: nn.Module, clip_shape: tuple[int, int, int, int]) -> None:
        onnx, onnxruntime = require("onnx", extra="int8"), require("onnxruntime", extra="int8")
        quantization = require("onnxruntime.quantization", extra="int8")
        require("onnxscript", extra="int8")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        with TemporaryDirectory() as folder, _without_advice(), torch.no_grad():
            exported, rounded = Path(folder, "network.onnx"), Path(folder, "int8.onnx")
            torch.onnx.export(
                model, (torch.zeros(1, *clip_shape),), exported, dynamo=True, external_data=False, verbose=False
            )
            graph = onnx.load(exported)
            del graph.graph.value_info[:]  # shapes from before the exporter joined operators
            quantization.quantize_dynamic(graph, rounded, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
            self._session: Any = onnxruntime.InferenceSession(rounded, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, video: Tensor) -> Tensor:
        """[B, T, 3, h, w] float32 -> [B, num_classes] float32."""
        clips = [self._session.run(None, {self._input: clip.numpy()})[0] for clip in video.contiguous().split(1)]
        return torch.cat([torch.from_numpy(logits) for logits in clips])


@contextmanager
def _without_advice() -> Iterator[None]:
    """The tools' advice on how to call them is not for who calls us."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
