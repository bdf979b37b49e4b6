"""``train`` on the kinds of data that users have: folder, list, CSV; many classes, several labels, broken videos.

Tiny clips whose colour is their class; the probe and the network are to agree on what validates.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.commands.test_train_probe import write_clip
from tests.training.fake_clips import tiny_network
from uniformerv2 import load_model, save_model
from uniformerv2.autotrain import TrainOptions, prepare, train
from uniformerv2.evaluation.dumps import read_dump

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

FRAMES, PER_CLASS = 4, 6


def coloured(path, label, seed):
    rng = np.random.default_rng(seed)
    colour = [60 + label * 37 % 180, 60 + label * 71 % 180, 60 + label * 113 % 180]
    pixels = np.array(colour) + rng.integers(-10, 11, (FRAMES, 4, 4, 3))
    return write_clip(path, pixels.astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of six videos."""
    top = tmp_path_factory.mktemp("videos")
    for label, name in enumerate("abc"):
        for index in range(PER_CLASS):
            coloured(top / name / f"{name}_{index}.mp4", label, 10 * label + index)
    return top


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return str(save_model(tiny_network(), tmp_path_factory.mktemp("network") / "tiny"))


@pytest.fixture(autouse=True)
def enough_time(monkeypatch):
    monkeypatch.setattr("uniformerv2.autotrain.probing.SHARE", 1e3)


@pytest.fixture
def few(network):
    return {"model": network, "num_workers": 0, "num_clips": 1, "num_crops": 1, "batch_size": 4, "epochs": 1}


def rows(folder):
    return [(path, path.parent.name) for path in sorted(folder.rglob("*.mp4"))]


def as_data(kind, folder, top):
    """The videos of a folder as another kind of data."""
    if kind == "folder":
        return folder
    if kind == "list":
        (top / "names.txt").write_text("a\nb\nc\n")
        (top / "clips.txt").write_text("".join(f"{path} {'abc'.index(name)}\n" for path, name in rows(folder)))
        return top / "clips.txt"
    (top / "clips.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in rows(folder)))
    return top / "clips.csv"


@pytest.mark.parametrize("kind", ["folder", "list", "CSV"])
def test_folder_list_and_csv_hold_out_the_same_videos(folder, few, tmp_path, kind):
    """Probe, network and final test: all of the same validation videos, none of which trained or was probed."""
    data = as_data(kind, folder, tmp_path)
    classes = str(tmp_path / "names.txt") if kind == "list" else None
    outcome = train(data, out=str(tmp_path / "run"), classes=classes, preset="scene", progress=False, **few)
    dumps = [read_dump(tmp_path / "run" / name) for name in ("network_val.pkl", "probe_val.pkl", "scores.pkl")]
    validated = [sorted(video.path.rpartition("/")[2] for video in dump.videos) for dump in dumps]
    assert validated[0] == validated[1] == validated[2]
    assert validated[0] == ["a_2.mp4", "b_2.mp4", "c_3.mp4"]  # one source in five of each class, by its name
    assert outcome.contest.num_videos == 3
    assert load_model(outcome.model).info.class_names == ("a", "b", "c")


def test_sixty_classes(network, few, tmp_path):
    for label in range(60):
        for index in range(5):
            coloured(tmp_path / "videos" / f"class_{label:02}" / f"{label:02}_{index}.mp4", label, 5 * label + index)
    prepared = prepare(TrainOptions(data=str(tmp_path / "videos"), out=str(tmp_path / "run"), **few), progress=False)
    assert (prepared.plan.num_train, prepared.plan.num_val) == (240, 60)
    assert prepared.network.num_classes == 60
    probed = prepared.plan.probed
    assert (probed["num_clips"], probed["num_folds"]) == (240, 4)
    assert probed["rows"]["appearance"]["score"]["value"] > 0.8
    assert prepared.probe.network.info.class_names == prepared.plan.class_names


def test_broken_and_missing_videos_are_left_out_of_all(folder, few, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    listed = "path,label\n" + "".join(f"{path},{name}\n" for path, name in rows(folder))
    (tmp_path / "clips.csv").write_text(f"{listed}{tmp_path / 'broken.mp4'},a\n{tmp_path / 'gone.mp4'},b\n")
    data = str(tmp_path / "clips.csv")
    prepared = prepare(TrainOptions(data=data, out=str(tmp_path / "run"), **few), progress=False)
    assert (prepared.plan.num_train, prepared.plan.num_val) == (15, 3)
    assert prepared.plan.probed["num_clips"] == 15
    assert prepared.plan.warnings[0].startswith("2 of 20 videos cannot be read and are left out: ")


def test_several_labels_go_through_probe_and_network(folder, few, tmp_path):
    listed = "".join(f"{path},{name};{'even' if n % 2 else 'odd'}\n" for n, (path, name) in enumerate(rows(folder)))
    (tmp_path / "clips.csv").write_text(f"path,label\n{listed}")
    outcome = train(tmp_path / "clips.csv", out=str(tmp_path / "run"), progress=False, **few)
    assert load_model(outcome.model).info.is_multi_label
    assert load_model(tmp_path / "run" / "probe").info.is_multi_label
    assert 0 < outcome.contest.probe <= 1
    assert "mean_ap" in outcome.summary.all_videos


def test_one_clip_a_class(folder, few, tmp_path):
    """Without a list that says what validates it is refused; with one it trains."""
    first = [path for path, _ in rows(folder) if path.stem.endswith("_0")]
    (tmp_path / "clips.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in first))
    with pytest.raises(ValueError, match="No video is left to validate on"):
        train(tmp_path / "clips.csv", out=str(tmp_path / "run"), progress=False, **few)
    second = [path.with_name(path.name.replace("_0", "_1")) for path in first]
    listed = [
        f"{path},{path.parent.name},{split}" for split, paths in (("train", first), ("val", second)) for path in paths
    ]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *listed]) + "\n")
    outcome = train(tmp_path / "clips.csv", out=str(tmp_path / "run"), progress=False, **few)
    assert outcome.contest.num_videos == 3
