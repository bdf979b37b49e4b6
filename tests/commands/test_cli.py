"""The command line as a user meets it: real processes, exit codes, and what is printed."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.evaluation.made_evaluations import make_evaluation
from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from uniformerv2 import __version__, cli
from uniformerv2.commands.predict import _show
from uniformerv2.core.messages import UsageError
from uniformerv2.data.annotations import read_records
from uniformerv2.data.named_videos import named_files as expand
from uniformerv2.evaluation.dumps import write_dump
from uniformerv2.inference.prediction import Prediction, Timings
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.checkpoint import load_model, save_model


def run(*words, code=0):
    """A real process."""
    done = subprocess.run(
        [sys.executable, "-m", "uniformerv2", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def call(capsys, *words, code=0):
    """In this process, for speed."""
    try:
        returned = cli.main([str(word) for word in words])
    except SystemExit as error:
        returned = error.code
    printed = capsys.readouterr()
    assert returned == code, printed.err
    return printed


@pytest.fixture
def model(tmp_path):
    network = make(TINY)
    network.info = CheckpointInfo(class_names=("archery", "surfing", "dunk", "violin", "[skate]"), licence="CC0-1.0")
    return save_model(network, tmp_path / "model")


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "a video.mp4")


def test_help_is_quick_and_imports_no_torch():
    heavy = "any(name in sys.modules for name in ('torch', 'rich'))"
    code = f"import sys, uniformerv2.cli; uniformerv2.cli.main(['--help']); sys.exit({heavy})"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert all(verb in done.stdout for verb in cli.VERBS)
    assert min(seconds) < 0.5


def test_version_and_empty_command(capsys):
    assert call(capsys, "--version").out == f"uniformerv2 {__version__}\n"
    assert "usage: uniformerv2 VERB" in call(capsys).out


def test_wrong_words_are_answered_with_the_nearest(capsys):
    assert "no verb is called 'predic'. Did you mean 'predict'?" in call(capsys, "predic", code=2).err
    assert "There are: predict, timeline, " in call(capsys, "zzz", code=2).err
    printed = call(capsys, "predict", "x.mp4", "--model", "m", "--crop", "3", code=2)
    assert "For --crop, did you mean --crops?" in printed.err
    assert "For --modl, did you mean --model?" in call(capsys, "predict", "x.mp4", "--modl=y", code=2).err
    assert "invalid choice: 2" in call(capsys, "predict", "x.mp4", "--model", "m", "--crops", "2", code=2).err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(capsys, verb):
    usage = call(capsys, verb, "--help").out.partition("\n")[0]
    assert usage.startswith("usage: uniformerv2 ")
    assert f" {verb} " in usage


def test_predict_prints_a_table(model, video):
    done = run("predict", video, "--model", model)
    printed = done.stdout
    assert printed.startswith(f"{video}\n")  # ``| head -1`` gets it, no line about the run
    assert f"{model} loaded in " in done.stderr
    assert printed.count("█") > 3
    assert "[skate]" in printed
    assert "1 view: decode" in printed
    assert "\x1b" not in printed  # no colours where there is no terminal


def test_predict_json_is_one_object_a_line_and_nothing_else(model, video, capsys):
    lines = call(capsys, "predict", video, video, "--model", model, "--json", "--clips", 2).out.splitlines()
    assert len(lines) == 2
    read = json.loads(lines[0])
    assert read["num_views"] == 2
    assert {item["name"] for item in read["top"]} == {"archery", "surfing", "dunk", "violin", "[skate]"}
    assert all(item["score"] == round(item["score"], 6) == read["scores"][item["index"]] for item in read["top"])


@pytest.mark.parametrize("as_table", [True, False])
@pytest.mark.parametrize("buffered", [True, False])
def test_predict_ends_quietly_when_nobody_reads_on(model, video, buffered, as_table):
    command = [sys.executable, "-m", "uniformerv2", "predict", *[str(video)] * 3, "--model", str(model)]
    command += [] if as_table else ["--json"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    process.stdout.close()
    lines = process.stderr.read().splitlines()
    assert all(line.startswith("loading") or " loaded in " in line for line in lines)
    assert as_table or not lines
    process.stderr.close()
    assert process.wait() == 141


def test_predict_says_what_a_reader_should_know(model, tmp_path, capsys):
    """On the terminal, in JSON and in CSV."""
    still = write_video(tmp_path / "still.mp4", num_frames=1)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    words = ("predict", still, tmp_path / "a.jpg", "--model", model, "--threshold", 0.99, "--csv", tmp_path / "t.csv")
    picture, unsure = "It has a single frame", "No class is sure: the highest score, "
    first, second = map(json.loads, call(capsys, *words, "--json", code=1).out.splitlines())
    assert first["is_sure"] is False
    assert [note.partition(":")[0] for note in first["notes"]] == ["No class is sure", picture]
    assert first["top"]
    assert "this is an image (JPEG)" in second["error"]
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["is_sure"] for row in rows} == {"false", ""}
    assert rows[0]["notes"].startswith(unsure)
    assert picture in rows[0]["notes"]
    (tmp_path / "t.csv").unlink()
    printed = call(capsys, *words, code=1).out
    assert picture in printed
    assert unsure in printed
    (line,) = call(capsys, "predict", still, "--model", model, "--json").out.splitlines()
    assert json.loads(line)["is_sure"] is None
    assert "from 0 to 1, got 2.0" in call(capsys, "predict", still, "--model", model, "--threshold", 2, code=2).err


def test_predict_draws_bars_in_any_encoding():
    scores = np.array([0.01, 0.99], np.float32)
    result = Prediction("a", scores, scores[None], ("run", "jump"), ((0, 1, 2),), Timings(0, 0, 0))
    for encoding, bar in (("ascii", "#" * 30), ("utf-8", "\u2588" * 30)):
        file = io.TextIOWrapper(io.BytesIO(), encoding)
        options = argparse.Namespace(topk=2, threshold=None)
        _show(Console(file=file, width=100), Path("a.mp4"), result, options)
        file.flush()
        assert bar in file.buffer.getvalue().decode(encoding)


def test_predict_goes_on_after_a_broken_video(model, video, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    table = tmp_path / "out.csv"
    printed = call(
        capsys, "predict", tmp_path / "broken.mp4", video, "--model", model, "--csv", table, "--topk", 2, code=1
    )
    assert "1 of 2 videos could not be read" in printed.err
    assert printed.out.count("broken.mp4") == 1
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["rank"] for row in rows] == ["", "1", "2"]
    assert rows[0]["error"].startswith("not a video: it is none of the containers")  # the row has the path already
    assert rows[1]["video"] == str(video)
    lines = call(capsys, "predict", tmp_path / "broken.mp4", video, "--model", model, "--json", code=1).out.splitlines()
    assert json.loads(lines[0])["kind"] == "not a video"
    assert "scores" in json.loads(lines[1])


def test_rows_of_finished_videos_are_written_at_once(model, video, tmp_path, monkeypatch):
    """What SIGTERM leaves of a run, and what a pipe sees: looked at while the second video is still to come."""
    table, lines, seen = tmp_path / "out.csv", tmp_path / "out.jsonl", []
    stream = Predictor.stream

    def watched(self, videos):
        for result in stream(self, videos):
            seen.append((table.read_text(), lines.read_text()))
            yield result

    monkeypatch.setattr(Predictor, "stream", watched)
    with lines.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        words = ["predict", str(video), str(video), "--model", str(model), "--json", "--csv", str(table)]
        assert cli.main(words) == 0
    (_, nothing), (rows, line) = seen
    assert nothing == ""
    assert [row["rank"] for row in csv.DictReader(rows.splitlines())] == ["1", "2", "3", "4", "5"]
    assert json.loads(line)["video"] == str(video)


@pytest.mark.parametrize("verb", ["predict", "test"])
def test_verbs_run_the_merged_network(model, video, tmp_path, monkeypatch, capsys, verb):
    made, init = [], Predictor.__init__
    monkeypatch.setattr(
        Predictor, "__init__", lambda self, model, *a, **k: made.append(model) or init(self, model, *a, **k)
    )
    listed = tmp_path / "list.csv"
    listed.write_text(f"path,label\n{video},surfing\n")
    words = [video, "--json"] if verb == "predict" else [listed, "--workers", 0, "--resamples", 0, "--json"]
    printed = call(capsys, verb, *words, "--model", model)
    assert [network.is_merged for network in made] == [True]
    if verb == "predict":
        found = {item["name"]: item["score"] for item in json.loads(printed.out)["top"]}
        whole = Predictor(load_model(model), device="cpu", precision="fp32")(video)
        for item in whole.top(5):
            assert found[item.name] == pytest.approx(item.score, abs=1e-4)


def test_the_folder_of_a_table_is_made_or_refused_before_the_model_is_read(capsys, model, video, tmp_path):
    table = tmp_path / "new" / "folder" / "table.csv"
    call(capsys, "predict", video, "--model", model, "--csv", table)
    assert len(table.read_text().splitlines()) > 1
    said = call(capsys, "predict", video, "--model", model, "--csv", table / "table.csv", code=2)
    assert f"--csv cannot write {table / 'table.csv'}, as {table} cannot be written" in said.err
    assert "loaded" not in said.out


@pytest.fixture
def little_room():
    """Files may have no more bytes than the header of a table: the same words from the system as for a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (160, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("predict {video} --model {model} --csv out/new.csv", "out/new.csv"),
        ("test list.csv --model {model} --dump new.pkl --workers 0 --resamples 0", ".new.pkl.journal/0.jsonl"),
        ("evaluate old.pkl --dump new.pkl --resamples 0", "new.pkl"),
        ("data check list.csv --manifest new.csv --workers 1", ".new.csv.journal"),
        ("data prepare list.csv out --workers 1", "out/.prepared.csv.journal"),
    ],
)
def test_a_full_disk_is_one_sentence_that_names_the_file(
    model, video, tmp_path, monkeypatch, capsys, little_room, words, told
):
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text(f"path,label\n{video},surfing\n")
    write_dump(Path("old.pkl"), make_evaluation(num_videos=3))
    little_room()
    called = [word.format(video=video, model=model) for word in words.split()]
    said = call(capsys, *called, code=1).err.splitlines()[-1]
    verb = words.split()[0]
    full = "could not be written (File too large): make room on the disk, and try again."
    assert said.replace(f"{tmp_path}/", "") == f"uniformerv2 {verb}: {told} {full}"


