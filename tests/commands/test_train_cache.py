"""``uniformerv2 train --cache-features`` as a user types it, on small real videos."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.media import write_video
from tests.training.fake_clips import tiny_network
from uniformerv2 import load_model, save_model
from uniformerv2.cli import main
from uniformerv2.data.annotations.record import content_digest
from uniformerv2.training import feature_key

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

CACHED = ["--freeze-backbone", "--cache-features"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of five videos, one folder each."""
    top = tmp_path_factory.mktemp("data") / "videos"
    for label, name in enumerate(("jump", "run")):
        (top / name).mkdir(parents=True)
        for index in range(5):
            write_video(top / name / f"clip_{index}.mp4", num_frames=8, seed=10 * label + index)
    return top


@pytest.fixture
def words(tmp_path):
    """Options of every run here, with a small video network to start from."""
    checkpoint = save_model(tiny_network(), tmp_path / "network")
    fixed = "--workers 0 --batch-size 4 --epochs 2 --clips 2 --crops 1 --json --no-probe"
    return ["--model", str(checkpoint), "--out", str(tmp_path / "run"), *fixed.split()]


def shards(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.safetensors")}


def test_from_videos_to_a_model_from_the_cache(videos, words, tmp_path, capsys, monkeypatch):
    """The bytes of each video are hashed once."""
    hashed = Counter()
    monkeypatch.setattr(feature_key, "content_digest", lambda path: hashed.update([path]) or content_digest(path))
    command = ["train", str(videos), *words, *CACHED, "--cache-views", "2"]
    assert main(command) == 0
    assert hashed == {str(path): 1 for path in videos.rglob("*.mp4")}
    captured = capsys.readouterr()
    result, told = json.loads(captured.out), captured.err
    assert "2 augmented clips a training video, 1 a validation video" in told
    assert re.search(r"0\.00 GiB of [\d.]+ GiB free; about [\d.]+ (s|min|h) to compute", told)
    assert "eval mode" not in told
    assert set(result["metrics"]) >= {"val_top1", "test_top1"}
    assert load_model(result["model"]).info.metrics["test_protocol"] == "2 clips x 1 crop of the 2 validation videos"
    (folder,) = (tmp_path / "run" / "features").iterdir()
    before = shards(folder)
    assert {path.name for path in before} == {
        "train_view_0_00000.safetensors",
        "train_view_1_00000.safetensors",
        "val_view_0_00000.safetensors",
    }
    key = json.loads((folder / "key.json").read_text())
    assert (key["storage"], key["train"]["num_videos"], key["val"]["num_videos"]) == ("float16", 8, 2)

    assert main([*command, "--resume"]) == 0  # the network of a record has no weights; those of last.ckpt are the key's
    assert shards(tmp_path / "run" / "features") == before
    assert "Going on from" in capsys.readouterr().err

    other = [str(tmp_path / "other") if word == str(tmp_path / "run") else word for word in command]
    again = ["--cache-dir", str(tmp_path / "run" / "features"), "--learning-rate", "1e-3"]
    assert main([*other, *again]) == 0
    assert shards(tmp_path / "run" / "features") == before  # another rate, the same features
    assert not (tmp_path / "other" / "features").exists()


def test_dry_run_says_what_it_would_take(videos, words, tmp_path, capsys):
    views = ["--cache-views", "3", "--epochs", "3"]
    assert main(["train", str(videos), *words, *CACHED, *views, "--dry-run"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["plan"]["cache_views"] == 3
    assert result["estimate"]["cache_bytes"] == (3 * 8 + 2) * 4 * 4 * 5 * 48 * 2  # clips x [S, T', N, C] x bytes
    assert 0 < result["estimate"]["cache_seconds"] < result["estimate"]["total_seconds"]
    assert not (tmp_path / "run").exists()


def test_views_that_no_epoch_would_read_are_not_computed(videos, words, capsys):
    assert main(["train", str(videos), *words, *CACHED, "--cache-views", "6", "--epochs", "2", "--dry-run"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["plan"]["cache_views"] == 2
    assert result["estimate"]["cache_bytes"] == (2 * 8 + 2) * 4 * 4 * 5 * 48 * 2
    assert "2 augmented clips a training video" in captured.err
    assert result["plan"]["why"]["cache_views"] == "not 6: an epoch reads one, and there are 2"


def test_without_room_it_trains_from_the_videos_and_says_so(videos, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**29))
    assert main(["train", str(videos), *words, *CACHED]) == 0
    captured = capsys.readouterr()
    assert "Features are not cached, every step starts from the videos: they take 0.00 GiB" in captured.err
    assert "has 0.50 GiB free; with 1 GiB left for others it lacks 0.50 GiB" in captured.err
    assert captured.err.index("not cached") < captured.err.index("epoch 1 of 2")  # before it starts
    assert json.loads(captured.out)["metrics"]
    assert not (tmp_path / "run" / "features").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--cache-features"], "add --freeze-backbone"),
        ([*CACHED, "--preset", "motion"], "Take --preset scene"),
        ([*CACHED, "--cache-views", "0"], "--cache-views must be at least 1, got 0"),
        (["--cache-views", "2"], "--cache-views is for --cache-features"),
        (["--cache-dir", "here"], "--cache-dir is for --cache-features"),
        ([*CACHED, "--cache-dir", __file__], "is a file; --cache-dir names a folder"),
    ],
)
def test_usage_errors(videos, words, tmp_path, extra, message, capsys):
    assert main(["train", str(videos), *words, *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_network_with_local_steps_is_refused(videos, words, tmp_path, capsys):
    checkpoint = save_model(tiny_network(num_local_steps=1), tmp_path / "motion")
    assert main(["train", str(videos), *words, *CACHED, "--model", str(checkpoint)]) == 2
    assert "local temporal steps (preset motion)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_commands_of_the_page(videos, words, tmp_path, capsys, monkeypatch):
    """Each as it stands, with a small network and two epochs; the third fills what the fourth reads."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "frozen_in_seconds.md").read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("uniformerv2 train videos ")]
    assert len(commands) == 4
    times = []
    for number, command in enumerate(commands):
        own = [str(tmp_path / f"run{number}") if word == str(tmp_path / "run") else word for word in words]
        assert main([command[0], str(videos), *own, *command[2:]]) == 0
        times.append(shards(tmp_path / "features"))
    assert times[1] == {}
    assert times[2]
    assert times[2] == times[3]
