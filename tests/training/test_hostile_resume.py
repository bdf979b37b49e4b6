"""A last.ckpt that somebody else wrote, or that was damaged: one sentence that names it, and nothing is run."""

from __future__ import annotations

import pickle

import lightning.pytorch as lightning
import pytest
import torch

from tests.training.fake_clips import FakeClips, loader, tiny_network
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.resume import ExactResume, WholeFileIO
from uniformerv2.zoo.checkpoint import load_model
from uniformerv2.zoo.runs import SAVED_NETWORK, SAVED_SETTINGS

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
]


def fit(folder, *, steps, path=None):
    engine = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        callbacks=[ExactResume()],
        plugins=[WholeFileIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    engine.fit(VideoClassifier(tiny_network()), loader(FakeClips(4), batch_size=4), ckpt_path=path, weights_only=True)
    return engine


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """What a checkpoint holds after a step."""
    folder = tmp_path_factory.mktemp("run")
    fit(folder, steps=1).save_checkpoint(folder / "last.ckpt")
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_what_was_not_changed_goes_on(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    assert fit(tmp_path, steps=2, path=tmp_path / "last.ckpt").global_step == 2


def test_the_file_alone_gives_the_classifier(tmp_path, content):
    """Moved away from its training, which had a ``run.json`` or ``config.yaml``."""
    torch.save(content, tmp_path / "moved.ckpt")
    classifier = VideoClassifier.load_from_checkpoint(tmp_path / "moved.ckpt", label_smoothing=0.2)
    assert not classifier.training
    assert classifier.label_smoothing == 0.2
    assert classifier.optimization == VideoClassifier(tiny_network()).optimization
    own = {f"network.{name}": value for name, value in classifier.network.state_dict().items()}
    assert all(torch.equal(own[name], value) for name, value in content["state_dict"].items() if name in own)
    network = load_model(tmp_path / "moved.ckpt")
    assert network.config == tiny_network().config
    torch.save(without(content, "pytorch-lightning_version"), tmp_path / "moved.ckpt")
    with pytest.raises(ValueError, match=r"moved\.ckpt is no checkpoint of a training; load_model reads it"):
        VideoClassifier.load_from_checkpoint(tmp_path / "moved.ckpt")


@pytest.mark.parametrize("wrong", [3, {"config": 3, "info": {}}, {"config": {}}, {"config": {"depth": -1}, "info": {}}])
def test_an_architecture_that_is_none_is_refused_by_its_file(tmp_path, content, wrong):
    torch.save(content | {SAVED_NETWORK: wrong}, tmp_path / "moved.ckpt")
    with pytest.raises(ValueError, match=r"moved\.ckpt"):
        load_model(tmp_path / "moved.ckpt")


def test_settings_that_are_none_are_refused_by_their_file(tmp_path, content):
    torch.save(content | {SAVED_SETTINGS: {"optimization": {"rate": 1}}}, tmp_path / "moved.ckpt")
    with pytest.raises(ValueError, match=r"moved\.ckpt"):
        VideoClassifier.load_from_checkpoint(tmp_path / "moved.ckpt")


def without(content, name):
    return {key: value for key, value in content.items() if key != name}


CHANGES = {
    "no weights": lambda content: without(content, "state_dict"),
    "no epoch": lambda content: without(content, "epoch"),
    "no optimiser": lambda content: without(content, "optimizer_states"),
    "no version": lambda content: without(content, "pytorch-lightning_version"),
    "other loops": lambda content: content | {"loops": {"fit_loop": {"epoch_progress": 3}}},
    "numbers for loops": lambda content: content | {"loops": 3},
    "an optimiser of another kind": lambda content: content | {"optimizer_states": [{"state": 3}]},
    "weights that are text": lambda content: content | {"state_dict": dict.fromkeys(content["state_dict"], "x")},
    "weights of another shape": lambda content: (
        content | {"state_dict": {name: torch.zeros(7) for name in content["state_dict"]}}
    ),
    "one weight less": lambda content: (
        content | {"state_dict": without(content["state_dict"], next(iter(content["state_dict"])))}
    ),
    "random states of nobody": lambda content: content | {"exact_resume": {"random": [{}], "loader": None}},
    "a version of nobody": lambda content: content | {"pytorch-lightning_version": "x"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_content_is_one_error_that_names_the_file(tmp_path, content, change):
    torch.save(change(content), tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        fit(tmp_path, steps=2, path=tmp_path / "last.ckpt")


class Trace:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pickle", "archive", "text", "nothing"])
def test_other_files_run_nothing(tmp_path, content, kind):
    path, trace = tmp_path / "last.ckpt", tmp_path / "trace"
    if kind == "archive":
        torch.save(content | {"callbacks": {"x": Trace(trace)}}, path)
    else:
        path.write_bytes({"pickle": pickle.dumps(Trace(trace)), "text": b"no checkpoint", "nothing": b""}[kind])
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        fit(tmp_path, steps=2, path=path)
    assert not trace.exists()
