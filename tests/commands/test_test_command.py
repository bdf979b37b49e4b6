"""``uniformerv2 test`` and ``evaluate``, as users type them; some in processes of their own, one of them killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from tests.evaluation.made_evaluations import assert_same, make_evaluation
from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from uniformerv2 import cli
from uniformerv2.core.messages import UsageError
from uniformerv2.data.annotations import read_records
from uniformerv2.data.labels import class_names_of
from uniformerv2.data.named_videos import in_head_order
from uniformerv2.evaluation.dumps import read_dump, write_dump
from uniformerv2.evaluation.journal import journal_folder
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.checkpoint import save_model

NAMES = ("archery", "surfing", "dunk", "violin", "[skate]")
FEW = ["--workers", 0, "--resamples", 20]


@pytest.fixture(autouse=True)
def one_thread():
    """As in the processes that are started here: the last bit depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def call(capsys, *words, code=0):
    """In this process, for speed."""
    try:
        returned = cli.main([str(word) for word in words])
    except SystemExit as error:
        returned = error.code
    printed = capsys.readouterr()
    assert returned == code, printed.err
    return printed


def start(*words, **environment):
    """A process of its own, one thread for each."""
    return subprocess.Popen(
        [sys.executable, "-m", "uniformerv2", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def measured(printed):
    """The values of --json."""
    content = json.loads(printed.out)
    return content, {name: found["value"] for name, found in content["metrics"]["all_videos"].items()}


@pytest.fixture
def model(tmp_path):
    network = make(TINY)
    network.info = CheckpointInfo(class_names=NAMES)
    return save_model(network, tmp_path / "model")


@pytest.fixture
def videos(tmp_path):
    """A list of seven videos, their classes by name; the fifth is broken."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(7):
        write_video(folder / f"{index}.mp4", seed=index, num_frames=8)
    (folder / "4.mp4").write_bytes(b"no video")
    rows = [f"{index}.mp4,{NAMES[index % 5]}\n" for index in range(7)]
    (folder / "list.csv").write_text("".join(["path,label\n", *rows]))
    return folder / "list.csv"


def test_a_table_for_people(model, videos, tmp_path, capsys):
    dump = tmp_path / "dump.pkl"
    printed = call(capsys, "test", videos, "--model", model, "--clips", 2, "--crops", 3, "--dump", dump, *FEW).out
    assert re.search(r"videos +7 of .*list\.csv \(all\); classes are matched by name", printed)
    assert "2 clips x 3 crops of 4 frames, 32 x 32; mean of probabilities" in printed
    assert re.search(r"6 views +6 views, readable only +1 view", printed)
    for word in ("top-1", "mean class accuracy", "loss", "calibration error", "95 % intervals"):
        assert word in printed
    assert "1 of 7 videos could not be read" in printed
    assert "4.mp4: not a video" in printed
    assert "top-5" not in printed  # of five classes
    assert max(map(len, printed.splitlines())) < 400
    found = read_dump(dump)
    assert [video.label for video in found.videos] == [0, 1, 2, 3, 4, 0, 1]
    again = call(capsys, "test", videos, "--model", model, "--clips", 2, "--crops", 3, "--dump", dump, *FEW).out
    assert "is the dump of this very test; nothing is measured anew" in again
    assert printed.partition("\n\n")[2] == again.partition("\n\n")[2]
    assert (
        "is the dump of another test: --clips was 2, is 1"
        in call(capsys, "test", videos, "--model", model, "--dump", dump, *FEW, code=2).err
    )


def test_json_is_one_line_and_nothing_else(model, videos, capsys):
    content, values = measured(call(capsys, "test", videos, "--model", model, "--json", *FEW))
    assert set(values) == {"top1", "mean_class_accuracy", "loss", "calibration_error"}
    assert content["metrics"]["num_unreadable"] == 1
    assert [item["path"] for item in content["unreadable"]] == [str(videos.parent / "4.mp4")]
    assert content["dump"] is None
    bare, same = measured(call(capsys, "test", videos, "--model", model, "--json", "--workers", 0, "--resamples", 0))
    assert same == values
    assert bare["metrics"]["all_videos"]["top1"]["low"] is None


def test_classes_in_another_order_are_matched_by_name(model, videos, tmp_path, capsys):
    _, wanted = measured(call(capsys, "test", videos, "--model", model, "--json", *FEW))
    order = ("violin", "Dunk", "skate", "archery", "surfing")
    places = [[name.lower() for name in order].index(name.strip("[]")) for name in NAMES]
    rows = [f"{index}.mp4 {places[index % 5]}\n" for index in range(7)]
    (videos.parent / "numbers.txt").write_text("".join(rows))
    (tmp_path / "names.txt").write_text("\n".join(order) + "\n")
    numbers = videos.parent / "numbers.txt"
    printed = call(capsys, "test", numbers, "--model", model, "--classes", tmp_path / "names.txt", "--json", *FEW)
    assert measured(printed)[1] == wanted
    assert "matched by name, their order differs" in printed.err
    printed = call(capsys, "test", numbers, "--model", model, "--json", *FEW)
    assert "class numbers are taken as the checkpoint's" in printed.err
    assert measured(printed)[1] != wanted
    (tmp_path / "other.txt").write_text("violin\ndunk\nski\narchery\nsurfing\n")
    printed = call(capsys, "test", numbers, "--model", model, "--classes", tmp_path / "other.txt", code=2)
    assert "The checkpoint has no class 'ski' (1 of the 5 classes of the list)" in printed.err
    kept = ["--only-classes", "violin", "dunk", "archery", "surfing", "--json", *FEW]
    printed = call(capsys, "test", numbers, "--model", model, "--classes", tmp_path / "other.txt", *kept)
    assert json.loads(printed.out)["metrics"]["num_videos"] == 6


@pytest.mark.parametrize("names", [sorted(map(str, range(12))), [f"{number:02}" for number in range(12)]])
def test_numbers_are_matched_with_a_head_whose_classes_are_numbers(tmp_path, names):
    """Also of checkpoints that were trained when such folders were sorted as text: 0, 1, 10, 11, 2."""
    model = SimpleNamespace(info=CheckpointInfo(class_names=tuple(names)))
    (tmp_path / "list.txt").write_text("".join(f"{number}.mp4 {number}\n" for number in range(12)))
    (tmp_path / "list.csv").write_text("".join(f"{number}.mp4,{number},11\n" for number in range(11)))
    for number in range(12):
        (tmp_path / "folders" / str(number)).mkdir(parents=True)
        (tmp_path / "folders" / str(number) / f"{number}.mp4").touch()
    for source in ("list.txt", "folders"):
        records, said = in_head_order(read_records(tmp_path / source), model.info.class_names)
        assert {names[record.label] for record in records} == set(names)
        assert all(int(names[record.label]) == int(Path(record.path).stem) for record in records)
        assert "matched by" in said or names == sorted(names, key=int)
    several, _ = in_head_order(read_records(tmp_path / "list.csv"), model.info.class_names)
    assert [[int(names[label]) for label in record.label] for record in several] == [[n, 11] for n in range(11)]
    (tmp_path / "list.txt").write_text("a.mp4 12\n")
    with pytest.raises(UsageError, match=r"label 12 is none of the checkpoint's classes, .*: '.* The list has .* 12\."):
        in_head_order(read_records(tmp_path / "list.txt"), model.info.class_names)


def test_a_checkpoint_without_names_is_told_them(videos, tmp_path, capsys):
    save_model(make(TINY), tmp_path / "nameless")
    assert (
        "say which class is which with --head-classes"
        in call(capsys, "test", videos, "--model", tmp_path / "nameless", code=2).err
    )
    (tmp_path / "head.txt").write_text("\n".join(NAMES))
    words = ["--head-classes", tmp_path / "head.txt", "--json", *FEW]
    assert (
        measured(call(capsys, "test", videos, "--model", tmp_path / "nameless", *words))[0]["metrics"]["num_videos"]
        == 7
    )
    printed = call(capsys, "test", videos, "--model", tmp_path / "nameless", "--head-classes", "kinetics400", code=2)
    assert "kinetics400 has 400 names, the checkpoint 5 classes" in printed.err
    assert (
        "No label space is called 'kinetics'"
        in call(capsys, "test", videos, "--model", tmp_path / "nameless", "--head-classes", "kinetics", code=2).err
    )


def test_a_recipe_says_which_videos_and_how_many_views(model, videos, tmp_path, capsys):
    protocol = {"num_frames": 4, "image_size": 32, "num_clips": 2, "num_crops": 3}
    recipe = tmp_path / "own.yaml"
    recipe.write_text(yaml.safe_dump({"data": {"val": str(videos), "preprocessing": protocol}}))
    printed = call(capsys, "test", recipe, "--model", model, *FEW).out
    assert "2 clips x 3 crops" in printed
    assert (
        "1 clip x 3 crops" in call(capsys, "test", recipe, "--model", model, "--clips", 1, "--max-videos", 2, *FEW).out
    )
    recipe.write_text(yaml.safe_dump({"data": {"val": str(videos), "preprocessing": {"num_frames": 16}}}))
    assert (
        "The recipe has num_frames 16, the checkpoint 4" in call(capsys, "test", recipe, "--model", model, code=2).err
    )
    assert "give --data LIST" in call(capsys, "test", "uniformerv2_b16_ssv2_16x224", "--model", model, code=2).err
    assert (
        "Did you mean 'uniformerv2_b16_ssv2_16x224'"
        in call(capsys, "test", "uniformerv2_b16_ssv2_16x223", "--model", model, code=2).err
    )


def test_only_some_videos(model, videos, tmp_path, capsys):
    folder = videos.parent
    marked = [f"{index}.mp4,{NAMES[index]},{split}\n" for index, split in enumerate(("train", "val", "test", "val"))]
    (folder / "marked.csv").write_text("".join(["path,label,split\n", *marked]))
    for words, number in (
        ([], 1),
        (["--split", "val"], 2),
        (["--split", "all"], 4),
        (["--split", "all", "--max-videos", 3], 3),
    ):
        printed = call(capsys, "test", folder / "marked.csv", "--model", model, "--json", *words, *FEW)
        assert json.loads(printed.out)["metrics"]["num_videos"] == number
    printed = call(capsys, "test", folder / "marked.csv", "--model", model, "--split", "vall", code=2)
    assert "is of the split 'vall'; there are 'test', 'train', 'val'" in printed.err


def test_nothing_readable_is_a_failure(model, videos, capsys):
    printed = call(capsys, "test", videos, "--model", model, "--only-classes", "skate", "--json", *FEW, code=1)
    assert json.loads(printed.out)["metrics"]["num_unreadable"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.csv"], "There is no file or folder absent.csv"),
        (["--clips", "0"], "--clips must be at least 1, got 0"),
        (["--dump", "x.txt"], "A dump is called"),
        (["--dump", "x.csv", "--view-scores"], "no room for the scores of each view"),
        (["--view-scores"], "give --dump FILE"),
        (["--only-classes", "ski"], "No video is of the classes ski"),
        (["--crops", "2"], "invalid choice"),
        (["--data", "other.csv"], "both name the videos"),
    ],
)
def test_wrong_words(model, videos, capsys, words, said):
    source = words if not words[0].startswith("-") else [str(videos), *words]
    assert said in call(capsys, "test", source[0], "--model", model, *source[1:], code=2).err


def test_a_folder_of_a_training_and_its_checkpoints(model, videos, tmp_path, capsys):
    """What Lightning wrote in a training, beside the file that says what the network is made of."""
    network = make(TINY)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"pytorch-lightning_version": "2", "state_dict": state}, run / "checkpoints" / "last.ckpt")
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert "has neither" in call(capsys, "test", videos, "--model", checkpoint, code=2).err
    content = {"model": {"network": TINY.to_dict()}, "data": {"classes": list(NAMES), "preprocessing": {}}}
    content["data"]["preprocessing"] = {"num_frames": 4, "image_size": 32}
    (run / "config.yaml").write_text(json.dumps(content))
    _, wanted = measured(call(capsys, "test", videos, "--model", model, "--json", *FEW))
    assert measured(call(capsys, "test", videos, "--model", checkpoint, "--json", *FEW))[1] == wanted
    state.pop("network.head.bias")
    torch.save({"pytorch-lightning_version": "2", "state_dict": state}, checkpoint)
    assert (
        "do not fit the configuration: missing head.bias"
        in call(capsys, "test", videos, "--model", checkpoint, code=2).err
    )
    (run / "run.json").write_text("{}")
    assert "is not finished" in call(capsys, "test", videos, "--model", run, code=2).err
    save_model(network, run / "model")
    assert "say which class is which" in call(capsys, "test", videos, "--model", run, code=2).err
    first = str(videos.parent / "0.mp4")
    top = [
        json.loads(call(capsys, "predict", first, "--model", it, "--json").out)["top"] for it in (run, run / "model")
    ]
    assert top[0] == top[1]


def test_five_percent_damaged_are_listed_and_counted_exactly(model, tmp_path, capsys):
    """Two of forty, each damaged in its own way; the others' numbers are those of a test without the two."""
    folder = tmp_path / "forty"
    folder.mkdir()
    whole = [write_video(folder / f"{index}.mp4", seed=index, num_frames=8) for index in range(4)]
    for index in range(4, 40):
        (folder / f"{index}.mp4").write_bytes(whole[index % 4].read_bytes())
    (folder / "9.mp4").write_bytes(whole[1].read_bytes()[:300])
    (folder / "23.mp4").unlink()
    rows = [f"{index}.mp4,{NAMES[index % 5]}\n" for index in range(40)]
    (folder / "all.csv").write_text("".join(["path,label\n", *rows]))
    (folder / "good.csv").write_text("".join(["path,label\n", *rows[:9], *rows[10:23], *rows[24:]]))
    dump = tmp_path / "dump.pkl"
    content, _ = measured(call(capsys, "test", folder / "all.csv", "--model", model, "--dump", dump, "--json", *FEW))
    assert content["metrics"]["num_unreadable"] == 2
    assert [item["path"] for item in content["unreadable"]] == [str(folder / name) for name in ("9.mp4", "23.mp4")]
    assert [video.index for video in read_dump(dump).videos if video.error] == [9, 23]
    assert len(read_dump(dump).videos) == 40
    _, wanted = measured(call(capsys, "test", folder / "good.csv", "--model", model, "--json", *FEW))
    found = {name: item["value"] for name, item in content["metrics"]["readable"].items()}
    assert found == pytest.approx(wanted, abs=1e-12)
    hits = wanted["top1"] * 38
    assert content["metrics"]["all_videos"]["top1"]["value"] == pytest.approx(hits / 40, abs=1e-12)


def test_the_protocol_of_activitynet(videos, tmp_path, capsys):
    """Whole videos by 10 clips x 3 crops, from a list as it is published."""
    names = class_names_of("activitynet").names
    network = make(replace(TINY, num_classes=200))
    network.info = CheckpointInfo(class_names=names)
    model = save_model(network, tmp_path / "activitynet")
    entry = {"subset": "validation", "duration": 1.0, "url": "", "resolution": "32x32"}
    database = {
        f"v_{index}": {**entry, "annotations": [{"label": names[index], "segment": [0.2, 0.6]}]} for index in range(3)
    }
    for index in range(3):
        (videos.parent / f"{index}.mp4").rename(videos.parent / f"v_v_{index}.mp4")
    (tmp_path / "activity_net.v1-3.min.json").write_text(json.dumps({"version": "1.3", "database": database}))
    words = ["--root", videos.parent, "--clips", 10, "--crops", 3, "--dump", tmp_path / "d.parquet", "--view-scores"]
    printed = call(capsys, "test", tmp_path / "activity_net.v1-3.min.json", "--model", model, *words, "--json", *FEW)
    assert "10 clips x 3 crops" in printed.err
    assert json.loads(printed.out)["metrics"]["num_views"] == 30
    found = read_dump(tmp_path / "d.parquet").videos
    assert [video.label for video in found] == [0, 1, 2]
    assert all(not video.error and video.view_scores.shape == (30, 200) for video in found)
    assert all(video.duration_seconds == pytest.approx(8 / 12) for video in found)  # of the whole, not of the segment


def test_several_classes_and_the_mean_of_logits(model, videos, tmp_path, capsys):
    rows = ["0.mp4,archery;dunk", "1.mp4,surfing", "2.mp4,violin;[skate];dunk"]
    (videos.parent / "several.csv").write_text("path,labels\n" + "\n".join(rows) + "\n")
    dumps = {}
    for average in ("softmax", "logits"):
        dumps[average] = tmp_path / f"{average}.pkl"
        words = ["--clips", 2, "--average", average, "--dump", dumps[average], "--view-scores", "--json", *FEW]
        _, values = measured(call(capsys, "test", videos.parent / "several.csv", "--model", model, *words))
        assert set(values) == {"mean_ap", "loss", "calibration_error"}
    mean, logits = (read_dump(dumps[average]) for average in ("softmax", "logits"))
    assert mean.is_multi_label
    assert [set(video.label) for video in mean.videos] == [{0, 2}, {1}, {2, 3, 4}]
    for first, second in zip(mean.videos, logits.videos, strict=True):
        np.testing.assert_allclose(first.scores, first.view_scores.mean(axis=0), atol=1e-6)
        odds = np.log(second.view_scores / (1 - second.view_scores)).mean(axis=0)
        np.testing.assert_allclose(second.scores, 1 / (1 + np.exp(-odds)), atol=1e-5)


def test_a_report_of_a_test(model, videos, tmp_path, capfd):
    """Of one process and of several without a dump, with a video that cannot be read; and again over the older one."""
    page = tmp_path / "report" / "report.html"
    printed = call(capfd, "test", videos, "--model", model, "--clips", 2, "--report", page.parent, "--json", *FEW)
    assert f"Report: {page}" in printed.err
    assert json.loads(printed.out)["report"] == str(page)
    html = page.read_text(encoding="utf-8")
    shown = "<dt>Videos</dt><dd>7</dd></div>\n<div><dt>Classes</dt><dd>5</dd></div>\n<div><dt>Views per video</dt><dd>"
    assert f"{shown}2 clips × 1 crop</dd>" in html
    assert "1 video could not be read" in html
    assert "<dt>Processor</dt>" in html
    assert "<dt>Duration</dt>" in html
    assert f"uniformerv2 predict VIDEO.mp4 --model {model}" in html
    assert 'id="failures"' in html
    assert html.count('<img class="film" src="data:image/webp') == 6  # every readable video
    assert f"uniformerv2 test {videos} --model {model} --clips 2 --report {page.parent}" in html
    (page.parent / "notes.txt").write_text("mine")
    call(capfd, "test", videos, "--model", model, "--multi-label", "--report", page.parent, *FEW)
    again = page.read_text(encoding="utf-8")
    assert "Mean average precision" in again
    assert f"{shown}1 view</dd>" in again
    assert (page.parent / "notes.txt").read_text() == "mine"
    words = ["--devices", 2, "--report", tmp_path / "two", "--json", *FEW[:2]]
    content = json.loads(call(capfd, "test", videos, "--model", model, *words).out)
    assert (content["dump"], content["report"]) == (None, str(tmp_path / "two" / "report.html"))
    assert f"{shown}1 view</dd>" in (tmp_path / "two" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", ["test", "evaluate"])
def test_a_report_never_mixes_with_something_else(verb, model, videos, tmp_path, capsys):
    folder, file = tmp_path / "folder", tmp_path / "file.html"
    (folder / "figures").mkdir(parents=True)
    for path in (file, folder / "report.html", folder / "figures" / "confusion.png"):
        path.write_text("<!doctype html> mine")
    dump = write_dump(tmp_path / "dump.pkl", make_evaluation())
    words = [verb, videos, "--model", model, *FEW] if verb == "test" else [verb, dump]
    said = call(capsys, *words, "--report", folder, code=2).err
    assert f"--report: {folder} holds something else than a report" in said
    assert f"--report: {file} is a file" in call(capsys, *words, "--report", file, code=2).err
    held = sorted(path.relative_to(tmp_path).as_posix() for path in folder.rglob("*") if path.is_file())
    assert held == ["folder/figures/confusion.png", "folder/report.html"]
    assert all(path.read_text() == "<!doctype html> mine" for path in (file, folder / "report.html"))


def test_evaluate_makes_the_report_of_a_dump(tmp_path, capsys):
    """The videos are gone; the numbers are there."""
    first = write_dump(tmp_path / "first.pkl", make_evaluation(unreadable={3}, view_scores=True))
    second = write_dump(tmp_path / "second.parquet", make_evaluation(seed=1))
    content = json.loads(
        call(capsys, "evaluate", first, "--report", tmp_path / "one", "--root", tmp_path, "--json").out
    )
    page = Path(content["report"])
    assert page == tmp_path / "one" / "report.html"
    html = page.read_text(encoding="utf-8")
    top1 = content["metrics"]["first.pkl"]["all_videos"]["top1"]
    assert f"95 % interval {100 * top1['low']:.1f}\u00a0% – {100 * top1['high']:.1f}\u00a0%" in html
    assert 'id="conditions"' in html
    assert "Without previews: none of these videos could be read" in html
    weights = ["--ensemble-weights", 1, 1]
    call(capsys, "evaluate", first, second, *weights, "--report", tmp_path / "two", "--resamples", 0)
    html = (tmp_path / "two" / "report.html").read_text(encoding="utf-8")
    assert "Ensemble of first.pkl, second.parquet" in html
    assert "95 % interval " not in html.partition('id="confusion"')[0]
    said = call(capsys, "evaluate", first, second, "--compare", "--dump", tmp_path / "c.pkl", code=2).err
    assert "leave out --ensemble-weights and --dump" in said
    assert not (tmp_path / "c.pkl").exists()


@pytest.mark.parametrize("words", [[], ["--compare"]])
def test_the_report_of_two_dumps_puts_them_side_by_side(tmp_path, capsys, words):
    first = write_dump(tmp_path / "first.pkl", make_evaluation(unreadable={3}))
    second = write_dump(tmp_path / "second.csv", make_evaluation(seed=1))
    content = json.loads(
        call(capsys, "evaluate", first, second, "--report", tmp_path / "page", "--compare", "--json").out
    )
    printed = call(capsys, "evaluate", first, second, *words, "--report", tmp_path / "page").out
    assert f"Report: {content['report']}" in printed
    html = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    found = content["comparison"]
    for name in ("gained", "lost"):
        assert html.count(f'<li class="video {name}"') == len(found[name]) > 0
    assert f"{100 * found['difference']['value']:+.1f} points" in html
    assert all(change["path"] in html for change in found["lost"])
    assert (tmp_path / "page" / "figures" / "confusion_after.png").is_file()


def test_three_processes_and_two_give_the_numbers_of_one(model, videos, tmp_path, capsys):
    """Ours are started by --devices, two others as torchrun or a cluster would."""
    words = ["test", videos, "--model", model, "--clips", 2, "--resamples", 20, "--workers", 0, "--device", "cpu"]
    three = start(*words, "--devices", 3, "--dump", tmp_path / "three.pkl", "--json")
    two = [
        start(*words, "--dump", tmp_path / "two.pkl", RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        for rank in (1, 0)
    ]
    call(capsys, *words, "--dump", tmp_path / "one.pkl")
    told, said = three.communicate(timeout=280)
    assert three.returncode == 0, said
    for process in two:
        assert process.wait(timeout=280) == 0, process.communicate()[1]
    silent, first = (process.communicate() for process in two)
    assert silent == ("", "")
    assert "1 of 7 videos could not be read" in first[0]
    assert json.loads(told)["metrics"]["num_videos"] == 7
    one = read_dump(tmp_path / "one.pkl")
    for name in ("two.pkl", "three.pkl"):
        assert_same(read_dump(tmp_path / name), one)
        assert not journal_folder(tmp_path / name).exists()


def test_a_killed_test_goes_on_where_it_was(model, videos, tmp_path, capsys):
    rows = "".join(f"{index}.mp4,{NAMES[index]}\n" for index in range(4)) * 100
    (videos.parent / "long.csv").write_text("path,label\n" + rows)
    dump = tmp_path / "dump.pkl"
    words = ["test", videos.parent / "long.csv", "--model", model, "--dump", dump, *FEW]
    process = start(*words)
    journal = journal_folder(dump) / "0.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not dump.exists()
    printed = call(capsys, *words, "--json")
    done = int(re.search(r"Resumed: (\d+) of 400 videos are done", printed.err)[1])
    assert 5 <= done < 400
    assert json.loads(printed.out)["metrics"]["num_videos"] == 400
    found = read_dump(dump)
    call(capsys, *words[:5], tmp_path / "whole.pkl", *words[6:])
    assert_same(found, read_dump(tmp_path / "whole.pkl"))


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
def test_a_process_that_fails_ends_the_others(model, videos, capfd, debug):
    words = ["test", videos, "--model", model, "--devices", 2, "--head-classes", "nowhere", *debug]
    said = call(capfd, *words, code=2).err
    assert "No label space is called 'nowhere'" in said
    assert ("Traceback" in said, "in read_classes" in said) == (bool(debug), bool(debug))


def test_evaluate_measures_dumps_again(model, videos, tmp_path, capsys):
    first, second = tmp_path / "first.pkl", tmp_path / "second.parquet"
    _, values = measured(call(capsys, "test", videos, "--model", model, "--json", "--dump", first, "--clips", 3, *FEW))
    call(capsys, "test", videos, "--model", model, "--dump", second, "--preprocessing", "mmaction2", "--crops", 3, *FEW)
    content = json.loads(call(capsys, "evaluate", first, "--json", "--resamples", 20).out)
    assert {name: item["value"] for name, item in content["metrics"]["first.pkl"]["all_videos"].items()} == values

    out = tmp_path / "both.csv"
    printed = call(capsys, "evaluate", first, second, "--ensemble-weights", 1, 2, "--dump", out, "--resamples", 0).out
    assert re.search(r"first\.pkl: 3 views .*second\.parquet: 3 views .*ensemble: 6 views", printed)
    parts = [read_dump(path) for path in (first, second)]
    wanted = (parts[0].scores.astype(float) + 2 * parts[1].scores) / 3
    np.testing.assert_allclose(read_dump(out).scores, wanted, atol=1e-6)
    assert "is there already" in call(capsys, "evaluate", first, "--dump", out, code=2).err


def test_evaluate_compares_two_dumps(model, videos, tmp_path, capsys):
    first, second = tmp_path / "first.pkl", tmp_path / "second.pkl"
    call(capsys, "test", videos, "--model", model, "--dump", first, *FEW)
    before = read_dump(first)
    right = tuple(
        replace(video, scores=np.eye(5, dtype=np.float32)[video.label] * video.is_readable) for video in before.videos
    )
    write_dump(second, replace(before, videos=right))
    printed = call(capsys, "evaluate", first, second, "--compare", "--resamples", 0)
    num_wrong = sum(int(video.scores.argmax()) != video.label for video in before.videos if video.is_readable)
    num_videos = len(before.videos)
    assert f", {num_wrong} by second.pkl alone and 0 by first.pkl alone." in printed.out
    assert "McNemar's exact test gives p = " in printed.out
    assert re.search(
        rf"The accuracy of second\.pkl minus that of first\.pkl is \+{100 * num_wrong / num_videos:.2f} points \("
        r"95 % interval [+-][\d.]+ to \+[\d.]+\)\.",
        printed.out,
    )
    assert (
        "Right in second.pkl only (path: its class; the class that first.pkl gives -> the class that second.pkl gives):"
        in printed.out
    )
    content = json.loads(call(capsys, "evaluate", first, second, "--compare", "--json").out)
    assert len(content["comparison"]["gained"]) == num_wrong
    write_dump(second, replace(before, videos=right[:5]))
    assert "lacks 2 videos" in call(capsys, "evaluate", first, second, code=2).err
    assert "takes two dumps, got 1" in call(capsys, "evaluate", first, "--compare", code=2).err
    assert "a number for each" in call(capsys, "evaluate", first, second, "--ensemble-weights", 1, code=2).err
    assert "There is no file" in call(capsys, "evaluate", tmp_path / "absent.pkl", code=2).err
