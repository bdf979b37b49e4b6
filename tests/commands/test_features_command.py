"""``uniformerv2 features`` and ``uniformerv2 search`` as they are called."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.test_report import driven, needs_chromium
from tests.media import write_video
from tests.model.test_uniformerv2 import TINY, make
from uniformerv2.cli import main
from uniformerv2.core.limits import set_limits
from uniformerv2.inference.features.index import FeatureIndex
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.checkpoint import save_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    model = make(TINY)
    model.info = CheckpointInfo(class_names=("a", "b", "c", "d", "e"))
    save_model(model, folder / "model")
    for name, seed in (("cat/<i>cat.mp4", 0), ("cat/cat2.mp4", 0), ("dog/dog.mp4", 1)):
        (folder / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / "clips" / name, num_frames=20 + len(name), fps=10, seed=seed)
    (folder / "clips" / "dog" / "broken.mp4").write_bytes(b"nothing")
    assert features(folder, folder / "clips", "--whole", "--out", folder / "index") == 1
    return folder


def features(folder, *words):
    return main(["features", *map(str, words), "--model", str(folder / "model")])


def search(folder, *words):
    index = folder / "index" / "features.parquet"
    return main(["search", *map(str, words), "--index", str(index), "--model", str(folder / "model")])


def test_dense_features_with_their_lines(folder, tmp_path, capsys):
    out = tmp_path / "out"
    videos = [folder / "clips" / "dog" / name for name in ("dog.mp4", "broken.mp4")]
    assert features(folder, *videos, "--out", out) == 1
    said, error = capsys.readouterr()
    assert "dog.mp4: 9 features of 32 numbers, one every 0.25 s (shared frames)" in said
    assert "feat_stride: 7," in said
    assert "offset_frames=14" in said
    assert "1 of 2 videos could not be read to the end:\n  " in error
    assert "broken.mp4: not a video" in error
    assert f"Written: {out}" in error
    assert sorted(path.name for path in out.iterdir()) == ["actionformer.yaml", "dog.json", "dog.npy", "opentad.py"]
    content = json.loads((out / "dog.json").read_text())
    assert np.load(out / "dog.npy").shape == (9, 32) == (content["num_features"], content["dim"])
    assert content["start_seconds"] == [0.25 * k for k in range(9)]
    assert features(folder, *videos, "--out", out, "--json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("kind", line.get("file")) for line in lines] == [str(out / "dog.npy"), "not a video"]


def test_whole_videos_of_a_folder_per_class(folder, tmp_path, capsys):
    assert features(folder, folder / "clips", "--whole", "--out", tmp_path, "--json") == 1
    said, error = capsys.readouterr()
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line.get("label") for line in lines] == ["cat", "cat", None, "dog"]
    assert [line.get("kind") for line in lines] == [None, None, "not a video", None]
    assert "3 features of 32 numbers, each of length 1." in error
    assert FeatureIndex.read(tmp_path / "features.parquet").labels == ("cat", "cat", "dog")
    assert features(folder, folder / "clips", "--whole", "--out", tmp_path) == 1
    assert "is there already" in capsys.readouterr().err


def test_segments_of_a_list(folder, tmp_path, capsys):
    rows = ["path,label,split,start,end", "clips/dog/dog.mp4,run,train,0,1", "clips/dog/dog.mp4,sit,val,1,2.5"]
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    assert features(folder, folder / "list.csv", "--whole", "--out", tmp_path / "a") == 0
    index = FeatureIndex.read(tmp_path / "a" / "features.parquet")
    assert index.labels == ("run", "sit")
    assert index.bounds.tolist() == [[0, 1], [1, 2.5]]
    assert features(folder, folder / "list.csv", "--whole", "--split", "val", "--out", tmp_path / "b") == 0
    assert FeatureIndex.read(tmp_path / "b" / "features.parquet").labels == ("sit",)
    capsys.readouterr()
    assert features(folder, folder / "list.csv", "--out", tmp_path / "c") == 0  # dense: each video once, as a whole
    assert capsys.readouterr().out.count("features of 32 numbers") == 1
    assert features(folder, folder / "list.csv", "--split", "test", "--out", tmp_path / "d") == 2
    assert "no video is of the split 'test'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.mp4", "--whole", "--window-seconds", "1"], "leave out --window-seconds"),
        (["a.mp4", "--clips", "3"], "--clips is for --whole"),
        (["a.mp4", "--out", "a.mp4"], "takes a folder"),
        (["a.mp4", "--stride-seconds", "9"], "must be at most --window-seconds"),
        (["a.mp4", "sub/a.mp4"], "both called 'a'"),
        (["absent.mp4"], "There is no file or folder absent.mp4"),
        (["empty.csv"], "holds no videos"),
    ],
)
def test_wrong_calls_are_told(folder, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", num_frames=2)
    (tmp_path / "empty.csv").write_text("path,label\n")
    out = [] if "--out" in words else ["--out", "out"]
    assert main(["features", *words, *out, "--model", str(folder / "model")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_exported_networks_give_no_features(folder, tmp_path, capsys):
    from uniformerv2.zoo import exported

    model = tmp_path / "exported"
    model.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("uniformerv2.inference.features.extraction.find_exported", lambda source: exported)
        assert main(["features", str(folder / "clips"), "--out", str(tmp_path / "out"), "--model", str(model)]) == 2
    assert "is an exported network and gives scores alone, no features" in capsys.readouterr().err


def test_a_table_and_json_of_what_is_nearest(folder, capsys):
    query = folder / "clips" / "dog" / "dog.mp4"
    assert search(folder, query, "-k", 2, "--by-class") == 0
    said = capsys.readouterr().out
    assert re.search(r"1\.000 +dog +centre of 1", said)
    assert re.search(rf"1\.000 +dog +{re.escape(str(query))} +0\.0 to 3\.1 s", said)
    assert search(folder, query, folder / "clips" / "dog" / "broken.mp4", "-k", 2, "--json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["label"] for one in lines[0]["neighbours"]] == ["dog", "cat"]
    assert lines[0]["format"] == "uniformerv2-search-1"
    assert lines[0]["classes"] == []
    assert lines[1]["kind"] == "not a video"


def test_a_page_of_pictures(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    page = tmp_path / "page.html"
    assert search(folder, "clips/cat/cat2.mp4", "--html", page, "--by-class") == 0
    html = page.read_text()
    assert html.count("data:image/webp;base64,") == 4  # the query and three neighbours
    assert "&lt;i&gt;cat.mp4" in html
    assert "<i>cat" not in html
    link = re.search(r'href="([^"]*cat2\.mp4)"', html)[1]
    assert (tmp_path / link).resolve() == folder / "clips" / "cat" / "cat2.mp4"
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert search(folder, folder / "clips" / "cat" / "cat2.mp4", "--html", page) == 0
    assert "3 neighbours have no picture: their videos are not below ." in capsys.readouterr().err
    assert page.read_text().count("data:image/webp;base64,") == 1
    assert search(folder, folder / "clips" / "cat" / "cat2.mp4", "--html", page, "--root", folder) == 0
    assert page.read_text().count("data:image/webp;base64,") == 4


@needs_chromium
@pytest.mark.chromium
def test_the_page_fits_a_browser(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    assert search(folder, "clips/cat/cat2.mp4", "--html", tmp_path / "page.html", "--by-class") == 0
    script = """<script>
