"""``.pt2`` files: computed without PyTorch's own reader, which runs what a file says; strangers' are refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.networks import NAMES, named
from tests.media import write_video
from tests.model.test_uniformerv2 import MOTION, make
from uniformerv2.cli import main
from uniformerv2.core.messages import UsageError
from uniformerv2.export.exporting import export_model
from uniformerv2.inference.predictor import Predictor
from uniformerv2.zoo.checkpoint import save_model
from uniformerv2.zoo.exported import find_exported
from uniformerv2.zoo.pt2_archive import METADATA_ENTRY
from uniformerv2.zoo.pt2_graph import OPERATORS

ROOT = Path(__file__).resolve().parents[2]
GRAPH, WEIGHTS = "model/models/model.json", "model/data/weights/model_weights_config.json"
METADATA, EXAMPLES = f"model/extra/{METADATA_ENTRY}", "model/data/sample_inputs/model.pt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(named(make(MOTION), resize="bilinear_uint8"), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    return export_model(checkpoint, tmp_path_factory.mktemp("pt2") / "model.pt2", format="pt2")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4")


@pytest.fixture
def never_unpickled(monkeypatch):
    """Neither PyTorch's reader nor a pickle has a part in what follows."""

    def called(*_, **__):
        raise AssertionError("the file reached a reader that may run it")

    for module, name in ((torch.export, "load"), (torch, "load"), (pickle, "loads"), (pickle, "load")):
        monkeypatch.setattr(module, name, called)


def test_the_file_says_all_and_was_proved(exported):
    network = find_exported(exported.path)
    assert (network.format, network.info.class_names) == ("pt2", NAMES)
    beside = json.loads(exported.path.with_name("model.pt2.json").read_text("utf-8"))
    assert beside == network.to_dict() == exported.network.to_dict()
    assert exported.verification.engine == "torch"
    assert exported.verification.largest_difference < 1e-5
    content = exported.path.read_bytes()
    assert str(Path(__file__).resolve().parents[2]).encode() not in content
    assert b"site-packages" not in content
    assert b"stack_trace" not in content


def test_predict_and_test_take_it(exported, checkpoint, video, tmp_path, never_unpickled, capsys):
    wanted = Predictor(checkpoint, device="cpu", precision="fp32")(video)
    assert main(["predict", str(video), "--model", str(exported.path), "--precision", "fp32", "--json"]) == 0
    assert np.abs(json.loads(capsys.readouterr().out)["scores"] - wanted.scores).max() < 1e-5
    half = Predictor(exported.path, precision="bf16")
    assert half.precision == "bf16"
    assert 0 < np.abs(half(video).scores - wanted.scores).max() < 0.05
    (tmp_path / "list.csv").write_text(f"path,label\n{video},0\n")
    words = [
        "test",
        tmp_path / "list.csv",
        "--model",
        exported.path,
        "--engine",
        "torch",
        "--dump",
        tmp_path / "scores.pkl",
    ]
    assert main([*map(str, words), "--workers", "1", "--json"]) == 0


def test_another_engine_and_another_precision_are_refused(exported, checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"'onnxruntime' does not compute .*\(pt2\), 'torch' does"):
        Predictor(exported.path, engine="onnxruntime")
    with pytest.raises(UsageError, match=r"holds fp32, got precision 'fp16'\. .* format 'onnx' has the others"):
        export_model(checkpoint, tmp_path / "m.pt2", format="pt2", precision="fp16")
    with pytest.raises(UsageError, match=r"The format pt2 writes a file that ends with \.pt2, got .*m\.onnx"):
        export_model(checkpoint, tmp_path / "m.onnx", format="pt2")


def changed(good, path, entry, change):
    """A copy of a good file, after a change of one entry: of its JSON, or of its bytes."""
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as out:
        for name in source.namelist():
            content = source.read(name)
            if name == entry and isinstance(change, bytes):
                content = change
            elif name == entry:
                value = json.loads(content)
                change(value)
                content = json.dumps(value).encode()
            out.writestr(name, content)
    return path


def nodes(graph):
    return graph["graph_module"]["graph"]["nodes"]


def calls(target):
    def change(graph):
        nodes(graph)[3]["target"] = target

    return change


def given(**arg):
    def change(graph):
        nodes(graph)[3]["inputs"][0]["arg"] = arg

    return change


def of_graph(*keys, value):
    def change(graph):
        for key in keys[:-1]:
            graph = graph[key]
        graph[keys[-1]] = value

    return change


def first_weight(**fields):
    def change(config):
        next(iter(config["config"].values()))["tensor_meta"].update(fields)

    return change


def pickled(config):
    next(iter(config["config"].values()))["use_pickle"] = True


def same_names(config):
    next(iter(config["config"].values()))["path_name"] = "absent"


def other_metadata(**fields):
    return lambda content: content.update(fields)


def huge(graph):
    expand = next(node for node in nodes(graph) if node["target"].endswith("expand.default"))
    expand["inputs"][1]["arg"] = {"as_ints": [2**40, 2**20, 2**20]}


