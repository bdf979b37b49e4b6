"""Checkpoints from strangers: refused by name before they cost memory, reach other files, or score in silence."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.test_uniformerv2 import TINY, make
from tests.parity import goldens
from uniformerv2.core.limits import set_limits
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.arming import arm
from uniformerv2.zoo.checkpoint import load_model, save_model
from uniformerv2.zoo.download import DownloadError
from uniformerv2.zoo.files import read_checkpoint, read_json


@pytest.fixture
def folder(tmp_path):
    """A model of ours on disk, with names."""
    model = make(TINY)
    model.info = CheckpointInfo(class_names=tuple("abcdefghij"[: TINY.num_classes]))
    return save_model(model, tmp_path / "model")


@pytest.fixture(scope="module")
def armed():
    """What a folder with an armed image ViT says of it."""
    return arm("vit_tiny_patch16_224", num_classes=3, num_frames=2, image_size=32, backbone_args={"depth": 2})


def changed(folder, *, model=None, **fields):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **fields, "model": {**content["model"], **(model or {})}}))
    return folder


ARCHITECTURES = [
    ({"mlp_ratio": 1e308}, "mlp_ratio must be a finite number, got 1e"),
    ({"mlp_ratio": float("nan")}, "mlp_ratio must be a finite number, got nan"),
    ({"mlp_ratio": 10**300}, "mlp_ratio must be a finite number"),
    ({"mlp_ratio": 1e6}, "mlp_ratio 1000000.0, which makes .* channels, is above the limit width"),
    ({"mlp_ratio": -1}, "mlp_ratio must be above 0"),
    ({"local_reduction": 1e-6}, "local_reduction .* above the limit width"),
    ({"depth": None}, "depth must be a whole number, got None"),
    ({"depth": 2.0}, "depth must be a whole number, got 2.0"),
    ({"depth": True}, "depth must be a whole number, got True"),
    ({"depth": 10**9}, "depth 1000000000 is above the limit depth=256; to allow it: --limit depth=1000000000"),
    ({"dim": 10**9}, "dim 1000000000 is above the limit width"),
    ({"num_classes": 10**9}, "num_classes 1000000000 is above the limit width"),
    ({"num_frames": 10**9}, "num_frames 1000000000 is above the limit frames_per_video"),
    ({"tubelet_kernel_size": 10**7 + 1}, "tubelet_kernel_size 10000001 is above the limit frames_per_video"),
    ({"tubelet_kernel_size": -3}, "tubelet_kernel_size must be odd, got -3"),
    ({"local_kernel_size": 0}, "local_kernel_size must be at least 1"),
    ({"image_size": 20_000}, "image_size 20000 is above the limit image_size"),
    ({"image_size": [4096, 4096], "patch_size": 4}, "1024 x 1024 patches is above the limit patches_per_frame"),
    ({"image_size": "32"}, "image_size is one number, or height and width, got '32'"),
    ({"image_size": [32, None]}, "image_size is one number, or height and width"),
    ({"fusion_stages": None}, "fusion_stages are numbers of blocks, got None"),
    ({"fusion_stages": [[1]]}, "fusion_stages are numbers of blocks"),
    ({"global_dropout": ["0.5"]}, "global_dropout is one rate or one per stage"),
    ({"global_dropout": [2]}, "global_dropout must be a rate from 0 to 1, got 2"),
    ({"use_gate": "false"}, "use_gate is True or False, got 'false'"),
    ({"fusion": ["sequential"]}, "fusion is one of"),
    ({"backbone": 5}, "backbone is a name and backbone_args a mapping"),
    ({"backbone_args": [1]}, "backbone is a name and backbone_args a mapping"),
]


@pytest.mark.parametrize(("change", "said"), ARCHITECTURES, ids=lambda value: str(value)[:40])
def test_an_architecture_of_other_values_is_refused_by_its_file(folder, change, said):
    with pytest.raises(ValueError, match=rf"config\.json: .*{said}"):
        load_model(changed(folder, model=change))


INFORMATION = [
    ({"is_multi_label": "false"}, "is_multi_label must be true or false, got 'false'"),
    ({"is_multi_label": 1}, "is_multi_label must be true or false, got 1"),
    ({"class_names": "abcde"}, "class_names must be a list of names"),
    ({"class_names": [1, 2, 3, 4, 5]}, "class_names must be a list of names"),
    ({"class_names": ["a"] * TINY.num_classes}, "class_names has 'a' more than once"),
    ({"class_names": ["a", "b"]}, rf"class_names has 2 names, the head {TINY.num_classes} classes"),
    ({"preprocessing": None}, "preprocessing must be a dict, got NoneType"),
    ({"preprocessing": {"std": [0, 0, 0]}}, "std is"),
    ({"metrics": []}, "metrics must be a dict"),
    ({"licence": 5}, "licence must be a str"),
]


@pytest.mark.parametrize(("change", "said"), INFORMATION, ids=lambda value: str(value)[:40])
def test_what_travels_with_weights_has_strict_types(folder, change, said):
    with pytest.raises(ValueError, match=rf"config\.json: {said}"):
        load_model(changed(folder, **change))


TEXTS = {
    "deep": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "digits": (b'{"model": ' + b"9" * 5000 + b"}", "is not JSON"),
    "no text": (b"\xff\xfe\x00", "is not JSON"),
    "items": (b'{"model": [' + b"[]," * 200_000 + b"[]]}", "above the limit text_bytes"),
    "a list": (b"[]", "must hold an object"),
}


@pytest.mark.parametrize(("content", "said"), TEXTS.values(), ids=TEXTS)
def test_a_configuration_is_json_of_a_size(folder, content, said):
    (folder / "config.json").write_bytes(content)
    with set_limits(text_bytes=4_000_000), pytest.raises(ValueError, match=rf"config\.json.*{said}"):
        read_json(folder / "config.json")
    if said != "above the limit text_bytes":
        with pytest.raises(ValueError, match=r"config\.json"):
            load_model(folder)


def rewritten(folder, key, change):
    state = load_file(folder / "model.safetensors")
    save_file(state | {key: change(state[key])}, folder / "model.safetensors")
    return folder


WEIGHTS = {
    "one NaN": (lambda weight: weight.index_fill(0, torch.tensor([0]), float("nan")), "holds what is no finite number"),
    "infinite": (lambda weight: weight + float("inf"), "holds what is no finite number"),
    "too large for float32": (lambda weight: weight.double() + 1e300, "holds what is no finite number"),
    "int8": (lambda weight: weight.to(torch.int8), "holds int8, no floats"),
    "complex": (lambda weight: weight.to(torch.complex64), "holds complex64, no floats"),
    "bool": (lambda weight: weight > 0, "holds bool, no floats"),
}


@pytest.mark.parametrize(("change", "said"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_are_finite_floats(folder, change, said):
    with pytest.raises(ValueError, match=rf"model: .*head\.weight {said}"):
        load_model(rewritten(folder, "head.weight", change))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_widths_are_weights(folder, dtype):
    model = load_model(rewritten(folder, "head.weight", lambda weight: weight.to(dtype)))
    assert model.head.weight.dtype == torch.float32
    assert torch.allclose(model.head.weight, make(TINY).head.weight, rtol=1e-2)


def test_a_large_architecture_costs_nothing_where_the_weights_are_of_a_small_one(folder):
    """150 billion parameters: the comparison of shapes comes before the memory for them."""
    large = {"dim": 16_384, "num_heads": 128, "global_num_heads": 128, "depth": 64, "fusion_stages": [62, 63]}
    with pytest.raises(ValueError, match="do not fit the configuration: missing blocks"):
        load_model(changed(folder, model=large | {"global_dropout": [0.5, 0.5]}))


BACKBONES = [
    ({"backbone": "hf-hub:user/repo"}, "backbone must be a name of timm's registry, got 'hf-hub:user/repo'"),
    ({"backbone": "local-dir:/etc"}, "backbone must be a name of timm's registry"),
    ({"backbone": "/etc/passwd"}, "backbone must be a name of timm's registry"),
    ({"backbone": "resnet18", "backbone_args": {}}, "'resnet18' .* can't be armed"),
    ({"backbone_args": {"checkpoint_path": "/etc/passwd"}}, "constructor, got checkpoint_path"),
    ({"backbone_args": {"pretrained": True}}, "constructor, got pretrained"),
    ({"backbone_args": {"pretrained_cfg_overlay": {"file": "/etc/passwd"}}}, "constructor, got pretrained_cfg_overlay"),
    ({"backbone_args": {"depth": 10**9}}, "depth = 1000000000 is above the limit depth"),
    ({"backbone_args": {"reg_tokens": 10**9}}, "reg_tokens = 1000000000 is above the limit width"),
    ({"backbone_args": {"mlp_ratio": float("nan")}}, "mlp_ratio = nan is above the limit width"),
    ({"backbone_args": {"depth": [[1]]}}, "backbone_args are numbers and names"),
    ({"backbone_args": {"depth": "x"}}, "can't be made"),
    ({"backbone_args": {"act_layer": "os.system"}}, "can't be made"),
    ({"num_heads": 1}, "num_heads is 1, but vit_tiny_patch16_224 with these backbone_args has 3"),
    ({"dim": 96, "global_num_heads": 3}, "dim is 96, but vit_tiny_patch16_224 with these backbone_args has 192"),
]


@pytest.mark.parametrize(("change", "said"), BACKBONES, ids=lambda value: str(value)[:50])
def test_a_backbone_is_a_name_and_numbers(tmp_path, armed, change, said, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    with pytest.raises(ValueError, match=rf"model: .*{said}"):
        load_model(changed(save_model(armed, tmp_path / "model"), model=change))


def test_an_armed_folder_still_loads(tmp_path, armed):
    again = load_model(save_model(armed, tmp_path / "model"))
    assert torch.equal(again(torch.ones(1, 2, 3, 32, 32)), armed.eval()(torch.ones(1, 2, 3, 32, 32)))


@pytest.mark.parametrize("name", ["hf:user/name", "hf-hub:user/name"])
def test_offline_asks_nobody(name, monkeypatch, tmp_path):
    monkeypatch.setenv("UNIFORMERV2_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(DownloadError, match=r"user/name.* offline mode is on"):
        load_model(name) if name.startswith("hf:") else arm(name, num_classes=2, pretrained=True)


@pytest.mark.parametrize("size", [64, (32, 64), 16])
def test_another_image_size_interpolates_the_positions(folder, size):
    """As the network itself does with a clip of another size."""
    height, width = (size, size) if isinstance(size, int) else size
    video = torch.randn(2, TINY.num_frames, 3, height, width, generator=torch.Generator().manual_seed(0))
    model = load_model(folder, image_size=size)
    assert model.config.grid == (height // TINY.patch_size, width // TINY.patch_size)
    assert model.embedding.positions.shape[0] == 1 + model.config.grid[0] * model.config.grid[1]
    assert model.info.preprocessing["image_size"] == (size if isinstance(size, int) else list(size))
    with torch.inference_mode():
        assert torch.equal(model(video), load_model(folder)(video))
    again = load_model(save_model(model, folder.parent / "again"))
    assert torch.equal(again.embedding.positions, model.embedding.positions)


def test_an_image_size_of_no_whole_patches_is_refused(folder):
    with pytest.raises(ValueError, match=rf"image_size must be a multiple of {TINY.patch_size}, got 60; near is 64"):
        load_model(folder, image_size=60)


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


def test_a_bytearray_of_a_size_is_not_made(tmp_path):
    torch.save({"a": torch.zeros(1), "b": Call(bytearray, 8 * 10**9)}, tmp_path / "new.pth")
    content = {"a": torch.zeros(1), "b": Call(bytearray, 8 * 10**9)}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("new.pth", "old.pth"):
        with pytest.raises(ValueError, match=rf"{name} is a file that holds more than tensors .*\(bytearray\)"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("legacy", [False, True])
def test_one_number_is_no_terabyte(tmp_path, legacy):
    content = {"state_dict": {"a": torch.zeros(1).expand(2**40)}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"a\.pth: the tensor a of shape \(1099511627776,\) is none that is stored"):
        read_checkpoint(tmp_path / "a.pth")


def test_one_storage_is_no_thousand_tensors(tmp_path):
    one = torch.zeros(10_000)
    torch.save({str(number): one for number in range(1000)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="its tensors share memory and are 40000000 bytes"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save({"weight": one, "tied": one}, tmp_path / "tied.pth")
    assert read_checkpoint(tmp_path / "tied.pth")["tied"].shape == (10_000,)


def test_a_cell_of_memory_of_a_large_number_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w") as new:
        for name in old.namelist():
            content = b"\x80\x02]r" + struct.pack("<I", 2**31) + b"." if name.endswith("data.pkl") else old.read(name)
            new.writestr(name, content)
    with pytest.raises(ValueError, match=r"b\.pth is a file that asks for 2147483648 cells of memory"):
        read_checkpoint(tmp_path / "b.pth")


def test_compressed_tensors_are_refused(tmp_path, shared):
    with pytest.raises(ValueError, match=r"zip_deflated_1GB\.pth is a PyTorch archive with .* compressed, from"):
        read_checkpoint(shared("cases/hostile/zip_deflated_1GB.pth"))


@pytest.mark.parametrize("kind", ["PyTorch", "TorchScript"])
def test_an_archive_is_as_large_as_what_it_holds(tmp_path, kind):
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED if "/data/" in name else zipfile.ZIP_STORED)
        if kind == "TorchScript":
            new.writestr("a/constants.pkl", pickle.dumps(()))
    with pytest.raises(ValueError, match=rf"b\.pth is a {kind} archive with a/data/0 compressed, from \d+ to 400000"):
        read_checkpoint(tmp_path / "b.pth")
    with set_limits(checkpoint_bytes=1000), pytest.raises(ValueError, match="above the limit checkpoint_bytes"):
        read_checkpoint(tmp_path / "a.pth")


def test_code_of_any_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/constants.pkl", pickle.dumps(()))
        archive.writestr("a/code/__torch__.py", b"#" * (2**24 + 1))
    with pytest.raises(ValueError, match=r"a\.pt is a TorchScript archive with more than 16777216 bytes of code"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["nomodel", "vit_smal", "resnet50", "m"])
def test_only_near_names_are_suggested(name):
    with pytest.raises(ValueError, match=rf"^No model is called '{name}'\. 'uniformerv2 models'"):
        Predictor(name)


def test_an_unknown_image_vit_is_told_with_those_of_its_name():
    with pytest.raises(ValueError, match=r"^timm has no model called 'vit_smal'\. Near are vit_small_\w+, "):
        arm("vit_smal", num_classes=2)
    with pytest.raises(ValueError, match=r"^timm has no model called .*225'\. Did you mean 'vit_tiny_patch16_224'"):
        arm("vit_tiny_patch16_225", num_classes=2)


def test_a_picture_is_told_not_to_be_a_checkpoint(tmp_path):
    picture = tmp_path / "pic.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match=r"pic\.png is damaged or no checkpoint \(safetensors, PyTorch\), and has the"):
        read_checkpoint(picture)


def test_a_foreign_file_follows_the_size_too(tmp_path, shared):
    state = goldens.official_state(shared("goldens/model/official_scene.safetensors"))
    torch.save(state, tmp_path / "a.pyth")
    video = torch.randn(1, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    options = {"num_heads": 4, "global_num_heads": 4}
    with torch.inference_mode():
        wanted = load_model(tmp_path / "a.pyth", **options)(video)
        assert torch.equal(load_model(tmp_path / "a.pyth", image_size=64, **options)(video), wanted)


@pytest.mark.parametrize(
    "override", [{"num_heads": 1}, {"activation": "gelu"}, {"fusion": "parallel"}, {"local_kernel_size": 5}]
)
def test_known_weights_are_no_other_network(folder, override):
    (name,) = override
    with pytest.raises(ValueError, match=rf"config\.json: {name} is .* in these weights, .* leave it out\. What may"):
        load_model(folder, **override)
    rates = {"drop_path_rate": 0.3, "classifier_dropout": 0.1, "num_heads": TINY.num_heads}
    assert load_model(folder, **rates).config.drop_path_rate == 0.3
