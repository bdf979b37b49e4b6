"""``uniformerv2 train``: which videos and segments it takes, and that a training goes on with the same ones."""

from __future__ import annotations

import json

import pytest

from tests.media import write_video
from tests.training.fake_clips import tiny_network
from uniformerv2 import Predictor, load_model, save_model
from uniformerv2.cli import main

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]


@pytest.fixture
def words(tmp_path):
    """Options of every run here."""
    checkpoint = save_model(tiny_network(), tmp_path / "network")
    fixed = "--workers 0 --batch-size 4 --clips 1 --crops 1 --epochs 1 --json --no-probe"
    return ["--model", str(checkpoint), "--out", str(tmp_path / "run"), *fixed.split()]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Ten of a second."""
    top = tmp_path_factory.mktemp("videos")
    for index in range(10):
        write_video(top / f"v{index}.mp4", num_frames=12, seed=index)
    return top


def planned(capsys):
    """The plan, and all that was said."""
    captured = capsys.readouterr()
    return json.loads(captured.out)["plan"], captured.err


def test_a_segment_after_the_end_costs_only_itself(videos, words, tmp_path, capsys):
    rows = [f"v{v}.mp4,{'ab'[part % 2]},{part / 4},{part / 4 + 0.25}" for v in range(10) for part in range(4)]
    data = tmp_path / "clips.csv"
    data.write_text("\n".join(["path,label,start_seconds,end_seconds", *rows, "v0.mp4,a,8,9"]) + "\n")
    assert main(["train", str(data), "--root", str(videos), *words, "--dry-run"]) == 0
    plan, told = planned(capsys)
    assert (plan["num_train"], plan["num_val"]) == (32, 8)
    assert "1 of 10 videos are too short for their segment, so 1 of 41 segments are left out: " in told
    assert "v0.mp4: it ends at 1.00 s, and a segment starts at 8.00 s" in told
    assert "cannot be read" not in told


def test_videos_of_one_frame_are_trained_on(words, tmp_path, capsys):
    for name, frames in (("run", 12), ("swim", 1)):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for index in range(5):
            write_video(tmp_path / "videos" / name / f"{index}.mp4", num_frames=frames, seed=index)
    (tmp_path / "videos" / "run" / "broken.mp4").write_bytes(b"no video" * 100)
    assert main(["train", str(tmp_path / "videos"), *words]) == 0
    captured = capsys.readouterr()
    assert "8 train, 2 val" in captured.err
    assert "1 of 11 videos cannot be read and are left out: " in captured.err
    assert "short" not in captured.err
    assert 0 <= json.loads(captured.out)["metrics"]["test_top1"] <= 1


def test_resume_refuses_other_videos(videos, words, tmp_path, capsys, monkeypatch):
    """As many of the same classes; and a run of before the list was noted goes on as it did."""
    data = tmp_path / "clips.csv"
    monkeypatch.chdir(videos)

    def write(swapped=(), test="v9.mp4"):
        rows = [f"v{v}.mp4,{'ab'[(v + (v in swapped)) % 2]},{'train' if v < 6 else 'val'}" for v in range(8)]
        data.write_text("\n".join(["path,label,split", *rows, f"{test},a,test"]) + "\n")

    words = ["train", str(data), "--root", ".", *words]
    write()
    assert main(words) == 0
    record = tmp_path / "run" / "run.json"
    before = record.read_text()
    assert len(json.loads(before)["plan"]["videos_digest"]) == 64
    capsys.readouterr()
    for change in ({"swapped": (0, 1)}, {"test": "v8.mp4"}):
        write(**change)
        assert main([*words, "--resume"]) == 2
        assert "--resume goes on with the same videos: their number is as it was, but" in capsys.readouterr().err
        assert record.read_text() == before
    write()
    assert main([*words, "--resume"]) == 0
    content = json.loads(before)
    del content["plan"]["videos_digest"]
    record.write_text(json.dumps(content))
    write(swapped=(0, 1))
    assert main([*words, "--resume"]) == 0
    capsys.readouterr()
    data.write_text("path,label,split\nv0.mp4,a,train\nv1.mp4,b,train\nv6.mp4,a,val\n")
    assert main([*words, "--resume"]) == 2
    assert "there were 6 to train and 2 to validate, now there are 2 and 1" in capsys.readouterr().err


def test_a_seed_that_numpy_cannot_take(videos, words, tmp_path, capsys):
    data = tmp_path / "clips.csv"
    data.write_text("path,label\n" + "".join(f"v{v}.mp4,{'ab'[v % 2]}\n" for v in range(10)))
    words = ["train", str(data), "--root", str(videos), *words]
    for seed in ("5000000000", "-1"):
        assert main([*words, "--seed", seed]) == 2
        assert f"--seed must be from 0 to 4294967295, got {seed}." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--seed", "4294967295"]) == 0


def test_folders_called_by_years(words, tmp_path, capsys):
    for name in ("2019", "2020"):
        (tmp_path / "years" / name).mkdir(parents=True)
        for index in range(5):
            write_video(tmp_path / "years" / name / f"{index}.mp4", num_frames=4, seed=index)
    assert main(["train", str(tmp_path / "years"), *words, "--dry-run"]) == 0
    plan, told = planned(capsys)
    assert plan["class_names"] == ["2019", "2020"]
    assert "2: 2019, 2020" in told


def test_several_labels_travel_with_the_model(videos, words, tmp_path):
    """Also where a single class occurs among the validation videos."""
    rows = [*(f"v{v}.mp4,{'run;fast' if v % 2 else 'swim;'},train\n" for v in range(8)), "v8.mp4,swim;,val\n"]
    data = tmp_path / "several.csv"
    data.write_text("path,label,split\n" + "".join(rows))
    assert main(["train", str(data), "--root", str(videos), *words]) == 0
    model = tmp_path / "run" / "model"
    assert load_model(model).info.is_multi_label
    predictor = Predictor(model, num_clips=1, num_crops=1)
    assert predictor.is_multi_label
    assert predictor(videos / "v8.mp4").scores.sum() != pytest.approx(1, abs=1e-3)
