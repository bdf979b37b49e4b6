"""The GPU script runs whole, at tiny sizes on a CPU; the plain form equals ours; the model needs few packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.plain_form import PlainUniFormerV2
from torch import nn
from torch.nn import functional as F

from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.uniformerv2 import UniFormerV2

ROOT = Path(__file__).resolve().parents[1]
CONFIG = UniFormerV2Config(
    image_size=(32, 48),
    dim=48,
    depth=3,
    num_heads=3,
    num_classes=5,
    num_frames=4,
    fusion_stages=(0, 2),
    global_dropout=(0.0,),
    classifier_dropout=0.0,
)
MAY_BE_ABSENT = ("lightning", "av", "torchcodec", "jsonargparse", "rich", "huggingface_hub")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_plain_form_is_ours_in_eval_and_in_training(steps):
    torch.manual_seed(0)
    tubelet = {"tubelet_size": 2, "tubelet_kernel_size": 0} if steps == 2 else {}
    model = UniFormerV2(replace(CONFIG, num_local_steps=steps, use_gate=steps != 1, **tubelet))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    plain = PlainUniFormerV2(model)
    video, labels = torch.randn(2, 4, 3, 32, 48), torch.tensor([1, 3])
    for training in (True, False):  # batch statistics move the running ones, which are compared then
        logits, wanted = model.train(training)(video), plain.train(training)(video)
        torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
    for scores in (logits, wanted):
        F.cross_entropy(scores, labels).backward()
    ours, theirs = model.embedding.weight.grad, plain.embedding.weight.grad
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)


def test_a_dry_run_measures_everything(tmp_path):
    pytest.importorskip("triton")
    done = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--dry"],
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (path,) = tmp_path.glob("*.json")
    report = json.loads(path.read_text())
    sections = report["sections"]
    assert list(sections) == [
        "ceilings",
        "goldens",
        "kernels",
        "stage",
        "tiles",
        "profile",
        "networks",
        "plain",
        "peers",
    ]
    rows = [row for name, section in sections.items() if name != "peers" for row in section]
    assert [row for row in rows if "failed" in row] == []
    assert all(row["right"] for row in sections["kernels"])
    assert all(row.get("right", "left_out" in row) for row in sections["goldens"])
    assert all(row["same_twice"] for row in sections["kernels"])
    assert {row["mode"] for row in sections["networks"]} == {"eager", "compiled", "graphs"}
    assert {row["step"] for row in sections["networks"]} == {"forward", "train"}
    assert all(row["clips_per_second"] > 0 for row in sections["networks"] + sections["plain"])
    table = path.with_suffix(".md").read_text()
    assert "## stage" in table
    assert "share_of_copy_3_passes" in table
    assert not list(tmp_path.glob("*.part"))


def test_a_row_that_fails_or_comes_too_late_is_named_and_the_others_stand(tmp_path):
    from benchmarks.gpu_report import Bench

    def fail():
        raise RuntimeError("out of memory\nand so on")

    report = {"device": "none", "date": "today", "torch": "2", "triton": "3", "sections": {}}
    bench = Bench(torch.device("cpu"), dry=True, out=tmp_path / "report.json", report=report)
    bench.run("parts", 60, [({"part": "a"}, fail), ({"part": "b"}, lambda: {"speed": 1.5})])
    bench.run("late", -1, [({"part": "c"}, fail)])
    bench.write()
    written = json.loads((tmp_path / "report.json").read_text())["sections"]
    assert written["parts"][0]["failed"] == "RuntimeError: out of memory"
    assert written["parts"][1]["speed"] == 1.5
    assert "left_out" in written["late"][0]
    assert "| b |" in (tmp_path / "report.md").read_text()


def test_without_a_gpu_the_script_says_what_to_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=ROOT,
        env={**os.environ, "OUT": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--dry" in done.stderr
    assert list(tmp_path.iterdir()) == []


def run_without_packages(code):
    """A fresh interpreter in which the packages that may be absent are."""
    block = f"import sys\nfor name in {MAY_BE_ABSENT!r}: sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", block + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_the_script_itself_needs_few_packages():
    assert run_without_packages("import benchmarks.gpu, tests.parity.goldens; print('imported')") == "imported"


def test_a_model_is_built_and_runs_where_few_packages_are():
    code = """
import uniformerv2
from uniformerv2 import UniFormerV2, create_model
import torch
sizes = dict(image_size=32, dim=48, depth=2, num_heads=3, fusion_stages=(0, 1), global_num_heads=3)
model = create_model("uniformerv2_b16_k400_8x224", **sizes, global_dropout=(0.0,))
assert isinstance(model, UniFormerV2)
print(tuple(model(torch.randn(1, 2, 3, 32, 32)).shape))
"""
    assert run_without_packages(code) == "(1, 400)"
