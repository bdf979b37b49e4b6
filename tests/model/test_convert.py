"""Foreign state dicts: recognised by keys, every tensor carried once, strict both ways, facts read from shapes."""

from __future__ import annotations

import json
import random

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.convert import convert, detect_format, to_timm_vit

OFFICIAL = ("scene", "temporal", "single_local", "frozen", "odd")
MMACTION = ("scene", "temporal")
GOLDENS = [f"official_{name}" for name in OFFICIAL] + [f"mmaction_{name}" for name in MMACTION]
ASSUMED = ("num_heads", "global_num_heads", "num_frames", "fusion_stages")


@pytest.fixture
def golden(shared):
    """A function: golden name -> its foreign state dict."""

    def read(name):
        tensors = load_file(shared(f"goldens/model/{name}.safetensors"))
        return {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}

    return read


@pytest.fixture
def facts(shared):
    """A function: golden name -> the constructor arguments of the published code."""

    def read(name):
        kind, _, variant = name.partition("_")
        if kind == "official":
            return json.loads(shared("goldens/model/official_tiny.json").read_text())[variant]
        published = json.loads(shared(f"goldens/model/{name}.json").read_text())
        return published["backbone"] | {"num_classes": published["cls_head"]["num_classes"]}

    return read


def clip_tower(width=64, depth=2, patch=4, grid=3, out=32):
    """CLIP's image tower in OpenAI's names, the tower alone."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    state = {
        "class_embedding": draw(width),
        "positional_embedding": draw(grid * grid + 1, width),
        "proj": draw(width, out),
        "conv1.weight": draw(width, 3, patch, patch),
    }
    for norm in ("ln_pre", "ln_post"):
        state |= {f"{norm}.weight": draw(width), f"{norm}.bias": draw(width)}
    for i in range(depth):
        block = f"transformer.resblocks.{i}"
        state |= {f"{block}.attn.in_proj_weight": draw(3 * width, width), f"{block}.attn.in_proj_bias": draw(3 * width)}
        for name, shape in (
            ("attn.out_proj", (width, width)),
            ("mlp.c_fc", (4 * width, width)),
            ("mlp.c_proj", (width, 4 * width)),
        ):
            state |= {f"{block}.{name}.weight": draw(*shape), f"{block}.{name}.bias": draw(shape[0])}
        for norm in ("ln_1", "ln_2"):
            state |= {f"{block}.{norm}.weight": draw(width), f"{block}.{norm}.bias": draw(width)}
    return state


def whole_clip():
    """OpenAI's whole model: both towers and the loose tensors of its archive."""
    text = {
        "positional_embedding": torch.zeros(7, 8),
        "text_projection": torch.zeros(8, 32),
        "logit_scale": torch.zeros(()),
        "input_resolution": torch.tensor(12),
        "context_length": torch.tensor(7),
        "vocab_size": torch.tensor(5),
        "token_embedding.weight": torch.zeros(5, 8),
        "ln_final.weight": torch.zeros(8),
        "transformer.resblocks.0.attn.in_proj_weight": torch.zeros(24, 8),
        "transformer.resblocks.11.ln_1.weight": torch.zeros(8),
    }
    return text | {f"visual.{key}": value for key, value in clip_tower().items()}


