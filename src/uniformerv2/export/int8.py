"""An ONNX graph with its linear maps in 8-bit integers, by ONNX Runtime's quantisation.

Weights are rounded once, with a scale for each output channel. Activations have one scale for each product: measured
on videos beforehand (calibrated), or of each view anew. All else stays in float32: attention, softmax, LayerNorm, the
activation. Measured: docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from uniformerv2.core.optional import require
from uniformerv2.export.onnx_file import quietly, write_onnx
from uniformerv2.zoo.exported import INPUT, ExportedNetwork

__all__ = ["write_int8"]

LINEAR: Final = ["MatMul", "Gemm"]


def write_int8(graph: Any, contract: ExportedNetwork, path: Path, *, views: Iterable[Tensor] | None = None) -> None:
    """Round a graph's linear maps, and write it with its metadata.

    Args:
        graph: An ``onnx.ModelProto`` in float32.
        contract: What travels with it.
        path: The file; its folder is written to meanwhile.
        views: Of the videos to calibrate on, each [V, T, 3, h, w]; None: the scales are those of each view.
    """
    onnx = require("onnx", extra="export")
    quantization = require("onnxruntime.quantization", extra="export")
    rounded = path.with_name("rounded.onnx")
    linear = {"op_types_to_quantize": LINEAR, "per_channel": True, "weight_type": quantization.QuantType.QInt8}
    with quietly():
        if views is None:
            quantization.quantize_dynamic(graph, rounded, **linear)
        else:
            quantization.quantize_static(
                graph,
                rounded,
                _reader(quantization, views),
                **linear,
                activation_type=quantization.QuantType.QUInt8,
                extra_options={"MatMulConstBOnly": True},  # attention has no weights
            )
    write_onnx(onnx.load(rounded), contract, path)
    rounded.unlink()


def _reader(quantization: Any, views: Iterable[Tensor]) -> Any:
    """What the tool asks for views, one at a time."""

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._views = _single(views)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._views, None)

    return Reader()


def _single(views: Iterable[Tensor]) -> Iterator[dict[str, Any]]:
    for some in views:
        for view in some.split(1):
            yield {INPUT: view.contiguous().numpy()}
