"""``train`` as a script calls it, and what an earlier version noted of a run."""

from __future__ import annotations

import json

import pytest

from tests.media import write_video
from tests.training.fake_clips import tiny_network
from uniformerv2 import load_model, save_model
from uniformerv2.autotrain import TrainOptions, prepare, train
from uniformerv2.cli import main
from uniformerv2.core.messages import UsageError
from uniformerv2.core.options import options_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

FEW = {"probe": False, "num_workers": 0, "batch_size": 4, "num_clips": 1, "num_crops": 1, "epochs": 1}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    top = tmp_path_factory.mktemp("videos")
    for index in range(10):
        (top / "ab"[index % 2]).mkdir(exist_ok=True)
        write_video(top / "ab"[index % 2] / f"{index}.mp4", num_frames=4, seed=index)
    return top


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return str(save_model(tiny_network(), tmp_path_factory.mktemp("network") / "tiny"))


def test_three_lines_of_python_do_what_the_verb_does(videos, network, tmp_path, capsys):
    """Silently where it is asked for; and a run of the one is resumed by the other."""
    outcome = train(videos, model=network, out=str(tmp_path / "run"), progress=False, **FEW)
    assert capsys.readouterr() == ("", "")
    assert load_model(outcome.model).info.class_names == ("a", "b")
    assert outcome.report.is_file()
    assert outcome.scores.is_file()
    assert 0 <= outcome.summary.all_videos["top1"].value <= 1
    words = "--no-probe --workers 0 --batch-size 4 --clips 1 --crops 1 --epochs 1 --resume --json"
    assert main(["train", str(videos), "--model", network, "--out", str(tmp_path / "run"), *words.split()]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["val_top1"] == outcome.val_score


def test_a_plan_can_be_seen_first(videos, network, tmp_path):
    prepared = prepare(TrainOptions(data=str(videos), model=network, out=str(tmp_path / "run"), **FEW), dry_run=True)
    assert (prepared.plan.epochs, prepared.plan.start) == (1, network)
    assert prepared.cost.total_seconds > 0
    assert not (tmp_path / "run").exists()


def test_wrong_options_are_refused_when_they_are_made(videos, tmp_path):
    with pytest.raises(UsageError, match="--epochs must be at least 1, got 0"):
        TrainOptions(data=str(videos), epochs=0)
    with pytest.raises(UsageError, match="There is no file or folder gone"):
        train("gone")
    with pytest.raises(UsageError, match="add --freeze-backbone"):
        TrainOptions(data=str(videos), cache_features=True)


def test_a_run_that_began_before_model_was_an_option_is_resumed(videos, network, tmp_path, capsys):
    """``--backbone`` named checkpoints then, and precision was Lightning's word."""
    out = tmp_path / "run"
    train(videos, model=network, out=str(out), progress=False, **FEW)
    record = out / "run.json"
    content = json.loads(record.read_text())
    own = {one.name for one in options_of(TrainOptions)} - set(content["request"])
    content["request"] |= {"backbone": content["request"].pop("model"), "precision": None}
    content["request"]["weights"] = content["request"].pop("backbone_weights")
    kept = {"out", "num_workers"}
    content["plan"] = {
        name: value
        for name, value in content["plan"].items()
        if name not in {"model", "root", "classes", "learning_rate", "cache_features", *(own - kept)}
    }
    content["plan"] |= {"backbone": network, "weights": content["plan"].pop("backbone_weights")}
    record.write_text(json.dumps(content))
    outcome = train(videos, model=network, out=str(out), resume=True, progress=False, **FEW)
    assert outcome.chosen == "the only epoch"
    with pytest.raises(UsageError, match=r"--model \(.* before, now not given\)"):
        prepare(TrainOptions(data=str(videos), out=str(out), resume=True, **FEW), progress=False)
