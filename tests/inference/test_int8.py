"""The network in 8-bit integers: near the definition, the same in any company, refused where it can't be."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tests.media import write_video
from tests.model.test_uniformerv2 import MOTION, clip, make
from uniformerv2.inference.int8 import Int8Network
from uniformerv2.inference.predictor import Predictor

QUIET = pytest.mark.filterwarnings("ignore")  # of the exporter's own code, whatever the version


@pytest.fixture(scope="module")
def network():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra int8")
    return Int8Network(make(MOTION).merge_linear(), (4, 3, 32, 32))


@QUIET
@pytest.mark.int8
def test_logits_are_near_and_do_not_depend_on_the_batch(network):
    video = clip(batch=3)
    with torch.inference_mode():
        wanted, found = make(MOTION)(video), network(video)
    assert 1e-6 < (found - wanted).norm() / wanted.norm() < 0.05
    assert torch.equal(network(video[1:2]), found[1:2])
    assert found.dtype == torch.float32


@QUIET
@pytest.mark.int8
def test_a_predictor_computes_with_it(network, tmp_path):
    path = write_video(tmp_path / "video.mp4")
    exact, near = (
        Predictor(make(MOTION).merge_linear(), num_crops=3, precision=precision) for precision in ("fp32", "int8")
    )
    assert (near.precision, near.device.type, near.is_bf16) == ("int8", "cpu", False)
    difference = np.abs(exact(path).view_scores - near(path).view_scores).max()
    assert 0 < difference < 0.05


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"onnx is needed here: pip install 'uniformerv2\[int8\]'"):
        Predictor(make(MOTION), precision="int8")


def test_it_is_for_a_cpu():
    with pytest.raises(ValueError, match="precision 'int8' is for a CPU, got the device 'meta'; take 'bf16'"):
        Predictor(make(MOTION), precision="int8", device="meta")
