"""export_model and its verb: what travels, what is refused before anything is written, and nothing half made."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.networks import NAMES, named
from tests.media import write_video
from tests.model.test_uniformerv2 import MOTION, TINY, make
from uniformerv2.cli import main
from uniformerv2.core.bundled import bundled_clips
from uniformerv2.core.messages import UsageError
from uniformerv2.export import exporting, verification
from uniformerv2.export.exporting import export_model
from uniformerv2.export.graph import ExportableNetwork
from uniformerv2.export.verification import VerificationError
from uniformerv2.inference.predictor import Predictor
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import load_model, save_model
from uniformerv2.zoo.exported import find_exported

needs_export = pytest.mark.export


@pytest.fixture
def packages():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(named(make(MOTION), resize="bilinear_uint8"), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, checkpoint):
    """An ONNX file, and what was said of it."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    return export_model(checkpoint, tmp_path_factory.mktemp("exported") / "tiny.onnx")


@needs_export
def test_everything_that_travels_with_a_checkpoint_travels_here(exported, checkpoint):
    network = find_exported(exported.path)
    source = load_model(checkpoint).info
    assert network.info.class_names == NAMES
    assert network.info.preprocessing == source.preprocessing
    assert (network.info.licence, network.info.source) == ("MIT", "a test")
    assert network.info.versions.keys() >= {"uniformerv2", "torch", "onnx"}
    beside = json.loads(exported.path.with_name("tiny.onnx.json").read_text("utf-8"))
    assert beside == network.to_dict() == exported.network.to_dict()
    assert beside["input"] == {"name": "video", "dtype": "uint8", "shape": ["views", 4, 3, 32, 32]}
    assert beside["outputs"]["scores"] == ["views", 5]


@needs_export
def test_it_was_proved_on_the_bundled_clips(exported):
    proof = exported.verification
    assert proof.num_videos == proof.num_same_top1 == len(bundled_clips()) == 3
    assert proof.largest_difference < 1e-5
    assert proof.engine == "onnxruntime"
    assert exported.num_bytes == exported.path.stat().st_size


@needs_export
def test_the_file_tells_nothing_of_this_machine(exported):
    content = exported.path.read_bytes()
    assert str(Path(__file__).resolve().parents[2]).encode() not in content
    assert b"site-packages" not in content
    assert b"stack_trace" not in content


@needs_export
def test_the_file_gives_logits_and_scores_of_any_number_of_views(exported, checkpoint):
    onnxruntime = pytest.importorskip("onnxruntime")
    views = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(exported.path)
    wanted = Predictor(checkpoint, device="cpu", precision="fp32").logits(views)
    for count in (1, 2, 3):
        logits, scores = session.run(["logits", "scores"], {"video": views[:count].numpy()})
        assert np.abs(logits - wanted[:count].numpy()).max() < 1e-4
        assert np.abs(scores - wanted[:count].softmax(-1).numpy()).max() < 1e-5


ABSENT = ("torchvision", "timm", "torch._dynamo", "sympy", "lightning", "onnx", "pandas", "scipy")
PREDICT = f"""
import sys
from uniformerv2.cli import main
assert main(["predict", sys.argv[1], "--model", sys.argv[2]]) == 0
print(*[name for name in {ABSENT} if name in sys.modules])
"""