def test_without_room_for_a_model_nothing_is_converted(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "The model needs about" in call(capsys, "convert", model, tmp_path / "out", code=1).err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["predict", "test"])
def test_a_decoder_without_its_libraries_is_one_sentence(model, video, tmp_path, monkeypatch, capsys, verb):
    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace(ffmpeg_major_version=None))
    listed = tmp_path / "list.csv"
    listed.write_text(f"path,label\n{video},surfing\n")
    words = [video if verb == "predict" else listed, "--model", model, "--decoder", "torchcodec"]
    said = call(capsys, verb, *words, code=2).err.splitlines()[-1]
    assert (
        said == f"uniformerv2 {verb}: torchcodec finds no FFmpeg libraries: install FFmpeg, or take the decoder 'pyav'."
    )


def test_predict_expands_folders_and_patterns(model, tmp_path, capsys):
    folder = tmp_path / "videos" / "deep"
    folder.mkdir(parents=True)
    for name in ("b.mp4", "a.mp4"):
        write_video(folder / name)
    (folder / "notes.txt").write_text("no video")
    for word in (tmp_path / "videos", folder / "*.mp4"):
        lines = call(capsys, "predict", word, "--model", model, "--json").out.splitlines()
        assert [json.loads(line)["video"] for line in lines] == [str(folder / "a.mp4"), str(folder / "b.mp4")]
    (tmp_path / "empty").mkdir()
    assert "no video in the folder" in call(capsys, "predict", tmp_path / "empty", "--model", model, code=2).err
    assert "No file matches" in call(capsys, "predict", folder / "*.avi", "--model", model, code=2).err


