"""Engines: views of a video in, logits out. PyTorch computes a checkpoint, other runtimes what was exported of it.

========== ==================================  =======================
made from  what ``open_engine`` may choose     and does with "auto"
========== ==================================  =======================
checkpoint torch                               torch
.onnx      onnxruntime, openvino               see ``best_of_onnx``
OpenVINO   openvino                            openvino
.pt2       torch                               torch
========== ==================================  =======================

Letters of this file: V views, T frames, h x w pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import torch
from torch import Tensor

from uniformerv2.core.devices import best_device, existing_device
from uniformerv2.core.optional import require
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.precision import computes_bf16, gains_from_bf16
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import load_model
from uniformerv2.zoo.exported import INPUT, LOGITS, ExportedNetwork, find_exported
from uniformerv2.zoo.files import naming
from uniformerv2.zoo.pt2_graph import load_pt2

__all__ = [
    "Engine",
    "EngineName",
    "Network",
    "OnnxRuntimeEngine",
    "OpenVINOEngine",
    "Precision",
    "Pt2Engine",
    "TorchEngine",
    "best_of_onnx",
    "check_same_input",
    "load_network",
    "open_engine",
]

Network = UniFormerV2 | ExportedNetwork
EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
Precision = Literal["auto", "fp32", "bf16"]


class Engine(Protocol):
    """A network that is ready to compute.

    Attributes:
        name: Of the runtime.
        device: Where it computes.
        precision: In which it computes what the weights leave open: "fp32" or "bf16".
    """

    name: str
    device: torch.device
    precision: str

    def __call__(self, views: Tensor) -> Tensor:
        """Views [V, T, 3, h, w], 0 to 255 -> logits [V, K], float32, in the computer's main memory."""
        ...


