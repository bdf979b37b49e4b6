"""``uniformerv2 timeline`` and ``evaluate --truth`` as they are called."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

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
    folder = tmp_path_factory.mktemp("timeline")
    model = make(TINY)
    model.info = CheckpointInfo(class_names=NAMES)
    save_model(model, folder / "model")
    write_video(folder / "a.mp4", num_frames=40, fps=10)
    write_video(folder / "b.mp4", num_frames=20, fps=10, seed=1)
    return folder


def timeline(folder, *words):
    return main(["timeline", *map(str, words), "--model", str(folder / "model"), "--on", "0.01", "--off", "0.01"])


def test_everything_that_can_be_written(folder, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    files = {
        name: tmp_path / f"found.{suffix}"
        for name, suffix in (("csv", "csv"), ("activitynet", "json"), ("html", "html"))
    }
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    videos = [folder / "a.mp4", tmp_path / "broken.mp4", folder / "b.mp4"]
    assert timeline(folder, *videos, *words, "--out", tmp_path / "out") == 1
    out, error = capsys.readouterr()
    assert re.search(r"00:00:00\.0 +00:00:0\d\.\d +(archery|<b>dunk</b>|c|d|e) +0\.\d\d", out)
    assert "broken.mp4: not a video" in out.replace("\n", "")
    assert "13 windows of 1.00 s every 0.25 s, shared frames" in out
    assert "1 of 3 videos could not be read to the end" in error
    assert [line for line in error.splitlines() if line.startswith("Written: ")] == [
        f"Written: {path}" for path in (*files.values(), tmp_path / "out")
    ]
    with files["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert {row["video"] for row in rows} == {str(folder / "a.mp4"), str(folder / "b.mp4")}
    assert json.loads(files["activitynet"].read_text())["results"].keys() == {"a", "b"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.png",
        "a.srt",
        "a.vtt",
        "b.png",
        "b.srt",
        "b.vtt",
    ]
    assert (tmp_path / "out" / "a.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> ")
    page = files["html"].read_text()
    assert page.count("<video ") == 2
    assert page.count('src="data:video/mp4;base64,') == 2
    assert "<b>dunk" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    buttons = re.findall(r'class="seek plain" data-seconds="([\d.]+)"', page)
    assert len(buttons) == len(rows)


def test_of_many_segments_the_first_have_a_picture(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("uniformerv2.inference.timelines.page.MOST_THUMBNAILS", 0)
    assert timeline(folder, folder / "a.mp4", "--html", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "<tbody>\n<tr data-from=" in page
    assert "<img" not in page


def test_lines_of_json_are_what_evaluate_reads(folder, tmp_path, capsys):
    assert timeline(folder, folder / "a.mp4", folder / "b.mp4", "--json", "--windows") == 0
    lines = capsys.readouterr().out
    first, second = map(json.loads, lines.splitlines())
    assert (first["num_windows"], second["num_windows"]) == (13, 5)
    assert len(first["windows"]) == 13
    (tmp_path / "found.jsonl").write_text(lines)
    segments = {name: one["segments"] for name, one in (("a", first), ("b", second))}
    database = {
        name: {"annotations": [{"label": s["label"], "segment": [s["start_seconds"], s["end_seconds"]]} for s in found]}
        for name, found in segments.items()
    }
    (tmp_path / "truth.json").write_text(json.dumps({"database": database}))
    words = ["evaluate", str(tmp_path / "found.jsonl"), "--truth", str(tmp_path / "truth.json")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "mean (mAP)" in out
    assert "Right in 100.0 % of the annotated seconds" in out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["activitynet"]["average_map"] == found["thumos14"]["average_map"] == 1
    assert found["share_of_seconds"] == 1


def test_truth_may_be_a_list_of_segments(tmp_path, capsys):
    (tmp_path / "truth.csv").write_text("path,label,start_seconds,end_seconds\nfilms/x.mp4,a,0,4\nfilms/x.mp4,b,4,9\n")
    one = {"label": "a", "score": 0.5, "segment": [0, 4]}
    (tmp_path / "found.json").write_text(json.dumps({"results": {"v_x": [one], "other": [one]}}))
    assert main(["evaluate", str(tmp_path / "found.json"), "--truth", str(tmp_path / "truth.csv"), "--json"]) == 0
    out, error = capsys.readouterr()
    assert json.loads(out)["thumos14"]["per_class"]["a"]["ap"] == [1] * 5
    assert "all that was found in them is wrong: other" in error
    (tmp_path / "found.json").write_text(json.dumps({"results": {"other": [one]}}))
    assert main(["evaluate", str(tmp_path / "found.json"), "--truth", str(tmp_path / "truth.csv")]) == 2
    assert "share no video: the one has other, the other x" in capsys.readouterr().err
    (tmp_path / "truth.csv").write_text("path,label\nx.mp4,a\n")
    assert main(["evaluate", str(tmp_path / "found.json"), "--truth", str(tmp_path / "truth.csv")]) == 2
    assert "no start and end in seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.mp4", "--windows"], "give --json too"),
        (["a.mp4", "--csv", "a.txt"], "ends with .csv"),
        (["a.mp4", "--html", "a.mp4"], "ends with .html"),
        (["a.mp4", "--out", "a.mp4"], "takes a folder"),
        (["a.mp4", "--on", "0.1"], "on and off are scores"),
        (["a.mp4", "--min-seconds", "-1"], "--min-seconds must be at least 0"),
        (["a.mp4", "--stride-seconds", "9"], "must be at most --window-seconds"),
        (["a.mp4", "--fps", "0"], "fps must be above 0"),
        (["absent.mp4"], "There is no file or folder absent.mp4"),
        (["a.mp4", "sub/a.mp4", "--out", "out"], "both 'a'"),
    ],
)
def test_wrong_calls_are_told(folder, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", num_frames=2)
    assert main(["timeline", *words, "--model", str(folder / "model")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["a", "b"], ["a", "--compare"], ["a", "--dump", "x.pkl"], ["absent"]])
def test_what_fits_no_truth_is_refused(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "truth.json"):
        (tmp_path / name).write_text("{}")
    assert main(["evaluate", *words, "--truth", "truth.json"]) == 2
    assert "--truth" in (said := capsys.readouterr().err) or "no file or folder absent" in said


def test_ctrl_c_ends_quietly_with_what_was_done(folder, tmp_path):
    long = write_video(tmp_path / "long.mp4", num_frames=1500, fps=2)
    words = [sys.executable, "-m", "uniformerv2", "timeline", str(folder / "a.mp4"), str(long)]
    words += ["--model", str(folder / "model"), "--csv", str(tmp_path / "found.csv"), "--on", "0.01", "--off", "0.01"]
    words += ["--window-seconds", "1", "--stride-seconds", "0.25"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    end = time.monotonic() + 60
    while not (tmp_path / "found.csv").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.rstrip().endswith("interrupted")
    assert "Traceback" not in error
    assert "a.mp4" in (tmp_path / "found.csv").read_text()


CLICK = """<script>
const video = document.querySelector("video"), rows = Array.from(document.querySelectorAll("tbody tr"));
const found = {errors: window.errors, times: []};
for (const row of rows) {
  row.querySelector(".seek").click();
  found.times.push([Number(row.dataset.from), video.currentTime, row.classList.contains("now")]);
}
const track = document.querySelector(".track"), box = track.getBoundingClientRect();
track.dispatchEvent(new MouseEvent("click", {clientX: box.left + box.width / 2, clientY: box.top + 2, bubbles: true}));
found.middle = video.currentTime;
found.needle = !document.querySelector(".needle").hidden;
found.wide = document.documentElement.scrollWidth > innerWidth;
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(found);
document.body.append(result);
</script></body>"""


@needs_chromium
@pytest.mark.chromium
def test_in_a_browser_a_click_seeks_the_video(folder, tmp_path):
    assert timeline(folder, folder / "a.mp4", "--html", tmp_path / "page.html") == 0
    found, console = driven(tmp_path, (tmp_path / "page.html").read_text(), CLICK)
    assert (found["errors"], console) == ([], [])
    assert found["times"]
    assert all(start == pytest.approx(shown) and is_now for start, shown, is_now in found["times"])
    assert found["middle"] == pytest.approx(2.0, abs=0.05)
    assert found["needle"]
    assert not found["wide"]


def test_what_an_earlier_run_wrote_is_named(folder, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    (tmp_path / "found.csv").write_text("of before")
    assert timeline(folder, tmp_path / "broken.mp4", "--csv", tmp_path / "found.csv") == 1
    assert f"Nothing was written: {tmp_path / 'found.csv'} is of an earlier run." in capsys.readouterr().err
    assert (tmp_path / "found.csv").read_text() == "of before"


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for words in (["--out", tmp_path / "file" / "below"], ["--out", tmp_path / "file"]):
        assert timeline(folder, folder / "a.mp4", *words) == 2
        assert "--out" in capsys.readouterr().err