def test_predict_reads_from_a_folder_what_training_reads(tmp_path):
    """Nothing hidden, links to folders once, a cover beside the folders; other files are counted."""
    names = ("run/._a.mp4", "run/a.mp4", ".Trashes/old.mp4", "jump/b.M2V", "cover.jpg", "run/frames/1.jpg", "run/x.lrv")
    for name in (*names, "notes.txt", "disk/more/c.mp4"):
        place = tmp_path / ("videos" if "disk" not in name else "") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    top = tmp_path / "videos"
    (top / "jump" / "linked").symlink_to(tmp_path / "disk" / "more")
    (top / "jump" / "back").symlink_to(top)
    found, told = expand([str(top)])
    assert [path.relative_to(top).as_posix() for path in found] == ["jump/b.M2V", "jump/linked/c.mp4", "run/a.mp4"]
    assert sorted(map(str, found)) == sorted(record.path for record in read_records(top))
    rest = "3 files with the suffix .jpg (1), .lrv (1), .txt (1) and 1 folder of images, which a list may name"
    assert told == [f"Passed over in {top}: {rest}."]
    assert expand([f"{top}/[jr]*"])[0] == found
    assert expand([str(top / "run" / "frames")]) == ([top / "run" / "frames"], [])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"There is no video in the folder .*: it has 1 file with the suffix \.txt"):
        expand([str(tmp_path / "empty")])


