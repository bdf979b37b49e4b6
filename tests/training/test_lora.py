"""LoRA by PEFT, as ``examples/lora.py`` and docs/fine_tune.md have it: adapters learn, merge, and are saved."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from tests.media import write_video
from tests.training.fake_clips import tiny_network
from uniformerv2 import UniFormerV2, load_model, save_model

peft = pytest.importorskip("peft", reason="needs PEFT (the extra peers)")

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # those of PEFT and Lightning, not ours

EXAMPLE = Path(__file__).parents[2] / "examples" / "lora.py"
TARGETS = r"blocks\..*\.(qkv|proj)"


def test_what_is_merged_says_what_the_adapters_said(tmp_path):
    network = tiny_network().eval()
    video = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        before = network(video)
    adapted = peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=TARGETS))
    learning = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    with torch.no_grad():
        assert torch.equal(network(video), before)  # LoRA starts as nothing
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
        told = network(video)
    assert not torch.allclose(told, before, atol=1e-3)
    merged = adapted.merge_and_unload()
    assert isinstance(merged, UniFormerV2)
    loaded = load_model(save_model(merged.eval(), tmp_path / "model"))
    assert not [name for name in loaded.state_dict() if "lora" in name]
    with torch.no_grad():
        assert torch.allclose(loaded(video), told, atol=1e-5)


def test_the_example_trains_adapters_and_video_blocks(tmp_path, monkeypatch, capsys):
    """On real videos, from a tiny ViT of timm; the rest of the image ViT is as it was, but for what was merged."""
    for index in range(10):
        (tmp_path / "videos" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "videos" / "ab"[index % 2] / f"{index}.mp4", num_frames=6, seed=index)
    spec = importlib.util.spec_from_file_location("lora_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    made = []
    monkeypatch.setattr(example, "arm", lambda name, **options: made.append(arm_tiny(**options)) or made[0])
    monkeypatch.setattr(example, "available_cores", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["lora.py"])
    start = arm_tiny(num_classes=2, class_names=("a", "b"), image_size=32).state_dict()
    example.main([str(tmp_path / "videos"), "--out", str(tmp_path / "model"), "--epochs", "1", "--image-size", "32"])
    assert "val_top1" in capsys.readouterr().out
    found = load_model(tmp_path / "model")
    assert found.info.class_names == ("a", "b")
    changed = {name for name, value in found.state_dict().items() if not torch.equal(value, start[name])}
    assert {name for name in changed if name.startswith("blocks.")} <= {
        name for name in start if name.endswith(("qkv.weight", "proj.weight"))
    }
    assert any(name.startswith("blocks.") for name in changed)
    assert "head.weight" in changed
    assert "embedding.weight" not in changed


def arm_tiny(*, num_classes, class_names, image_size, **_):
    network = tiny_network(num_classes=num_classes, image_size=image_size)
    network.info = type(network.info)(**{**vars(network.info), "class_names": tuple(class_names)})
    return network
