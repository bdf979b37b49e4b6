"""The Triton kernels against their definitions, in Triton's interpreter; and which form is chosen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from uniformerv2.ops import dispatch, functional, set_impl

ROOT = Path(__file__).resolve().parents[2]
HOPPER_SHARED_BYTES = 227 * 1024  # what one block may have
KERNELS = ("temporal_mix", "position_encoding", "attend")
FUSIONS = ("sequential", "hierarchical_kv", "hierarchical_q")


def run_program(*arguments, cache, **environment):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Relative errors of everything that tests/ops/interpreted.py runs."""
    pytest.importorskip("triton")
    cache = tmp_path_factory.mktemp("triton")
    return json.loads(run_program("-m", "tests.ops.interpreted", cache=cache, TRITON_INTERPRET="1"))


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_float32_result_and_gradients_are_the_definitions(errors, kernel):
    for shape in errors[f"{kernel}-float32"]:
        assert len(shape) >= 3
        assert max(shape) < 1e-5


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_bfloat16_they_are_as_near_as_its_rounding(errors, kernel):
    for shape in errors[f"{kernel}-bfloat16"]:
        assert max(shape) < 0.015


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_whole_network_and_its_gradients_are_the_same(errors, fusion):
    fast, _ = errors[f"network-{fusion}-float32"]
    assert max(fast) < 1e-5


@pytest.mark.parametrize("fusion", FUSIONS)
def test_under_autocast_a_network_is_as_near_to_float32_as_with_the_definitions(errors, fusion):
    fast, plain = errors[f"network-{fusion}-bfloat16"]
    for with_kernels, with_definitions in zip(fast, plain, strict=True):
        assert with_kernels < max(2 * with_definitions, 0.02)


def test_a_network_compiles_as_one_graph_with_the_kernels_in_it(errors):
    assert errors["compiled"] < 0.02


def test_pytorchs_own_checks_of_the_operators_and_the_trial_pass(errors):
    assert errors["operators"]
    assert errors["trial"]


def test_every_kernel_compiles_for_a_hopper_gpu_and_fits(tmp_path):
    pytest.importorskip("triton")
    shared = json.loads(run_program("-m", "tests.ops.compiled", cache=tmp_path))
    assert len(shared) == 7
    assert max(shared.values()) <= HOPPER_SHARED_BYTES


def test_without_a_gpu_the_definitions_run_and_triton_is_not_touched(tmp_path):
    code = """
import sys, torch
from uniformerv2.ops import dispatch
dispatch.temporal_conv(torch.randn(1, 2, 3, 4), torch.randn(4, 3), torch.randn(4))
assert "triton" not in sys.modules and "uniformerv2.ops.triton_kernels" not in sys.modules
"""
    run_program("-c", code, cache=tmp_path)


def test_where_triton_is_missing_one_warning_says_so(tmp_path):
    code = """
import sys, warnings, torch
sys.modules["triton"] = None
from uniformerv2.ops import dispatch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print([dispatch._kernels_work("cpu", torch.bfloat16, dim) for dim in (24, 24, 48)])
print(len(caught), caught[0].message)
"""
    works, notice = run_program("-c", code, cache=tmp_path).splitlines()
    assert works == "[False, False, False]"
    assert notice.startswith("1 Triton's kernels do not run on cpu")
    assert "triton" in notice.partition("(")[2]
    assert "set_impl('torch')" in notice