const result = document.createElement("pre");
result.id = "result";
const pictures = Array.from(document.images);
result.textContent = JSON.stringify({errors: window.errors, wide: document.documentElement.scrollWidth > innerWidth,
  shown: pictures.filter(one => one.loading !== "lazy").every(one => one.complete && one.naturalWidth > 0)});
document.body.append(result);
</script></body>"""
    found, console = driven(tmp_path, (tmp_path / "page.html").read_text(), script)
    assert (found, console) == ({"errors": [], "wide": False, "shown": True}, [])


def test_what_cannot_be_searched_is_told(folder, tmp_path, capsys):
    query, model = str(folder / "clips" / "dog" / "dog.mp4"), str(folder / "model")
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 nothing PAR1")
    for index, said in (
        (bad, "no readable Parquet file"),
        (tmp_path / "absent", "no file or folder"),
        (query, "no read"),
    ):
        assert main(["search", query, "--index", str(index), "--model", model]) == 2
        assert said in (error := capsys.readouterr().err)
        assert "Traceback" not in error
    other = make(TINY)
    other.head.weight.data.mul_(2)
    save_model(other, tmp_path / "other")
    index = str(folder / "index" / "features.parquet")
    assert main(["search", query, "--index", index, "--model", str(tmp_path / "other")]) == 2
    assert "was made with another model" in capsys.readouterr().err
    assert search(folder, query, "-k", 0) == 2
    assert search(folder, query, "--html", "x.txt") == 2
    with set_limits(dump_bytes=10):
        assert search(folder, query) == 2
    assert "--limit dump_bytes=" in capsys.readouterr().err
    (folder / "flat").mkdir(exist_ok=True)
    write_video(folder / "flat" / "a.mp4")
    assert features(folder, folder / "flat" / "a.mp4", "--whole", "--out", tmp_path / "flat") == 0
    words = ["search", query, "--index", str(tmp_path / "flat" / "features.parquet"), "--model", model]
    assert main([*words, "--by-class"]) == 2
    assert "has no classes" in capsys.readouterr().err


@pytest.mark.parametrize("whole", [False, True])
def test_ctrl_c_ends_quietly_and_the_same_command_goes_on(folder, tmp_path, whole):
    long = write_video(tmp_path / "long.mp4", num_frames=1500, fps=2)
    words = ["features", str(folder / "clips" / "dog" / "dog.mp4"), str(long), "--model", str(folder / "model")]
    if whole:
        many = tmp_path / "many"
        many.mkdir()
        for number in range(60):
            (many / f"{number:03}.mp4").symlink_to(long)
        words = ["features", str(many), "--whole", "--clips", "8", "--model", str(folder / "model")]
    words += ["--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "uniformerv2", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    begun = tmp_path / "out" / (".features.journal" if whole else "dog.json")
    end = time.monotonic() + 60
    while not (begun.exists() and begun.stat().st_size > 2000 * whole) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.rstrip().endswith("interrupted")
    assert "the same command goes on from there" in error
    assert "Traceback" not in error
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ([".features.journal"] if whole else ["dog.json", "dog.npy"])


def test_the_other_tools_of_the_page_find_the_same(folder, tmp_path, monkeypatch, capsys):
    """Runs the code of docs/features_and_search.md that reads the file in FAISS, LanceDB and DuckDB."""
    monkeypatch.chdir(tmp_path)
    assert features(folder, folder / "clips", "--whole", "--out", "features") == 1
    index = FeatureIndex.read(tmp_path / "features" / "features.parquet")
    wanted = [one.video for one in index.nearest(index.vectors[0], k=2)]
    blocks = re.findall(r"```python\n(import (faiss|lancedb|duckdb)\n.*?)```", page(), re.DOTALL)
    assert [name for _, name in blocks] == ["faiss", "lancedb", "duckdb"]
    ran = []
    for code, name in blocks:
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        found = {}
        exec(code.replace("k=10", "k=2").replace("limit(10)", "limit(2)").replace("LIMIT 10", "LIMIT 2"), found)
        assert found["paths"] == wanted, name
        ran.append(name)
    if not ran:
        pytest.skip("neither faiss-cpu nor duckdb nor lancedb is installed (extra peers)")


def page():
    return (ROOT / "docs" / "features_and_search.md").read_text("utf-8")
