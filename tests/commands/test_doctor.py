"""``uniformerv2 doctor``: what is here, and what is missing with the command that brings it."""

from __future__ import annotations

import importlib.metadata
import json

import torch

from uniformerv2 import cli
from uniformerv2.commands import doctor

NEEDS = [
    "torch>=2.11",
    "lightning>=2.6.6; extra == 'train'",
    "webdataset>=1.0; extra == 'shards'",
    "ruff; extra == 'dev'",
]
VERSIONS = {"uniformerv2": "0.1.0", "torch": "2.11.0+cpu", "lightning": "2.6.5"}


def version(name):
    if name not in VERSIONS:
        raise importlib.metadata.PackageNotFoundError(name)
    return VERSIONS[name]


def diagnosis(capsys, *words, code=0):
    assert cli.main(["doctor", *words]) == code
    return capsys.readouterr().out


def test_what_is_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("UNIFORMERV2_HOME", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "some.pth").write_bytes(bytes(3 << 20))
    found = json.loads(diagnosis(capsys, "--json", "--limit", "depth=300"))
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["processor"]["cores"] >= 1
    assert ("cuda:0" in found["devices"]) == torch.cuda.is_available()
    assert found["decoders"]["pyav"] == ""
    assert (found["cache"]["folder"], found["cache"]["bytes"]) == (str(tmp_path), 3 << 20)
    assert found["limits"] == {"depth": 300}
    assert min(found["disk"].values()) > 0
    told = diagnosis(capsys)
    for words in (
        f"torch {found['versions']['torch']}",
        "decoder pyav",
        f"{tmp_path}, 3.0 MiB",
        "free here",
        "the defaults",
    ):
        assert words in told


def test_what_is_missing(capsys, monkeypatch):
    """Absent or too old; extras of developers are no concern of users."""
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: NEEDS)
    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    missing = json.loads(diagnosis(capsys, "--json"))["missing"]
    assert missing == {"train": ["lightning 2.6.5 is older than 2.6.6"], "shards": ["webdataset"]}
    told = diagnosis(capsys)
    assert "missing for shards  webdataset: pip install 'uniformerv2[shards]'" in told
    monkeypatch.setitem(VERSIONS, "torch", "2.10.1")
    assert "missing for the core  torch 2.10.1 is older than 2.11: pip install uniformerv2" in diagnosis(capsys, code=1)
