"""Exported files of strangers: one clear error, and no runtime has seen them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from tests.export.networks import named
from tests.model.test_uniformerv2 import TINY, make
from uniformerv2.cli import main
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.export.exporting import export_model
from uniformerv2.inference.predictor import Predictor
from uniformerv2.zoo.checkpoint import load_model, save_model
from uniformerv2.zoo.exported import METADATA_KEY, find_exported

pytestmark = pytest.mark.export
onnx = None


@pytest.fixture(scope="module", autouse=True)
def packages():
    global onnx
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    import onnx as imported

    onnx = imported


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return export_model(named(make(TINY)), tmp_path_factory.mktemp("good") / "model.onnx", verify_on=False).path


@pytest.fixture
def never_opened(monkeypatch):
    """ONNX Runtime computes the constant parts of a graph while it makes a session."""
    import onnxruntime

    def opened(*_, **__):
        raise AssertionError("the file reached ONNX Runtime")

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)


def changed(good, path, change):
    """A copy of a good file, after a change of its message."""
    graph = onnx.load(good)
    change(graph)
    path.write_bytes(graph.SerializeToString())
    return path


def with_metadata(**fields):
    """A change of what the file says of itself."""

    def change(graph):
        (entry,) = graph.metadata_props
        content = json.loads(entry.value)
        preprocessing = {**content["preprocessing"], **fields.pop("preprocessing", {})}
        entry.value = json.dumps({**content, "preprocessing": preprocessing, **fields})

    return change


def words(text):
    def change(graph):
        graph.metadata_props[0].value = text

    return change


def somebody_elses(graph):
    del graph.metadata_props[:]


def external(graph):
    weight = graph.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../etc/passwd")


def external_in_a_node(graph):
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.external_data.add(key="location", value="/etc/passwd")
    graph.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=tensor))


def graph_in_a_node(graph):
    inner = onnx.helper.make_graph([], "inner", [], [])
    graph.graph.node.append(onnx.helper.make_node("If", ["video"], ["x"], then_branch=inner, else_branch=inner))


def function(graph):
    made = onnx.helper.make_function("own", "f", ["x"], ["y"], [], [onnx.helper.make_opsetid("", 20)])
    graph.functions.append(made)


def own_operator(graph):
    graph.graph.node.append(onnx.helper.make_node("Shell", ["video"], ["x"], domain="evil"))


def two_inputs(graph):
    graph.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))


def fixed_views(graph):
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def other_size(graph):
    graph.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 64


def other_classes(graph):
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6


def no_shape(graph):
    graph.graph.output[0].type.tensor_type.ClearField("shape")


CHANGES = {
    "somebody else's": (somebody_elses, "was not written by uniformerv2 export, .* make one of a checkpoint"),
    "no JSON": (words("{"), "Expecting property name"),
    "a list": (words("[]"), "its metadata are no object"),
    "deep": (words("[" * 100_000), "values or tensors that no network has"),
    "another format": (with_metadata(format="x"), "its metadata were not written by uniformerv2 export"),
    "of the future": (with_metadata(version=2), "written in version 2; this package reads 1"),
    "precision": (with_metadata(precision="fp64"), "its precision is 'fp64', not fp32, fp16 or int8"),
    "no classes": (with_metadata(num_classes=0), "how many classes"),
    "many classes": (with_metadata(num_classes=10**9, class_names=[]), "above the limit width"),
    "fewer classes": (with_metadata(num_classes=4), "class_names has 5 names, num_classes is 4"),
    "fewer names and classes": (with_metadata(num_classes=4, class_names=[]), "logits is float32 .*, the file that"),
    "names of numbers": (with_metadata(class_names=[1, 2, 3, 4, 5]), "class_names must be a list of names"),
    "another size": (with_metadata(preprocessing={"image_size": 64}), "makes another input than its metadata say"),
    "a huge size": (with_metadata(preprocessing={"image_size": 10**6}), "above the limit image_size"),
    "another rounding": (with_metadata(preprocessing={"resize": "bilinear_uint8"}), "makes another input"),
    "unknown field": (with_metadata(preprocessing={"sise": 1}), "Preprocessing has no field 'sise'"),
    "external": (external, "tensors that lie in other files, which uniformerv2 export never writes"),
    "external in a node": (external_in_a_node, "tensors that lie in other files"),
    "graph in a node": (graph_in_a_node, "a graph inside a node"),
    "function": (function, "holds functions"),
    "own operator": (own_operator, "operators of the domain 'evil'"),
    "two inputs": (two_inputs, "its input must be video, the file has video, other"),
    "fixed views": (fixed_views, "the file that it is float32 .1, 4, 3, 32, 32."),
    "other size": (other_size, r"the file that it is float32 \['.*', 4, 3, 64, 32\]"),
    "other classes": (other_classes, "the file that it is float32"),
    "no shape": (no_shape, "the file that it is float32"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_lie_is_told_and_nothing_is_computed(name, good, tmp_path, never_opened):
    change, message = CHANGES[name]
    path = changed(good, tmp_path / "model.onnx", change)
    with pytest.raises(ValueError, match=message) as error:
        Predictor(path)
    assert str(path) in str(error.value)


def test_the_good_file_passes(good, tmp_path):
    assert find_exported(changed(good, tmp_path / "model.onnx", lambda graph: None)).num_classes == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\x00" * 100, "damaged or no ONNX file"),
        (b"not an onnx file at all", "damaged or no ONNX file"),
        (b"\xff" * 100, "damaged or no ONNX file"),
    ],
)
def test_noise(content, message, tmp_path, never_opened):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Predictor(path)


def test_a_file_cut_short_at_any_place(good, tmp_path, never_opened):
    content, path = good.read_bytes(), tmp_path / "model.onnx"
    for length in range(1, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model.onnx"):
            find_exported(path)


def test_a_graph_that_does_not_compute_what_it_declares(good, tmp_path):
    """Its header is in order; ONNX Runtime refuses it, in one sentence."""

    def change(graph):
        graph.graph.node[0].op_type = "NoSuchOperator"

    path = changed(good, tmp_path / "model.onnx", change)
    with pytest.raises(ValueError, match=r"ONNX Runtime cannot open it: .*NoSuchOperator"):
        Predictor(path, engine="onnxruntime")


def test_where_a_checkpoint_is_needed_it_is_asked_for(good):
    with pytest.raises(ValueError, match=r"is exported, for Predictor, predict and test alone: give the checkpoint"):
        load_model(good)


def test_overrides_have_no_place(good, capsys):
    assert main(["predict", "examples/archery.mp4", "--model", str(good), "--num-frames", "8"]) == 2
    assert "is exported, and says what its network is: leave out --num-frames" in capsys.readouterr().err


def test_engines_say_what_they_compute(good, tmp_path):
    checkpoint = save_model(named(make(TINY)), tmp_path / "model")
    with pytest.raises(ValueError, match=r"engine 'torch' does not compute .*\(onnx\), 'onnxruntime'.* does"):
        Predictor(good, engine="torch")
    with pytest.raises(ValueError, match=r"'onnxruntime' does not compute a checkpoint, 'torch' does"):
        Predictor(checkpoint, engine="onnxruntime")
    with pytest.raises(ValueError, match=r"engine is one of 'auto', .* got 'tensorrt'"):
        Predictor(good, engine="tensorrt")
    with pytest.raises(ValueError, match=r"computed on the CPU, got the device 'meta'"):
        Predictor(good, device="meta")
    with pytest.raises(ValueError, match=r"onnxruntime computes in float32 on a CPU, got precision 'bf16'"):
        Predictor(good, engine="onnxruntime", precision="bf16")


def test_another_preprocessing_is_refused(good):
    own = Predictor(good).preprocessing
    for fields, message in (
        ({"image_size": 64}, r"is for input_size \(32, 32\), got \(64, 64\)"),
        ({"num_frames": 8}, "is for num_frames 4, got 8"),
        ({"mean": (0.5, 0.5, 0.5)}, "is for mean"),
        ({"resize": "bilinear_uint8"}, "one of the two rounds"),
    ):
        with pytest.raises(ValueError, match=message):
            Predictor(good, replace(own, **fields))
    predictor = Predictor(good)
    predictor.preprocessing = replace(own, num_clips=2)
    with pytest.raises(ValueError, match=r"This predictor is for num_frames 4, got 8"):
        predictor.preprocessing = Preprocessing(num_frames=8, image_size=32)


def test_a_missing_engine_names_its_extra(good, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxruntime is needed here: pip install 'uniformerv2\[export\]'"):
        Predictor(good, engine="onnxruntime")


def test_metadata_have_one_key(good):
    assert [entry.key for entry in onnx.load(good).metadata_props] == [METADATA_KEY]
    shutil.copy(good, good.with_name("copy.onnx"))  # the JSON beside is for others: a file alone is whole
    assert find_exported(good.with_name("copy.onnx")).num_classes == 5
