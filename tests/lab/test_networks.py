"""Networks: what a pass does, the peers as they were published, growth, multiply-adds by part."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from uniformerv2.lab.benchmark import networks
from uniformerv2.lab.benchmark.machine import Times
from uniformerv2.lab.benchmark.networks import (
    PEERS,
    Subject,
    Work,
    build_run,
    make_ours,
    measure_growth,
    measure_networks,
    peer_subjects,
)
from uniformerv2.lab.benchmark.products import PARTS, count_flops, square_product

TINY = {"dim": 48, "depth": 3, "num_heads": 3, "fusion_stages": (1, 2), "global_num_heads": 3, "global_dropout": (0.0,)}
MAKE = partial(make_ours, "uniformerv2_b16_ssv2_16x224", num_frames=4, image_size=32, **TINY)

PUBLISHED_GMACS = {"VideoMAE-B": 180, "TimeSformer-B": 196, "MViTv2-S": 64.2, "Swin3D-T": 87.8}
"""VideoMAE's paper, a third of TimeSformer's 590 for three views, torchvision's and Video Swin's tables (88)."""
PUBLISHED_MILLIONS = {"VideoMAE-B": 87, "TimeSformer-B": 121.4, "MViTv2-S": 34.5, "Swin3D-T": 28.2}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed"])
@pytest.mark.parametrize("kind", ["forward", "step"])
def test_a_pass_is_measured_in_every_precision(kind, precision):
    (row,) = measure_networks([Subject("tiny", MAKE)], Work(kind, precision, batch_size=2), repeats=1)
    assert (row["num_frames"], row["image_size"], row["batch_size"]) == (4, 32, 2)
    assert row["speed_to_first"] == 1
    assert row["clips_per_second"] == pytest.approx(2 / row["seconds"])
    assert row["share_of_ceiling"] == pytest.approx(row["teraflops"] / row["ceiling_teraflops"])
    assert row["peak_bytes"] > 0


def test_the_ceiling_is_the_fastest_square_product_of_the_run(monkeypatch):
    def turns(runs, **_):
        squares = {"square after first": Times((0.2, 0.4, 0.4)), "square after second": Times((0.4, 0.1, 0.4))}
        return {name: squares.get(name, Times((1.0, 1.0, 1.0))) for name in runs}

    monkeypatch.setattr(networks, "time_in_turns", turns)
    rows = measure_networks([Subject("first", MAKE), Subject("second", MAKE)], Work(), repeats=3)
    wanted = square_product(torch.float32, "cpu").flops / 0.1 / 1e12
    assert [row["ceiling_teraflops"] for row in rows] == pytest.approx([wanted, wanted])


def test_a_step_learns_and_a_frozen_image_vit_does_not():
    made = []

    def make(freeze_backbone):
        model, clip = MAKE(freeze_backbone=freeze_backbone)
        made.append(model)
        return model, clip

    for freeze_backbone in (False, True):
        run = build_run(Subject(str(freeze_backbone), partial(make, freeze_backbone)), Work("step", batch_size=2))
        model = made[-1]
        before = {name: weight.clone() for name, weight in model.named_parameters()}
        for _ in range(3):
            run()
        moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
        assert any(name.startswith("fusion.") for name in moved)
        assert ("blocks.0.ffn.fn.fc1.weight" in moved) == (not freeze_backbone)


def test_a_forward_pass_is_that_of_the_fused_network():
    models = []

    def make():
        model, clip = MAKE()
        models.append(model)
        return model, clip

    build_run(Subject("tiny", make), Work("forward"))()
    assert models[0].is_merged
    assert not models[0].training


def test_checkpointing_computes_blocks_again():
    subject = Subject("tiny", MAKE)
    plain, again = (
        measure_networks([subject], Work("step", batch_size=2, is_checkpointed=flag), repeats=1)[0]
        for flag in (False, True)
    )
    assert 1.1 * plain["gmacs"] < again["gmacs"] < 1.4 * plain["gmacs"]


@pytest.mark.peers
@pytest.mark.parametrize("name", PEERS)
def test_peers_are_as_published(name):
    pytest.importorskip(PEERS[name].note)
    with torch.device("meta"):
        model, clip = PEERS[name].make()
        video = clip.batch(1)
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval().requires_grad_(False)(video)
    gmacs = counter.get_total_flops() / 2e9
    if name in PUBLISHED_GMACS:
        assert gmacs == pytest.approx(PUBLISHED_GMACS[name], rel=0.01)
        assert millions == pytest.approx(PUBLISHED_MILLIONS[name], rel=0.01)
    else:
        assert millions == pytest.approx(375, rel=0.01)  # the published classifier's, predictor included


def test_absent_peers_are_named(monkeypatch):
    monkeypatch.setattr(
        networks.importlib.util, "find_spec", lambda package: None if package == "transformers" else True
    )
    subjects, absent = peer_subjects()
    assert [subject.name for subject in subjects] == ["MViTv2-S", "Swin3D-T"]
    assert set(absent) == {"VideoMAE-B", "TimeSformer-B", "V-JEPA 2 ViT-L"}
    assert "pip install 'uniformerv2[peers]'" in absent["VideoMAE-B"]


def _made_anew(name, **changes):
    return make_ours(name, **{"num_frames": 4, "image_size": 32, **TINY, **changes})


def test_growth_is_compared_with_tokens_and_multiply_adds():
    make = partial(_made_anew, "uniformerv2_b16_k400_8x224")
    rows = measure_growth(make, Work(), frames=(2, 4), sizes=(32, 64), stages=(1, 3), repeats=1)
    found = {(row["sweep"], row["value"]): row for row in rows}
    assert found["frames", 4]["linear"] == 2
    assert found["size", 64]["linear"] == pytest.approx((1 + 16) / (1 + 4))
    assert found["stages", 3]["linear"] == pytest.approx(found["stages", 3]["gmacs"] / found["stages", 1]["gmacs"])
    assert found["stages", 3]["gmacs"] > found["stages", 1]["gmacs"]
    for sweep in ("frames", "size", "stages"):
        first = next(row for row in rows if row["sweep"] == sweep)
        assert (first["linear"], first["time_ratio"], first["memory_ratio"]) == (1, 1, 1)


@pytest.mark.parametrize("name", ["uniformerv2_b16_ssv2_16x224", "uniformerv2_b16_k400_8x224"])
def test_the_parts_add_up_to_what_the_summary_says(name):
    model, clip = make_ours(name, num_frames=4, image_size=32, **TINY)
    rows = {row["part"]: row["gmacs"] for row in count_flops(model, clip.batch(1))}
    assert rows["counted"] == pytest.approx(rows["summarize"], rel=1e-12)
    assert sum(rows[part] for part in PARTS) == pytest.approx(rows["counted"], rel=1e-12)
    assert rows["published form"] > rows["counted"]
    assert (rows["LT_MHRA"] > 0) == ("ssv2" in name)
