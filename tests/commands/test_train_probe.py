"""``uniformerv2 train`` and its probe, on small real videos: alone, before a training, and against its network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.training.fake_clips import tiny_network
from uniformerv2 import Predictor, load_model, save_model
from uniformerv2.autotrain import TrainOptions, prepare, train
from uniformerv2.cli import main
from uniformerv2.evaluation.dumps import read_dump

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

FRAMES = 8


def write_clip(path, pixels):
    """Frames [T, H, W, 3] as H.264 without loss: what a codec loses tells the first frame from the last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def made_videos(top, kind, *, count=15, classes=("one", "two")):
    """Videos whose classes differ in colour ("seen"), or in the order of the same colours ("order")."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        for index in range(count):
            noise = rng.integers(-12, 13, (FRAMES, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
            ramp = np.linspace(80, 160, FRAMES)[:, None, None, None] + rng.uniform(-60, 60)
            if kind == "seen":
                base = np.full((FRAMES, 1, 1, 3), 120.0)
                base[..., label] += 60
            else:
                base = np.broadcast_to(ramp if label == 0 else ramp[::-1], (FRAMES, 1, 1, 3))
            pixels = (base + noise).clip(0, 255).astype(np.uint8)
            write_clip(top / name / f"{name}_{index:02}.mp4", pixels)
    return top


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return made_videos(tmp_path_factory.mktemp("seen"), "seen")


@pytest.fixture(scope="module")
def order(tmp_path_factory):
    return made_videos(tmp_path_factory.mktemp("order"), "order")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return str(save_model(tiny_network(), tmp_path_factory.mktemp("network") / "tiny"))


@pytest.fixture(autouse=True)
def enough_time(monkeypatch):
    """A probe of tiny networks takes long beside their training, and how long depends on the machine."""
    monkeypatch.setattr("uniformerv2.autotrain.probing.SHARE", 1e3)


@pytest.fixture
def words(tmp_path, network):
    """Options of every run here."""
    fixed = "--workers 0 --clips 1 --crops 1 --num-frames 8 --json"
    return ["--model", network, "--out", str(tmp_path / "run"), *fixed.split()]


SHORT = {"num_workers": 0, "num_clips": 1, "num_crops": 1, "num_frames": 8, "batch_size": 8, "progress": False}


def test_a_probe_alone_is_a_model_as_every_other(order, words, tmp_path, capsys):
    """Written, tested, reported, predicted with; and its folder is not taken by a training."""
    assert main(["train", str(order), *words, "--probe"]) == 0
    captured = capsys.readouterr()
    result, told = json.loads(captured.out), captured.err
    assert "What tells the classes apart" in told
    assert re.search(r"order +(9|10)\d\.\d % \(\d+ to \d+\) +\+", told)
    assert "epoch" not in told
    assert result["metrics"]["test_top1"] > 0.8
    assert result["best"] is None
    model = load_model(result["model"])
    assert model.config.fusion == "statistics"
    assert model.info.class_names == ("one", "two")
    page = Path(result["report"]).read_text(encoding="utf-8")
    for part in ("Kept: the probe of", "logistic regression on statistics", "without looking 50.0 %"):
        assert part in page
    assert "Loss over the epochs" not in page

    assert main(["test", str(order), "--model", result["model"], "--dump", str(tmp_path / "all.pkl"), "--json"]) == 0
    capsys.readouterr()
    predictor = Predictor(result["model"])
    for video in read_dump(tmp_path / "all.pkl").videos:
        assert predictor(video.path).scores == pytest.approx(video.scores, abs=1e-5)
    assert main(["train", str(order), *words, "--epochs", "1"]) == 2
    assert "holds a training already" in capsys.readouterr().err


def test_a_finished_probe_is_resumed_not_made_anew(order, words, tmp_path, monkeypatch, capsys):
    """One copy of the model, no empty folder; what was deleted of its test comes back, and nothing is fitted."""
    assert main(["train", str(order), *words, "--probe"]) == 0
    first, run = json.loads(capsys.readouterr().out), tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {"model", "report", "run.json", "scores.pkl"}
    before = (run / "model" / "model.safetensors").read_bytes()
    (run / "scores.pkl").unlink()
    monkeypatch.setattr("uniformerv2.autotrain.session.probe_videos", None)
    assert main(["train", str(order), *words, "--probe", "--resume"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["metrics"] == first["metrics"]
    assert f"Going on from {run / 'model'}" in captured.err
    assert (run / "scores.pkl").is_file()
    assert (run / "model" / "model.safetensors").read_bytes() == before
    assert main(["train", str(order), *words, "--probe", "--seed", "3", "--resume"]) == 2
    assert "--seed (0 before, now 3)" in capsys.readouterr().err


def test_what_a_probe_costs_is_told_before_it(order, words, capsys):
    assert main(["train", str(order), *words, "--probe", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"time +about .* a clip +measured on a few clips", captured.err)
    cost = json.loads(captured.out)["estimate"]
    assert (cost["step_seconds"], cost["total_seconds"] > 0) == (0.0, True)


@pytest.mark.parametrize(("kind", "preset"), [("seen", "scene"), ("order", "motion")])
def test_the_preset_is_what_tells_the_classes_apart(kind, preset, network, tmp_path, request, capsys):
    """With a reason in the plan; what the user says stays, and without a probe it is as ever."""
    videos = request.getfixturevalue(kind)
    fixed = {"data": str(videos), "model": network, "num_workers": 0, "num_frames": 8}
    prepared = prepare(TrainOptions(**fixed, out=str(tmp_path / "run")), progress=False)
    assert prepared.plan.preset == preset
    assert "the probe, of videos held out: appearance" in prepared.plan.why["preset"]
    assert f"{prepared.plan.probed['best']} " in prepared.plan.why["preset"]
    assert not (tmp_path / "run").exists()
    assert (prepared.plan.probed["rows"]["order"]["score"]["value"] > 0.85) == (kind == "order")
    other = {"scene": "motion", "motion": "scene"}[preset]
    assert prepare(TrainOptions(**fixed, preset=other, out=str(tmp_path / "run")), progress=False).plan.preset == other
    plain = prepare(TrainOptions(**fixed, probe=False, out=str(tmp_path / "run")), progress=False).plan
    assert (plain.preset, plain.probed) == ("scene", {})


def test_never_below_the_probe(order, words, tmp_path, capsys):
    """A network that cannot learn: the probe is the result, the network is kept, and both numbers are told."""
    sabotaged = ["--epochs", "8", "--learning-rate", "1e-12", "--preset", "scene", "--batch-size", "8"]
    assert main(["train", str(order), *words, *sabotaged]) == 0
    captured = capsys.readouterr()
    result, told = json.loads(captured.out), captured.err
    assert result["metrics"]["val_probe"] == 1.0 > result["metrics"]["val_network"]
    assert result["metrics"]["test_top1"] == 1.0
    model, kept = load_model(result["model"]), load_model(tmp_path / "run" / "network")
    assert (model.config.fusion, kept.config.fusion) == ("statistics", "sequential")
    assert model.info.metrics["val_probe"] == 1.0
    page = Path(result["report"]).read_text(encoding="utf-8")
    for text in (page, told):
        assert "and the probe 100.00 %" in text
        assert "The result is the probe; the other one is kept in" in text
        assert "What to try" in text
        assert "The network: " in text
        assert "Kept: " not in text
        assert "chose the epoch too" not in text
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert main(["train", str(order), *words, *sabotaged, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before


def test_the_network_has_the_bits_that_it_has_without_a_probe(seen, network, tmp_path):
    """Wherever it is kept; the probe is kept too."""
    options = {"model": network, "epochs": 3, "preset": "scene", "freeze_backbone": False, **SHORT}
    outcome = train(seen, out=str(tmp_path / "with"), **options)
    plain = train(seen, out=str(tmp_path / "without"), probe=False, **options)
    assert plain.contest is None
    assert outcome.contest.is_lost == (outcome.contest.network < outcome.contest.probe)
    kept = tmp_path / "with" / ("network" if outcome.contest.is_lost else "model")
    here, there = load_model(kept).state_dict(), load_model(plain.model).state_dict()
    assert all(torch.equal(value, there[name]) for name, value in here.items())
    assert load_model(tmp_path / "with" / "probe").config.fusion == "statistics"


def test_cached_features_are_computed_once(seen, network, tmp_path, monkeypatch):
    """The probe reads the first view of the training videos, and training takes that file as it is."""
    monkeypatch.setattr("uniformerv2.autotrain.probing.SHARE", 1e-6)
    options = {"model": network, "epochs": 2, "freeze_backbone": True, "cache_features": True, **SHORT}
    options.pop("progress")
    prepared = prepare(TrainOptions(data=str(seen), out=str(tmp_path / "run"), **options), progress=False)
    files = list((tmp_path / "run" / "features").rglob("*.safetensors"))
    assert [path.name for path in files] == ["train_view_0_00000.safetensors"]
    assert prepared.plan.probed["num_clips"] == 24
    before = files[0].stat().st_mtime_ns
    prepared.run(progress=False)
    assert files[0].stat().st_mtime_ns == before
    assert {path.name for path in (tmp_path / "run" / "features").rglob("*.safetensors")} == {
        "train_view_0_00000.safetensors",
        "train_view_1_00000.safetensors",
        "val_view_0_00000.safetensors",
    }


def test_several_labels_one_clip_a_class_and_a_broken_one(seen, words, tmp_path, capsys):
    paths = sorted(seen.rglob("*.mp4"))
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    rows = [f"{path},{path.parent.name};{'even' if number % 2 else 'odd'},train" for number, path in enumerate(paths)]
    rows += [f"{paths[0]},one;odd,val", f"{paths[-1]},two;even,val", f"{tmp_path / 'broken.mp4'},one;odd,train"]
    data = tmp_path / "several.csv"
    data.write_text("\n".join(["path,label,split", *rows]) + "\n")
    assert main(["train", str(data), *words, "--probe"]) == 0
    captured = capsys.readouterr()
    assert "mean AP" in captured.err
    assert "1 of 31 videos cannot be read" in captured.err
    assert json.loads(captured.out)["metrics"]["test_mean_ap"] > 0.4
    assert load_model(tmp_path / "run" / "model").info.is_multi_label

    rows = [f"{paths[0]},one,train", f"{paths[-1]},two,train", f"{paths[1]},one,val", f"{paths[-2]},two,val"]
    data.write_text("\n".join(["path,label,split", *rows]) + "\n")
    words[words.index(str(tmp_path / "run"))] = str(tmp_path / "one")
    assert main(["train", str(data), *words, "--probe"]) == 0
    captured = capsys.readouterr()
    assert "nothing could be held out" in captured.err
    assert json.loads(captured.out)["metrics"]["test_top1"] in {0.0, 0.5, 1.0}


def test_a_probe_that_would_take_too_long_is_left_out(seen, network, tmp_path, monkeypatch):
    monkeypatch.setattr("uniformerv2.autotrain.probing.SHARE", 1e-9)
    options = TrainOptions(data=str(seen), model=network, num_workers=0, num_frames=8, out=str(tmp_path / "run"))
    plan = prepare(options, progress=False).plan
    assert plan.preset == "scene"
    assert "No probe before this training" in plan.probed["told"][0]


def test_a_sample_of_the_videos_is_told(seen, network, tmp_path, monkeypatch):
    monkeypatch.setattr("uniformerv2.autotrain.probing.MOST_CLIPS", 16)
    options = TrainOptions(data=str(seen), model=network, num_workers=0, num_frames=8, out=str(tmp_path / "run"))
    plan = prepare(options, progress=False).plan
    assert plan.probed["num_clips"] == 16
    assert "The probe saw 16 of 24 training videos" in plan.probed["told"][0]


def test_training_starts_at_the_probe_where_what_moves_is_best(order, tmp_path, capsys):
    """With an image ViT: even a network that cannot learn says what the probe says, and is the result."""
    torch.manual_seed(0)
    weights = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit2", img_size=32).state_dict(), weights)
    start = {"backbone": "test_vit2", "backbone_weights": str(weights), "image_size": 32}
    options = {"epochs": 1, "learning_rate": 1e-12, **start, **SHORT}
    outcome = train(order, out=str(tmp_path / "run"), **options)
    assert outcome.contest.network == outcome.contest.probe > 0.8
    assert not outcome.contest.is_lost
    assert outcome.chosen == "the only epoch; then its head and the probe's, at which it had started, were averaged"
    config = load_model(outcome.model).config
    assert (config.fusion, config.statistics[-1], config.num_local_steps) == ("sequential", "patch_ramp", 0)
    plan = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["plan"]
    assert "Training starts at the probe" in plan["probed"]["told"][-1]
    assert "--no-freeze-backbone lets it learn" in plan["probed"]["told"][-2]
    assert (plan["freeze_backbone"], plan["cache_views"] > 0) == (True, True)
    fixed = {"data": str(order), "out": str(tmp_path / "other"), "num_workers": 0, "num_frames": 8, **start}
    learning = prepare(TrainOptions(**fixed, freeze_backbone=False), progress=False)
    assert (learning.network.config.num_local_steps, learning.network.config.tubelet_size) == (0, 1)
    assert learning.network.config.statistics == config.statistics
    assert all(value.requires_grad for value in learning.network.parameters())
    plain = prepare(TrainOptions(**fixed, probe=False), progress=False)
    assert plain.network.config.statistics == ()
    frozen = prepare(TrainOptions(**fixed), progress=False).plan
    assert (plain.plan.flip, frozen.flip, learning.plan.flip) == (0.5, 0.0, 0.0)  # it is the order that tells
    assert (plain.plan.epochs, frozen.epochs, learning.plan.epochs) == (50, 10, 3)
    assert all("the probe is not forgotten" in made.why["epochs"] for made in (frozen, learning.plan))
    assert learning.plan.rates.learning_rate < plain.plan.rates.learning_rate / 10
    assert "the probe is not forgotten" in learning.plan.why["learning_rate"]
