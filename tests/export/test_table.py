"""Every architecture in every format, reloaded in a fresh process: the scores are the checkpoint's."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from tests.export.networks import ARCHITECTURES
from tests.media import write_video
from uniformerv2.export.exporting import contract_of, write_files
from uniformerv2.export.graph import ExportableNetwork, trace
from uniformerv2.export.openvino_folder import write_openvino
from uniformerv2.export.pt2_file import write_pt2
from uniformerv2.inference.predictor import Predictor

pytestmark = pytest.mark.timeout(1800)  # the first test exports all of them
TOLERANCE = 1e-4
IN_A_PROCESS = """
import json, sys, torch
from uniformerv2.inference.predictor import Predictor
for path, engine, video in map(str.split, sys.stdin):
    predictor = Predictor(path, engine=engine.partition(",")[0], precision="fp32")
    if engine == "torch,its_own_reader":
        program = torch.export.load(path).module()
        predictor.logits = lambda views: program(views)[0].detach()
    prediction = predictor(video)
    print(json.dumps([path, engine, prediction.view_scores.tolist(), prediction.frame_indices, prediction.class_names]))
"""
READ_BY_PYTORCH = ("scene, sequential", "motion", "multi-label", "clip", "beit", "motion, dinov3")
"""Whose ``.pt2`` is also read by ``torch.export.load``, which takes a second for each."""
CASES = [
    ("onnx", "onnxruntime"),
    pytest.param("onnx", "openvino", marks=pytest.mark.openvino),
    pytest.param("openvino", "openvino", marks=pytest.mark.openvino),
    ("pt2", "torch"),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Exported in this process, computed in another."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    folder = tmp_path_factory.mktemp("exported")
    video = write_video(folder / "video.mp4")
    wanted, asked = {}, {}
    for number, (name, maker) in enumerate(ARCHITECTURES.items()):
        model, out = maker(), folder / str(number)
        out.mkdir()
        contract = contract_of(model, out)
        program = trace(ExportableNetwork(model, contract), contract)
        write_files(program, contract, out, format="onnx")
        write_pt2(program, contract, out / "model.pt2")
        wanted[name] = Predictor(model.merge_linear(), device="cpu", precision="fp32")(video)
        asked[name, "onnx", "onnxruntime"] = out / "model.onnx"
        asked[name, "pt2", "torch"] = out / "model.pt2"
        if name in READ_BY_PYTORCH:
            asked[name, "pt2", "torch,its_own_reader"] = out / "model.pt2"
        if find_spec("openvino"):
            write_openvino(out / "model.onnx", replace(contract, format="openvino"), out)
            asked |= {(name, "onnx", "openvino"): out / "model.onnx", (name, "openvino", "openvino"): out}
    lines = [f"{path} {engine} {video}" for (_, _, engine), path in asked.items()]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = map(json.loads, done.stdout.splitlines())
    return {case: (wanted[case[0]], *answer[2:]) for case, answer in zip(asked, answers, strict=True)}


@pytest.mark.export
@pytest.mark.parametrize(("kind", "engine"), CASES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_are_the_checkpoints(name, kind, engine, rows):
    if (name, kind, engine) not in rows:
        pytest.skip("openvino comes with the extra openvino")
    check(*rows[name, kind, engine])


@pytest.mark.export
@pytest.mark.parametrize("name", READ_BY_PYTORCH)
def test_pytorchs_own_reader_says_the_same(name, rows):
    check(*rows[name, "pt2", "torch,its_own_reader"])


def check(wanted, view_scores, frame_indices, class_names):
    assert np.abs(wanted.view_scores - np.array(view_scores)).max() < TOLERANCE
    assert [list(clip) for clip in wanted.frame_indices] == frame_indices
    assert list(wanted.class_names) == class_names
    assert wanted.view_scores.std() > 0.01  # scores that could not differ would prove nothing
