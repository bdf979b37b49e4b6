"""A ``.pt2`` file of ``torch.export`` read as data: tensors are plain bytes, the graph is a list of calls.

``torch.export.load`` unpickles what a file marks as pickled, evaluates its symbolic expressions and looks up functions
by their names: a stranger's file runs code there. Here nothing of a file is a name of code. Its JSON is turned into
calls of the operators in ``OPERATORS``, on tensors that lie in the archive as plain bytes, and these calls are made one
after the other. The pickle of example inputs, which is for C++ and compilers, is never opened.

Source:
    The schema of the JSON, https://github.com/pytorch/pytorch/blob/main/torch/_export/serde/schema.py
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from uniformerv2.zoo.onnx_header import TensorType
from uniformerv2.zoo.pt2_archive import GRAPH_ENTRY, METADATA_ENTRY, Pt2Archive, read_dtype

__all__ = ["OPERATORS", "Program", "Pt2Header", "load_pt2", "read_pt2_header"]

SCHEMA: Final = 8
"""Major version of the JSON; another may mean the same words otherwise."""
POSITIONAL, BY_NAME = 1, 2

_ATEN: Final = (
    *("abs.default", "amax.default", "std.correction"),  # of statistics of tokens
    *("add.Tensor", "cat.default", "chunk.default", "contiguous.default", "conv2d.default", "conv3d.default"),
    *("div.Tensor", "dropout.default", "expand.default", "flatten.using_ints", "gelu.default", "index.Tensor"),
    *("layer_norm.default", "linear.default", "matmul.default", "mean.dim", "mul.Tensor", "neg.default"),
    *("permute.default", "reshape.default", "rsub.Scalar", "scaled_dot_product_attention.default", "select.int"),
    *("sigmoid.default", "silu.default", "slice.Tensor", "softmax.int", "squeeze.dim", "stack.default", "sub.Tensor"),
    *("sym_size.int", "tensor_split.indices", "to.dtype", "transpose.int", "type_as.default", "unbind.int"),
    *("unflatten.int", "unsqueeze.default", "view.default"),
)
OPERATORS: Final = frozenset({*(f"torch.ops.aten.{name}" for name in _ATEN), "_operator.mul"})
"""What a graph may call: operators that compute a result from tensors and numbers, and reach nothing else."""
LEFT_OUT: Final = "torch.ops.aten._assert_tensor_metadata.default"
"""A check of types and devices by the exporter; without a result."""


@dataclass(frozen=True)
class Pt2Header:
    """What a file declares.

    Attributes:
        metadata: Its own words about itself; None where it has none.
        inputs: Name -> type.
        outputs: In their order.
    """

    metadata: str | None
    inputs: Mapping[str, TensorType]
    outputs: Sequence[TensorType]


class _Name(str):
    """A value of the graph, by the name of it."""


@dataclass(frozen=True)
class _Call:
    """One step.

    Attributes:
        compute: The operator.
        args: Numbers, types, and names of values.
        options: The same, given by their names.
        results: Names that the result gets.
        is_list: Whether it is a list, of as many.
        no_longer: Values that no later step takes.
    """

    compute: Callable[..., Any]
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    results: tuple[str, ...]
    is_list: bool
    no_longer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A graph that is ready to compute.

    Attributes:
        tensors: Weights and constants by name.
        num_parameters: Numbers in them.
    """

    tensors: Mapping[str, Tensor]
    num_parameters: int
    _input: str
    _outputs: tuple[str, ...]
    _calls: tuple[_Call, ...]

    def __call__(self, value: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in their order.

        Raises:
            ValueError: A step cannot be computed.
        """
        values: dict[str, Any] = {**self.tensors, self._input: value}
        for number, call in enumerate(self._calls):
            try:
                args = [_filled(arg, values) for arg in call.args]
                found = call.compute(*args, **{name: _filled(arg, values) for name, arg in call.options.items()})
                values.update(zip(call.results, found if call.is_list else (found,), strict=True))
            except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
                what = str(error).strip().partition("\n")[0]
                raise ValueError(f"Step {number} of its graph ({call.compute}) cannot be computed: {what}") from error
            for name in call.no_longer:
                del values[name]
        return tuple(values[name] for name in self._outputs)


def read_pt2_header(path: Path) -> Pt2Header:
    """Look through a file without loading its weights.

    Args:
        path: The file.

    Raises:
        ValueError: It is no such archive, or calls what is not in ``OPERATORS``.
    """
    with Pt2Archive(path) as archive:
        graph = _Graph(archive.json(GRAPH_ENTRY))
        metadata = archive.read(f"extra/{METADATA_ENTRY}").decode("utf-8") if archive.has_metadata else None
    inputs = {name: graph.type_of(name) for name in graph.inputs}
    return Pt2Header(metadata, inputs, [graph.type_of(name) for name in graph.outputs])


def load_pt2(path: Path) -> Program:
    """Read a file's graph and weights.

    Args:
        path: The file; its header was looked through.

    Raises:
        ValueError: It is damaged, or its tensors are not the bytes that they should be.
    """
    with Pt2Archive(path) as archive:
        graph = _Graph(archive.json(GRAPH_ENTRY))
        tensors = archive.tensors(graph.sources)
    (name,) = graph.inputs
    calls = _forgetting(graph.calls, kept={*tensors, *graph.outputs, name})
    return Program(tensors, sum(tensor.numel() for tensor in tensors.values()), name, graph.outputs, calls)


class _Graph:
    """The JSON of a graph, taken apart.

    Args:
        content: As the file has it.

    Raises:
        ValueError: It is of another version, or calls what is not in ``OPERATORS``.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        if content["schema_version"]["major"] != SCHEMA:
            raise ValueError(f"it was written in version {content['schema_version']} of torch.export, not {SCHEMA}")
        module = content["graph_module"]
        self._values = module["graph"]["tensor_values"]
        self.inputs: list[str] = []
        self.sources: dict[str, str] = {}
        for spec in module["signature"]["input_specs"]:
            ((kind, about),) = spec.items()
            if kind == "user_input":
                self.inputs.append(_Name(about["arg"]["as_tensor"]["name"]))
            elif kind in {"parameter", "buffer", "tensor_constant"}:
                self.sources[_Name(about["arg"]["name"])] = about[f"{kind}_name"]
            else:
                raise ValueError(f"its graph takes a {kind}, which uniformerv2 export never writes")
        self.outputs = tuple(_Name(one["as_tensor"]["name"]) for one in module["graph"]["outputs"])
        self.calls = [_call_of(node) for node in module["graph"]["nodes"] if node["target"] != LEFT_OUT]

    def type_of(self, name: str) -> TensorType:
        """What the graph says of a value."""
        about = self._values[name]
        sizes = tuple(one.get("as_int", "views") for one in about["sizes"])
        return TensorType(str(read_dtype(about["dtype"])).removeprefix("torch."), sizes)


def _call_of(node: Mapping[str, Any]) -> _Call:
    """A step of a graph.

    Raises:
        ValueError: It is no call of an operator of the list.
    """
    target = node["target"]
    if target not in OPERATORS:
        raise ValueError(f"its graph calls {target!r}, which uniformerv2 export never writes: it is not opened")
    args = tuple(_value(one["arg"]) for one in node["inputs"] if one["kind"] == POSITIONAL)
    options = {one["name"]: _value(one["arg"]) for one in node["inputs"] if one["kind"] == BY_NAME}
    (result,) = node["outputs"]
    ((kind, about),) = result.items()
    names = [one["name"] for one in about] if kind == "as_tensors" else [about.get("name", about.get("as_name"))]
    compute = operator.mul if target == "_operator.mul" else operator.attrgetter(target.removeprefix("torch."))(torch)
    return _Call(compute, args, options, tuple(map(_Name, names)), kind == "as_tensors")


def _value(arg: Mapping[str, Any]) -> Any:
    """What an operator is given: numbers, types, names of values, and lists of these.

    Raises:
        ValueError: It is something else.
    """
    ((kind, value),) = arg.items()
    match kind:
        case "as_none":
            return None
        case "as_int" | "as_float" | "as_bool" if isinstance(value, int | float):
            return value
        case "as_ints" | "as_floats" if all(isinstance(one, int | float) for one in value):
            return list(value)
        case "as_string" if isinstance(value, str):
            return value
        case "as_scalar_type":
            return read_dtype(value)
        case "as_tensor":
            return _Name(value["name"])
        case "as_name":
            return _Name(value)
        case "as_tensors":
            return [_Name(one["name"]) for one in value]
        case "as_sym_int":
            return _value(value)
        case "as_sym_ints" | "as_optional_tensors":
            return [_value(one) for one in value]
    raise ValueError(f"its graph holds {kind} {value!r}, which uniformerv2 export never writes")


def _forgetting(calls: Sequence[_Call], *, kept: set[str]) -> tuple[_Call, ...]:
    """The same calls, each with the values that none after it takes."""
    seen, found = set(kept), []
    for call in reversed(calls):
        used = {name for arg in (*call.args, *call.options.values()) for name in _names_in(arg)} | {*call.results}
        found.append(replace(call, no_longer=tuple(used - seen)))
        seen |= used
    return tuple(reversed(found))


def _names_in(arg: Any) -> list[str]:
    return [one for one in (arg if isinstance(arg, list) else [arg]) if isinstance(one, _Name)]


def _filled(arg: Any, values: Mapping[str, Any]) -> Any:
    """An argument with values in the place of their names."""
    if isinstance(arg, list):
        return [_filled(one, values) for one in arg]
    return values[arg] if isinstance(arg, _Name) else arg
