"""Arming: one model of every family at small size, and what is refused."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.func import functional_call

from uniformerv2.model.summary import summarize
from uniformerv2.zoo import arming
from uniformerv2.zoo.arming import arm
from uniformerv2.zoo.checkpoint import load_model, save_model

SMALL = {"img_size": 48, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0}
FAMILIES = {
    "plain": "vit_base_patch16_224",
    "augreg": "vit_tiny_patch16_224.augreg_in21k",
    "mae": "vit_base_patch16_224.mae",
    "deit3": "deit3_small_patch16_224",
    "clip": "vit_base_patch16_clip_quickgelu_224",
    "siglip": "vit_base_patch16_siglip_224",
    "dino": "vit_small_patch16_224.dino",
    "dinov2": "vit_small_patch14_dinov2",
    "dinov2_registers": "vit_small_patch14_reg4_dinov2",
    "dinov3": "vit_small_patch16_dinov3",
    "eva": "eva_giant_patch14_224",
    "eva02": "eva02_tiny_patch14_224",
    "eva02_clip": "eva02_base_patch16_clip_224",
    "beit": "beit_base_patch16_224",
    "beitv2": "beitv2_base_patch16_224",
}


def image_vit(family):
    torch.manual_seed(0)
    vit = timm.create_model(FAMILIES[family], **SMALL).eval()
    for name, parameter in vit.named_parameters():
        if parameter.ndim > 1 or "gamma" in name:  # some start at zero or next to it
            torch.nn.init.normal_(parameter, std=0.2)
    return vit


def clip(frames=4):
    return torch.randn(2, frames, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def image_tokens(vit, images):
    """timm's own tokens after each block, prefix tokens first."""
    found = vit.forward_intermediates(images, intermediates_only=True, return_prefix_tokens=True, output_fmt="NLC")
    return [torch.cat([item[1], item[0]], dim=1) if isinstance(item, tuple) else item for item in found]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_a_frame_are_the_image_vits_bit_for_bit(family):
    vit = image_vit(family)
    model = arm(vit, num_classes=5, num_frames=4, num_local_steps=2).eval()
    with torch.inference_mode():
        ours = model.forward_intermediates(clip(), intermediates_only=True)
        theirs = image_tokens(vit, clip().flatten(0, 1))
    assert len(ours) == 3
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x.flatten(0, 1), y)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_a_tubelet_are_those_of_its_centre_frame(family):
    vit = image_vit(family)
    model = arm(vit, num_classes=5, num_frames=4, preset="motion").eval()
    assert model.config.tubelet_size == 2
    with torch.inference_mode():
        ours = model.forward_intermediates(clip(), intermediates_only=True)
        theirs = image_tokens(vit, clip()[:, ::2].flatten(0, 1))
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.flatten(0, 1), y, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_armed_model_trains_and_survives_a_checkpoint(family, tmp_path):
    model = arm(image_vit(family), num_classes=5, num_frames=4, class_names=("a", "b", "c", "d", "e"))
    model(clip()).square().sum().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert without == []
    again = load_model(save_model(model, tmp_path / "armed"))
    assert again.config == model.config
    assert again.info.class_names == ("a", "b", "c", "d", "e")
    assert again.info.preprocessing.items() >= model.info.preprocessing.items()
    with torch.inference_mode():
        assert torch.equal(again(clip()), model.eval()(clip()))


@pytest.mark.parametrize("family", ["plain", "dinov2_registers", "dinov3", "eva02", "siglip"])
def test_other_sizes_of_frames(family):
    model = arm(image_vit(family), num_classes=5, num_frames=2).eval()
    assert model(torch.randn(1, 2, 3, 64, 40)).shape == (1, 5)


@pytest.mark.filterwarnings("ignore:torch.searchsorted")  # timm's own calls, when it resizes the bias
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_a_relative_position_bias_is_for_one_size():
    vit = image_vit("beit")
    with pytest.raises(ValueError, match=r"for frames of 6 x 6 patches, got 8 x 6: arm .* with image_size="):
        arm(vit, num_classes=5)(torch.randn(1, 2, 3, 64, 48))
    model = arm(vit, num_classes=5, image_size=64)
    assert model(torch.randn(1, 2, 3, 64, 64)).shape == (1, 5)
    assert vit.patch_embed.img_size == (48, 48)  # a copy was armed