@needs_export
def test_a_first_prediction_imports_no_more_than_it_needs(exported, video):
    """Half of the time of the first prediction went into torchvision, which imports PyTorch's compiler."""
    command = [sys.executable, "-c", PREDICT, str(video), str(exported.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == ""


@needs_export
def test_half_of_the_bytes(exported, checkpoint, tmp_path, video):
    half = export_model(checkpoint, tmp_path / "half.onnx", precision="fp16", verify_on=[video])
    assert half.num_bytes < 0.7 * exported.num_bytes  # the graph of a tiny network is a good part of its file
    assert 0 < half.verification.largest_difference < half.verification.tolerance


@needs_export
def test_a_network_given_stays_as_it_was(packages, tmp_path):
    model = named(make(TINY))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_model(model, tmp_path / "a.onnx", verify_on=False)
    assert not model.is_merged
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@needs_export
def test_other_scores_are_an_error_and_leave_nothing(packages, checkpoint, tmp_path, monkeypatch, video, capsys):
    forward = ExportableNetwork.forward

    def wrong(self, video):
        logits, scores = forward(self, video.flip(1))  # the frames in the wrong order
        return logits, scores

    monkeypatch.setattr(ExportableNetwork, "forward", wrong)
    out = tmp_path / "new" / "wrong.onnx"
    with pytest.raises(VerificationError, match=r"gives other scores than the checkpoint: .* apart, 0.0001 is allowed"):
        export_model(checkpoint, out, verify_on=[video])
    assert list(out.parent.iterdir()) == []
    assert main(["export", str(checkpoint), str(out), "--verify", str(video)]) == 1
    assert "It was not kept." in capsys.readouterr().err


def test_scores_that_are_no_numbers_do_not_pass(checkpoint, video, monkeypatch):
    network = load_model(checkpoint).merge_linear()

    class Broken:
        name, device, precision = "broken", torch.device("cpu"), "fp32"

        def __call__(self, views):
            return torch.full((len(views), 5), float("nan"))

    made = Predictor(network)
    made.engine = Broken()
    monkeypatch.setattr(verification, "Predictor", lambda path, **_: made if path == "made" else Predictor(path))
    with pytest.raises((VerificationError, UsageError)):
        verification.verify(network, "made", [video], precision="fp32", engine="torch")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": "model.pt"}, r"The format onnx writes a file that ends with \.onnx, got .*model\.pt"),
        ({"format": "tflite"}, "format is 'onnx'.*, got 'tflite'"),
        ({"precision": "fp8"}, "precision is 'fp32' or .*, got 'fp8'"),
        ({"model": UniFormerV2(TINY).eval(), "headless": True}, "no head"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(changes, message, packages_pretended, tmp_path):
    model = changes.get("model", make(TINY))
    if changes.get("headless"):
        model.reset_classifier(0)
    arguments = {"out": "model.onnx", **changes}
    out = tmp_path / "new" / arguments.pop("out")
    arguments.pop("headless", None), arguments.pop("model", None)
    with pytest.raises(UsageError, match=message):
        export_model(model, out, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def packages_pretended(monkeypatch):
    monkeypatch.setattr(exporting, "check_installed", lambda *_, **__: None)


def test_a_file_that_is_there_is_kept_unless_asked(packages_pretended, tmp_path):
    for name in ("model.onnx", "model.onnx.json"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(UsageError, match=f"{name} exists already: choose another name, or add --force"):
            export_model(make(TINY), tmp_path / "model.onnx")
        assert (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()


def test_weights_that_an_onnx_file_cannot_hold_are_refused(packages_pretended, tmp_path, monkeypatch):
    monkeypatch.setattr("uniformerv2.export.onnx_file.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"an ONNX file, .* holds less than 2 GiB: take precision='fp16'"):
        export_model(make(TINY), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_first(packages_pretended, tmp_path, monkeypatch):
    monkeypatch.setattr("uniformerv2.core.files.free_bytes", lambda path: 1000)
    with pytest.raises(OSError, match=r"The exported network needs about .* free: make room"):
        export_model(make(TINY), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_one_sentence(tmp_path, monkeypatch, checkpoint, capsys):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else find(name, *rest))
    assert main(["export", str(checkpoint), str(tmp_path / "model.onnx")]) == 2
    assert "onnx is needed here: pip install 'uniformerv2[export]'" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="modes of folders are POSIX's")
def test_a_folder_that_cannot_be_written_is_one_sentence(packages_pretended, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UsageError, match=r"cannot be written: choose another place"):
        export_model(make(TINY), tmp_path / "model.onnx")


def test_wrong_calls_end_at_once(checkpoint, tmp_path, capsys):
    there = tmp_path / "model.onnx"
    there.touch()
    for words, message in (
        (("absent", "m.onnx"), "absent"),
        ((checkpoint, there), "exists already"),
        ((checkpoint, "m.onnx", "--verify", tmp_path / "no.mp4"), "There is no file or folder"),
        ((checkpoint, "m.onnx", "--verify", "a.mp4", "--no-verify"), "not allowed with"),
    ):
        try:
            code = main(["export", *map(str, words)])
        except SystemExit as error:
            code = error.code
        assert code == 2
        assert message in capsys.readouterr().err


@needs_export
def test_the_verb_says_what_it_proved(packages, checkpoint, tmp_path, capsys, video):
    out = tmp_path / "model.onnx"
    assert main(["export", str(checkpoint), str(out), "--verify", str(video)]) == 0
    said = capsys.readouterr().out
    assert "input   video uint8 [views, 4, 3, 32, 32], 0 to 255" in said
    assert "proof   1 videos: scores differ by" in said
    assert main(["export", str(checkpoint), str(out), "--no-verify", "--force", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["verification"] is None
    assert content["bytes"] == out.stat().st_size
    assert stat.S_IMODE(out.stat().st_mode) & 0o444 == 0o444
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    for number, name in enumerate(NAMES):
        (folder / name).mkdir()
        write_video(folder / name / "v.mp4", seed=number)
    return folder


@needs_export
def test_eight_bits_with_the_scales_of_each_view(packages, checkpoint, exported, tmp_path):
    report = export_model(checkpoint, tmp_path / "int8.onnx", precision="int8")
    assert 1e-6 < report.verification.largest_difference < report.verification.tolerance
    assert not report.network.is_calibrated
    assert b"MatMulInteger" in report.path.read_bytes()


@needs_export
def test_eight_bits_calibrated_with_the_accuracy_of_both(packages, checkpoint, tmp_path, labelled, capsys):
    out = tmp_path / "int8.onnx"
    words = ["export", str(checkpoint), str(out), "--precision", "int8", "--calibrate", str(labelled)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "top-1   " in said
    assert "% of 5 videos, the checkpoint " in said
    assert find_exported(out).is_calibrated
    assert b"QLinear" in out.read_bytes() or b"QuantizeLinear" in out.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.onnx", "int8.onnx.json"]


@needs_export
def test_what_cannot_be_calibrated_on_is_refused(packages, checkpoint, tmp_path, labelled):
    with pytest.raises(UsageError, match=r"Videos to calibrate on are for precision 'int8', got 'fp32'"):
        export_model(checkpoint, tmp_path / "m.onnx", calibrate=labelled)
    broken = tmp_path / "broken"
    (broken / "a").mkdir(parents=True)
    (broken / "a" / "v.mp4").write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"None of 1 videos can be read: there is nothing to calibrate on"):
        export_model(checkpoint, tmp_path / "m.onnx", precision="int8", calibrate=broken)
    assert list(tmp_path.iterdir()) == [broken]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint):
    """OpenVINO's."""
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason=f"{package} comes with the extra openvino")
    return export_model(checkpoint, tmp_path_factory.mktemp("exported") / "tiny", format="openvino")


@pytest.mark.openvino
def test_openvinos_folder(folder, exported):
    assert sorted(path.name for path in folder.path.iterdir()) == ["model.bin", "model.json", "model.xml"]
    assert folder.verification.engine == "openvino"
    assert folder.verification.largest_difference < 1e-5
    network = find_exported(folder.path)
    assert (network.format, network.path.name) == ("openvino", "model.xml")
    assert json.loads((folder.path / "model.json").read_text("utf-8")) == network.to_dict()
    assert {**network.to_dict(), "versions": 0} == {**exported.network.to_dict(), "versions": 0}


@pytest.mark.openvino
def test_openvinos_folder_is_replaced_whole(folder, checkpoint, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"out exists already"):
        export_model(checkpoint, out, format="openvino", verify_on=False)
    export_model(checkpoint, out, format="openvino", verify_on=False, replaces=True)
    assert sorted(path.name for path in out.iterdir()) == ["model.bin", "model.json", "model.xml"]
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(UsageError, match=r"writes a folder, whose name has no suffix, got .*model\.onnx"):
        export_model(checkpoint, tmp_path / "model.onnx", format="openvino")
    with pytest.raises(
        UsageError,
        match=r"holds fp32 or int8, got precision 'fp16'\. .* moved by 0\.19, and 0\.01 is allowed: format 'onnx'",
    ):
        export_model(checkpoint, tmp_path / "new", format="openvino", precision="fp16")
    with pytest.raises(UsageError, match=r"add --calibrate DATA"):
        export_model(checkpoint, tmp_path / "new", format="openvino", precision="int8")


@pytest.mark.openvino
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('shape="?,4,3,32,32"', 'shape="?,4,3,64,32"', "the file that it is uint8"),
        ('element_type="u8"', 'element_type="f32"', "the file that it is float32"),
        ("<dim>5</dim>", "<dim>6</dim>", "the file that it is float32"),
        ("<uniformerv2 ", "<other ", "was not written by uniformerv2 export"),
        ("</net>", "", "damaged or no file of OpenVINO"),
        ("<net ", '<!DOCTYPE net [<!ENTITY a "aaaa">]><net ', "declares a document type"),
    ],
)
def test_a_folder_of_openvino_that_lies(folder, tmp_path, old, new, message):
    shutil.copytree(folder.path, tmp_path / "copy")
    path = tmp_path / "copy" / "model.xml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(ValueError, match=message):
        Predictor(tmp_path / "copy")


@pytest.mark.openvino
def test_a_folder_without_weights(folder, tmp_path):
    shutil.copytree(folder.path, tmp_path / "copy")
    (tmp_path / "copy" / "model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights: model\.bin is absent"):
        Predictor(tmp_path / "copy")
    (tmp_path / "copy" / "model.bin").write_bytes(b"too few")
    with pytest.raises(ValueError, match=r"OpenVINO cannot open it"):
        Predictor(tmp_path / "copy")
