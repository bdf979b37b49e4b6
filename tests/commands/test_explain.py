"""``uniformerv2 explain`` as it is called."""

from __future__ import annotations

import json
import re

import pytest

from tests.evaluation.test_report import driven, needs_chromium
from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from uniformerv2.cli import main
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.checkpoint import save_model

NAMES = ("archery", "<b>dunk</b>", "c", "d", "e")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    model = make(TINY)
    model.info = CheckpointInfo(class_names=NAMES)
    save_model(model, folder / "model")
    write_video(folder / "a.mp4", num_frames=40, size=(48, 80), fps=10)
    return folder


def explain(folder, *words):
    return main(["explain", *map(str, words), "--model", str(folder / "model")])


def test_a_video_is_explained(folder, tmp_path, capsys):
    assert explain(folder, folder / "a.mp4", "--out", tmp_path / "why", "--target", "<b>dunk</b>") == 0
    out, error = capsys.readouterr()
    assert "a.mp4: <b>dunk</b> 0." in out.replace("\n", "")
    assert len(re.findall(r"\d\.\d\d s  frame +\d+ +\d+\.\d%  most in row \d, column \d", out)) == 4
    assert "of the features come from the mean class token" in out
    assert error.endswith(f"Written: {tmp_path / 'why'}\n")
    page = (tmp_path / "why" / "explanation.html").read_text()
    assert "<b>dunk" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert len(list((tmp_path / "why" / "frames").iterdir())) == 4


def test_a_segment_as_json_with_a_view_of_several(folder, tmp_path, capsys):
    words = ["--start-seconds", 1, "--end-seconds", 2.5, "--clips", 2, "--crops", 3, "--view", 4]
    assert explain(folder, folder / "a.mp4", "--out", tmp_path / "why", "--json", "--method", "attention", *words) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["method"] == "attention"
    assert (content["view"]["clip"], content["view"]["crop"]) == (1, 1)
    assert 10 <= min(content["view"]["frame_indices"]) <= max(content["view"]["frame_indices"]) < 25
    assert "map" not in content
    assert "map" in json.loads((tmp_path / "why" / "explanation.json").read_text())


def test_a_video_that_cannot_be_read_is_told(folder, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    assert explain(folder, tmp_path / "broken.mp4", "--out", tmp_path / "why") == 1
    assert "broken.mp4: not a video" in capsys.readouterr().out.replace("\n", "")
    assert explain(folder, tmp_path / "broken.mp4", "--out", tmp_path / "why", "--json") == 1
    assert json.loads(capsys.readouterr().out)["kind"] == "not a video"
    assert explain(folder, folder / "a.mp4", "--out", tmp_path / "why", "--start-seconds", 99) == 1
    assert "its segment starts at 99.0 s" in capsys.readouterr().out.replace("\n", " ")
    assert not (tmp_path / "why").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.mp4"], "There is no file or folder absent.mp4"),
        (["a.mp4", "--target", "archry"], "no class 'archry'. Did you mean 'archery'?"),
        (["a.mp4", "--target", "7"], "no class '7'"),
        (["a.mp4", "--view", "1"], "views 0 to 0, got 1"),
        (["a.mp4", "--view", "-1"], "--view must be at least 0, got -1"),
        (["a.mp4", "--crops", "3"], "choose one of them with --view"),
        (
            ["a.mp4", "--start-seconds", "2", "--end-seconds", "1"],
            "--end-seconds must be above the start at 2 s, got 1",
        ),
        (["a.mp4", "--start-seconds", "-2"], "--start-seconds must be at least 0"),
        (["a.mp4", "--out", "a.mp4"], "takes a folder"),
        (["a.mp4", "--out", "."], "holds something else than an explanation"),
    ],
)
def test_wrong_calls_are_told(folder, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", num_frames=8)
    words = words if "--out" in words else [*words, "--out", "why"]
    assert main(["explain", *words, "--model", str(folder / "model")]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_ctrl_c_while_files_are_written_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("uniformerv2.inference.explanations.files.write_overlay_video", interrupted)
    assert explain(folder, folder / "a.mp4", "--out", tmp_path / "why") == 130
    error = capsys.readouterr().err
    assert error.rstrip().endswith("interrupted")
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


DRIVE = """<script>
const found = {errors: window.errors, words: [], same: []};
const place = document.querySelector("#place"), map = document.querySelector(".map");
for (const step of document.querySelectorAll(".steps li")) {
  step.querySelector("button").click();
  found.words.push(document.querySelector("#readout").textContent === step.querySelector(".words").textContent);
  found.same.push(map.src === step.querySelector("img").src && map.naturalWidth > 0);
}
place.value = 1; place.dispatchEvent(new Event("input"));
found.second = map.src === document.querySelectorAll(".steps img")[1].src;
const cover = document.querySelector("#cover");
cover.value = 30; cover.dispatchEvent(new Event("input"));
found.opacity = map.style.opacity;
found.wide = document.documentElement.scrollWidth > innerWidth;
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(found);
document.body.append(result);
</script></body>"""


@needs_chromium
@pytest.mark.chromium
def test_in_a_browser_a_click_shows_the_frame(folder, tmp_path):
    assert explain(folder, folder / "a.mp4", "--out", tmp_path / "why") == 0
    found, console = driven(tmp_path, (tmp_path / "why" / "explanation.html").read_text(), DRIVE)
    assert (found["errors"], console) == ([], [])
    assert found["words"] == [True] * 4
    assert found["second"]
    assert found["opacity"] == "0.3"
    assert not found["wide"]
