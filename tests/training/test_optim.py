"""Parameter groups and the schedule, against the published ones."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from uniformerv2 import UniFormerV2, UniFormerV2Config, arm
from uniformerv2.training.optim import Optimization, parameter_groups, rate_scales
from uniformerv2.zoo.convert import convert


def tiny(**fields):
    return UniFormerV2(UniFormerV2Config(dim=48, depth=4, num_heads=4, image_size=32, num_classes=5, **fields))


def by_name(network, groups, key):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(parameter)]: group[key] for group in groups for parameter in group["params"]}


def published_free_of_decay(network):
    """One-dimensional in the published code, or of a BatchNorm; the published names of ours that differ in shape."""
    of_batch_norm = {
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, nn.BatchNorm1d)
        for name, _ in module.named_parameters(recurse=False)
    }
    one_dimensional = {name for name, parameter in network.named_parameters() if parameter.ndim == 1}
    return of_batch_norm | one_dimensional | {"embedding.prefix_tokens"}


@pytest.mark.parametrize(
    "recipe",
    [
        "k400/k400_b16_f8x224",
        "sthv2/ssv2_b16_f16x224",
        "k400/k400+k710_b16_f8x224",
        "k400/frozen_k400_l14_f8x336",
        "anet/anet_l14_16x224",
    ],
)
def test_published_rates(shared, recipe):
    golden = json.loads(shared("goldens/learning_rate.json").read_text())[recipe]
    facts = json.loads(shared("facts/official_recipes.json").read_text())[recipe]
    optimization = Optimization(
        learning_rate=facts["base_lr"],
        warmup_start_rate=facts["warmup_start_lr"],
        end_rate=facts["end_lr"],
        warmup_epochs=facts["warmup_epochs"],
    )
    rates = [optimization.rate(epoch, facts["max_epochs"]) for epoch in golden["epochs"]]
    assert rates == pytest.approx(golden["lr"], rel=1e-12, abs=0)


def test_rate_ends_and_stays():
    of = Optimization(learning_rate=1.0, warmup_start_rate=0.1, end_rate=0.2, warmup_epochs=2)
    assert of.rate(0, 10) == 0.1
    assert of.rate(2, 10) == 1.0
    assert of.rate(10, 10) == of.rate(11.5, 10) == 0.2
    assert replace(of, warmup_epochs=0).rate(0, 10) == 1.0


def test_rate_of_a_training_shorter_than_its_warm_up():
    of = Optimization(learning_rate=1.0, warmup_start_rate=0.0, end_rate=0.0, warmup_epochs=5)
    assert [of.rate(epoch, 2) for epoch in (0, 1, 2)] == [0.0, 0.2, 0.4]


def test_decay_is_the_published():
    network = tiny(num_local_steps=2, tubelet_size=2)
    decay = by_name(network, parameter_groups(network, Optimization()), "weight_decay")
    assert {name for name, value in decay.items() if value == 0} == published_free_of_decay(network)
    assert {value for value in decay.values() if value} == {0.05}
    for decayed in ("embedding.positions", "fusion.video_token", "blocks.0.local.0.affinity.weight", "head.weight"):
        assert decay[decayed] == 0.05
    for free in (
        "fusion_gate",
        "embedding.prefix_tokens",
        "blocks.3.local.1.norm.weight",
        "blocks.0.spatial.norm.bias",
    ):
        assert decay[free] == 0


def test_decay_agrees_with_the_published_shapes(shared):
    """The published rule needs the published shapes: in the golden state dict, what is one-dimensional is free."""
    tensors = load_file(shared("goldens/model/official_temporal.safetensors"))
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    marked = {key: torch.full_like(value, float(value.ndim == 1)) for key, value in state.items()}
    converted = convert(marked)
    config = json.loads(shared("goldens/model/official_tiny.json").read_text())["temporal"]
    network = UniFormerV2(
        UniFormerV2Config.from_dict({**converted.config, "num_heads": config["heads"], "num_frames": config["t_size"]})
    )
    decay = by_name(network, parameter_groups(network, Optimization()), "weight_decay")
    parameters = dict(network.named_parameters())
    assert set(decay) == set(parameters)
    for name, value in decay.items():
        assert (value == 0) == bool(converted.state[name].float().mean() == 1), name


def test_tokens_can_be_free_too():
    network = tiny()
    groups = parameter_groups(network, Optimization(decay_tokens=False))
    decay = by_name(network, groups, "weight_decay")
    assert decay["embedding.positions"] == decay["fusion.video_token"] == decay["embedding.prefix_tokens"] == 0


def test_every_trainable_parameter_is_in_one_group():
    network = tiny(num_local_steps=1)
    network.freeze_backbone()
    groups = parameter_groups(network, Optimization(layer_decay=0.7, video_blocks_scale=10))
    grouped = list(chain.from_iterable(group["params"] for group in groups))
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trainable))
    assert len(trainable) < len(list(network.parameters()))


def test_layer_decay_and_video_blocks_scale():
    network = tiny(num_local_steps=1)
    scales = rate_scales(network, layer_decay=0.5, video_blocks_scale=3.0)
    assert scales["head.weight"] == scales["fusion_gate"] == scales["fusion.stages.0.cross.q.weight"] == 3.0
    assert scales["blocks.3.spatial.fn.qkv.weight"] == 1.0
    assert scales["blocks.1.ffn.fn.fc1.weight"] == 0.25
    assert scales["blocks.1.local.0.value.weight"] == 0.75
    assert scales["embedding.weight"] == scales["embedding.positions"] == 0.5**4
    rates = by_name(network, parameter_groups(network, Optimization(layer_decay=0.5, video_blocks_scale=3.0)), "lr")
    assert rates == {name: pytest.approx(1e-5 * scale) for name, scale in scales.items()}


def test_armed_timm_vit_has_groups():
    network = arm("vit_tiny_patch16_224", num_classes=3, image_size=32, num_frames=2, preset="motion")
    scales = rate_scales(network, layer_decay=0.5)
    of_blocks = {name.split(".")[1]: scale for name, scale in scales.items() if name.startswith("blocks.")}
    assert of_blocks == {str(index): 0.5 ** (11 - index) for index in range(12)}
    assert scales["embedding.weight"] == 0.5**12
    assert scales["head.weight"] == 1.0


def test_rates_follow_the_global_batch():
    assert Optimization(batch_size=256).batch_factor(64) == 0.25
    assert Optimization(batch_size=128).batch_factor(256) == 2.0
    assert Optimization(batch_size=None).batch_factor(7) == 1.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", -1e-5, "0 or more"),
        ("end_rate", float("nan"), "finite"),
        ("weight_decay", float("inf"), "finite"),
        ("layer_decay", 1.5, "up to 1"),
        ("layer_decay", 0.0, "above 0"),
        ("batch_size", 0, "at least 1"),
    ],
)
def test_refuses(field, value, message):
    with pytest.raises(ValueError, match=f"{field}.*{message}"):
        Optimization(**{field: value})


def test_nothing_trainable_is_refused():
    with pytest.raises(ValueError, match="No parameter"):
        parameter_groups(tiny().requires_grad_(False), Optimization())
