"""Windows of long videos through exported networks: each is computed whole, and says what the checkpoint says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.export.networks import named
from tests.media import write_video
from tests.model.test_uniformerv2 import MOTION, TINY, make
from uniformerv2.cli import main
from uniformerv2.export.exporting import export_model
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.windows import WindowScorer
from uniformerv2.zoo.checkpoint import load_model, save_model

MODELS = {"scene": lambda: named(make(TINY), resize="bicubic_antialias"), "motion": lambda: named(make(MOTION))}
FORMATS = ["pt2", pytest.param("onnx", marks=pytest.mark.export)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    write_video(folder / "a.mp4", num_frames=40, fps=10)
    for name, maker in MODELS.items():
        save_model(maker(), folder / name)
    return folder


def exported(folder, name, format):
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    path = folder / f"{name}.{format}"
    return path if path.exists() else export_model(folder / name, path, format=format, verify_on=False).path


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_windows_are_computed_whole_and_score_as_the_checkpoint(name, format, folder):
    lengths = {"window_seconds": 1.0, "stride_seconds": 0.5}
    checkpoint = Predictor(load_model(folder / name), device="cpu", precision="fp32")
    predictor = Predictor(
        exported(folder, name, format), precision="fp32", engine="auto" if format == "pt2" else "onnxruntime"
    )
    scorer = WindowScorer(predictor, **lengths)
    assert scorer.way == "whole windows"
    found, wanted = (
        list(scorer.stream(folder / "a.mp4")),
        list(WindowScorer(checkpoint, **lengths).stream(folder / "a.mp4")),
    )
    assert [window.start_seconds for window in found] == [window.start_seconds for window in wanted]
    assert len(found) == 7
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.frame_indices == theirs.frame_indices
        assert np.abs(ours.scores - theirs.scores).max() < 1e-4
    assert (
        np.std([window.scores for window in found], axis=0).max() > 1e-3
    )  # windows that said the same would prove nothing
    with pytest.raises(ValueError, match=r"not with local steps, .* or an exported network"):
        WindowScorer(predictor, way="shared frames")


@pytest.mark.export
def test_timeline_takes_an_exported_file_and_an_engine(folder, capsys):
    file, video = exported(folder, "scene", "onnx"), folder / "a.mp4"
    words = ["--json", "--windows", "--on", "0.01", "--off", "0.01", "--precision", "fp32"]
    answers = []
    for model, engine in ((folder / "scene", "torch"), (file, "onnxruntime")):
        assert main(["timeline", str(video), "--model", str(model), "--engine", engine, *words]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    wanted, found = answers
    assert len(found["windows"]) == len(wanted["windows"]) > 5
    for ours, theirs in zip(found["windows"], wanted["windows"], strict=True):
        assert np.abs(np.array(ours["scores"]) - theirs["scores"]).max() < 1e-4
    assert [item["label"] for item in found["segments"]] == [item["label"] for item in wanted["segments"]]
    assert main(["timeline", str(video), "--model", str(file), "--engine", "torch"]) == 2
    assert "engine 'torch' does not compute" in capsys.readouterr().err
