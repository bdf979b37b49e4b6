"""The portable folder: the published scores without PyTorch, one line for each video, and what strangers send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv

import numpy as np
import pytest

from tests.export.networks import named
from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from tests.parity.test_pipeline import TOLERANCE, cases, checkpoints  # noqa: F401 fixtures
from uniformerv2.export.exporting import export_model
from uniformerv2.inference.predictor import Predictor
from uniformerv2.zoo.checkpoint import load_model

pytestmark = pytest.mark.export
RESIZES = ("bilinear_float", "bilinear_uint8", "bicubic_antialias")


@pytest.fixture(scope="module", autouse=True)
def packages():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One for each way to resize."""
    top, found = tmp_path_factory.mktemp("portable"), {}
    for resize in RESIZES:
        protocol = {"long_side": "nearest", "crop_order": "first_last_middle", "crop_offset": "floor"}
        model = named(make(TINY), resize=resize, num_clips=2, **(protocol if resize == "bilinear_uint8" else {}))
        found[resize] = export_model(model, top / resize, format="portable", verify_on=False).path, model
    return found


def run(folder, *words, python=sys.executable):
    """Exit code and lines."""
    command = [str(python), "-I", str(folder / "predict.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("resize", RESIZES)
def test_scores_are_the_predictors(resize, folders, tmp_path):
    folder, model = folders[resize]
    videos = [
        write_video(tmp_path / f"{size}.mp4", size=size, seed=seed) for seed, size in enumerate([(48, 64), (90, 50)])
    ]
    code, lines = run(folder, *videos, "--topk", 2)
    assert code == 0
    predictor = Predictor(model, device="cpu", precision="fp32")
    for video, line in zip(videos, lines, strict=True):
        wanted = predictor(video)
        assert np.abs(wanted.scores - line["scores"]).max() < 1e-4
        assert line["num_views"] == len(wanted.view_scores) == 6
        assert [item["name"] for item in line["top"]] == [item.name for item in wanted.top(2)]
        assert line.keys() == wanted.to_dict().keys()


def test_the_folder_is_whole_and_a_predictor_takes_it_too(folders, tmp_path):
    folder, model = folders["bicubic_antialias"]
    names = ["README.md", "model.json", "model.onnx", "predict.py", "requirements.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    pins = (folder / "requirements.txt").read_text().split()
    assert [pin.partition("==")[0] for pin in pins] == ["numpy", "av", "onnxruntime"]
    readme = (folder / "README.md").read_text("utf-8")
    assert "It knows 5 classes: a, b, c, d, e." in readme
    assert "{{" not in readme
    code = (folder / "predict.py").read_text("utf-8")
    assert "torch" not in code.replace("PyTorch", "")
    assert "import uniformerv2" not in code
    video = write_video(tmp_path / "v.mp4")
    wanted = Predictor(model, device="cpu", precision="fp32")(video).scores
    assert np.abs(Predictor(folder, engine="onnxruntime")(video).scores - wanted).max() < 1e-4


def test_a_broken_a_hostile_and_a_missing_video_give_a_line_each(folders, tmp_path):
    good = write_video(tmp_path / "good.mp4")
    broken, cut, playlist = tmp_path / "broken.mp4", tmp_path / "cut.mp4", tmp_path / "playlist.mp4"
    broken.write_bytes(b"\x00" * 1000)
    cut.write_bytes(good.read_bytes()[:600])
    playlist.write_text(f"ffconcat version 1.0\nfile {good}\n")
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    bad = [broken, cut, playlist, tmp_path / "missing.mp4", pipe, tmp_path]
    code, lines = run(folders["bilinear_uint8"][0], *bad, good)
    assert code == 1
    assert [line["video"] for line in lines] == [str(path) for path in [*bad, good]]
    assert ["error" in line for line in lines] == [True] * len(bad) + [False]


@pytest.mark.parametrize("protocol", TOLERANCE)
def test_the_published_scores(protocol, cases, checkpoints, shared, tmp_path):  # noqa: F811
    for kind in ("scene", "temporal"):
        model = load_model(checkpoints[protocol, kind], num_heads=4, global_num_heads=4)
        folder = export_model(model, tmp_path / kind, format="portable", verify_on=False).path
        for case in (case for case in cases if case["model"] == kind):
            video = shared(f"goldens/pipeline/{case['video']}")
            views = {"num_clips": case["num_clips"], "num_crops": case["num_crops"]}
            code, (line,) = run(folder, video, "--clips", views["num_clips"], "--crops", views["num_crops"])
            assert code == 0
            assert np.abs(np.array(line["scores"]) - case[f"{protocol}_scores"]).max() < TOLERANCE[protocol]
            ours = Predictor(model, device="cpu", precision="fp32", **views)(video).scores
            assert np.abs(ours - line["scores"]).max() < 1e-4


@pytest.mark.slow
def test_in_an_environment_of_three_packages(folders, tmp_path):
    folder, model = folders["bicubic_antialias"]
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "-r", str(folder / "requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs a package registry: {done.stderr.strip().splitlines()[-1:]}")
    listed = subprocess.run([str(python), "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "torch" not in listed
    video = write_video(tmp_path / "v.mp4")
    code, (line,) = run(folder, video, python=python)
    assert code == 0
    wanted = Predictor(model, device="cpu", precision="fp32")(video).scores
    assert np.abs(wanted - line["scores"]).max() < 1e-4
