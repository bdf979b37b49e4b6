"""Every recipe: read as the command line reads it, built, and compared with the published facts field by field."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import av
import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser
from safetensors.torch import load_file, save_file

from tests.training.fake_clips import tiny_config
from uniformerv2 import UniFormerV2, UniFormerV2Config, model_card, save_model
from uniformerv2.data.labels import label_map
from uniformerv2.recipes import list_recipes, recipe_path
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.optim import parameter_groups
from uniformerv2.training.recipe_cli import build_classifier, build_network

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

RECIPES = list_recipes()
OFFICIAL = [name for name in RECIPES if model_card(name).source == "official"]

STARTS = {
    "k710/k710_uniformerv2_b16_8x224.pyth": "uniformerv2_b16_k710_8x224_mmaction2",
    "k710/k710_uniformerv2_l14_8x224.pyth": "uniformerv2_l14_k710_8x224_mmaction2",
    "k710/k710_uniformerv2_l14_8x336.pyth": "uniformerv2_l14_k710_8x336_mmaction2",
    "k710/frozen_k710_uniformerv2_l14_8x336.pyth": "runs/uniformerv2_l14_frozen_k710_8x336/model",
    "k400/k400+k710_uniformerv2_b16_8x224.pyth": "uniformerv2_b16_k400_k710_8x224",
    "k400/k400+k710_uniformerv2_l14_8x224.pyth": "uniformerv2_l14_k400_k710_8x224_mmaction2",
    "k400/k400+k710_uniformerv2_l14_16x224.pyth": "uniformerv2_l14_k400_k710_16x224_mmaction2",
    "k400/k400+k710_uniformerv2_l14_32x224.pyth": "uniformerv2_l14_k400_k710_32x224_mmaction2",
    "k400/k400+k710_uniformerv2_l14_8x336.pyth": "uniformerv2_l14_k400_k710_32x336_mmaction2",
}
"""Published start -> ours: the file that can still be had, and whose order of classes is known where it matters."""

CLIP = {
    "uniformerv2_b16": "ViT-B-16.pt",
    "uniformerv2_l14": "ViT-L-14.pt",
    "uniformerv2_l14_336": "ViT-L-14-336px.pt",
}


@cache
def parser():
    """The options of ``uniformerv2 fit``."""
    parser = LightningArgumentParser()
    parser.add_argument("--seed_everything", type=int)
    parser.add_lightning_class_args(lightning.Trainer, "trainer")
    parser.add_lightning_class_args(build_classifier, "model")
    parser.add_lightning_class_args(VideoDataModule, "data")
    return parser


@cache
def parsed(name):
    content = yaml.safe_load(recipe_path(name).read_text())
    content["data"]["train"] = "nowhere.csv"
    return parser().parse_object(content)


def read(name, **data):
    """A recipe, checked against the types of all options, with other settings of the data."""
    settings = parsed(name).clone()
    for field, value in data.items():
        settings.data[field] = value
    return settings


def build(name, **data):
    """Model without storage, and data; nothing is loaded."""
    settings = read(name, num_workers=0, **data)
    settings.model.weights, settings.model.head_map, settings.model.new_head = None, None, False
    with torch.device("meta"):
        built = parser().instantiate(settings)
    return built.model, built.data


@pytest.fixture(scope="module")
def fake_list(tmp_path_factory):
    """A list of four small videos, the classes 0 to 3."""
    folder = tmp_path_factory.mktemp("videos")
    write_noise(folder / "noise.mp4")
    for index in range(1, 4):
        (folder / f"noise_{index}.mp4").hardlink_to(folder / "noise.mp4")
    names = ["noise.mp4", *(f"noise_{index}.mp4" for index in range(1, 4))]
    (folder / "list.txt").write_text("".join(f"{name} {label}\n" for label, name in enumerate(names)))
    return folder / "list.txt"


def write_noise(path, *, num_frames=12, width=64, height=48, seed=0):
    rng = np.random.default_rng(seed)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(num_frames):
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def test_there_is_one_for_every_official_model_and_mmaction2s_trainable_ones(shared):
    facts = json.loads(shared("facts/official_recipes.json").read_text())
    assert sorted(model_card(name).recipe for name in OFFICIAL) == sorted(facts)
    assert len(OFFICIAL) == 49
    others = sorted(set(RECIPES) - set(OFFICIAL))
    assert others == [
        "uniformerv2_b16_k400_8x224_mmaction2",
        "uniformerv2_b16_k400_k710_8x224_mmaction2",
        "uniformerv2_b16_k600_k710_8x224_mmaction2",
        "uniformerv2_b16_k700_8x224_mmaction2",
        "uniformerv2_b16_k700_k710_8x224_mmaction2",
        "uniformerv2_b16_k710_8x224_mmaction2",
        "uniformerv2_b16_mit_k710_k400_8x224_mmaction2",
    ]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_recipes_say_what_was_run(shared, name):
    card = model_card(name)
    facts = json.loads(shared("facts/official_recipes.json").read_text())[card.recipe]
    model = facts["model"]
    settings = read(name)
    network, optimization = settings.model.network, settings.model.optimization
    data, trainer = settings.data, settings.trainer
    large = model["backbone"] != "uniformerv2_b16"

    assert network.image_size == facts["crop_size"] == (336 if model["backbone"].endswith("336") else 224)
    shape = (network.patch_size, network.dim, network.depth, network.num_heads)
    assert shape == ((14, 1024, 24, 16) if large else (16, 768, 12, 12))
    assert (network.dim, network.global_num_heads or network.num_heads) == (model["n_dim"], model["n_head"])
    assert network.num_frames == facts["num_frames"]
    assert network.num_classes == facts["num_classes"]
    assert list(network.fusion_stages) == model["return_list"]
    assert len(network.fusion_stages) == model["n_layers"]
    assert list(network.global_dropout) * model["n_layers"] == model["mlp_dropout"]
    assert network.global_mlp_ratio == model["mlp_factor"]
    assert network.classifier_dropout == model["cls_dropout"]
    assert network.drop_path_rate == model["backbone_drop_path_rate"]
    assert network.global_drop_path_rate == model["drop_path_rate"]
    assert network.drop_path_per == ("token" if model["drop_path_rate"] else "video")
    assert network.num_local_steps == (0 if model["no_lmhra"] else 1 + model["double_lmhra"])
    assert model["no_lmhra"] or network.local_reduction == model["dw_reduction"]
    assert network.tubelet_size == (2 if model["temporal_downsample"] else 1)
    assert network.use_gate == (not model.get("frozen"))
    assert settings.model.freeze_backbone is bool(model.get("frozen"))
    assert settings.model.num_checkpointed == facts["checkpoint_num"][0] * facts["activation_checkpointing"]
    check_start(settings.model, card, facts)

    assert facts["loss"] == settings.model.loss
    assert settings.model.label_smoothing == (facts["label_smoothing"] or 0)
    assert (settings.model.mixing is not None) == facts["mixup"]
    assert facts["optimizer"] == "adamw"
    assert facts["zero_wd_1d"] is True
    assert optimization.learning_rate == facts["base_lr"]
    assert optimization.end_rate == facts["end_lr"]
    assert optimization.warmup_start_rate == facts["warmup_start_lr"]
    assert optimization.warmup_epochs == facts["warmup_epochs"]
    assert optimization.weight_decay == facts["weight_decay"]
    assert (optimization.layer_decay, optimization.video_blocks_scale, optimization.decay_tokens) == (1, 1, True)
    assert optimization.batch_size == facts["batch_size"] * facts["nodes"]

    assert trainer.max_epochs == facts["max_epochs"]
    assert (trainer.devices, trainer.num_nodes) == (facts["gpus"], facts["nodes"])
    assert trainer.gradient_clip_val == facts["clip_grad"]
    assert trainer.default_root_dir == f"runs/{name}"
    assert settings.seed_everything == data.seed == facts["seed"]

    assert data.batch_size * trainer.devices * trainer.num_nodes == optimization.batch_size
    assert data.repeats == facts["repeated_augmentation"]
    assert data.preprocessing.num_frames == facts["num_frames"]
    assert data.preprocessing.image_size == data.augmentation.image_size == facts["test_crop_size"]
    assert (data.preprocessing.sampling, data.preprocessing.resize) == ("segments", "bilinear_float")
    views = (data.preprocessing.num_crops, data.preprocessing.num_clips)
    assert views == ((card.num_crops, card.num_clips) if card.top1 else (facts["test_crops"], facts["test_clips"]))
    assert data.augmentation.rand_augment == facts["rand_augment"]
    assert data.augmentation.interpolation == facts["interpolation"]
    assert list(data.augmentation.area) == facts["area_scale"]
    assert list(data.augmentation.aspect_ratio) == facts["aspect_ratio"]
    assert data.augmentation.flip == (0.5 if facts["random_flip"] else 0)
    assert data.augmentation.random_erasing == facts["random_erasing"]
    assert data.augmentation.color_jitter == 0  # 0.4 is listed; the published code leaves it out beside RandAugment
    assert (facts["dataset"] == "sth") == data.classes.startswith("something_something")


def check_start(model, card, facts):
    """The initialisation chain."""
    pretrain = facts["model"].get("pretrain")
    if pretrain is None:
        assert (model.weights, model.head_map, model.new_head) == (CLIP[facts["model"]["backbone"]], None, True)
        return
    assert model.weights == STARTS[pretrain]
    if pretrain.startswith("k710/"):
        target = card.dataset.lower().replace("-", "")
        assert (model.head_map, model.new_head) == (f"kinetics710_to_{target}", False)
    else:
        assert facts["model"]["delete_special_head"] is True
        assert (model.head_map, model.new_head) == (None, True)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(OFFICIAL)))
def test_mmaction2_recipes(name):
    """As the official ones of the same model, but for its own pixels, clipping and (for 710) rates."""
    ours, official = read(name), read(name.removesuffix("_mmaction2"))
    assert ours.model.network == official.model.network
    assert ours.trainer.gradient_clip_val == 20
    assert ours.trainer.max_epochs == official.trainer.max_epochs
    resize = ours.data.preprocessing
    assert (resize.resize, resize.long_side, resize.crop_offset, resize.crop_order) == (
        "bilinear_uint8",
        "nearest",
        "floor",
        "first_last_middle",
    )
    rates, published = vars(ours.model.optimization), vars(official.model.optimization)
    if "_k710_8x224" in name and "k400" not in name and "k600" not in name and "k700" not in name:
        published = {**published, "warmup_start_rate": 5e-6, "end_rate": 5e-6}
    assert rates == published
    per_gpu = 32
    assert ours.data.batch_size == per_gpu
    assert ours.model.optimization.batch_size == per_gpu * 8 * ours.trainer.num_nodes


@pytest.mark.parametrize("name", RECIPES)
def test_header(name):
    """The number, the source, the cost and the command stand at the top, and are true."""
    card, text = model_card(name), recipe_path(name).read_text()
    header = text[: text.index("seed_everything")]
    first = header.splitlines()[0]
    assert first.startswith(f"# {card.architecture}, {card.num_frames} frames, on {card.dataset}: ")
    assert (f"{card.top1} % top-1" in first and f"{card.views} views" in first) or card.top1 is None
    assert card.recipe.rpartition("/")[2].split("-rgb")[0][:24] in header
    trainer = read(name).trainer
    nodes = f"{trainer.num_nodes} node{'s' * (trainer.num_nodes > 1)}"
    assert f"{trainer.max_epochs} epochs on {nodes} of {trainer.devices} GPUs" in header
    assert f"uniformerv2 fit --config {name} " in header
    assert all(line.startswith("#") and len(line) <= 120 for line in header.splitlines())


@pytest.mark.parametrize("name", RECIPES)
def test_builds(fake_list, name):
    """Model, optimiser, schedule, a training and a test batch, and both through the network's shapes."""
    classifier, data = build(name, train=str(fake_list), val=str(fake_list), batch_size=1, eval_batch_size=1)
    network, optimization = classifier.network, classifier.optimization
    fields = network.config.to_dict()
    assert {key: fields[key] for key in model_card(name).config} == model_card(name).config

    groups = parameter_groups(network, optimization)
    torch.optim.AdamW(groups)
    assert {group["lr"] for group in groups} == {optimization.learning_rate}
    assert {group["weight_decay"] for group in groups} == {0.0, optimization.weight_decay}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trainable)
    frozen = len(list(network.parameters())) - len(trainable)
    assert frozen == ("_frozen_" in name) * (3 + 2 + 12 * network.config.depth)

    epochs, warm = read(name).trainer.max_epochs, optimization.warmup_epochs
    rates = [optimization.rate(epoch, epochs) for epoch in (0, warm, epochs)]
    start = optimization.warmup_start_rate if warm else optimization.learning_rate
    assert rates == pytest.approx([start, optimization.learning_rate, optimization.end_rate], rel=1e-12)

    size = (network.config.num_frames, 3, network.config.image_size, network.config.image_size)
    num_views = data.preprocessing.num_clips * data.preprocessing.num_crops
    train_video, test_video = first_videos(data)
    assert train_video.shape == (data.repeats, *size)
    assert test_video.shape == (1, num_views, *size)
    assert network(train_video.float()).shape == (data.repeats, network.num_classes)


