"""Checkpoints: our folder, foreign files, the zoo, heads, and every way a file can be wrong."""

from __future__ import annotations

import json
import logging
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.test_convert import whole_clip
from tests.model.test_uniformerv2 import MOTION, TINY, clip, make
from tests.parity import goldens
from uniformerv2.data.labels import label_map, label_names
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo import checkpoint
from uniformerv2.zoo.checkpoint import create_model, from_pretrained, load_model, push_to_hub, save_model
from uniformerv2.zoo.files import read_checkpoint


@pytest.fixture
def published(shared):
    """Name -> a published state dict."""
    return lambda name: goldens.official_state(shared(f"goldens/model/official_{name}.safetensors"))


@pytest.fixture
def folder(tmp_path):
    """A model of ours on disk, with names."""
    model = make(MOTION)
    model.info = CheckpointInfo(class_names=("a", "b", "c", "d", "e"), licence="CC0-1.0", metrics={"top1": 50.0})
    return save_model(model, tmp_path / "model")


def test_what_was_saved_comes_back(folder):
    model = load_model(folder)
    assert not model.training
    assert model.config == MOTION
    assert model.info.class_names == ("a", "b", "c", "d", "e")
    assert model.info.licence == "CC0-1.0"
    assert model.info.metrics == {"top1": 50.0}
    assert {"uniformerv2", "torch", "timm"} == set(model.info.versions)
    assert torch.equal(model(clip()), make(MOTION)(clip()))
    assert torch.equal(load_model(folder / "model.safetensors")(clip()), model(clip()))


def test_the_file_says_everything_about_preprocessing(folder):
    written = json.loads((folder / "config.json").read_text())["preprocessing"]
    assert written == Preprocessing.official(num_frames=4, image_size=32).to_dict()