def test_predict_takes_a_frame_folder_as_file_managers_leave_it(model, tmp_path, capsys):
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(4):
        Image.new("RGB", (40, 40), (index * 60, 0, 0)).save(frames / f"img_{index + 1:05}.jpg")
    (frames / ".DS_Store").write_bytes(b"\0")
    (frames / "Thumbs.db").write_bytes(b"\0")
    (line,) = call(capsys, "predict", frames, "--model", model, "--json").out.splitlines()
    assert json.loads(line)["video"] == str(frames)


def test_predict_writes_names_that_are_not_utf8(model, video, tmp_path, capsys):
    name = os.fsdecode(b"a\xe9.mp4")
    shutil.copy(video, tmp_path / name)
    call(capsys, "predict", tmp_path / name, video, "--model", model, "--csv", tmp_path / "table.csv", "--topk", 1)
    first, second = (tmp_path / "table.csv").read_bytes().splitlines()[1:]
    assert b"a\xe9.mp4" in first
    assert str(video).encode() in second


def test_predict_prints_one_class_at_least(model, video, capsys):
    printed = call(capsys, "predict", video, "--model", model, "--topk", 0, code=2)
    assert "--topk must be at least 1, got 0" in printed.err


def test_predict_without_such_a_model(video, tmp_path, capsys):
    printed = call(capsys, "predict", video, "--model", "uniformer_b", code=2)
    assert "Did you mean 'uniformerv2_b16_k400_8x224'" in printed.err
    assert "no file or folder" in call(capsys, "predict", video, "--model", tmp_path / "absent.pth", code=2).err


def test_models_lists_and_describes(capsys, model):
    printed = call(capsys, "models", "*b16*k400*").out
    assert "uniformerv2_b16_k400_8x224" in printed
    assert "84.4" in printed
    assert "not measured here" in printed
    every = [json.loads(line) for line in call(capsys, "models", "--json").out.splitlines()]
    assert len(every) == 72
    assert {"hub", "OpenMMLab", "dead link"} == {each["weights"] for each in every} - {"here"}
    one = json.loads(call(capsys, "models", "uniformerv2_l14_k400_k710_8x224", "--json").out)
    assert round(one["num_parameters"] / 1e6) == 354
    assert round(one["published_macs"] / 1e12, 2) == 0.67
    printed = call(capsys, "models", "uniformerv2_b16_k400_8x224").out
    assert "114.5 M" in printed
    assert "published form 0.148 T" in printed
    described = call(capsys, "models", model).out
    assert "CC0-1.0" in described
    assert "{" not in described
    assert "  num frames" in described
    assert max(map(len, described.splitlines())) < 140
    assert "No model of the zoo matches" in call(capsys, "models", "*vgg*", code=2).err
    assert "Did you mean" in call(capsys, "models", "uniformerv2_b16_k400", code=2).err


def test_convert_writes_a_folder_and_never_over_another(model, tmp_path, capsys):
    out = tmp_path / "out"
    printed = json.loads(call(capsys, "convert", model, out, "--json").out)
    assert printed["num_classes"] == 5
    assert load_model(out).config == TINY
    assert "There is a model in" in call(capsys, "convert", model, out, code=2).err
    call(capsys, "convert", model, out, "--force", "--head-map", "kinetics710_to_kinetics400", code=2)
    assert load_model(out).num_classes == 5
    assert (
        "kinetics400 has 400 classes, the head 5"
        in call(capsys, "convert", model, tmp_path / "b", "--head-classes", "kinetics400", code=2).err
    )
    assert "no file or folder" in call(capsys, "convert", tmp_path / "no.pth", tmp_path / "c", code=2).err
    (tmp_path / "bad.pth").write_bytes(b"bad")
    assert "damaged" in call(capsys, "convert", tmp_path / "bad.pth", tmp_path / "d", code=2).err