VIDEO = ("graph_module", "graph", "tensor_values", "video")
CHANGES = {
    "a function": (GRAPH, calls("torch.hub.load"), r"calls 'torch.hub.load', which .* never writes: it is not opened"),
    "a file": (GRAPH, calls("torch.ops.aten.from_file.default"), "calls 'torch.ops.aten.from_file.default'"),
    "a module": (GRAPH, calls("os.system"), "calls 'os.system'"),
    "an object": (GRAPH, given(as_custom_obj={"name": "x", "class_fqn": "y"}), "holds as_custom_obj"),
    "an expression": (GRAPH, given(as_expr={"expr_str": "__import__('os')"}), "holds as_expr"),
    "a number as a word": (GRAPH, given(as_int="1"), "holds as_int '1'"),
    "another version": (GRAPH, of_graph("schema_version", "major", value=9), "was written in version"),
    "another input": (GRAPH, of_graph(*VIDEO, "sizes", value=[{"as_int": 1}]), r"the file that it is uint8 \[1\]"),
    "another type": (GRAPH, of_graph(*VIDEO, "dtype", value=7), "the file that it is float32"),
    "a strange type": (GRAPH, of_graph(*VIDEO, "dtype", value=99), "numbers of type 99"),
    "no graph": (GRAPH, b"{}", "holds values or tensors that no network has: 'schema_version'"),
    "no JSON": (GRAPH, b"{", "Expecting property name"),
    "a list": (GRAPH, b"[]", "is no object"),
    "deep": (GRAPH, b"[" * 100_000, "values or tensors that no network has"),
    "pickled": (WEIGHTS, pickled, "is pickled, which could run code: uniformerv2 export never writes so"),
    "absent": (WEIGHTS, same_names, "absent is absent"),
    "beyond": (WEIGHTS, first_weight(sizes=[{"as_int": 2**40}]), "does not lie in its"),
    "repeated": (WEIGHTS, first_weight(sizes=[{"as_int": 2**40}], strides=[{"as_int": 0}]), "does not lie in its"),
    "before": (WEIGHTS, first_weight(storage_offset={"as_int": -1}), "does not lie in its"),
    "words as sizes": (WEIGHTS, first_weight(sizes=[{"as_int": "3"}]), "a size is '3'"),
    "other metadata": (METADATA, other_metadata(format="x"), "were not written by uniformerv2 export"),
    "fewer classes": (METADATA, other_metadata(num_classes=4), "class_names has 5 names, num_classes is 4"),
    "a few bytes": ("model/data/weights/weight_0", b"abc", "no whole number of torch.float32"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_lie_is_told_and_nothing_runs(name, exported, tmp_path, never_unpickled):
    entry, change, message = CHANGES[name]
    path = changed(exported.path, tmp_path / "model.pt2", entry, change)
    with pytest.raises(ValueError, match=message) as error:
        Predictor(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (huge, r"model\.pt2: Step \d+ of its graph \(aten\.expand\.default\) cannot be computed"),
        (given(as_tensor={"name": "nothing"}), "cannot be computed: 'nothing'"),
        (calls("torch.ops.aten.silu.default"), "cannot be computed: "),
    ],
)
def test_a_graph_that_cannot_be_computed_is_one_sentence(change, message, exported, tmp_path, video):
    predictor = Predictor(changed(exported.path, tmp_path / "model.pt2", GRAPH, change))
    with pytest.raises(ValueError, match=message):
        predictor(video)


class Attack:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_what_pytorchs_own_reader_would_run_is_never_opened(exported, tmp_path, video):
    """The pickle of example inputs: ``torch.export.load`` runs it, we have the scores without."""
    buffer = io.BytesIO()
    torch.save((Attack(tmp_path / "run"),), buffer)
    path = changed(exported.path, tmp_path / "model.pt2", EXAMPLES, buffer.getvalue())
    wanted = Predictor(exported.path)(video).scores
    assert np.array_equal(Predictor(path)(video).scores, wanted)
    assert not (tmp_path / "run").exists()
    code = f"import torch; torch.export.load({str(path)!r})"
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (tmp_path / "run").exists()  # else the attack proves nothing


def test_somebody_elses(tmp_path, never_unpickled):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(ValueError, match=r"not written by uniformerv2 export"):
        find_exported(tmp_path / "model.pt2")


def test_noise_and_damage(exported, tmp_path, never_unpickled):
    path, content = tmp_path / "model.pt2", exported.path.read_bytes()
    for noise in (b"", b"PK\x03\x04", b"\x00" * 100, content[: len(content) // 2]):
        path.write_bytes(noise)
        with pytest.raises(ValueError, match=r"damaged or no file of torch.export"):
            Predictor(path)
    place = content.index(zipfile.ZipFile(exported.path).read("model/data/weights/weight_0"))
    path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"damaged \(Bad CRC-32"):
        Predictor(path)
    shutil.copy(exported.path, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(GRAPH, b"{}")
    with pytest.raises(ValueError, match=r"read in two ways"):
        Predictor(path)


def test_no_operator_reaches_a_file_or_a_process():
    assert {name.rpartition(".")[0].rpartition(".")[0] for name in OPERATORS} == {"torch.ops.aten", ""}
    assert not [name for name in OPERATORS if "file" in name or name.split(".")[-2].endswith("_")]


def blocks_of(page, language):
    """The blocks of a page, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_pages_program_in_cpp(tmp_path):
    """Compiled and run as the page says, from the demo model."""
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    page = (ROOT / "docs" / "export_and_deploy.md").read_text("utf-8").partition("### C++ with PyTorch")[2]
    (program,) = blocks_of(page, "cpp")
    (tmp_path / "scores.cpp").write_text(program)
    export_model(ROOT / "models" / "demo", tmp_path / "model.pt2", format="pt2")
    lines = re.sub(r"\\\n\s*", "", "".join(blocks_of(page, "console"))).splitlines()
    script = "\n".join(line.removeprefix("$ ") for line in lines[1:])
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-e", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [float(word) for word in re.findall(r"\d\.\d+(?:e-\d+)?", done.stdout)]
    views = torch.full((2, 8, 3, 112, 112), 100, dtype=torch.uint8)
    wanted = Predictor(ROOT / "models" / "demo", device="cpu", precision="fp32").logits(views).softmax(-1)
    assert np.abs(np.array(found).reshape(2, 6) - wanted.numpy()).max() < 2e-4
