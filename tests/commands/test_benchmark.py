"""``uniformerv2 benchmark`` as a user runs it: every kind on something small, JSON, figures, bad input."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tests.media import write_video
from uniformerv2.cli import main
from uniformerv2.lab.benchmark import pipeline, reading
from uniformerv2.lab.benchmark.measures import BenchmarkReport
from uniformerv2.zoo.checkpoint import create_model, save_model

ARM = ["--backbone", "test_vit", "--image-size", "32", "--num-frames", "2"]


@pytest.fixture(autouse=True)
def _same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for label in ("one", "two"):
        (folder / label).mkdir()
        for number in range(2):
            write_video(folder / label / f"{number}.mp4", seed=number)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    fields = {"image_size": 32, "dim": 48, "depth": 2, "num_heads": 3, "global_num_heads": 3, "num_frames": 4}
    model = create_model("uniformerv2_b16_k400_8x224", **fields, fusion_stages=(0, 1), global_dropout=(0.0,))
    return save_model(model, tmp_path_factory.mktemp("model"))


def measured(tmp_path, *words):
    """The report that a run writes."""
    path = tmp_path / "report.json"
    assert main(["benchmark", *map(str, words), "--out", str(path)]) == 0
    return BenchmarkReport.read(path)


def test_a_network_forward_and_in_training_beside_another(tmp_path, capsys):
    words = ["--pass", "forward", "step", "--precision", "fp32", "--repeats", "1", "--threads", "1"]
    against = ["--against", "copy:deepcopy", "--plot", str(tmp_path / "figure.png")]
    report = measured(tmp_path, "model", *ARM, *words, *against)
    assert [(row["model"], row["pass"]) for row in report.rows] == [
        ("test_vit, armed", "forward"),
        ("deepcopy", "forward"),
        ("test_vit, armed", "step"),
        ("deepcopy", "step"),
    ]
    assert report.rows[2]["gmacs"] > 2 * report.rows[0]["gmacs"]
    assert report.settings["against"] == "copy:deepcopy"
    assert report.machine["threads"] == 1
    assert (tmp_path / "figure.png").exists()
    out = capsys.readouterr().out
    assert "of the GEMM ceiling" in out
    assert "load before" in out


def test_a_model_of_a_folder_is_measured_and_its_path_stays_private(tmp_path, tiny):
    report = measured(tmp_path, "model", "--model", tiny, "--precision", "bf16", "--repeats", "1")
    assert report.rows[0]["num_frames"] == 4
    assert report.rows[0]["image_size"] == 32
    assert report.settings["model"] == tiny.name
    assert str(tiny.parent) not in (tmp_path / "report.json").read_text()


def test_growth(tmp_path):
    words = ["--sweep-frames", "2", "4", "--sizes", "32", "64", "--stages", "1", "6", "--precision", "fp32"]
    words += ["--repeats", "1", "--plot", tmp_path / "figure.svg"]
    report = measured(tmp_path, "growth", "--backbone", "test_vit", *words)
    assert [(row["sweep"], row["value"]) for row in report.rows] == [
        ("frames", 2),
        ("frames", 4),
        ("size", 32),
        ("size", 64),
        ("stages", 1),
        ("stages", 6),
    ]
    assert "linear law" in (tmp_path / "figure.svg").read_text()


def test_decoders_on_the_same_frames_and_absent_ones_are_named(tmp_path, clips, monkeypatch):
    monkeypatch.setitem(reading.READERS, "missing", ("no_such_package", reading.READERS["decord"][1]))
    report = measured(tmp_path, "decode", clips, "--prepared", clips, "--max-videos", "2", "--repeats", "1")
    assert "no_such_package is not installed" in report.absent["missing"]
    installed = len(reading.READERS) - len(report.absent)
    assert len(report.rows) == 2 * 2 * installed
    assert {row["num_videos"] for row in report.rows} == {2}
    assert all(row["ratio_to_first"] == 1 for row in report.rows if row["reader"] == "open_video, PyAV")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks={"torchcodec": pytest.mark.ffmpeg, "decord": pytest.mark.peers}.get(package, ()))
        for name, (package, _) in list(reading.READERS.items())[1:]
    ],
)
def test_every_reader_gives_the_same_frames(clips, name):
    def pictures(name):
        frames = reading.READERS[name][1](str(clips / "one" / "0.mp4"), [3, 11])
        frames = frames.numpy() if hasattr(frames, "numpy") else frames
        return (frames.transpose(0, 2, 3, 1) if frames.shape[1] == 3 else frames).astype(int)

    if reason := reading.why_absent(reading.READERS[name][0]):
        pytest.skip(reason)
    found, wanted = pictures(name), pictures("open_video, PyAV")
    assert found.shape == wanted.shape
    assert abs(found - wanted).mean() < 2


def test_the_loader_and_a_worker_s_memory(tmp_path, clips, capsys):
    words = ["--max-videos", "4", "--workers", "1", "--repeats", "1", "--memory-epochs", "2"]
    report = measured(tmp_path, "data", clips, *words)
    row = report.rows[0]
    assert (row["videos"], row["decoder"], row["num_workers"], row["num_clips"]) == ("original", "pyav", 1, 4)
    assert row["of_decode"] == pytest.approx(row["loader_clips_per_second"] / row["decode_clips_per_second"])
    assert len(row["memory_worker_bytes"]) == 2
    assert "second half" in capsys.readouterr().err


def test_the_pipeline_from_files_to_labels(tmp_path, clips, tiny):
    words = ["--model", tiny, "--max-videos", "3", "--repeats", "1", "--workers", "1", "--precision", "fp32"]
    report = measured(tmp_path, "pipeline", clips, *words)
    assert [row["way"] for row in report.rows] == ["predict", "test"]
    for row in report.rows:
        slower = min(row["decode_clips_per_second"], row["model_clips_per_second"])
        assert row["of_slower_part"] == pytest.approx(row["clips_per_second"] / slower)
        assert (row["num_videos"], row["precision"], row["model"]) == (3, "fp32", tiny.name)


def test_windows_that_share_frames(tmp_path, clips, tiny, capsys):
    video = next(path for path in clips.rglob("*.mp4"))
    words = ["--model", tiny, "--repeats", "1", "--precision", "fp32", "--strides", "1", "2", "--video", video]
    report = measured(tmp_path, "windows", *words)
    assert [(row["stride"], row["law"]) for row in report.rows] == [(1, 4), (2, 2)]
    for row in report.rows:
        assert row["of_law"] == pytest.approx(row["ratio"] / row["law"])
        assert row["ratio_decoded"] > 0
    assert "of T / stride" in capsys.readouterr().out


def test_multiply_adds_by_part(tmp_path, tiny, capsys):
    report = measured(tmp_path, "flops", "--model", tiny, "--num-frames", "2")
    rows = {row["part"]: row["gmacs"] for row in report.rows}
    assert rows["counted"] == pytest.approx(rows["summarize"])
    assert "C_MHRA" in capsys.readouterr().out


@pytest.mark.export
def test_engines_in_turns(tiny, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    report = measured(tmp_path, "engines", "--model", tiny, "--repeats", "1", "--company", "0", "1", "decoders")
    assert {row["company"] for row in report.rows} == {0, 1, "decoders"}
    alone = [row for row in report.rows if row["company"] == 0]
    found = {(row["engine"], row["precision"]): row for row in alone}
    assert {("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")} <= found.keys()
    assert ("onnxruntime", "int8 calibrated") in found
    assert all((row["share_of_ceiling"] is None) == ("int8" in row["precision"]) for row in alone)
    assert 0 < found["torch", "fp32"]["share_of_ceiling"] < 1
    assert sum(row["is_auto"] for row in alone) == 1
    assert all(row["seconds"] > 0 and row["processor_seconds"] > 0 for row in alone)


def test_startup_in_fresh_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_IMPORTS", {name: "pass" for name in pipeline._IMPORTS})
    report = measured(tmp_path, "startup", "--repeats", "1")
    assert "uniformerv2 --help" in {row["what"] for row in report.rows}
    assert report.absent == {"first prediction": "give --model and --video"}


def test_a_start_that_fails_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "_IMPORTS", {"import": "import no_such_module"})
    assert main(["benchmark", "startup", "--repeats", "1", "--out", str(tmp_path / "report.json")]) == 1
    assert "no_such_module" in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model", "--model", "uniformerv2_b16_k400"], "Did you mean"),
        (["model", "--backbone", "vit_of_nobody"], "vit_of_nobody"),
        (["model", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["model", "--checkpointing"], "--pass is forward: give --pass step alone"),
        (["model", "--checkpointing", "--pass", "forward", "step"], "--pass is forward step: give --pass step alone"),
        (["model", "--precision", "fp8"], "invalid choice: 'fp8'"),
        (["model", "--device", "cuda:77"], "--device cuda:77"),
        (["model", "--against", "copy"], "it must be MODULE:CLASS"),
        (["model", "--against", "copy:nothing"], "--against copy:nothing"),
        (["growth", "--sizes", "0"], "--sizes must be at least 1, got 0"),
        (["growth", "--model", "."], "makes its networks anew"),
        (["growth", "--backbone", "test_vit", "--stages", "7"], "--stages is 7"),
        (["decode", "nowhere"], "There is no file or folder nowhere"),
        (["data", ".", "--memory-epochs", "1"], "must be 0, or at least 2"),
        (["flops", "--plot", "figure.gif"], "a file that ends with .png or"),
        ([], "required: WHAT"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(tmp_path, capsys, words, said):
    report = tmp_path / "report.json"
    report.write_text("what was there")
    try:
        code = main(["benchmark", *words, *(["--out", str(report)] if words else [])])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert said in capsys.readouterr().err
    assert report.read_text() == "what was there"


def test_a_folder_without_videos_is_refused(tmp_path, capsys, clips):
    empty = tmp_path / "empty"
    shutil.copytree(clips, empty, ignore=shutil.ignore_patterns("*.mp4"))
    assert main(["benchmark", "decode", str(empty)]) == 1
    assert "video" in capsys.readouterr().err


def test_json_holds_plain_numbers_only(tmp_path, tiny):
    measured(tmp_path, "flops", "--model", tiny)
    text = (tmp_path / "report.json").read_text()
    assert not {"NaN", "Infinity"} & set(text.split())
    assert set(json.loads(text)) == {"benchmark", "rows", "settings", "absent", "date", "machine", "versions"}