class TorchEngine:
    """PyTorch computes a network.

    Args:
        model: Moved to the device and put in eval mode.
        normalize: Pixels of 0 to 255 -> the network's scale.
        device: Where.
        precision: "bf16" is autocast; "auto" where the hardware gains from it.
    """

    name = "torch"

    def __init__(
        self, model: UniFormerV2, normalize: Callable[[Tensor], Tensor], *, device: torch.device, precision: Precision
    ) -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.precision = (
            "bf16" if precision == "bf16" or (precision == "auto" and gains_from_bf16(model, device)) else "fp32"
        )
        self._normalize = normalize
        self._dtype = model.norm.weight.dtype

    @torch.inference_mode()
    def __call__(self, views: Tensor) -> Tensor:
        """See ``Engine``."""
        with self.autocast():
            logits: Tensor = self.model(self.network_input(views))
        return logits.float().cpu()

    def network_input(self, pixels: Tensor) -> Tensor:
        """Pixels [..., 3, h, w] of 0 to 255, normalised, on the device and in the network's type."""
        return self._normalize(pixels.to(self.device, non_blocking=True)).to(self._dtype)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision, for a ``with`` statement."""
        is_bf16 = self.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if is_bf16 else nullcontext()


class OnnxRuntimeEngine:
    """ONNX Runtime computes an ONNX file on the CPU, view by view: more at once gain nothing there.

    Args:
        network: Of the format "onnx".
        precision: "bf16" is refused.

    Raises:
        ValueError: The file cannot be opened, or bfloat16 was asked for.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """

    name = "onnxruntime"
    device = torch.device("cpu")

    def __init__(self, network: ExportedNetwork, *, precision: Precision) -> None:
        onnxruntime = require("onnxruntime", extra="export")
        if precision == "bf16":
            raise ValueError("onnxruntime computes in float32 on a CPU, got precision 'bf16'; take 'auto'.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what is wrong is raised
        options.add_free_dimension_override_by_name("views", 1)
        self.precision = "fp32"
        try:
            self._session = onnxruntime.InferenceSession(network.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of classes that are no public part of it
            raise ValueError(f"{network.path}: ONNX Runtime cannot open it: {_first_line(error)}") from error

    def __call__(self, views: Tensor) -> Tensor:
        """See ``Engine``."""
        return torch.cat([self._compute(view) for view in views.split(1)])

    def _compute(self, view: Tensor) -> Tensor:
        (logits,) = self._session.run([LOGITS], {INPUT: view.contiguous().numpy()})
        return torch.from_numpy(logits)


class OpenVINOEngine:
    """OpenVINO computes an ONNX or OpenVINO file on the CPU, view by view: more at once gain nothing there.

    Args:
        network: Of the format "onnx" or "openvino".
        precision: "auto" is bfloat16 where the processor multiplies it.

    Raises:
        ValueError: The file cannot be opened.
        ModuleNotFoundError: OpenVINO is not installed.
    """

    name = "openvino"
    device = torch.device("cpu")

    def __init__(self, network: ExportedNetwork, *, precision: Precision) -> None:
        core = _openvino_core()
        is_bf16 = precision == "bf16" or (precision == "auto" and computes_bf16(self.device))
        self.precision = "bf16" if is_bf16 else "fp32"
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if is_bf16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            graph = core.read_model(network.path)
            graph.reshape({INPUT: [1, *network.input_type.shape[1:]]})
            self._request = core.compile_model(graph, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ValueError(f"{network.path}: OpenVINO cannot open it: {_last_line(error)}") from error

    def __call__(self, views: Tensor) -> Tensor:
        """See ``Engine``."""
        return torch.cat([self._compute(view) for view in views.split(1)])

    def _compute(self, view: Tensor) -> Tensor:
        found = self._request.infer({INPUT: view.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(found[LOGITS].copy())


class Pt2Engine:
    """PyTorch computes a ``.pt2`` file on the CPU, one operator of its graph after the other.

    Args:
        network: Of the format "pt2".
        precision: "bf16" is autocast; "auto" where the hardware gains from it.

    Raises:
        ValueError: The file cannot be opened.
    """

    name = "torch"
    device = torch.device("cpu")

    def __init__(self, network: ExportedNetwork, *, precision: Precision) -> None:
        self._path = network.path
        with naming(network.path):
            self._program = load_pt2(network.path)
        gains = precision == "auto" and gains_from_bf16(self._program.num_parameters, self.device)
        self.precision = "bf16" if precision == "bf16" or gains else "fp32"

    @torch.inference_mode()
    def __call__(self, views: Tensor) -> Tensor:
        """See ``Engine``."""
        is_bf16 = self.precision == "bf16"
        with naming(self._path), torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
            logits, _ = self._program(views)
            return logits.float()


@cache
def _openvino_core() -> Any:
    """One for the process: it loads plugins once. A fork after the last was gone was seen to crash, once."""
    return require("openvino", extra="openvino").Core()


def load_network(source: str | Path, /, **overrides: Any) -> Network:
    """What is to be computed with: an exported network, or a checkpoint with its linear maps merged.

    Args:
        source: What ``load_model`` takes, or what ``uniformerv2 export`` wrote.
        **overrides: See ``load_model``; an exported network has none.

    Raises:
        ValueError: As ``load_model``; an exported file that is damaged or somebody else's, or has overrides.
    """
    exported = find_exported(source)
    if exported is None:
        return load_model(source, **overrides).merge_linear()
    if overrides:
        raise ValueError(f"{source} is exported, and says what its network is: leave out {', '.join(overrides)}.")
    return exported


def open_engine(
    network: Network,
    preprocessing: Preprocessing,
    *,
    engine: EngineName = "auto",
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> Engine:
    """Make a network ready to compute.

    Args:
        network: A checkpoint's, or an exported one.
        preprocessing: What a video goes through before.
        engine: "auto" is the rule of this file's table.
        device: "auto" is a GPU where there is one and the network is a checkpoint's.
        precision: "auto" is bfloat16 where the hardware gains from it.

    Raises:
        ValueError: An engine that does not compute this network, or arguments outside what is allowed.
        ModuleNotFoundError: The engine is not installed.
    """
    for name, value, kinds in (("precision", precision, Precision), ("engine", engine, EngineName)):
        if value not in get_args(kinds):
            raise ValueError(f"{name} is one of {', '.join(map(repr, get_args(kinds)))}, got {value!r}.")
    kind = network.format if isinstance(network, ExportedNetwork) else "checkpoint"
    allowed = ENGINES[kind]
    if engine not in {"auto", *allowed}:
        of = f"{network.path} ({kind})" if isinstance(network, ExportedNetwork) else "a checkpoint"
        raise ValueError(
            f"engine {engine!r} does not compute {of}, {' or '.join(map(repr, allowed))} does. uniformerv2 export "
            "MODEL model.onnx makes a file for 'onnxruntime' and 'openvino'."
        )
    if isinstance(network, UniFormerV2):
        device = existing_device(best_device(takes_mps=True) if device == "auto" else device)
        return TorchEngine(network, preprocessing.normalize, device=device, precision=precision)
    if existing_device("cpu" if device == "auto" else device).type != "cpu":
        raise ValueError(f"An exported network is computed on the CPU, got the device {str(device)!r}; take 'cpu'.")
    check_same_input(preprocessing, network.preprocessing, what=str(network.path))
    best = best_of_onnx(network, precision=precision) if kind == "onnx" else allowed[0]
    name = best if engine == "auto" else engine
    return _MAKERS[name](network, precision=precision)


def best_of_onnx(network: ExportedNetwork, *, precision: Precision = "auto") -> str:
    """What computes an ONNX file fastest here, of what is installed; follows from the table of docs/performance.md.

    OpenVINO where it may use what ONNX Runtime has not: bfloat16 products on processors that have them, and 8-bit
    products whose scales are known. Else ONNX Runtime, which is level with OpenVINO in float32, or ahead.

    Args:
        network: Of the format "onnx".
        precision: As asked for.
    """
    is_bf16 = precision != "fp32" and network.precision != "int8" and computes_bf16(torch.device("cpu"))
    wanted = "openvino" if is_bf16 or network.is_calibrated or precision == "bf16" else "onnxruntime"
    other = {"openvino": "onnxruntime", "onnxruntime": "openvino"}[wanted]
    return other if not find_spec(wanted) and find_spec(other) else wanted


def check_same_input(found: Preprocessing, wanted: Preprocessing, *, what: str) -> None:
    """Whether views come as a network takes them.

    Args:
        found: What makes the views.
        wanted: What the network was made for.
        what: Whose network, for the message.

    Raises:
        ValueError: They do not.
    """
    for name in ("num_frames", "input_size", "mean", "std"):
        if getattr(found, name) != getattr(wanted, name):
            raise ValueError(f"{what} is for {name} {getattr(wanted, name)}, got {getattr(found, name)}.")
    if (found.resize == "bilinear_float") != (wanted.resize == "bilinear_float"):
        raise ValueError(
            f"{what} is for views as resize {wanted.resize!r} makes them, got {found.resize!r}: one of the two rounds."
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2]


ENGINES: Final[Mapping[str, tuple[str, ...]]] = {
    "checkpoint": ("torch",),
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "pt2": ("torch",),
}
"""What a network was made from -> the engines that compute it."""

_MAKERS: Final[Mapping[str, Callable[..., Engine]]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVINOEngine,
    "torch": Pt2Engine,
}