def test_without_a_class_token_the_gate_takes_the_mean_patch():
    model = arm(image_vit("siglip"), num_classes=0, num_frames=4).eval()
    features, (last,) = model.forward_intermediates(clip(), indices=1)
    gate = model.fusion_gate.detach().sigmoid()
    closed = {"fusion_gate": torch.full_like(gate, -100.0)}
    video_token = functional_call(model, closed, (clip(),))
    assert last.shape == (2, 4, 36, 48)
    wanted = model.norm((1 - gate) * model.fusion.video_token.detach() + gate * last.mean((1, 2)))
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(video_token, wanted)


def test_presets_are_the_authors_advice():
    scene = arm("vit_tiny_patch16_224", num_classes=5, image_size=32).config
    assert (scene.num_local_steps, scene.tubelet_size, scene.fusion_stages) == (0, 1, (8, 9, 10, 11))
    motion = arm("vit_tiny_patch16_224", num_classes=5, image_size=32, preset="motion").config
    assert (motion.num_local_steps, motion.tubelet_size, motion.fusion_stages) == (2, 2, tuple(range(4, 12)))
    own = arm("vit_tiny_patch16_224", num_classes=5, image_size=32, preset="motion", tubelet_size=1).config
    assert (own.tubelet_size, own.tubelet_kernel_size) == (1, 1)
    with pytest.raises(ValueError, match="preset is 'scene' or 'motion', got 'sport'"):
        arm("vit_tiny_patch16_224", num_classes=5, preset="sport")


def test_a_frozen_backbone_does_not_learn():
    model = arm(image_vit("plain"), num_classes=5, preset="motion", freeze_backbone=True).train()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {
        name
        for name, _ in model.named_parameters()
        if ".local." in name or not name.startswith(("blocks.", "embedding."))
    }
    assert not model.blocks[0].spatial.training
    assert model.blocks[0].local[0].norm.training