def hugging_face_clip(tower):
    """The same tower in the names of Hugging Face transformers, written by hand, with a text tower."""
    state = {
        "logit_scale": torch.zeros(()),
        "text_model.embeddings.position_embedding.weight": torch.zeros(7, 8),
        "text_projection.weight": torch.zeros(32, 8),
        "visual_projection.weight": tower["proj"].T,
        "vision_model.embeddings.position_ids": torch.arange(10)[None],
        "vision_model.embeddings.class_embedding": tower["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": tower["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": tower["positional_embedding"],
    }
    for kind in ("weight", "bias"):
        state[f"vision_model.pre_layrnorm.{kind}"] = tower[f"ln_pre.{kind}"]
        state[f"vision_model.post_layernorm.{kind}"] = tower[f"ln_post.{kind}"]
        for i in range(2):
            theirs, ours = f"vision_model.encoder.layers.{i}", f"transformer.resblocks.{i}"
            query, key, value = tower[f"{ours}.attn.in_proj_{kind}"].chunk(3)
            state[f"{theirs}.self_attn.k_proj.{kind}"] = key
            state[f"{theirs}.self_attn.v_proj.{kind}"] = value
            state[f"{theirs}.self_attn.q_proj.{kind}"] = query
            state[f"{theirs}.self_attn.out_proj.{kind}"] = tower[f"{ours}.attn.out_proj.{kind}"]
            state[f"{theirs}.layer_norm1.{kind}"] = tower[f"{ours}.ln_1.{kind}"]
            state[f"{theirs}.layer_norm2.{kind}"] = tower[f"{ours}.ln_2.{kind}"]
            state[f"{theirs}.mlp.fc1.{kind}"] = tower[f"{ours}.mlp.c_fc.{kind}"]
            state[f"{theirs}.mlp.fc2.{kind}"] = tower[f"{ours}.mlp.c_proj.{kind}"]
    return state


def tiny_vit(**options):
    """A two-block timm ViT with drawn weights, so that no two of its tensors are equal."""
    torch.manual_seed(0)
    settings = {"img_size": 12, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 0}
    model = VisionTransformer(**(settings | options))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def hugging_face_vit(model, *, dinov2):
    """A timm ViT's weights in the names of Hugging Face transformers, written by hand."""
    ours = model.state_dict()
    state = {
        "embeddings.cls_token": ours["cls_token"],
        "embeddings.mask_token": torch.zeros(1, 64),
        "embeddings.position_embeddings": ours["pos_embed"],
    }
    names = {"attn.proj": "attention.output.dense"}
    if dinov2:
        names |= {"norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    else:
        names |= {"norm1": "layernorm_before", "norm2": "layernorm_after"}
        names |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    for kind in ("weight", "bias"):
        state[f"embeddings.patch_embeddings.projection.{kind}"] = ours[f"patch_embed.proj.{kind}"]
        state[f"layernorm.{kind}"] = ours[f"norm.{kind}"]
        for i in range(2):
            layer = f"encoder.layer.{i}"
            state |= {f"{layer}.{their}.{kind}": ours[f"blocks.{i}.{our}.{kind}"] for our, their in names.items()}
            projections = ours[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            for name, projection in zip(("query", "key", "value"), projections, strict=True):
                state[f"{layer}.attention.attention.{name}.{kind}"] = projection
    if dinov2:
        for i in range(2):
            for step in (1, 2):
                state[f"encoder.layer.{i}.layer_scale{step}.lambda1"] = ours[f"blocks.{i}.ls{step}.gamma"]
    return state


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


# UniFormerV2's own formats


@pytest.mark.parametrize("name", GOLDENS)
def test_configuration_is_read_from_shapes(golden, facts, name):
    published, converted = facts(name), convert(golden(name))
    num_local_steps = 0 if published["no_lmhra"] else 2 if published["double_lmhra"] else 1
    expected = {
        "image_size": published["input_resolution"],
        "patch_size": published["patch_size"],
        "dim": published["width"],
        "depth": published["layers"],
        "mlp_ratio": 4.0,
        "activation": "quick_gelu",
        "num_classes": 11,
        "tubelet_size": 2 if published["temporal_downsample"] else 1,
        "tubelet_kernel_size": published.get("kernel_size", 3) if published["temporal_downsample"] else 1,
        "num_local_steps": num_local_steps,
        "fusion": "sequential",
        "global_mlp_ratio": published.get("mlp_factor", 4.0),
        "use_gate": not published.get("frozen", False),
    }
    if num_local_steps:
        expected |= {"local_reduction": published.get("dw_reduction", 1.5), "local_kernel_size": 3}
    assert {key: value for key, value in converted.config.items() if key not in ASSUMED} == expected
    assert converted.undetermined == ASSUMED
    assert set(ASSUMED) <= converted.config.keys()
    assert len(converted.config["fusion_stages"]) == published["n_layers"]
    if name != "official_odd":  # its stages 1, 3, 5 are nowhere in the weights
        assert converted.config["fusion_stages"] == tuple(published["return_list"])
    assert converted.dropped == converted.absent == ()


@pytest.mark.parametrize("name", GOLDENS)
def test_every_number_arrives_exactly_once_but_the_key_bias(golden, name):
    count, state, cancelled = 0, {}, []
    for key, value in golden(name).items():
        state[key] = torch.arange(count, count + value.numel()).reshape(value.shape)
        count += value.numel()
        if ".dec." in key and key.endswith("in_proj_bias"):
            cancelled.append(state[key].chunk(3)[1])
    arrived = torch.cat([value.flatten() for value in convert(state).state.values()])
    assert torch.equal(torch.cat([arrived, *cancelled]).sort().values, torch.arange(count))


def test_official_tensors_arrive_under_our_names(golden):
    theirs, ours = golden("official_odd"), convert(golden("official_odd")).state
    step, stage = "backbone.transformer.resblocks.3.lmhra2.pos_embed", "backbone.transformer.dec.1"
    expected = {
        "embedding.weight": theirs["backbone.conv1.weight"],
        "embedding.prefix_tokens": theirs["backbone.class_embedding"][None],
        "embedding.positions": theirs["backbone.positional_embedding"],
        "embedding.norm.bias": theirs["backbone.ln_pre.bias"],
        "blocks.5.spatial.norm.weight": theirs["backbone.transformer.resblocks.5.ln_1.weight"],
        "blocks.5.spatial.fn.qkv.weight": theirs["backbone.transformer.resblocks.5.attn.in_proj_weight"],
        "blocks.5.spatial.fn.proj.bias": theirs["backbone.transformer.resblocks.5.attn.out_proj.bias"],
        "blocks.5.ffn.norm.weight": theirs["backbone.transformer.resblocks.5.ln_2.weight"],
        "blocks.5.ffn.fn.fc1.bias": theirs["backbone.transformer.resblocks.5.mlp.c_fc.bias"],
        "blocks.5.ffn.fn.fc2.weight": theirs["backbone.transformer.resblocks.5.mlp.c_proj.weight"],
        "blocks.3.local.1.norm.running_var": theirs[f"{step}.0.running_var"],
        "blocks.3.local.1.norm.running_mean": theirs[f"{step}.0.running_mean"],
        "blocks.3.local.1.norm.num_batches_tracked": theirs[f"{step}.0.num_batches_tracked"],
        "blocks.3.local.1.norm.weight": theirs[f"{step}.0.weight"],
        "blocks.3.local.1.value.weight": theirs[f"{step}.1.weight"][:, :, 0, 0, 0],
        "blocks.3.local.1.affinity.weight": theirs[f"{step}.2.weight"][:, 0, :, 0, 0],
        "blocks.3.local.1.affinity.bias": theirs[f"{step}.2.bias"],
        "blocks.3.local.1.proj.weight": theirs[f"{step}.3.weight"][:, :, 0, 0, 0],
        "fusion.video_token": theirs["backbone.transformer.temporal_cls_token"][0],
        "fusion.stages.1.position.weight": theirs["backbone.transformer.dpe.1.weight"],
        "fusion.stages.1.norm_query.weight": theirs[f"{stage}.ln_1.weight"],
        "fusion.stages.1.norm_tokens.weight": theirs[f"{stage}.ln_3.weight"],
        "fusion.stages.1.cross.q.weight": theirs[f"{stage}.attn.in_proj_weight"][:48],
        "fusion.stages.1.cross.q.bias": theirs[f"{stage}.attn.in_proj_bias"][:48],
        "fusion.stages.1.cross.k.weight": theirs[f"{stage}.attn.in_proj_weight"][48:96],
        "fusion.stages.1.cross.v.bias": theirs[f"{stage}.attn.in_proj_bias"][96:],
        "fusion.stages.1.cross.v.weight": theirs[f"{stage}.attn.in_proj_weight"][96:],
        "fusion.stages.1.cross.proj.weight": theirs[f"{stage}.attn.out_proj.weight"],
        "fusion.stages.1.ffn.norm.bias": theirs[f"{stage}.ln_2.bias"],
        "fusion.stages.1.ffn.fn.fc1.weight": theirs[f"{stage}.mlp.c_fc.weight"],
        "fusion.stages.1.ffn.fn.fc2.weight": theirs[f"{stage}.mlp.c_proj.weight"],
        "fusion_gate": theirs["backbone.transformer.balance"],
        "norm.weight": theirs["backbone.transformer.proj.0.weight"],
        "head.bias": theirs["backbone.transformer.proj.2.bias"],
    }
    assert_same({key: ours[key] for key in expected}, expected)


@pytest.mark.parametrize("name", GOLDENS)
def test_our_network_has_exactly_these_tensors(golden, name):
    converted = convert(golden(name))
    with torch.device("meta"):
        model = UniFormerV2(UniFormerV2Config(**converted.config))
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in converted.state.items()} == shapes


def test_mmaction_differs_in_norm_head_and_preprocessing(golden):
    theirs = golden("mmaction_temporal")
    theirs |= {"data_preprocessor.mean": torch.full((3, 1, 1, 1), 114.75)}
    theirs |= {"data_preprocessor.std": torch.full((3, 1, 1, 1), 57.375)}
    converted = convert(theirs)
    assert converted.format == "mmaction2"
    assert converted.preprocessing == {"mean": (114.75,) * 3, "std": (57.375,) * 3}
    assert torch.equal(converted.state["norm.weight"], theirs["backbone.transformer.norm.weight"])
    assert torch.equal(converted.state["head.weight"], theirs["cls_head.fc_cls.weight"])
    assert_same(converted.state, convert(golden("mmaction_temporal")).state)


@pytest.mark.parametrize("reduction", [1.0, 1.5, 2.0, 3.0, 1.7, 0.5])
def test_any_local_reduction_gives_the_same_bottleneck(golden, reduction):
    state, hidden = golden("official_single_local"), int(64 // reduction)
    for key in state:
        if ".pos_embed.1." in key or ".pos_embed.2." in key:
            state[key] = torch.zeros(hidden, *state[key].shape[1:])
        if ".pos_embed.3.weight" in key:
            state[key] = torch.zeros(64, hidden, 1, 1, 1)
    found = convert(state).config["local_reduction"]
    assert int(64 // found) == hidden
    assert reduction not in (1.0, 1.5, 2.0) or found == reduction


def test_converted_tensors_can_be_saved_and_are_native(golden, tmp_path):
    converted = convert(golden("official_temporal"))
    save_file(converted.state, tmp_path / "any_name.bin")
    read = load_file(tmp_path / "any_name.bin")
    assert detect_format(read) == "native"
    again = convert(read)
    assert_same(again.state, converted.state)
    assert again.config == {}


# Recognition


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model_state": state, "epoch": 3, "optimizer_state": {"state": {}}},
        lambda state: {"state_dict": state, "meta": {"mmaction_version": "1.0"}},
        lambda state: {"model": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model._orig_mod.{key}": value for key, value in state.items()}},
    ],
    ids=["trainer", "mmaction2", "model", "nested", "ddp", "lightning"],
)
@pytest.mark.parametrize("name", ["official_odd", "mmaction_scene"])
def test_wrapped_checkpoints_are_the_same(golden, name, wrap):
    bare, wrapped = convert(golden(name)), convert(wrap(golden(name)))
    assert wrapped.format == bare.format == {"off": "official", "mma": "mmaction2"}[name[:3]]
    assert wrapped.config == bare.config
    assert_same(wrapped.state, bare.state)


def test_order_of_keys_and_outer_name_are_irrelevant(golden):
    keys = list(golden("official_scene"))
    random.Random(0).shuffle(keys)
    bare = {key.removeprefix("backbone."): golden("official_scene")[key] for key in keys}
    assert convert(bare).config == convert(golden("official_scene")).config
    assert_same(convert(bare).state, convert(golden("official_scene")).state)


def test_every_format_is_told_by_its_keys():
    tower, scaled = clip_tower(), tiny_vit(init_values=1.0)
    prefixed = {f"visual.trunk.{key}": value for key, value in tiny_vit(pre_norm=True).state_dict().items()}
    assert detect_format(tower) == "clip"
    assert detect_format(whole_clip()) == "clip"
    assert detect_format(hugging_face_clip(tower)) == "hf_clip"
    assert (
        detect_format(prefixed | {"visual.head.proj.weight": torch.zeros(1), "text.x": torch.zeros(1)}) == "timm_clip"
    )
    assert detect_format(tiny_vit().state_dict()) == "timm_vit"
    assert detect_format(hugging_face_vit(scaled, dinov2=True)) == "hf_dinov2"
    assert detect_format(hugging_face_vit(tiny_vit(), dinov2=False)) == "hf_vit"


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_unknown_format_is_refused_with_its_first_keys(name):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    with pytest.raises(ValueError, match=r"no known format: .* and \d+ more") as error:
        convert(state)
    assert next(iter(state)) in str(error.value)
    assert "official, mmaction2" in str(error.value)


@pytest.mark.parametrize("checkpoint", [{}, [], {"state_dict": {}}])
def test_nothing_is_refused(checkpoint):
    with pytest.raises(ValueError, match="empty"):
        detect_format(checkpoint)


def test_other_things_than_tensors_are_refused(golden):
    with pytest.raises(ValueError, match=r"no tensors: epoch, 7\."):
        convert(golden("official_scene") | {"epoch": 1, 7: torch.zeros(1)})


def test_a_container_that_holds_itself_ends():
    checkpoint = {}
    checkpoint["model"] = checkpoint
    with pytest.raises(ValueError, match="no tensors: model"):
        convert(checkpoint)


# Strictness


@pytest.mark.parametrize("name", GOLDENS)
def test_each_missing_key_is_named(golden, name):
    whole = golden(name)
    for key in whole:
        state = {other: value for other, value in whole.items() if other != key}
        if key.endswith("transformer.balance"):
            assert convert(state).config["use_gate"] is False
            continue
        with pytest.raises(ValueError, match="missing") as error:
            convert(state)
        assert key in str(error.value)
        assert "1 keys are missing" in str(error.value)
        assert "0 keys are unknown" in str(error.value)


@pytest.mark.parametrize(
    ("state", "dropped"),
    [
        (clip_tower(), {"proj"}),
        (hugging_face_vit(tiny_vit(), dinov2=False), {"embeddings.mask_token"}),
        (hugging_face_vit(tiny_vit(init_values=1.0), dinov2=True), {"embeddings.mask_token"}),
        (
            hugging_face_clip(clip_tower()),
            {
                "logit_scale",
                "text_model.embeddings.position_embedding.weight",
                "text_projection.weight",
                "visual_projection.weight",
                "vision_model.embeddings.position_ids",
            },
        ),
    ],
    ids=["clip", "hf_vit", "hf_dinov2", "hf_clip"],
)
def test_each_missing_key_of_an_image_vit_is_named(state, dropped):
    assert set(to_timm_vit(state).dropped) == dropped
    for key in state.keys() - dropped:
        with pytest.raises(ValueError, match="1 keys are missing") as error:
            to_timm_vit({other: value for other, value in state.items() if other != key})
        assert key in str(error.value)


def test_unknown_and_missing_keys_are_listed_ten_at_most(golden):
    state = golden("official_scene")
    del state["backbone.ln_pre.bias"]
    state |= {f"backbone.extra.{i}": torch.zeros(1) for i in range(12)}
    with pytest.raises(ValueError, match="12 keys are unknown") as error:
        convert(state)
    assert "backbone.extra.9 and 2 more; 1 keys are missing: backbone.ln_pre.bias." in str(error.value)
    assert "backbone.extra.10" not in str(error.value)


def test_text_towers_are_dropped_only_outside_the_image_tower():
    with pytest.raises(ValueError, match=r"unknown: transformer\.resblocks\.0\.surprise"):
        convert(clip_tower() | {"transformer.resblocks.0.surprise": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"unknown: visual\.surprise"):
        convert(whole_clip() | {"visual.surprise": torch.zeros(1)})


def test_a_huge_block_number_is_unknown_not_a_huge_table(golden):
    key = f"backbone.transformer.resblocks.{10**12}.ln_1.weight"
    with pytest.raises(ValueError, match=key):
        convert(golden("official_scene") | {key: torch.zeros(64)})


def test_a_second_local_step_without_the_first_is_named(golden):
    state = {key: value for key, value in golden("official_temporal").items() if ".lmhra1." not in key}
    with pytest.raises(ValueError, match=r"missing: backbone\.transformer\.resblocks\.0\.lmhra1\.pos_embed\.0\.weight"):
        convert(state)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("backbone.conv1.weight", (64, 3, 8, 8), r"\[64, 3, 8, 8\]"),
        ("backbone.positional_embedding", (16, 64), r"1 \+ 15"),
        ("backbone.transformer.dec.0.attn.in_proj_bias", (100,), r"dec\.0\.attn\.in_proj_bias \[100\] cannot become"),
    ],
)
def test_wrong_shapes_are_named(golden, key, shape, message):
    with pytest.raises(ValueError, match=message):
        convert(golden("official_scene") | {key: torch.zeros(shape)})


def test_the_given_state_dict_is_not_changed(golden):
    state = golden("official_temporal")
    converted = convert(state)
    assert_same(state, golden("official_temporal"))
    assert converted.state.keys().isdisjoint(state)


# CLIP's image tower and image ViTs


@pytest.mark.parametrize("checkpoint", [clip_tower(), whole_clip(), hugging_face_clip(clip_tower())], ids=len)
def test_clip_takes_the_names_that_timm_gives_it(checkpoint):
    model = tiny_vit(pre_norm=True)
    theirs = checkpoint_filter_fn({f"visual.{key}": value for key, value in clip_tower().items()}, model)
    converted = to_timm_vit(checkpoint)
    assert_same(converted.state, {key: value for key, value in theirs.items() if not key.startswith("head.")})
    assert converted.absent == ()


@pytest.mark.parametrize("half", [False, True])
def test_clip_becomes_the_image_part_of_ours(half):
    whole = {key: value.half() if half and value.is_floating_point() else value for key, value in whole_clip().items()}
    converted, tower = (
        convert(whole),
        {key: value.half().float() if half else value for key, value in clip_tower().items()},
    )
    assert converted.config == {
        "image_size": 12,
        "patch_size": 4,
        "dim": 64,
        "depth": 2,
        "num_heads": 1,
        "mlp_ratio": 4.0,
        "activation": "quick_gelu",
    }
    assert converted.undetermined == ("num_heads", "activation")
    assert converted.absent == ("fusion", "norm", "head")
    assert set(converted.dropped) >= {"visual.proj", "visual.ln_post.weight", "visual.ln_post.bias", "logit_scale"}
    assert len(converted.dropped) == 3 + 10
    assert {value.dtype for value in converted.state.values()} == {torch.float32}
    assert torch.equal(converted.state["embedding.weight"], tower["conv1.weight"][:, :, None])
    assert torch.equal(converted.state["embedding.prefix_tokens"], tower["class_embedding"][None])
    assert torch.equal(converted.state["embedding.positions"], tower["positional_embedding"])
    assert torch.equal(
        converted.state["blocks.1.spatial.fn.qkv.weight"], tower["transformer.resblocks.1.attn.in_proj_weight"]
    )
    assert torch.equal(converted.state["blocks.1.ffn.fn.fc2.bias"], tower["transformer.resblocks.1.mlp.c_proj.bias"])


def test_clip_from_every_naming_is_the_same_image_part():
    expected = convert(clip_tower()).state
    timm_named = to_timm_vit(clip_tower()).state
    open_clip = {f"visual.trunk.{key}": value for key, value in timm_named.items()} | {
        "visual.head.proj.weight": torch.zeros(1),
        "text.transformer.resblocks.0.ln_1.weight": torch.zeros(1),
        "logit_bias": torch.zeros(1),
    }
    for checkpoint in (whole_clip(), hugging_face_clip(clip_tower()), timm_named, open_clip):
        assert_same(convert(checkpoint).state, expected)


def test_image_part_has_the_keys_of_the_published_video_model(golden):
    ours = set(convert(golden("official_scene")).state)
    tower = set(convert(clip_tower(depth=6)).state)
    assert {key for key in ours if not key.startswith(("fusion", "norm", "head"))} == tower


def test_dinov2_file_of_hugging_face_fills_timms_model(shared):
    file = load_file(shared("weights/dinov2_vits14_hf_fp16.safetensors"))
    converted = to_timm_vit(file)
    assert converted.format == "hf_dinov2"
    assert converted.dropped == converted.absent == ()
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518)
    model.load_state_dict(converted.state)
    assert {value.dtype for value in converted.state.values()} == {torch.float32}
    attention = "encoder.layer.7.attention.attention"
    joined = torch.cat([file[f"{attention}.{name}.weight"] for name in ("query", "key", "value")]).float()
    assert torch.equal(model.blocks[7].attn.qkv.weight, joined)
    assert torch.equal(model.blocks[7].ls2.gamma, file["encoder.layer.7.layer_scale2.lambda1"].float())
    assert sum(value.numel() for value in converted.state.values()) == sum(value.numel() for value in file.values())


def test_a_vit_without_its_final_norm_says_so(shared):
    file = load_file(shared("weights/dinov2_vits14_hf_fp16.safetensors"))
    converted = to_timm_vit({key: value for key, value in file.items() if not key.startswith("layernorm.")})
    assert converted.absent == ("norm",)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518)
    missing, unexpected = model.load_state_dict(converted.state, strict=False)
    assert (missing, unexpected) == (["norm.weight", "norm.bias"], [])


@pytest.mark.parametrize("prefix", ["", "dinov2."])
def test_dinov2_of_hugging_face(prefix):
    model = tiny_vit(init_values=1.0)
    state = {f"{prefix}{key}": value for key, value in hugging_face_vit(model, dinov2=True).items()}
    converted = to_timm_vit(state | ({"classifier.weight": torch.zeros(3, 128)} if prefix else {}))
    assert_same(converted.state, model.state_dict())
    assert converted.dropped == (f"{prefix}embeddings.mask_token",) + (("classifier.weight",) if prefix else ())


def test_dinov2_with_registers_takes_timms_form():
    model = tiny_vit(init_values=1.0)
    registers = torch.randn(1, 4, 64)
    converted = to_timm_vit(hugging_face_vit(model, dinov2=True) | {"embeddings.register_tokens": registers})
    target = tiny_vit(init_values=1.0, reg_tokens=4, no_embed_class=True)
    released = model.state_dict() | {"register_tokens": registers, "mask_token": torch.zeros(1, 64)}
    assert_same(converted.state, checkpoint_filter_fn(released, target))
    target.load_state_dict(converted.state)


def test_dinov2_giant_has_a_gated_feed_forward():
    model = tiny_vit(init_values=1.0)
    state = {
        key.replace("mlp.fc1", "mlp.weights_in").replace("mlp.fc2", "mlp.weights_out"): value
        for key, value in hugging_face_vit(model, dinov2=True).items()
    }
    assert_same(to_timm_vit(state).state, model.state_dict())


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_vit_of_hugging_face(prefix):
    model = tiny_vit()
    state = {f"{prefix}{key}": value for key, value in hugging_face_vit(model, dinov2=False).items()}
    other = "classifier.bias" if prefix else "pooler.dense.bias"
    converted = to_timm_vit(state | {other: torch.zeros(3)})
    assert_same(converted.state, model.state_dict())
    assert converted.format == "hf_vit"
    assert set(converted.dropped) == {f"{prefix}embeddings.mask_token", other}


def test_names_of_timm_stay(golden):
    model = tiny_vit(reg_tokens=4)
    converted = to_timm_vit({"model": model.state_dict()})
    assert converted.format == "timm_vit"
    assert_same(converted.state, model.state_dict())


def test_video_and_image_weights_are_sent_to_the_right_door(golden):
    with pytest.raises(ValueError, match=r"image ViT \(hf_vit\).*uniformerv2\.arm"):
        convert(hugging_face_vit(tiny_vit(), dinov2=False))
    with pytest.raises(ValueError, match=r"UniFormerV2 \(official\).*uniformerv2\.load_model"):
        to_timm_vit(golden("official_scene"))


# Inflation
