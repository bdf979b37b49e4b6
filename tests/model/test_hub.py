"""The Hugging Face hub, in whose place a server on loopback stands, and timm's weights on it."""

from __future__ import annotations

import time

import pytest
import timm
import torch
from safetensors.torch import save

from tests.model.flaky_server import BODY, DIGEST, NO_ONE, Server, place_hub
from uniformerv2 import arm
from uniformerv2.core.limits import set_limits
from uniformerv2.zoo.download import DownloadError
from uniformerv2.zoo.hub import TimmWeights, cached_from_hub, fetch_from_hub

VIT = "test_vit.r160_in1k"


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    """No file, no proxy, no offline mode from outside."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("UNIFORMERV2_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def server(monkeypatch):
    with Server().running() as running:
        place_hub(monkeypatch, running.address)
        yield running


@pytest.fixture
def no_network(monkeypatch):
    place_hub(monkeypatch, NO_ONE)


def test_a_file_arrives_and_is_not_asked_for_again(server, empty_cache, monkeypatch):
    path = fetch_from_hub("someone/weights", "hub-weights.pyth")
    assert path.read_bytes() == BODY
    assert path.is_relative_to(empty_cache)
    place_hub(monkeypatch, NO_ONE)
    assert fetch_from_hub("someone/weights", "hub-weights.pyth") == path
    monkeypatch.setenv("UNIFORMERV2_OFFLINE", "1")
    assert fetch_from_hub("someone/weights", "hub-weights.pyth") == path


def test_another_folder(server, tmp_path):
    path = fetch_from_hub("someone/weights", "hub-weights.pyth", cache_dir=tmp_path / "other")
    assert path.is_relative_to(tmp_path / "other")
    assert cached_from_hub("someone/weights", ["hub-weights.pyth"], cache_dir=tmp_path / "other") == path
    assert cached_from_hub("someone/weights", ["hub-weights.pyth"]) is None


def test_the_first_name_that_is_there(server):
    assert fetch_from_hub("someone/weights", ("new.safetensors", "hub-weights.pyth")).name == "hub-weights.pyth"
    assert any(path.endswith("new.safetensors") for path in server.asked)
    server.hub_files["new.safetensors"] = b"new"
    assert fetch_from_hub("another/weights", ("new.safetensors", "hub-weights.pyth")).read_bytes() == b"new"


def test_errors_say_what_to_do(server, monkeypatch):
    with pytest.raises(DownloadError, match=r"other\.pyth of the Hugging Face hub could not.*Instead, convert a copy"):
        fetch_from_hub("someone/weights", "other.pyth")
    monkeypatch.setenv("UNIFORMERV2_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"offline mode is on\. Instead, convert a copy"):
        fetch_from_hub("someone/weights", "hub-weights.pyth")


def test_another_file_than_the_hub_says_is_thrown_away(server):
    server.hub_etag = "0" * 64
    with pytest.raises(DownloadError, match=rf"has the SHA-256 {DIGEST}, not 0{{64}}, and was thrown away"):
        fetch_from_hub("someone/weights", "hub-weights.pyth")
    assert cached_from_hub("someone/weights", ["hub-weights.pyth"]) is None


def test_a_file_above_the_limit_is_not_begun(server):
    with (
        set_limits(download_bytes=299_999),
        pytest.raises(DownloadError, match=r"hub-weights\.pyth of 300,000 bytes is above the limit download_bytes"),
    ):
        fetch_from_hub("someone/weights", "hub-weights.pyth")
    assert server.seen == []


def test_without_a_network_the_error_comes_at_once(no_network):
    """The hub's own function tries each of the names for 23 seconds."""
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"there is no network, or it does not reach the hub: .*Connection refused"):
        fetch_from_hub("someone/weights", ("model.safetensors", "pytorch_model.bin"))
    assert time.monotonic() - start < 5


class TestTimm:
    @pytest.mark.parametrize("filename", ["model.safetensors", "pytorch_model.bin"])
    def test_armed_with_what_the_hub_has(self, server, monkeypatch, tmp_path, filename):
        vit = timm.create_model(VIT, num_classes=1000)
        torch.save(vit.state_dict(), tmp_path / "file")
        packed = save(vit.state_dict()) if filename.endswith("safetensors") else (tmp_path / "file").read_bytes()
        server.hub_files[filename] = packed
        network = arm(VIT, pretrained=True, num_classes=2, num_frames=2)
        weights = {name: value for name, value in network.state_dict().items() if "attn.proj.weight" in name}
        own = [block.attn.proj.weight for block in vit.blocks]
        assert len(weights) == len(own)
        assert all(torch.equal(found, known) for found, known in zip(weights.values(), own, strict=True))

        place_hub(monkeypatch, NO_ONE)
        assert TimmWeights.of(VIT).is_cached
        again = arm(VIT, pretrained=True, num_classes=2, num_frames=2).state_dict()
        assert all(torch.equal(again[name], value) for name, value in weights.items())

    def test_no_network_says_what_to_do(self, no_network, empty_cache):
        start = time.monotonic()
        assert not TimmWeights.of(VIT).is_cached
        with pytest.raises(DownloadError) as raised:
            arm(VIT, pretrained=True, num_classes=2)
        assert time.monotonic() - start < 5
        for words in (
            f"timm/{VIT}/model.safetensors",
            "no network",
            "weights=",
            "--backbone-weights FILE",
            str(empty_cache),
        ):
            assert words in str(raised.value)

    def test_names(self):
        assert TimmWeights.of("vit_small_patch14_dinov2") == TimmWeights.of("vit_small_patch14_dinov2.lvd142m")
        assert str(TimmWeights.of(VIT)) == f"timm/{VIT} of the Hugging Face hub"
        elsewhere = TimmWeights.of("vit_giant_patch16_gap_224.in22k_ijepa")
        assert not elsewhere.repository
        assert elsewhere.url == str(elsewhere)

    def test_a_converted_file_is_no_foreign_one(self):
        """The authors' file of these is for the model's own reader; the hub has timm's."""
        assert not TimmWeights.of("vit_small_patch16_224.augreg_in21k").is_foreign

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "vit_small_patch14_dinov2.lvd",
                r"'vit_small_patch14_dinov2.lvd'; of this .* vit_small_patch14_dinov2",
            ),
            ("test_vit4", "none of this architecture"),
            ("vit_no", "none of this architecture"),
        ],
    )
    def test_no_such_weights(self, name, message):
        with pytest.raises(ValueError, match=message):
            arm(name, pretrained=True, num_classes=2)
