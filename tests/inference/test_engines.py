"""Engines: what "auto" chooses by the processor, the file and what is installed; predict and test with each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.networks import named
from tests.media import write_video
from tests.model.test_uniformerv2 import MOTION, make
from uniformerv2.cli import main
from uniformerv2.export.exporting import export_model
from uniformerv2.inference import engines
from uniformerv2.inference.engines import best_of_onnx
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.checkpoint import save_model
from uniformerv2.zoo.exported import ExportedNetwork


def network(**fields):
    values = {"path": Path("m.onnx"), "format": "onnx", "precision": "fp32", "num_classes": 5, "weights_digest": ""}
    return ExportedNetwork(**{**values, "info": CheckpointInfo(), **fields})


@pytest.mark.parametrize("is_fast", [False, True], ids=["AVX2", "AVX512-BF16"])
def test_auto_follows_from_the_processor_and_the_file(is_fast, monkeypatch):
    monkeypatch.setattr(engines, "computes_bf16", lambda device: is_fast)
    monkeypatch.setattr(engines, "find_spec", lambda name: name)
    assert best_of_onnx(network()) == ("openvino" if is_fast else "onnxruntime")
    assert best_of_onnx(network(precision="fp16")) == ("openvino" if is_fast else "onnxruntime")
    assert best_of_onnx(network(), precision="fp32") == "onnxruntime"
    assert best_of_onnx(network(precision="int8")) == "onnxruntime"
    assert best_of_onnx(network(precision="int8", is_calibrated=True)) == "openvino"


def test_auto_takes_what_is_installed(monkeypatch):
    monkeypatch.setattr(engines, "computes_bf16", lambda device: True)
    for installed, chosen in (
        ({"onnxruntime"}, "onnxruntime"),
        ({"openvino"}, "openvino"),
        ({"onnxruntime", "openvino"}, "openvino"),
        (set(), "openvino"),  # whose absence is then told
    ):
        monkeypatch.setattr(engines, "find_spec", lambda name, installed=installed: name in installed or None)
        assert best_of_onnx(network()) == chosen


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    folder = tmp_path_factory.mktemp("models")
    checkpoint = save_model(named(make(MOTION), resize="bilinear_uint8"), folder / "tiny")
    return checkpoint, export_model(checkpoint, folder / "tiny.onnx", verify_on=False).path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate("aabbcd"):
        (folder / name).mkdir(exist_ok=True)
        write_video(folder / name / f"{number}.mp4", seed=number)
    (folder / "e").mkdir()
    (folder / "e" / "broken.mp4").write_bytes(b"broken")
    return folder


ENGINES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.openvino)]


@pytest.mark.export
@pytest.mark.parametrize("engine", ENGINES)
def test_predict_and_test_take_an_exported_file(engine, exported, videos, tmp_path, capsys):
    pytest.importorskip(engine, reason=f"{engine} comes with an extra")
    checkpoint, file = exported
    lines = {}
    for model, words in ((checkpoint, ()), (file, ("--engine", engine))):
        options = ["--model", str(model), "--precision", "fp32", *words, "--json"]
        assert main(["predict", str(videos), "--device", "cpu", *options]) == 1  # one is broken
        lines[model] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        dump = tmp_path / f"{model.name}.pkl"
        assert main(["test", str(videos), "--dump", str(dump), *options]) == 0
        lines[model].append(json.loads(capsys.readouterr().out)["metrics"]["all_videos"]["top1"])
    for wanted, found in zip(lines[checkpoint][:-1], lines[file][:-1], strict=True):
        assert ("error" in wanted) == ("error" in found)
        if "error" not in wanted:
            assert np.abs(np.array(wanted["scores"]) - found["scores"]).max() < 1e-4
    assert lines[checkpoint][-1] == lines[file][-1]


@pytest.mark.export
def test_a_test_is_resumed_with_the_same_file_and_engine_alone(exported, videos, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    _, file = exported
    dump = str(tmp_path / "a.pkl")
    words = ["test", str(videos), "--model", str(file), "--engine", "onnxruntime", "--dump", dump]
    assert main(words) == 0
    assert "onnxruntime, exported in fp32" in capsys.readouterr().out
    assert main(words) == 0
    assert "is the dump of this very test" in capsys.readouterr().out
    assert main([*words, "--head-classes", str(classes_file(tmp_path))]) == 2
    assert "is the dump of another test" in capsys.readouterr().err


def classes_file(folder):
    path = folder / "names.txt"
    path.write_text("e\nd\nc\nb\na\n")
    return path


@pytest.mark.export
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_does_not_depend_on_the_batch(engine, exported):
    pytest.importorskip(engine, reason=f"{engine} comes with an extra")
    predictor = Predictor(exported[1], engine=engine)
    views = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = predictor.logits(views)
    assert torch.equal(predictor.logits(views[1:2]), together[1:2])
    assert together.dtype == torch.float32
    assert repr(predictor).startswith(f"<Predictor on cpu, {engine}, ")


@pytest.mark.export
@pytest.mark.openvino
def test_bfloat16_is_near(exported, monkeypatch):
    pytest.importorskip("openvino", reason="openvino comes with the extra openvino")
    views = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    exact, near = (
        Predictor(exported[1], engine="openvino", precision=precision).logits(views).softmax(-1)
        for precision in ("fp32", "bf16")
    )
    assert (exact - near).abs().max() < 0.1


FORKED = """
import gc, os, sys, torch
from uniformerv2.inference.predictor import Predictor
for _ in range(2):
    predictor = Predictor(sys.argv[1], engine="openvino")
    views = torch.zeros(1, *predictor.network.input_type.shape[1:], dtype=torch.uint8)
    predictor.logits(views)
    del predictor
    gc.collect()
child = os.fork()
if not child:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.openvino
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_computed_with_openvino_may_fork(exported):
    """A crash was seen once where the last ``Core`` was gone; with OpenVINO 2026.4.1 the fork goes well even so."""
    pytest.importorskip("openvino", reason="openvino comes with the extra openvino")
    done = subprocess.run([sys.executable, "-c", FORKED, exported[1]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
