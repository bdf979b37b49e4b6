"""Reports by ``test`` and ``evaluate``: interrupted, of segments, of averaged logits; and the command they name."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands.test_test_command import FEW, call
from tests.evaluation.made_evaluations import assert_same, make_evaluation
from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from uniformerv2.data.labels import class_names_of
from uniformerv2.evaluation import figures
from uniformerv2.evaluation.dumps import read_dump, write_dump
from uniformerv2.zoo.checkpoint import save_model

pytest.importorskip("matplotlib")


@pytest.fixture
def model(tmp_path):
    return save_model(make(TINY), tmp_path / "model")


@pytest.fixture
def videos(tmp_path):
    """Two segments of one video of two seconds, and another video."""
    write_video(tmp_path / "one.mp4", num_frames=24)
    write_video(tmp_path / "two.mp4", num_frames=8, seed=1)
    rows = ["path,label,start_seconds,end_seconds", "one.mp4,0,0,1", "one.mp4,3,1,2", "two.mp4,2,,"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "list.csv"


def pictures(page):
    """The previews of a page, as they stand in it."""
    return re.findall(r'<img class="film" src="(data:image/webp[^"]*)"', page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("suffix", [".pkl", ".csv"])
def test_segments_of_one_video_have_frames_of_their_own(model, videos, tmp_path, capsys, suffix):
    dump = tmp_path / f"dump{suffix}"
    call(capsys, "test", videos, "--model", model, "--dump", dump, "--report", tmp_path / "now", *FEW)
    shown = pictures(tmp_path / "now" / "report.html")
    assert len(set(shown)) == len(shown) == 3
    found = [(video.start_seconds, video.end_seconds) for video in read_dump(dump).videos]
    assert found == [(0.0, 1.0), (1.0, 2.0), (None, None)]
    call(capsys, "evaluate", dump, "--report", tmp_path / "later", "--root", tmp_path, "--resamples", 0)
    assert pictures(tmp_path / "later" / "report.html") == shown
    call(capsys, "evaluate", dump, "--report", tmp_path / "bare", "--resamples", 0)
    assert not pictures(tmp_path / "bare" / "report.html")
    assert "shows only videos below --root FOLDER" in (tmp_path / "bare" / "report.html").read_text(encoding="utf-8")


def test_a_root_is_of_a_report_and_a_folder(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump.pkl", make_evaluation())
    assert "give --report FOLDER too" in call(capsys, "evaluate", dump, "--root", tmp_path, code=2).err
    words = ["--report", tmp_path / "report", "--root", dump]
    assert "There is no folder" in call(capsys, "evaluate", dump, *words, code=2).err


def test_an_interrupted_report_is_written_the_next_time(tmp_path, capsys, monkeypatch):
    dump, folder = write_dump(tmp_path / "dump.pkl", make_evaluation()), tmp_path / "report"

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(figures, "draw_calibration", interrupt)
        call(capsys, "evaluate", dump, "--report", folder, "--resamples", 0, code=130)
    assert [path.name for path in folder.iterdir()] == ["figures"]
    assert {path.stem for path in (folder / "figures").iterdir()} == {"confusion"}
    call(capsys, "evaluate", dump, "--report", folder, "--resamples", 0)
    assert {path.stem for path in (folder / "figures").iterdir()} == {"confusion", "calibration", "duration"}
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"],
        ["figures"],
        ["figures/mine.png"],
        ["figures/sub/confusion.png"],
        ["figures/confusion.png", "notes.txt"],
    ],
)
def test_what_is_no_figure_of_a_report_is_left_alone(tmp_path, capsys, names):
    dump, mine = write_dump(tmp_path / "dump.pkl", make_evaluation()), [tmp_path / "report" / name for name in names]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    said = call(capsys, "evaluate", dump, "--report", tmp_path / "report", code=2).err
    assert "holds something else than a report" in said
    assert {path for path in (tmp_path / "report").rglob("*") if path.is_file()} == set(mine)
    assert all(path.read_text() == "mine" for path in mine)


def test_the_views_of_averaged_logits_are_no_figure(model, videos, tmp_path, capsys):
    """The page's accuracy with all views would be another one than the headline."""
    for average in ("softmax", "logits"):
        words = ["--clips", 3, "--average", average, "--view-scores", "--dump", tmp_path / f"{average}.pkl"]
        call(capsys, "test", videos, "--model", model, *words, "--report", tmp_path / average, *FEW)
        assert (tmp_path / average / "figures" / "views.svg").exists() == (average == "softmax")
    call(capsys, "evaluate", tmp_path / "logits.pkl", "--report", tmp_path / "later", "--resamples", 0)
    assert not (tmp_path / "later" / "figures" / "views.svg").exists()


def test_the_command_of_a_dump_gives_its_scores_again(videos, tmp_path, capsys):
    """With every option that the scores depend on."""
    network = make(replace(TINY, num_classes=710))
    weights = save_model(network, tmp_path / "many") / "model.safetensors"
    shapes = ["--num-heads", network.config.num_heads, "--global-num-heads", network.config.global_num_heads]
    shapes += ["--num-frames", 8, "--fusion-stages", *network.config.fusion_stages]
    head = ["--head-map", "kinetics710_to_kinetics400", "--num-classes", 400, "--head-classes", "kinetics400"]
    how = ["--precision", "bf16", "--decoder", "pyav", "--average", "logits", "--multi-label", "--clips", 2]
    names = class_names_of("kinetics400_authors_order").names
    which = ["--classes", "kinetics400_authors_order", "--only-classes", names[0], names[5], "--max-videos", 1]
    rows = ["path,label,split", "a.mp4,7,test", "b.mp4,0,val", "c.mp4,5,test", "d.mp4,0,test"]
    videos.write_text("\n".join(rows) + "\n")
    for name in "abcd":
        (videos.parent / f"{name}.mp4").write_bytes((videos.parent / "one.mp4").read_bytes())
    words = ["--split", "test", *which, *shapes, *head, *how, "--preprocessing", "mmaction2", "--root", videos.parent]
    call(capsys, "test", videos, "--model", weights, *words, "--dump", tmp_path / "first.pkl", *FEW)
    first = read_dump(tmp_path / "first.pkl")
    again = shlex.split(first.info["command"])
    assert [Path(video.path).name for video in first.videos] == ["c.mp4"]
    assert {word for word in map(str, words) if word.startswith("--")} <= set(again)
    call(capsys, *again[1:], "--dump", tmp_path / "again.pkl", *FEW)
    assert_same(read_dump(tmp_path / "again.pkl"), first)


def test_weights_are_those_of_an_ensemble(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump.pkl", make_evaluation())
    said = call(capsys, "evaluate", dump, "--ensemble-weights", 7, code=2)
    assert "--ensemble-weights are those of an ensemble: give two dumps or more" in said.err
    assert not said.out
