"""The network as users meet it: timm's interface, sizes, modes, compilers, and wrong configurations."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.model.test_blocks import randomize
from uniformerv2.model.blocks import QuickGELU
from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.fusion import FUSIONS
from uniformerv2.model.summary import summarize
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import save_model

TINY = UniFormerV2Config(
    image_size=32, patch_size=8, dim=32, depth=3, num_heads=4, num_frames=4, num_classes=5, fusion_stages=(1, 2)
)
MOTION = replace(TINY, tubelet_size=2, tubelet_kernel_size=3, num_local_steps=2)
FROZEN = replace(TINY, use_gate=False)
CONFIGS = {"scene": TINY, "motion": MOTION, "frozen": FROZEN}
TWO_STAGES = {"depth": 2, "fusion_stages": (0, 1)}
"""All parts of a network twice: what its compiler takes grows with the blocks."""


def make(config=TINY):
    torch.manual_seed(0)
    return randomize(UniFormerV2(config)).eval()


def clip(*, batch=2, frames=4, height=32, width=32):
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_clip_gives_class_scores(config):
    model = make(config)
    assert model(clip()).shape == (2, 5)
    assert torch.equal(model(clip()), model.forward_head(model.forward_features(clip())))


def test_pre_logits_are_the_normed_features():
    model = make()
    features = model.forward_features(clip())
    assert features.shape == (2, 32)
    assert torch.equal(model.forward_head(features, pre_logits=True), model.norm(features))


def test_the_gate_mixes_the_video_token_with_the_class_tokens_mean():
    model = make()
    features, (last,) = model.forward_intermediates(clip(), indices=1)
    with torch.no_grad():
        weight = model.fusion_gate.sigmoid()
        model.fusion_gate.fill_(-100)
        video_token = model.forward_features(clip())
    torch.testing.assert_close(features, (1 - weight) * video_token + weight * last[:, :, 0].mean(1))


def test_without_a_gate_the_video_token_stands_alone():
    model = make(FROZEN)
    assert model.fusion_gate is None
    gated = make(TINY)
    gated.load_state_dict({**model.state_dict(), "fusion_gate": torch.full((32,), -100.0)})
    torch.testing.assert_close(model(clip()), gated(clip()))


def test_intermediates_are_timms():
    model = make(MOTION)
    features, tokens = model.forward_intermediates(clip())
    assert [x.shape for x in tokens] == [(2, 2, 17, 32)] * 3
    assert torch.equal(features, model.forward_features(clip()))
    for indices in (2, [1, 2], (-2, -1)):
        some = model.forward_intermediates(clip(), indices=indices, intermediates_only=True)
        assert all(torch.equal(x, y) for x, y in zip(some, tokens[1:], strict=True))
    with pytest.raises(IndexError, match=r"blocks 0 to 2 \(or -3 to -1\), got 3"):
        model.forward_intermediates(clip(), indices=[3])
    with pytest.raises(IndexError, match="has 3 blocks, got the last 4"):
        model.forward_intermediates(clip(), indices=4)


def test_intermediates_come_in_the_order_and_with_the_norm_that_is_asked_for():
    model = make(MOTION)
    _, tokens = model.forward_intermediates(clip())
    features, normed = model.forward_intermediates(clip(), indices=[0], norm=True, output_fmt="NLC")
    assert torch.equal(features, model.forward_features(clip()))
    assert torch.equal(normed[0], model.norm(tokens[0]).flatten(1, 2))
    (maps,) = model.forward_intermediates(clip(), indices=[0], output_fmt="NCTHW", intermediates_only=True)
    assert maps.shape == (2, 32, 2, 4, 4)
    assert torch.equal(maps[:, :, 1, 2, 3], tokens[0][:, 1, 1 + 2 * 4 + 3])
    with pytest.raises(ValueError, match="output_fmt is 'NTLC', 'NLC' or 'NCTHW', got 'NCHW'"):
        model.forward_intermediates(clip(), output_fmt="NCHW")


def test_intermediates_stop_where_nothing_later_is_asked_for():
    model, called = make(MOTION), []
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, index=index: called.append(index))
    (early,) = model.forward_intermediates(clip(), indices=[1], stop_early=True, intermediates_only=True)
    assert called == [0, 1]
    assert torch.equal(early, model.forward_intermediates(clip(), indices=[1])[1][0])
    with pytest.raises(ValueError, match="features need: add intermediates_only=True"):
        model.forward_intermediates(clip(), indices=[1], stop_early=True)


def test_a_new_classifier_takes_no_other_pooling():
    model = make(MOTION)
    model.reset_classifier(7, global_pool=None)
    assert model(clip()).shape == (2, 7)
    with pytest.raises(ValueError, match="global_pool must be None, got 'avg'"):
        model.reset_classifier(7, global_pool="avg")


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(
    ("stages", "use_gate", "read"), [((1, 3), True, (1, 3)), ((0, 2), True, (0, 2, 3)), ((3,), False, (3,))]
)
def test_the_tokens_of_the_read_blocks_are_enough(fusion, stages, use_gate, read):
    model = make(replace(TINY, depth=4, fusion=fusion, fusion_stages=stages, use_gate=use_gate, global_dropout=(0.0,)))
    tokens = model.read_tokens(clip())
    assert model.read_blocks == read
    assert len(tokens) == len(read)
    assert torch.allclose(model.forward_tokens(tokens, (4, 4)), model(clip()), atol=1e-6)
    with pytest.raises(ValueError, match="are needed, got 0"):
        model.forward_tokens([], (4, 4))


def test_other_sizes_and_lengths():
    model = make(MOTION)
    for size in ({"height": 40, "width": 24}, {"frames": 2}, {"frames": 10}, {"batch": 1}):
        assert model(clip(**size)).shape == (size.get("batch", 2), 5)
    with pytest.raises(ValueError, match=r"floating-point pixels, got torch\.uint8\. Preprocessing\.normalize"):
        model(clip().to(torch.uint8))
    with pytest.raises(ValueError, match="frames must be a multiple of 2, got 3"):
        model(clip(frames=3))
    with pytest.raises(ValueError, match="columns must be a multiple of 8, got 30; the nearest is 32"):
        model(clip(width=30))


def test_a_new_classifier():
    model = make().bfloat16()
    model.reset_classifier(7)
    assert model.get_classifier().weight.shape == (7, 32)
    assert model.head.weight.dtype == torch.bfloat16
    assert model.num_classes == model.config.num_classes == 7
    model.reset_classifier(0)
    assert model(clip().bfloat16()).shape == (2, 32)


def test_parameters_fall_into_layers():
    from timm.models import group_parameters

    groups = group_parameters(make(MOTION), make(MOTION).group_matcher(), reverse=True)
    assert groups["embedding.weight"] == 0
    assert groups["blocks.0.spatial.fn.qkv.weight"] == 1
    assert groups["blocks.2.local.1.affinity.weight"] == 3
    assert groups["fusion.stages.0.cross.q.weight"] == groups["head.bias"] == max(groups.values())
    assert set(groups) == {name for name, _ in make(MOTION).named_parameters()}
    assert make().no_weight_decay() == {"embedding.prefix_tokens", "embedding.positions", "fusion.video_token"}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_parameter_gets_a_gradient(config, fusion):
    """DistributedDataParallel needs no search for unused parameters."""
    model = make(replace(config, fusion=fusion, drop_path_rate=0.0)).train()
    model(clip()).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("num_blocks", [None, 2])
def test_checkpointing_changes_nothing_but_memory(num_blocks):
    plain, saving = make(MOTION).train(), make(MOTION).train()
    for model in (plain, saving):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    saving.set_grad_checkpointing(num_blocks=num_blocks)
    kept = {}
    for name, model in (("plain", plain), ("saving", saving)):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.nbytes) or x, lambda x: x):
            loss = model(clip()).square().sum()
        loss.backward()
        kept[name] = sum(sizes)
    assert kept["saving"] < 0.8 * kept["plain"]
    for (name, wanted), found in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, msg=name)
    for (name, wanted), found in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(found, wanted, msg=name)
    assert plain.blocks[0].local[0].norm.num_batches_tracked == 1


def test_a_frozen_image_vit_stays_in_eval_mode_and_gets_no_gradient():
    model = UniFormerV2(replace(MOTION, drop_path_rate=0.5))
    model.freeze_backbone()
    model.train()
    model(clip()).sum().backward()
    for block in model.blocks:
        assert not block.spatial.training
        assert not block.ffn.training
        assert block.local.training
    grads = {name: weight.grad is not None for name, weight in model.named_parameters()}
    video_blocks = {name for name in grads if ".local." in name or not name.startswith(("blocks.", "embedding."))}
    assert {name for name, has in grads.items() if has} == video_blocks


def test_stochastic_depth_follows_the_published_linear_rule():
    rates = {"drop_path_rate": 0.2, "global_drop_path_rate": 0.4}
    config = replace(TINY, depth=5, fusion_stages=(2, 3, 4), global_dropout=(0.5,), **rates)
    model = UniFormerV2(config)
    assert [block.spatial.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert [stage.cross_drop_path.rate for stage in model.fusion.stages] == pytest.approx([0, 0.2, 0.4])
    model.train()
    assert not torch.equal(model(clip()), model(clip()))
    published = UniFormerV2(replace(config, drop_path_per="token")).train()
    assert published.blocks[4].ffn.drop_path.own_dim == 2
    assert published(clip()).isfinite().all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_merged_it_gives_the_same_scores_and_is_neither_trained_nor_saved(config, tmp_path):
    model = make(config)
    video = clip()
    wanted = model(video)
    assert model.merge_linear().merge_linear() is model  # twice is once
    torch.testing.assert_close(model(video), wanted, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm1d | QuickGELU) for module in model.modules())
    with pytest.raises(ValueError, match="can't be trained: load it again"):
        model.train()
    with pytest.raises(ValueError, match="can't be saved: save it before"):
        save_model(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_compiles_as_one_graph(config):
    model = make(replace(config, **TWO_STAGES))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(clip()), model(clip()))
    loss = torch.compile(model.train(), fullgraph=True, backend="aot_eager")(clip()).sum()
    loss.backward()
    assert model.head.weight.grad.isfinite().all()


def test_checkpointing_compiles_and_counts_each_batch_once():
    plain, compiled = (make(replace(MOTION, **TWO_STAGES)).train() for _ in range(2))
    compiled.set_grad_checkpointing()
    for model, run in ((plain, plain), (compiled, torch.compile(compiled, fullgraph=True, backend="aot_eager"))):
        torch.manual_seed(0)
        run(clip()).sum().backward()
        assert model.head.weight.grad.isfinite().all()
    for (name, wanted), found in zip(plain.named_buffers(), compiled.buffers(), strict=True):
        if "tracked" in name or name.startswith("blocks.0.local.0"):  # above lies dropout
            torch.testing.assert_close(found, wanted, msg=name)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_exports_with_a_free_batch(config):
    model = make(config)
    program = torch.export.export(model, (clip(),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},))
    torch.testing.assert_close(program.module()(clip(batch=3)), model(clip(batch=3)))


def test_copies_functional_calls_and_per_sample_gradients():
    model = make(TINY)
    assert torch.equal(copy.deepcopy(model)(clip()), model(clip()))
    weights = {name: weight.detach() * 0 for name, weight in model.named_parameters()}
    assert functional_call(model, weights, (clip(),)).abs().max() == 0
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights, video):
        return functional_call(model, weights, (video[None],)).square().sum()

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no batching rule on the CPU
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, clip())
    whole = torch.func.grad(lambda weights: functional_call(model, weights, (clip(),)).square().sum())(weights)
    torch.testing.assert_close(each["head.weight"].sum(0), whole["head.weight"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_autocast_is_near_float32(config):
    model = make(config)
    with torch.inference_mode():
        exact = model(clip())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near = model(clip()).float()
    assert (near - exact).norm() / exact.norm() < 0.03


def test_a_configuration_survives_json():
    for config in CONFIGS.values():
        assert UniFormerV2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    resolved = UniFormerV2Config()
    assert resolved.fusion_stages == (8, 9, 10, 11)
    assert resolved.global_num_heads == 12
    assert resolved.tubelet_kernel_size == 1
    assert resolved.global_dropout == (0.5,) * 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fusion": "serial"}, "fusion is one of 'sequential', .*, got 'serial'"),
        ({"activation": "relu"}, "activation is one of 'quick_gelu', 'gelu', got 'relu'"),
        ({"tubelet_size": 3}, "tubelet_size is one of 1, 2, got 3"),
        ({"tubelet_size": 2, "tubelet_kernel_size": 4}, "must be odd, got 4"),
        ({"num_local_steps": 3}, "num_local_steps is one of 0, 1, 2, got 3"),
        ({"fusion_stages": (2, 1)}, r"rise within 0 to 11, got \(2, 1\)"),
        ({"fusion_stages": (11, 12)}, "rise within 0 to 11"),
        ({"fusion_stages": (9, 10), "use_gate": False}, "set depth=11"),
        ({"global_dropout": (0.1, 0.2)}, "4 stages, got"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"num_classes": -1}, "num_classes must be 0"),
        ({"drop_path_per": "frame"}, "drop_path_per is one of"),
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"image_size": 8}, "image_size must be at least one patch"),
    ],
)
def test_wrong_configurations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        UniFormerV2Config(**fields)


def test_an_unknown_field_gets_a_hint():
    with pytest.raises(ValueError, match=r"no field 'num_head'\. Did you mean 'num_heads'"):
        UniFormerV2Config.from_dict({"num_head": 12})


def test_a_backbone_needs_arm():
    with pytest.raises(ValueError, match=r"uniformerv2\.arm\('vit_tiny_patch16_224'"):
        UniFormerV2(replace(TINY, backbone="vit_tiny_patch16_224"))


LARGE = {"patch_size": 14, "dim": 1024, "depth": 24, "num_heads": 16}
TABLE = [  # the paper's tables: configuration, frames, parameters in millions, multiply-adds in T as printed
    ({}, 8, 115, "0.15"),
    (LARGE, 8, 354, "0.67"),
    (LARGE, 16, 354, "1.33"),
    (LARGE, 32, 354, "2.66"),
    ({**LARGE, "image_size": 336}, 8, 354, "1.57"),
    ({**LARGE, "image_size": 336}, 32, 354, "6.27"),
    ({**LARGE, "image_size": 336}, 64, 354, "12.5"),
    (
        {"tubelet_size": 2, "num_local_steps": 2, "fusion_stages": tuple(range(4, 12)), "num_classes": 174},
        16,
        163,
        "0.19",
    ),
]


@pytest.mark.parametrize(("fields", "num_frames", "millions", "tera"), TABLE)
def test_sizes_equal_the_papers_tables(fields, num_frames, millions, tera):
    with torch.device("meta"):
        model = UniFormerV2(UniFormerV2Config(**fields))
    summary = summarize(model, num_frames=num_frames)
    assert round(summary.num_parameters / 1e6) == millions
    decimals = len(tera.partition(".")[2])
    assert f"{summary.published_macs / 1e12:.{decimals}f}" == tera
    assert summary.macs < summary.published_macs


def test_a_summary_counts_what_is_kept_and_leaves_the_model_as_it_was():
    model = make(MOTION)
    before = copy.deepcopy(model.state_dict())
    summary = summarize(model)
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert summary.clip_shape == (4, 3, 32, 32)
    assert summarize(model, num_frames=8).activation_bytes == pytest.approx(2 * summary.activation_bytes, rel=0.05)
    model.freeze_backbone()
    assert summarize(model).num_trainable < summary.num_trainable == summary.num_parameters
