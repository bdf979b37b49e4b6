"""B/16 and L/14 at full size: exported, and computed in a fresh process; what it takes is in the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.networks import named
from tests.model.test_blocks import randomize
from uniformerv2.inference.predictor import Predictor
from uniformerv2.zoo.checkpoint import create_model, save_model

pytestmark = [pytest.mark.slow, pytest.mark.export, pytest.mark.timeout(3600)]
ROOT = Path(__file__).resolve().parents[2]
VIDEO = ROOT / "examples" / "archery.mp4"
NETWORKS = {"B/16": "uniformerv2_b16_k400_8x224", "L/14": "uniformerv2_l14_k400_k710_8x224"}


def run(*words):
    """The line of JSON of a command in a process of its own, its seconds and the most memory that it had, in GiB."""
    command, begin = [sys.executable, "-m", "uniformerv2", *map(str, words), "--json"], time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, error = process.stdout.read(), process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, error
    return json.loads(out), time.perf_counter() - begin, used.ru_maxrss / 2**20


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    """Random weights, and what the network says with them."""
    torch.manual_seed(0)
    model = create_model(NETWORKS[request.param], num_classes=5)
    randomize(model.fusion)
    randomize(model.head)
    model = named(model.eval(), num_crops=1, resize="bicubic_antialias")
    folder = save_model(model, tmp_path_factory.mktemp("models") / "model")
    scores = Predictor(model, device="cpu", precision="fp32")(VIDEO).scores
    assert scores.std() > 0.01  # scores that could not differ would prove nothing
    return request.param, folder, scores


@pytest.mark.parametrize("format", ["onnx", "pt2", pytest.param("openvino", marks=pytest.mark.openvino)])
def test_scores_are_the_checkpoints(format, network, tmp_path):
    name, checkpoint, wanted = network
    out = tmp_path / {"onnx": "model.onnx", "pt2": "model.pt2", "openvino": "model"}[format]
    report, seconds, memory = run("export", checkpoint, out, "--format", format, "--verify", VIDEO)
    assert report["verification"]["largest_difference"] < 1e-4
    answer, first_seconds, first_memory = run("predict", VIDEO, "--model", out, "--precision", "fp32")
    assert np.abs(np.array(answer["scores"]) - wanted).max() < 1e-4
    sizes = f"{report['bytes'] / 2**20:.0f} MiB, export {seconds:.0f} s and {memory:.1f} GiB"
    sys.stderr.write(f"{name} {format}: {sizes}; first prediction {first_seconds:.0f} s and {first_memory:.1f} GiB\n")