def test_the_normalisation_is_the_image_vits():
    mean = {family: arm(image_vit(family), num_classes=5).info.preprocessing["mean"] for family in FAMILIES}
    assert mean["dinov2"] == [0.485, 0.456, 0.406]
    assert mean["clip"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert mean["plain"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("swin_tiny_patch4_window7_224", {}, r"'swin_tiny_patch4_window7_224' \(SwinTransformer\) can't be armed"),
        ("convnext_atto", {}, "ConvNeXt.* can't be armed. Supported: plain, AugReg"),
        ("vit_tiny_patch16_224", {"block_fn": "ParallelScalingBlock"}, "blocks of type ParallelScalingBlock"),
        ("deit_tiny_distilled_patch16_224", {}, "VisionTransformerDistilled"),
        ("vit_tiny_patch16_224", {"pos_drop_rate": 0.1}, "position dropout"),
        ("vit_small_patch16_rope_mixed_224", {}, "mixed RoPE"),
        ("beit_base_patch16_224", {"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False}, "shared by all blocks"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_by_name(name, arguments, message):
    if "block_fn" in arguments:
        arguments = {"block_fn": getattr(timm.models.vision_transformer, arguments["block_fn"])}
    with pytest.raises(ValueError, match=message):
        arm(timm.create_model(name, num_classes=0, **arguments), num_classes=5)


def test_the_first_blocks_alone(tmp_path):
    vit = image_vit("dinov2")
    model = arm(vit, num_classes=5, num_frames=4, num_blocks=2).eval()
    assert model.config.depth == len(model.blocks) == 2
    with torch.inference_mode():
        (ours,) = model.forward_intermediates(clip(), indices=1, intermediates_only=True)
        assert torch.equal(ours.flatten(0, 1), image_tokens(vit, clip().flatten(0, 1))[1])
        assert torch.equal(load_model(save_model(model, tmp_path))(clip()), model(clip()))
    with pytest.raises(ValueError, match="num_blocks must be 1 to 3, the image ViT's, got 4"):
        arm(vit, num_classes=5, num_blocks=4)


def test_stages_are_counted_from_the_end():
    vit = image_vit("dinov2")
    assert arm(vit, num_classes=5, preset="motion", num_stages=1).config.fusion_stages == (2,)
    assert arm(vit, num_classes=5, num_stages=2).config.fusion_stages == (1, 2)
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"num_stages must be 1 to 3, the blocks, got {count}"):
            arm(vit, num_classes=5, num_stages=count)


def test_what_reads_the_last_tokens_starts_from_the_final_norm():
    vit = image_vit("dinov2")
    torch.nn.init.normal_(vit.norm.weight)
    torch.nn.init.normal_(vit.norm.bias)
    model = arm(vit, num_classes=5, num_frames=4)
    for norm in (model.norm, model.fusion.stages[-1].norm_tokens):
        assert torch.equal(norm.weight, vit.norm.weight)
        assert torch.equal(norm.bias, vit.norm.bias)
    for block in model.fusion.stages[:-1]:
        assert torch.equal(block.norm_tokens.weight, torch.ones(48))


def test_a_final_norm_is_not_given_to_other_tokens():
    """It was trained for the last block's."""
    vit = image_vit("dinov2")
    torch.nn.init.normal_(vit.norm.weight)
    cut = arm(vit, num_classes=5, num_frames=4, num_blocks=2)
    early = arm(vit, num_classes=5, num_frames=4, fusion_stages=(0, 1))
    for norm in (cut.norm, cut.fusion.stages[-1].norm_tokens, early.fusion.stages[-1].norm_tokens):
        assert torch.equal(norm.weight, torch.ones(48))
    assert torch.equal(early.norm.weight, vit.norm.weight)  # the class token of the last block, by the gate


def test_a_model_that_a_checkpoint_could_not_rebuild_is_refused():
    vit = timm.create_model("vit_tiny_patch16_224", **{**SMALL, "init_values": 1e-5})
    with pytest.raises(ValueError, match="pass the arguments it was made with as backbone_args="):
        arm(vit, num_classes=5)
    assert arm(vit, num_classes=5, backbone_args={"init_values": 1e-5}).config.backbone_args["init_values"] == 1e-5


@pytest.mark.parametrize(
    "settings", [{"rope_temperature": 20.0}, {"rope_rotate_half": False}, {"rope_grid_offset": 0.5}], ids=str
)
def test_rotary_settings_that_a_checkpoint_would_lose_are_refused(settings):
    vit = timm.create_model("vit_small_patch16_dinov3", **SMALL, **settings)
    with pytest.raises(ValueError, match="is another model than the one given"):
        arm(vit, num_classes=5)
    assert arm(vit, num_classes=5, backbone_args=settings).config.backbone_args.keys() >= settings.keys()


def test_arguments_that_a_checkpoint_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="backbone_args are stored with a checkpoint as numbers and names"):
        arm("vit_tiny_patch16_224", num_classes=5, backbone_args={"act_layer": torch.nn.SiLU})


@pytest.mark.parametrize("family", ["dinov3", "eva02"])
def test_a_summary_leaves_shared_positions_alone(family):
    model = arm(image_vit(family), num_classes=5, num_frames=4).eval()
    before = model(clip())
    summarize(model)
    assert torch.equal(model(clip()), before)


def test_without_a_class_token_the_gate_pools_patches_not_registers():
    vit = timm.create_model("vit_medium_patch16_reg4_gap_256", **SMALL)
    model = arm(vit, num_classes=5, num_frames=4, use_gate=True).eval()
    torch.nn.init.constant_(model.fusion_gate, 50.0)  # nothing but what the image ViT pools
    with torch.inference_mode():
        pooled, (tokens,) = model.forward_intermediates(clip(), indices=1)
    assert model.embedding.num_prefix_tokens == 4
    torch.testing.assert_close(pooled, tokens[:, :, 4:].mean(dim=(1, 2)))


def test_a_size_of_no_whole_patches_is_that_of_the_whole_ones(tmp_path):
    """As SigLIP's SO400M/14 for 384 pixels, which leaves the last 6 rows and columns out."""
    model = arm("vit_tiny_patch16_224", num_classes=5, num_frames=2, backbone_args={"img_size": 40, "depth": 2})
    assert (model.config.image_size, model.config.backbone_args["img_size"]) == (32, 40)
    save_model(model, tmp_path)
    assert load_model(tmp_path)(torch.zeros(1, 2, 3, 32, 32)).shape == (1, 5)


def test_relative_positions_do_not_decay():
    spared = arm(image_vit("beit"), num_classes=5).no_weight_decay()
    assert {f"blocks.{block}.spatial.fn.attn.relative_position_bias_table" for block in range(3)} <= spared


def test_a_frozen_image_vit_thaws_where_all_learns():
    vit = image_vit("plain").requires_grad_(False)
    assert all(weight.requires_grad for weight in arm(vit, num_classes=5).parameters())
    assert not any(weight.requires_grad for weight in vit.parameters())


def test_the_size_asked_for_is_kept_when_weights_come_from_a_file(tmp_path):
    wide = timm.create_model("vit_tiny_patch16_224", img_size=(16, 64), depth=2, num_classes=0)
    torch.save(wide.state_dict(), tmp_path / "wide.pth")
    options = {"num_classes": 5, "num_frames": 2, "weights": tmp_path / "wide.pth"}
    same = arm("vit_tiny_patch16_224", image_size=(16, 64), backbone_args={"depth": 2}, **options)
    assert torch.equal(same.embedding.positions, wide.pos_embed[0])
    small = arm("vit_tiny_patch16_224", backbone_args={"depth": 2, "img_size": 32}, **options)
    assert small.config.image_size == 32


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="The image ViT decides mlp_ratio, patch_size"):
        arm(image_vit("plain"), num_classes=5, patch_size=8, mlp_ratio=2.0)
    with pytest.raises(ValueError, match=r"HybridEmbed|patch embedding other than one convolution"):
        arm("vit_tiny_r_s16_p8_224", num_classes=5)
    with pytest.raises(ValueError, match="not both"):
        arm("vit_tiny_patch16_224", num_classes=5, pretrained=True, weights="vit.safetensors")
    with pytest.raises(ValueError, match="each of the 5 classes, got 2 names"):
        arm(image_vit("plain"), num_classes=5, class_names=("a", "b"))
    with pytest.raises(ValueError, match="pretrained=True is for a name"):
        arm(image_vit("plain"), num_classes=5, pretrained=True)


@pytest.mark.parametrize("size", [112, 168, 224])
def test_the_real_dinov2_is_armed_at_several_sizes(size, shared):
    path = shared("weights/dinov2_vits14_hf_fp16.safetensors")
    model = arm("vit_small_patch14_dinov2", num_classes=6, num_frames=2, image_size=size, weights=path).eval()
    assert model.config.image_size == size
    assert model.embedding.native_grid == (size // 14, size // 14)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 2, 3, size, size, generator=generator)
    vit = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    arming._load_weights(vit, path, None)
    vit.set_input_size(img_size=size)
    with torch.inference_mode():
        (ours,) = model.forward_intermediates(frames, indices=1, intermediates_only=True)
        theirs = image_tokens(vit.eval(), frames[0])[-1]
    assert torch.equal(ours[0], theirs)


def test_weights_of_another_model_are_refused(shared):
    path = shared("weights/dinov2_vits14_hf_fp16.safetensors")
    told = r"does not fit 'vit_small_patch16_224', .* size: patch_embed.* \(384, 3, 14, 14\), wanted \(384, 3, 16"
    with pytest.raises(ValueError, match=told):
        arm("vit_small_patch16_224", num_classes=6, weights=path)
    with pytest.raises(ValueError, match=r"bias \(384,\), wanted \(768,\) and \d+ more\. Name the image"):
        arm("vit_base_patch14_dinov2", num_classes=6, image_size=28, weights=path)
