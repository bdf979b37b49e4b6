"""``uniformerv2 train`` as a user types it, on small real videos, and what it says where something is wrong."""

from __future__ import annotations

import argparse
import csv
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.locks import held_elsewhere
from tests.media import write_video
from tests.model.flaky_server import NO_ONE, place_hub
from tests.training.fake_clips import tiny_network
from uniformerv2 import load_model, save_model
from uniformerv2.autotrain import session
from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.measure import estimate
from uniformerv2.autotrain.plan import TrainOptions
from uniformerv2.autotrain.run import run_plan
from uniformerv2.autotrain.videos import read_videos
from uniformerv2.cli import main
from uniformerv2.commands.train import add_arguments
from uniformerv2.core.console import Progress
from uniformerv2.core.files import FolderInUseError
from uniformerv2.core.messages import duration
from uniformerv2.core.run_paths import RunPaths
from uniformerv2.data.check import check_videos
from uniformerv2.data.splits import read_splits
from uniformerv2.evaluation.dumps import read_dump
from uniformerv2.inference.testing import TestRun

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

CLASSES = ("jump", "run")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of five videos, one folder each."""
    top = tmp_path_factory.mktemp("data") / "videos"
    for label, name in enumerate(CLASSES):
        (top / name).mkdir(parents=True)
        for index in range(5):
            write_video(top / name / f"clip_{index}.mp4", num_frames=8, seed=10 * label + index)
    return top


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small video network of other classes."""
    network = tiny_network()
    network.info = replace(network.info, licence="MIT", source="a test")
    return save_model(network, tmp_path_factory.mktemp("checkpoint") / "network")


@pytest.fixture
def words(tmp_path, checkpoint):
    """Options of every run here."""
    fixed = "--workers 0 --batch-size 4 --clips 2 --crops 1 --json --no-probe"
    return ["--model", str(checkpoint), "--out", str(tmp_path / "run"), *fixed.split()]


def last_line(capsys):
    """The JSON, and all that was said."""
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def list_of(videos, path, labels=CLASSES, suffix=""):
    rows = [f"{videos}/{name}/clip_{index}.mp4,{name}{suffix}" for name in labels for index in range(5)]
    path.write_text("\n".join(["path,label", *rows]) + "\n")
    return path


