"""The published scores of two real videos, by predict and by test, through exported files."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.test_pipeline import TOLERANCE, cases, checkpoints  # noqa: F401 fixtures
from uniformerv2.export.exporting import export_model
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.testing import prepare_test
from uniformerv2.zoo.checkpoint import load_model

pytestmark = [pytest.mark.export, pytest.mark.timeout(900)]
ENGINES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.openvino)]


@pytest.fixture(scope="module")
def files(checkpoints, tmp_path_factory):  # noqa: F811
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    folder = tmp_path_factory.mktemp("exported")
    return {
        (protocol, kind): export_model(
            load_model(path, num_heads=4, global_num_heads=4), folder / f"{protocol}_{kind}.onnx", verify_on=False
        ).path
        for (protocol, kind), path in checkpoints.items()
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("protocol", TOLERANCE)
def test_scores_are_the_published_ones(protocol, engine, cases, files, shared, tmp_path):  # noqa: F811
    pytest.importorskip(engine, reason=f"{engine} comes with an extra")
    assert len(cases) == 8
    for case in cases:
        views = {"num_clips": case["num_clips"], "num_crops": case["num_crops"]}
        file, video = files[protocol, case["model"]], shared(f"goldens/pipeline/{case['video']}")
        prediction = Predictor(file, engine=engine, precision="fp32", **views)(video)
        wanted = np.array(case[f"{protocol}_scores"])
        assert [list(clip) for clip in prediction.frame_indices] == case["frame_indices"]
        assert np.abs(prediction.scores - wanted).max() < TOLERANCE[protocol]
        if case["num_clips"] > 1 and case["model"] == "scene":
            (tmp_path / "list.csv").write_text(f"path,label\n{video},0\n")
            settings = {"engine": engine, "precision": "fp32", "num_workers": 1}
            run = prepare_test(file, tmp_path / "list.csv", **views, **settings)
            (scored,) = run.videos()
            assert np.abs(scored.scores - wanted).max() < TOLERANCE[protocol]
