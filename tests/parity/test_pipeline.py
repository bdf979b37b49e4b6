"""A real video through a published-format checkpoint gives the published scores."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tests.parity import goldens
from uniformerv2.cli import main
from uniformerv2.inference.predictor import Predictor
from uniformerv2.media.frame_sources import torchcodec_decoder
from uniformerv2.zoo.checkpoint import load_model

TOLERANCE = {"official": 0.001, "mmaction2": 0.005}


@pytest.fixture(scope="module")
def cases(shared):
    return goldens.read(shared("goldens/pipeline/multi_view_scores.json"))


@pytest.fixture(scope="module")
def checkpoints(shared, tmp_path_factory):
    """The golden weights as files: of MMAction2, and of the official trainer."""
    folder = tmp_path_factory.mktemp("checkpoints")
    found = {}
    for kind in ("scene", "temporal"):
        state = goldens.tensors(shared(f"goldens/model/mmaction_{kind}.safetensors"), "state.")
        found["mmaction2", kind] = folder / f"{kind}.pth"
        torch.save({"state_dict": state, "meta": {"epoch": 1}}, found["mmaction2", kind])
        names = {
            "backbone.transformer.norm": "backbone.transformer.proj.0",
            "cls_head.fc_cls": "backbone.transformer.proj.2",
        }
        for theirs, official in names.items():
            state = {key.replace(theirs, official): value for key, value in state.items()}
        found["official", kind] = folder / f"{kind}.pyth"
        torch.save({"model_state": state, "epoch": 1}, found["official", kind])
    return found


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("torchcodec", marks=pytest.mark.ffmpeg)])
@pytest.mark.parametrize("protocol", TOLERANCE)
def test_scores_are_the_published_ones(protocol, decoder, cases, checkpoints, shared):
    if decoder == "torchcodec":
        try:
            torchcodec_decoder()
        except ModuleNotFoundError as error:
            pytest.skip(str(error))
    assert len(cases) == 8
    for case in cases:
        predictor = Predictor(
            load_model(checkpoints[protocol, case["model"]], num_heads=4, global_num_heads=4),
            num_clips=case["num_clips"],
            num_crops=case["num_crops"],
            precision="fp32",
            decoder=decoder,
        )
        prediction = predictor(shared(f"goldens/pipeline/{case['video']}"))
        assert [list(clip) for clip in prediction.frame_indices] == case["frame_indices"]
        error = max(abs(prediction.scores - case[f"{protocol}_scores"]))
        assert error < TOLERANCE[protocol], f"{case['video']} {case['model']}: {error:.2e}"


@pytest.mark.parametrize("protocol", TOLERANCE)
def test_convert_then_predict_on_the_command_line(protocol, cases, checkpoints, shared, tmp_path, capsys):
    """In processes of their own for one of the two protocols."""

    def run(*words):
        if protocol == "mmaction2":
            assert main(list(map(str, words))) == 0
            return capsys.readouterr().out
        done = subprocess.run(
            [sys.executable, "-m", "uniformerv2", *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("convert", checkpoints[protocol, "scene"], tmp_path / "model", "--num-heads", 4)
    video = shared("goldens/pipeline/R6llTwEh07w.mp4")
    printed = json.loads(run("predict", video, "--model", tmp_path / "model", "--clips", 4, "--crops", 3, "--json"))
    golden = next(
        case for case in cases if (case["video"], case["model"], case["num_clips"]) == (video.name, "scene", 4)
    )
    assert printed["scores"] == pytest.approx(golden[f"{protocol}_scores"], abs=TOLERANCE[protocol])
    assert printed["num_views"] == 12