def test_folder_to_model_to_prediction(videos, words, tmp_path, capsys):
    assert main(["train", str(videos), *words, "--epochs", "2"]) == 0
    result, told = last_line(capsys)
    for part in (
        "2: jump, run",
        "8 train, 2 val",
        "held out",
        "video blocks times 5",
        "epochs",
        "of them learn",
        "about",
    ):
        assert part in told
    assert "epoch 2 of 2: loss" in told
    assert f"--model {result['model']}" in told
    metrics = result["metrics"]
    assert set(metrics) >= {"val_top1", "test_top1", "test_loss"}
    assert 0 <= metrics["test_top1"] <= 1

    model = load_model(result["model"])
    assert model.info.class_names == CLASSES
    assert model.info.source == "trained from a test"
    assert model.info.licence == "MIT"
    assert model.info.preprocessing["num_clips"] == 2
    assert model.info.metrics["test_protocol"] == "2 clips x 1 crop of the 2 validation videos"
    assert model.info.metrics["test_top1"] == pytest.approx(metrics["test_top1"], abs=1e-6)
    assert [video.path for video in read_dump(result["scores"]).videos] == [
        video.path for video in read_splits(videos).val
    ]
    page = pathlib.Path(result["report"]).read_text(encoding="utf-8")
    assert f"Report: {result['report']}" in told
    for part in (
        "Training on videos",
        "2 clips × 1 crop",
        "Confusion",
        "Loss over the epochs",
        "The dashed line marks the epoch that was kept",
        "These videos chose the epoch too",
        "the 2 validation videos",
        "These are few videos",
        "Use this model",
        f"Kept: {result['chosen']}",
        "uniformerv2 train",
    ):
        assert part in page
    kept = "last" if result["chosen"].startswith("last") else "best"
    state = torch.load(result[kept], weights_only=True)["state_dict"]
    assert torch.equal(state["network.head.weight"], model.head.weight)
    with pathlib.Path(result["log"]).open(newline="") as file:
        logged = [row["val_top1"] for row in csv.DictReader(file) if row["val_top1"]]
    assert len(logged) == 2
    assert max(map(float, logged)) == metrics["val_top1"]
    (command,) = [line.removeprefix("Use it: ") for line in told.splitlines() if line.startswith("Use it: ")]
    assert main(shlex.split(command)[1:]) == 0
    assert "jump" in capsys.readouterr().out

    chosen, weights = result["chosen"], (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert main(["train", str(videos), *words, "--epochs", "2"]) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main(["train", str(videos), *words, "--epochs", "3", "--resume"]) == 2
    assert "--epochs (2 before, now 3)" in capsys.readouterr().err
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights

    assert main(["train", str(videos), *words, "--epochs", "2", "--resume"]) == 0  # nothing is left to train
    result, _ = last_line(capsys)
    assert result["chosen"] == chosen
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights


def test_a_second_training_in_the_same_folder_is_refused(videos, words, tmp_path, capsys, monkeypatch):
    """At once where it can be seen, and else before anything is written."""
    run, words = tmp_path / "run", ["train", str(videos), *words, "--epochs", "1"]
    with held_elsewhere(run):
        assert main(words) == 1
        told = capsys.readouterr().err
        assert f"A training is running in {run}: wait until it ends, or choose another place." in told
        assert "written to" not in told
        assert main([*words, "--dry-run"]) == 0  # writes nothing
        monkeypatch.setattr(RunPaths, "refuse_held", lambda folder: None)
        assert main(words) == 1
        assert f"A training is running in {run}: wait" in capsys.readouterr().err
        with pytest.raises(FolderInUseError):
            run_plan(tiny_network(), None, SimpleNamespace(out=str(run)))
        assert [path.name for path in run.iterdir()] == [".lock"]


def test_without_room_for_checkpoints_no_epoch_starts(videos, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    assert main(["train", str(videos), *words, "--epochs", "1"]) == 1
    told = capsys.readouterr().err
    weights = sum(weight.nbytes for weight in tiny_network(num_classes=2).state_dict().values()) / 2**20
    needed = float(
        re.search(r"This training needs about ([\d.]+) MiB, and the disk of .*/run has 0\.1 MiB free", told)[1]
    )
    assert 9.5 * weights < needed < 10.5 * weights  # three checkpoints of weights and two moments, and the model
    assert "epoch 1" not in told
    assert not (tmp_path / "run" / "run.json").exists()
    assert main(["train", str(videos), *words, "--dry-run"]) == 0


def test_dry_run_writes_nothing(videos, words, tmp_path, capsys, monkeypatch):
    """It opens the videos without reading all of their bytes, measures roughly, and says what it is at all the time."""
    looked, stages, measured = [], [], []
    enter = Progress.__enter__
    monkeypatch.setattr(Progress, "__enter__", lambda self: stages.append(self._what) or enter(self))
    monkeypatch.setattr(
        session,
        "estimate",
        lambda *args, is_rough, **rest: measured.append(is_rough) or estimate(*args, is_rough=True, **rest),
    )

    def check(*arguments, **options):
        looked.extend(check_videos(*arguments, **options))
        yield from looked

    monkeypatch.setattr("uniformerv2.autotrain.videos.check_videos", check)
    data = list_of(videos, tmp_path / "clips.csv")
    assert main(["train", str(data), *words, "--dry-run", "--freeze-backbone"]) == 0
    result, told = last_line(capsys)
    assert result["plan"]["num_train"] == 8
    assert result["plan"]["freeze_backbone"] is True
    assert 0 < result["estimate"]["num_trainable"] < result["estimate"]["num_parameters"]
    assert "backbone frozen" in told
    assert not (tmp_path / "run").exists()
    assert {(one.status, one.checksum) for one in looked} == {("ok", "")}
    assert stages == ["look at videos", "load the network", "measure a few steps"]
    assert measured == [True]


@pytest.mark.usefixtures("blank_figures")
def test_broken_clip_and_missing_class(videos, words, tmp_path, capsys):
    """A folder of lists; one clip is no video, and the validation videos are all of one class."""
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    train = [f"{videos}/{name}/clip_{index}.mp4 {label}" for label, name in enumerate(CLASSES) for index in range(4)]
    (tmp_path / "train.txt").write_text("\n".join([*train, "broken.mp4 0"]) + "\n")
    (tmp_path / "val.txt").write_text(f"{videos}/jump/clip_4.mp4 0\n")
    assert main(["train", str(tmp_path), *words, "--epochs", "1"]) == 0
    result, told = last_line(capsys)
    assert "1 of 10 videos cannot be read and are left out" in told
    assert "broken.mp4" in told
    assert "No validation video of 1" in told
    assert "8 train, 1 val" in told
    assert result["metrics"]["test_top1"] in {0.0, 1.0}


def test_nothing_left_names_the_broken_files(videos, words, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    rows = [f"{videos}/jump/clip_0.mp4,jump,train", f"{videos}/run/clip_0.mp4,run,train", "broken.mp4,run,val"]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    assert main(["train", str(tmp_path / "clips.csv"), *words]) == 1
    told = capsys.readouterr().err
    assert "broken.mp4" in told
    assert "No video is left to validate on" in told
    assert not (tmp_path / "run").exists()


def test_one_clip_a_class_is_refused(videos, words, tmp_path, capsys):
    rows = [f"{videos}/{name}/clip_0.mp4,{name}" for name in CLASSES]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    assert main(["train", str(tmp_path / "clips.csv"), *words]) == 1
    assert "Give two or more a class" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0."),
        (["--stages", "0"], "--stages must be at least 1, got 0."),
        (["--dropout", "1"], "--dropout must be at least 0 and below 1, got 1.0."),
        (["--dropout", "-0.1"], "--dropout must be at least 0 and below 1, got -0.1."),
        (["--workers", "-1"], "--workers must be at least 0, got -1."),
        (["--backbone-weights", "gone.safetensors"], "There is no file gone.safetensors"),
        (["--backbone", "vit_tiny_patch16_224"], "--model and --backbone both say what training starts from"),
        (["--resume"], "holds no training to resume"),
        (["--root", "gone"], "There is no folder gone; --root is where"),
        (["--classes", "gone.txt"], "Or give a file with a class name a line"),
    ],
)
def test_usage_errors(videos, words, extra, message, capsys):
    assert main(["train", str(videos), *words, *extra]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(videos, words, tmp_path, capsys):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert main(["train", str(videos), *words, "--out", str(tmp_path / "closed" / "run")]) == 2
    assert (
        f"cannot be written, as {tmp_path / 'closed'} cannot; give another place with --out" in capsys.readouterr().err
    )


def test_a_place_under_a_file(videos, words, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["train", str(videos), *words, "--out", str(tmp_path / "file" / "run")]) == 2
    assert f"cannot be written, as {tmp_path / 'file'} cannot" in capsys.readouterr().err


def test_no_such_data(words, capsys):
    assert main(["train", "gone", *words]) == 2
    assert "There is no file or folder gone" in capsys.readouterr().err


def test_no_video_can_be_read(words, tmp_path, capsys):
    data = tmp_path / "moved.csv"
    data.write_text("path,label\n" + "".join(f"gone/{number}.mp4,{CLASSES[number % 2]}\n" for number in range(6)))
    assert main(["train", str(data), *words]) == 1
    said = capsys.readouterr().err
    assert "Not one of 6 videos can be read, for instance" in said
    assert "Relative paths of a list start at its folder; --root names another one." in said


def test_a_class_whose_held_out_videos_are_broken_holds_out_others(videos, words, tmp_path, capsys):
    shutil.copytree(videos, tmp_path / "broken")
    held = [Path(record.path) for record in read_splits(tmp_path / "broken").val]
    for path in held:
        path.write_bytes(b"no video")
    assert main(["train", str(tmp_path / "broken"), *words, "--dry-run"]) == 0
    plan, told = last_line(capsys)
    assert f"{len(held)} of 10 videos cannot be read and are left out" in told
    assert plan["plan"]["num_val"] == len(held)
    assert plan["plan"]["num_train"] == 10 - 2 * len(held)
    assert "No validation video" not in told


def test_without_a_network(videos, words, tmp_path, capsys, monkeypatch):
    """The plan is made with random weights and says which would be fetched; training says at once what to do."""
    place_hub(monkeypatch, NO_ONE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    for name in ("UNIFORMERV2_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    words = [*words[2:], "--backbone", "vit_tiny_patch16_224", "--image-size", "32", "--num-frames", "2"]
    assert main(["train", str(videos), *words, "--dry-run"]) == 0
    planned, told = last_line(capsys)
    assert planned["to_fetch"].startswith("timm/vit_tiny_patch16_224.")
    assert planned["estimate"]["total_seconds"] > 0
    assert re.search(r"to be fetched +timm/vit_tiny_patch16_224\.", told)
    assert main(["train", str(videos), *words]) == 1
    said = capsys.readouterr().err
    assert "no network" in said
    assert "--backbone-weights FILE" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("blank_figures")
def test_root_and_classes(videos, words, tmp_path, capsys):
    """A list of numbers with paths from elsewhere; the names are stored with the model."""
    rows = [f"{name}/clip_{index}.mp4 {number}" for number, name in enumerate(CLASSES) for index in range(5)]
    (tmp_path / "list.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "names.txt").write_text("to jump\nto run\n")
    told = ["--root", str(videos), "--classes", str(tmp_path / "names.txt")]
    data = ["train", str(tmp_path / "list.txt"), *words, "--epochs", "1"]
    assert main([*data, *told]) == 0
    result, said = last_line(capsys)
    assert load_model(result["model"]).info.class_names == ("to jump", "to run")
    assert "--classes FILE" not in said
    assert main([*data, *told[:2], "--resume"]) == 2
    assert f"--classes ({tmp_path / 'names.txt'} before, now not given)" in capsys.readouterr().err
    assert main([*data, *told[:2], "--dry-run"]) == 0
    assert "The classes have numbers only (0, 1): --classes FILE" in last_line(capsys)[1]


def test_a_text_that_is_no_list(words, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello world\nthis is no list\n")
    assert main(["train", str(tmp_path / "notes.txt"), *words]) == 2
    said = capsys.readouterr().err
    assert f"names no video that is there, for instance {tmp_path / 'hello'}." in said
    assert "--root" in said


@pytest.mark.usefixtures("blank_figures")
def test_a_signal_in_the_final_test_then_resume(videos, words, tmp_path, capsys, monkeypatch):
    """And a training from the beginning in the same folder does not trip over the scores of the one before."""
    words = ["train", str(videos), *words, "--epochs", "1"]
    scored = TestRun.videos

    def stopped_videos(run):
        for video in scored(run):
            yield video
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(TestRun, "videos", stopped_videos)
        assert main(words) == 143
    assert "Stopped in the final test" in capsys.readouterr().err
    assert not (tmp_path / "run" / "scores.pkl").exists()
    assert main([*words, "--resume"]) == 0
    result, told = last_line(capsys)
    assert "epoch 1 of 1" not in told
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert main([*words, "--seed", "1"]) == 0
    assert last_line(capsys)[0]["metrics"]["test_loss"] != result["metrics"]["test_loss"]


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.skipif(os.name == "nt", reason="SIGINT to a group of processes is POSIX")
def test_interrupt_then_resume(videos, words, tmp_path, capsys):
    """Ctrl-C goes to every process of a terminal; resumed, each step is made once."""
    words = ["train", str(videos), *words, "--epochs", "4"]
    command = [sys.executable, "-m", "uniformerv2", *words, "--workers", "1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        told = ""
        for line in running.stderr:
            told += line
            if line.startswith("epoch 1 of 4"):
                os.killpg(running.pid, signal.SIGINT)
        assert running.wait(timeout=60) == 130, told
        assert running.stdout.read() == ""
    assert "Traceback" not in told
    assert "The same command with --resume continues from there." in told
    stopped = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert f"Stopped after step {stopped} " in told
    assert 2 <= stopped < 8

    assert main([*words, "--resume"]) == 0
    result, told = last_line(capsys)
    assert "Going on from" in told
    assert "epoch 1 of 4" not in told
    assert torch.load(result["last"], weights_only=True)["global_step"] == 8
    assert load_model(result["model"]).info.class_names == CLASSES


OF_OTHERS = {"--model", "--split", "--threshold", "--csv", "--rank", "--weights"}
"""Options of predict, test and examples/lora.py that the page names."""


def test_the_page_names_options_that_exist():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    page = (Path(__file__).parents[2] / "docs" / "fine_tune.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--[a-z][a-z-]+", page))
    known = {option for action in parser._actions for option in action.option_strings}
    assert named - OF_OTHERS <= known
    assert known - named == {"--help", "-h"}


def test_duration():
    assert [duration(seconds) for seconds in (0, 119, 120, 7200)] == ["0 s", "119 s", "2.0 min", "2.0 h"]


def test_a_run_of_class_folders_once_sorted_as_text_goes_on_with_its_classes(tmp_path):
    """Numbers were: 0, 1, 10, 2; the rows of its head stay those of its plan."""
    for number in range(11):
        for clip in range(2):
            (tmp_path / "videos" / str(number)).mkdir(parents=True, exist_ok=True)
            (tmp_path / "videos" / str(number) / f"{clip}.mp4").touch()
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    folder.last.touch()
    before = sorted(map(str, range(11)))
    folder.record.write_text(json.dumps({"plan": {"class_names": before}}))
    options = TrainOptions(data=str(tmp_path / "videos"), resume=True)
    found = read_videos(options, folder)
    assert found.class_names == tuple(before)
    assert all(before[record.label] == Path(record.path).parent.name for record in found.every)
    assert read_videos(replace(options, resume=False), folder).class_names == tuple(map(str, range(11)))