def test_saving_again_replaces_and_leaves_no_litter(folder):
    save_model(make(TINY), folder)
    assert load_model(folder).config == TINY
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_failed_save_leaves_the_old_model(folder, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uniformerv2.zoo.files.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(make(TINY), folder)
    assert load_model(folder).config == MOTION
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_what_json_does_not_know_is_refused_before_anything_is_written(folder):
    model = make(TINY)
    object.__setattr__(model.info, "metrics", {"top1": torch.nn.SiLU})
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(model, folder)
    assert load_model(folder).config == MOTION


def test_an_override_of_the_clip_reaches_the_preprocessing(folder):
    model = load_model(folder, num_frames=8)
    assert (model.config.num_frames, model.info.preprocessing["num_frames"]) == (8, 8)
    assert Predictor(model).preprocessing.num_frames == 8


@pytest.mark.parametrize(("field", "value"), [("depth", "x"), ("fusion_stages", 3), ("image_size", [])])
def test_a_configuration_of_the_wrong_types_names_its_file(field, value, folder):
    content = json.loads((folder / "config.json").read_text())
    content["model"][field] = value
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config\.json(:| holds values)"):
        load_model(folder)


def test_tensors_without_a_shape_name_their_file(tmp_path, published):
    state = {name: value.new_zeros(()) for name, value in published("scene").items()}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth(:| holds values or tensors)"):
        load_model(tmp_path / "odd.pth")


def test_a_head_that_does_not_fit_is_replaced_only_when_asked(folder, caplog):
    with pytest.raises(ValueError, match=r"head has 5 classes, num_classes is 7: .* head_map=, .* new_head=True"):
        load_model(folder, num_classes=7)
    with pytest.raises(ValueError, match="new_head=True needs num_classes"):
        load_model(folder, new_head=True)
    with caplog.at_level(logging.WARNING):
        model = load_model(folder, num_classes=7, new_head=True)
    assert "head of 5 classes is replaced by a random one of 7" in caplog.text
    assert model.num_classes == 7
    assert model.info.class_names == ()
    assert load_model(folder, num_classes=5).num_classes == 5


def test_rows_of_the_head_by_number(folder):
    whole = load_model(folder)
    picked = load_model(folder, head_map=[4, 0], num_classes=2)
    assert picked.info.class_names == ("e", "a")
    assert torch.equal(picked.head.weight, whole.head.weight[[4, 0]])
    torch.testing.assert_close(picked(clip()), whole(clip())[:, [4, 0]])
    for rows in ([5], [-1], []):
        with pytest.raises(ValueError, match="rows 0 to 4"):
            load_model(folder, head_map=rows)


@pytest.mark.parametrize("space", ["kinetics400", "kinetics600", "kinetics700"])
def test_a_kinetics710_head_becomes_each_of_the_three(space, tmp_path):
    folder = save_model(make(replace(TINY, num_classes=710)), tmp_path / "k710")
    rows = list(label_map("kinetics710", space))
    picked = load_model(folder, num_classes=len(rows), head_map=f"kinetics710_to_{space}")
    assert picked.info.class_names == label_names(space)
    whole = load_model(folder)
    assert torch.equal(picked.head.weight, whole.head.weight[rows])
    assert torch.equal(picked.head.bias, whole.head.bias[rows])


def test_wrong_head_maps(folder):
    with pytest.raises(ValueError, match="is for a head of 710 classes, this one has 5"):
        load_model(folder, head_map="kinetics710_to_kinetics400")
    with pytest.raises(ValueError, match="called SOURCE_to_TARGET"):
        load_model(folder, head_map="kinetics")


def test_files_are_known_by_their_keys_not_by_their_names(tmp_path, published):
    state = published("scene")
    wanted = None
    for content, name in (
        (state, "a.pyth"),
        ({"model_state": state, "cfg": "x"}, "b.pth"),
        ({"state_dict": state}, "c"),
    ):
        torch.save(content, tmp_path / name)
        scores = load_model(tmp_path / name, num_heads=4)(torch.ones(1, 8, 3, 32, 32))
        wanted = scores if wanted is None else wanted
        assert torch.equal(scores, wanted)
    save_file(state, tmp_path / "d.bin")
    assert torch.equal(load_model(tmp_path / "d.bin", num_heads=4)(torch.ones(1, 8, 3, 32, 32)), wanted)


def test_what_shapes_do_not_tell_is_said_and_can_be_overridden(tmp_path, caplog, published):
    torch.save(published("odd"), tmp_path / "odd.pyth")
    with caplog.at_level(logging.WARNING):
        model = load_model(tmp_path / "odd.pyth", num_heads=6, fusion_stages=(1, 3, 5))
    assert "odd.pyth does not tell, so assumed: global_num_heads=" in caplog.text
    assert "fusion_stages" not in caplog.text
    assert model.config.fusion_stages == (1, 3, 5)
    assert model.info.preprocessing == Preprocessing.official(num_frames=8, image_size=32).to_dict()


def test_clips_image_tower_gets_random_video_blocks(tmp_path, caplog):
    state = whole_clip()
    torch.save(state, tmp_path / "clip.pt")
    with caplog.at_level(logging.WARNING):
        model = load_model(tmp_path / "clip.pt", num_heads=4, tubelet_size=2, num_local_steps=2, num_classes=400)
    assert "holds an image ViT: fusion, norm, head are random" in caplog.text
    assert model.config.tubelet_kernel_size == 3
    centre = model.embedding.weight[:, :, 1]
    assert torch.equal(centre, state["visual.conv1.weight"].float())
    assert model.embedding.weight[:, :, [0, 2]].abs().max() == 0


def test_a_torchscript_archive_as_openais_clip(tmp_path):
    class Holder(torch.nn.Module):
        def __init__(self, state):
            super().__init__()
            for name, value in state.items():
                *path, last = name.split(".")
                module = self
                for part in path:
                    if not hasattr(module, part):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                module.register_buffer(last, value.clone())

    with pytest.warns(FutureWarning, match="torch.jit"):
        torch.jit.script(Holder(whole_clip())).save(tmp_path / "clip.pt")
    assert load_model(tmp_path / "clip.pt", num_heads=4, num_classes=400).config.depth > 0


class Scripted(torch.nn.Module):
    """Writes into a file of the reader's when TorchScript loads it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        torch.from_file(state[0], True, 4, dtype=torch.uint8).fill_(65)

    def forward(self, x: torch.Tensor):
        return x


def test_a_torchscript_archive_runs_no_code(tmp_path):
    precious, evil = tmp_path / "precious.txt", tmp_path / "evil.pt"
    precious.write_text("mine, all of it")
    with pytest.warns(FutureWarning, match="torch.jit"):
        torch.jit.script(Scripted(str(precious))).save(evil)
    with pytest.raises(ValueError, match=r"evil.pt is a TorchScript archive with code that would run"):
        load_model(evil)
    assert precious.read_text() == "mine, all of it"


def test_a_torchscript_archive_that_two_readers_may_read_in_two_ways_is_refused(tmp_path):
    with pytest.warns(FutureWarning, match="torch.jit"):
        torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "linear.pt")
    assert set(read_checkpoint(tmp_path / "linear.pt")) == {"weight", "bias"}
    with zipfile.ZipFile(tmp_path / "linear.pt", "a") as archive:
        archive.comment = b"room for a second directory"
    with pytest.raises(ValueError, match="archive whose directory could be read in two ways"):
        read_checkpoint(tmp_path / "linear.pt")


class Evil:
    """Runs a command when a plain unpickler reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_runs_no_code(tmp_path, published):
    torch.save({"state_dict": published("scene"), "meta": Evil(tmp_path / "proof")}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"holds more than tensors and plain values \(\w+\.open\), which") as error:
        load_model(tmp_path / "evil.pth")
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04garbage", b"\x80\x02garbage", b"not a checkpoint at all"])
def test_damaged_files_are_refused(content, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        load_model(path)


@pytest.mark.parametrize("cut", [100, 5000, -1])
def test_truncated_files_are_refused(cut, folder, tmp_path, published):
    torch.save(published("scene"), tmp_path / "whole.pyth")
    content = (tmp_path / "whole.pyth").read_bytes()
    (tmp_path / "cut.pyth").write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"damaged|holds more"):
        load_model(tmp_path / "cut.pyth")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:cut])
    with pytest.raises(ValueError, match="damaged"):
        load_model(folder)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_byte_that_changed_is_damage_or_nothing(legacy, tmp_path, published):
    """Whatever a damaged file makes the unpickler raise, what comes out names the file."""
    whole = tmp_path / "whole.pth"
    torch.save(published("scene"), whole, _use_new_zipfile_serialization=not legacy)
    content, rng, refused = bytearray(whole.read_bytes()), np.random.default_rng(0), 0
    path = tmp_path / "damaged.pth"
    for _ in range(60):
        changed = content.copy()
        changed[rng.integers(20_000)] = rng.integers(256)
        path.write_bytes(changed)
        with suppress(ValueError):  # anything else fails the test
            read_checkpoint(path)
            continue
        refused += 1
    assert refused > 5