BATCHES: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
"""What ``first_videos`` made: many recipes see the same clips."""


def first_videos(data):
    """The first training and the first test batch, really decoded and augmented, without their storage."""
    key = repr((data.preprocessing, data.augmentation, data.repeats))
    if key not in BATCHES:
        batches = [next(iter(loader)) for loader in (data.train_dataloader(), data.test_dataloader())]
        assert all(batch.readable.all() for batch in batches)
        BATCHES[key] = tuple(batch.video.to("meta") for batch in batches)
    return BATCHES[key]


FAMILIES = {
    "scene": "uniformerv2_b16_k400_8x224",
    "motion": "uniformerv2_b16_ssv2_16x224",
    "frozen": "uniformerv2_l14_frozen_k700_8x336",
    "untrimmed": "uniformerv2_l14_anet_k710_k400_16x224",
    "mmaction2": "uniformerv2_b16_k400_8x224_mmaction2",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_trains_and_tests_for_real(tmp_path, fake_list, family):
    """The recipe with a network of 48 channels, 6 blocks and 32 pixels."""
    name = FAMILIES[family]
    settings = read(name, train=str(fake_list), val=str(fake_list), batch_size=2, num_workers=0, classes=None)
    small = {"image_size": 32, "patch_size": 16, "dim": 48, "depth": 6, "num_heads": 4, "num_classes": 4}
    for field, value in {**small, "fusion_stages": (2, 3, 4, 5)}.items():
        settings.model.network[field] = value
    settings.model.weights, settings.model.head_map, settings.model.new_head = None, None, False
    settings.model.num_checkpointed = min(settings.model.num_checkpointed, 6)
    settings.data.preprocessing.image_size = settings.data.augmentation.image_size = 32
    built = parser().instantiate(settings)
    before = {name: value.clone() for name, value in built.model.network.state_dict().items()}
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {"max_epochs": 1, "gradient_clip_val": settings.trainer.gradient_clip_val, "accelerator": "cpu"}
    trainer = lightning.Trainer(**options, default_root_dir=tmp_path, **dict.fromkeys(quiet, False))
    trainer.fit(built.model, datamodule=built.data)
    assert trainer.global_step == 2
    assert math.isfinite(trainer.callback_metrics["train_loss"])
    batch = settings.data.batch_size
    scale = batch / built.model.optimization.batch_size
    last = scale * built.model.optimization.rate(0.5, 1)
    assert trainer.callback_metrics["learning_rate"] == pytest.approx(last, rel=1e-6)
    after = built.model.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert ("embedding.weight" in changed) == (family != "frozen")
    assert "head.weight" in changed
    (result,) = trainer.test(built.model, datamodule=built.data, verbose=False)
    assert 0 <= result["test_top1"] <= 1
    assert built.model.network.info.preprocessing == built.data.preprocessing.to_dict()


def test_near_misses_are_named():
    with pytest.raises(FileNotFoundError, match="Did you mean 'uniformerv2_b16_k400_8x224'"):
        recipe_path("uniformerv2_b16_k400_8x22")
    with pytest.raises(FileNotFoundError, match=r"There is no file mine\.yaml"):
        recipe_path("mine.yaml")


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("uniformerv2_b16_k400_8x224").write_text("")
    assert recipe_path("uniformerv2_b16_k400_8x224") == Path("uniformerv2_b16_k400_8x224")


def test_starts_from_a_checkpoint_with_mapped_rows(tmp_path):
    """Kinetics-710 -> Kinetics-600, in the small: the rows of the head that the map names."""
    torch.manual_seed(0)
    source = UniFormerV2(tiny_config(num_classes=710))
    folder = save_model(source, tmp_path / "k710")
    network = build_network(
        tiny_config(num_classes=600, global_dropout=(0.3,)),
        weights=str(folder),
        head_map="kinetics710_to_kinetics600",
    )
    rows = list(label_map("kinetics710", "kinetics600"))
    torch.testing.assert_close(network.head.weight, source.head.weight[rows])
    assert network.config.global_dropout == (0.3,) * 4
    torch.testing.assert_close(network.blocks[0].ffn.fn.fc1.weight, source.blocks[0].ffn.fn.fc1.weight)


def test_starts_from_clip(tmp_path, shared):
    """The image tower of CLIP, in the small: its tensors are taken, the video blocks are new."""
    tensors = load_file(shared("goldens/model/official_scene.safetensors"))
    own = ("class_embedding", "positional_embedding", "ln_pre", "conv1", "transformer.resblocks")
    tower = {key.removeprefix("state.backbone."): value for key, value in tensors.items()}
    tower = {f"visual.{key}": value for key, value in tower.items() if key.startswith(own)}
    width = tower["visual.class_embedding"].shape[0]
    tower["visual.conv1.weight"] = tower["visual.conv1.weight"].squeeze(2)
    for name in ("ln_post.weight", "ln_post.bias"):
        tower[f"visual.{name}"] = torch.ones(width)
    tower["visual.proj"] = torch.ones(width, 32)
    save_file({key: value.contiguous() for key, value in tower.items()}, tmp_path / "clip.safetensors")
    config = json.loads(shared("goldens/model/official_tiny.json").read_text())["scene"]
    size = {"image_size": config["input_resolution"], "patch_size": config["patch_size"], "dim": width}
    depth = {"depth": config["layers"], "num_heads": config["heads"], "num_frames": 4}
    network = build_network(
        UniFormerV2Config(**size, **depth, num_classes=5, tubelet_size=2, num_local_steps=2),
        weights=str(tmp_path / "clip.safetensors"),
        new_head=True,
    )
    assert network.num_classes == 5
    torch.testing.assert_close(network.embedding.positions.data, tower["visual.positional_embedding"])
    torch.testing.assert_close(network.embedding.weight.data[:, :, 1], tower["visual.conv1.weight"])


def test_needs_a_network_or_weights():
    with pytest.raises(ValueError, match="architecture, or weights"):
        build_network(None, weights=None)
    with pytest.raises(ValueError, match="head_map and new_head"):
        build_network(tiny_config(), weights=None, new_head=True)


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_says_what_the_recipes_say(name):
    page = Path(__file__).resolve().parents[2] / "docs" / "published_recipes.md"
    (row,) = (line for line in page.read_text().splitlines() if line.startswith(f"| `{name}` "))
    card, settings = model_card(name), read(name)
    optimization, trainer = settings.model.optimization, settings.trainer
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == (f"{card.top1} % ({card.views})" if card.top1 else "-")
    numbers = (trainer.max_epochs, trainer.num_nodes * trainer.devices, optimization.batch_size)
    assert tuple(map(int, cells[2:5])) == numbers
    assert float(cells[5]) == optimization.learning_rate
    assert cells[6].startswith(f"`{settings.model.weights}`")
    assert cells[6].endswith("(mapped rows)") == (settings.model.head_map is not None)