def test_where_the_kernels_fail_the_definitions_take_over(monkeypatch):
    def fail(*_):
        raise RuntimeError("no such instruction\nmore of it")

    monkeypatch.setattr(dispatch, "_tried", {})
    monkeypatch.setattr(dispatch, "_load_kernels", lambda: True)
    monkeypatch.setattr(dispatch, "_try_kernels", fail)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.warns(UserWarning, match=r"take over \(RuntimeError: no such instruction\)"):
        assert not dispatch._kernels_work("cuda:0", torch.bfloat16, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not dispatch._kernels_work("cuda:0", torch.bfloat16, 48)


def test_on_a_gpu_that_was_not_measured_the_definitions_run_and_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(dispatch, "_tried", {})
    monkeypatch.setattr(dispatch, "_load_kernels", lambda: pytest.fail("Triton was loaded"))
    for capability in ((7, 5), (8, 0), (8, 9), (10, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert not dispatch._kernels_work("cuda:0", torch.bfloat16, 24)
    assert dispatch._tried == {}


def test_the_trial_crosses_every_tile():
    kernels = pytest.importorskip("uniformerv2.ops.triton_kernels")
    videos, frames, tokens = dispatch.TRIAL_SHAPE
    patches = dispatch.TRIAL_GRID[0] * dispatch.TRIAL_GRID[1]
    assert videos > 1
    assert frames > max(kernels.POSITION["frames"], kernels.POSITION_GRADIENT["frames"])
    assert tokens > kernels.POSITION["block_n"]
    assert patches > max(kernels.POSITION_GRADIENT["block_l"], kernels.MIX["block_l"], kernels.MIX_GRADIENT["block_l"])
    per_split, _ = kernels._tiling(torch.empty(videos, frames * patches, 48), kernels.ATTEND)
    assert frames * patches > per_split > kernels.ATTEND["block_s"]
    assert patches % kernels.MIX["block_l"]
    assert frames * patches % per_split


@pytest.mark.parametrize(("factors", "what"), [((1.3, 1.0), "result"), ((1.0, 1.3), "gradient"), ((1.0, 1.0), "")])
def test_kernels_that_are_wrong_are_noticed(monkeypatch, factors, what):
    definition = dispatch._trial

    def trial(tokens, taps, *, attends, kernels=None):
        found = definition(tokens, taps, attends=attends)
        return found if kernels is None else (found[0] * factors[0], found[1] * factors[1])

    monkeypatch.setattr(dispatch, "_tried", {})
    monkeypatch.setattr(dispatch, "_load_kernels", lambda: True)
    monkeypatch.setattr(dispatch, "_trial", trial)
    expected = pytest.warns(UserWarning, match=rf"the {what} of the trial is 0\.3\d? away") if what else nullcontext()
    with expected:
        assert dispatch._kernels_work("cpu", torch.bfloat16, 24) == (not what)


def test_the_choice_is_put_back():
    assert dispatch._impl == "auto"
    with set_impl("torch"):
        with set_impl("triton"):
            assert dispatch._impl == "triton"
        assert dispatch._impl == "torch"
    assert dispatch._impl == "auto"
    with pytest.raises(ValueError, match="impl is one of 'auto', 'torch', 'triton', got 'cuda'"):
        set_impl("cuda")
    assert dispatch._impl == "auto"


def test_types_and_kernels_without_a_triton_form_keep_the_definition():
    x, bias = torch.randn(1, 3, 4, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    five_taps = torch.randn(8, 5, dtype=torch.float64)
    with set_impl("triton"):
        for taps, x_, bias_ in (
            (five_taps[:, :3], x, bias),
            (five_taps.float(), x.float(), bias.float()),
        ):
            wanted = functional.temporal_conv(x_, taps, bias_)
            assert torch.equal(dispatch.temporal_conv(x_, taps, bias_), wanted)


@pytest.mark.parametrize("impl", ["auto", "torch", "triton"])
def test_counting_on_the_meta_device_counts_the_definition(impl):
    x, weight = torch.empty(1, 2, 5, 8, device="meta"), torch.empty(8, 1, 3, 3, 3, device="meta")
    with set_impl(impl):
        y = dispatch.position_encoding(x, weight, weight[:, 0, 0, 0, 0], (2, 2))
    assert (y.shape, y.device) == (x.shape, x.device)


def test_more_channels_than_fit_are_left_to_the_definition():
    assert dispatch._attends(torch.bfloat16, 1024)
    assert not dispatch._attends(torch.bfloat16, 1408)
    assert not dispatch._attends(torch.float32, 256)