def test_a_folder_with_a_problem_is_named(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**{key: value for key, value in tensors.items() if key != "head.bias"}, "foot.bias": torch.zeros(3)},
        folder / "model.safetensors",
    )
    with pytest.raises(ValueError, match=r"missing head\.bias; unknown foot\.bias"):
        load_model(folder)
    save_file({**tensors, "head.bias": torch.zeros(6)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"head.bias is \(6,\), the configuration needs \(5,\)"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        load_model(folder)
    (folder / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ValueError, match="was not written by uniformerv2"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is absent"):
        load_model(folder)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder nowhere/model\.pth"):
        load_model("nowhere/model.pth")
    with pytest.raises(ValueError, match=r"No model is called .uniformer_b.\. Did you mean"):
        load_model("uniformer_b")


def test_a_model_of_the_zoo_with_random_weights():
    model = create_model("uniformerv2_b16_k400_8x224", depth=2, fusion_stages=(1,), global_dropout=(0.5,))
    assert model.num_classes == 400
    assert model.info.class_names == label_names("kinetics400_authors_order")
    assert model.info.source == "random weights"
    small = create_model(
        "uniformerv2_b16_k400_8x224", depth=1, fusion_stages=(0,), global_dropout=(0.5,), num_classes=6
    )
    assert small.info.class_names == ()
    assert not small.training
    assert not model.training


def test_a_pretrained_model_gets_a_fresh_head_for_other_classes_and_says_so(folder, monkeypatch, caplog):
    """The weights of the zoo are out of reach: a folder stands for them."""
    name, published = "uniformerv2_b16_k400_8x224", load_model(folder)
    load = checkpoint._load
    monkeypatch.setattr(checkpoint, "_load", lambda source, overrides: load(folder, {}))
    model = create_model(name, pretrained=True, num_classes=6)
    assert model.num_classes == 6
    assert not model.training
    assert f"head of {published.num_classes} classes is replaced by a random one of 6" in caplog.text
    assert torch.equal(model.norm.weight, published.norm.weight)
    caplog.clear()
    assert create_model(name, pretrained=True).num_classes == published.num_classes
    assert not caplog.text


def test_a_state_of_a_hub_repository_is_asked_for(folder, monkeypatch):
    asked = {}

    def snapshot_download(repository, **options):
        asked.update(repository=repository, **options)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    model = from_pretrained("me/mine", revision="v2", token="secret", cache_dir="there", num_frames=8)
    assert model.config.num_frames == 8
    wanted = {"repository": "me/mine", "revision": "v2", "token": "secret", "cache_dir": "there"}
    assert wanted.items() <= asked.items()
    assert set(asked["allow_patterns"]) == {"config.json", "model.safetensors"}


def test_pushed_to_the_hub_is_our_folder(monkeypatch, tmp_path):
    """Against a stand-in for the hub's client: what it is handed is a folder that loads."""
    seen = {}

    class Hub:
        def __init__(self, token=None):
            seen["token"] = token

        def create_repo(self, repository, *, private, exist_ok):
            seen["repository"] = (repository, private, exist_ok)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            seen["config"] = load_model(folder_path).config
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}/commit/1"})

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push_to_hub(make(TINY), "me/model", private=True) == "https://hub/me/model/commit/1"
    assert seen == {"token": None, "repository": ("me/model", True, True), "config": TINY}
    folder = save_model(make(TINY), tmp_path / "snapshot")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(folder))
    assert load_model("hf:me/model").config == from_pretrained("me/model").config == TINY


def test_random_scores_differ_and_are_finite(folder):
    scores = load_model(folder)(clip()).detach().numpy()
    assert np.isfinite(scores).all()
    assert not np.allclose(scores[0], scores[1])
