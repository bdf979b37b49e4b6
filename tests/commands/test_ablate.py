"""``uniformerv2 ablate`` as a user types it, on small real videos: every suite, resumed, with a failure, misused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from tests.data.clips_on_disk import write_folder
from uniformerv2.cli import main
from uniformerv2.lab.ablation import read_suite
from uniformerv2.recipes import list_suites

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of four videos; one of each is held out."""
    folder = tmp_path_factory.mktemp("videos")
    write_folder(folder)
    return folder


@pytest.fixture
def words(videos, tmp_path):
    """Options that make every run tiny; the image ViT has eight blocks."""
    fixed = "--backbone test_vit2 --backbone-weights random --image-size 32 --num-frames 2 --epochs 1 --seeds 1 --json"
    return ["--data", str(videos), "--out", str(tmp_path / "out"), "--max-videos", "2", *fixed.split()]


def last_line(capsys):
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


@pytest.mark.parametrize("name", [name for name in list_suites() if name != "pretraining"])
def test_every_suite_runs(name, words, tmp_path, capsys):
    task = "arrow_of_time" if name in {"components", "fusion"} else "classes"
    assert main(["ablate", name, *words, "--task", task]) == 0
    result, told = last_line(capsys)
    suite = read_suite(name)
    assert [row["name"] for row in result["table"]] == list(suite.variants)
    assert all(row["num_seeds"] == 1 and 0 <= row["top1"] <= 1 for row in result["table"])
    assert suite.asks in told
    assert "chance is 50.0 %" in told
    for variant in suite.variants:
        assert f"{variant}, seed 0: top-1" in told
        assert f"| {variant} | 1 |" in told
    assert "eval mode" not in told
    page = Path(result["results"])
    assert page.read_text(encoding="utf-8").startswith(f"# {name}: {suite.asks}")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"results.csv", "results.png", "results.svg", "runs"}
    if task == "arrow_of_time" and name == "components":
        control = next(row for row in result["table"] if row["name"] == "frame_average")
        assert (control["top1"], control["low"], control["high"]) == (0.5, 0.5, 0.5)


def test_differently_pretrained_vits_as_pairs_of_name_and_file(words, tmp_path, capsys):
    """What the suite ``pretraining`` does with weights that timm fetches."""
    variants = {}
    for name in ("test_vit", "test_vit2"):
        path = tmp_path / f"{name}.safetensors"
        save_file(timm.create_model(name, pretrained=False).state_dict(), path)
        variants[name] = {"backbone": name, "weights": str(path), "fusion_stages": [-1]}
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        json.dumps({"name": "mine", "asks": "Which?", "variants": {"random": {}, **variants}, "control": "random"})
    )
    assert main(["ablate", str(suite), *words]) == 0
    result, _ = last_line(capsys)
    assert [row["num_seeds"] for row in result["table"]] == [1, 1, 1]
    runs = [json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").iterdir()]
    weights = {run["variant"]: run["settings"]["weights"] for run in runs}
    assert weights == {"random": "random", **{name: value["weights"] for name, value in variants.items()}}


def test_the_control_of_pretraining_runs_without_network(words, capsys):
    assert main(["ablate", "pretraining", *words, "--only", "random"]) == 0
    assert last_line(capsys)[0]["table"][0]["name"] == "random"


FAILING = {
    "name": "mine",
    "asks": "What fails?",
    "base": {"fusion_stages": [-1]},
    "variants": {"good": {}, "wrong": {"fusion_stages": [99]}, "other": {"fusion": "parallel"}},
    "control": "good",
}


def test_a_failure_is_told_and_what_is_done_is_not_run_again(words, tmp_path, capsys):
    suite = tmp_path / "mine.yaml"
    suite.write_text(json.dumps(FAILING))
    command = ["ablate", str(suite), *words, "--seeds", "3", "5"]
    assert main(command) == 1
    result, told = last_line(capsys)
    assert result["failed"] == 2
    assert [row["num_seeds"] for row in result["table"]] == [2, 0, 2]
    assert "! wrong, seed 5 failed: ValueError: The image ViT has blocks 0 to 7" in told
    assert "2 of 6 runs failed; the same command tries these again." in told
    with Path(result["results"]).with_name("results.csv").open(newline="") as file:
        assert [row["top1"] == "" for row in csv.DictReader(file)] == [False, True, False]

    suite.write_text(json.dumps({**FAILING, "variants": {**FAILING["variants"], "wrong": {"fusion_stages": [0]}}}))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").iterdir()}
    assert main(command) == 0
    again, told = last_line(capsys)
    assert "4 of 6 runs are done already." in told
    assert told.count("run 2 of 6") == told.count("run 5 of 6") == 1
    assert "run 1 of 6" not in told
    assert [row["num_seeds"] for row in again["table"]] == [2, 2, 2]
    assert again["table"][0] == result["table"][0]
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").iterdir()}
    assert before.items() <= after.items()
    assert len(after) == 8  # the two of the wrong setting stay as a record


def test_dry_run_measures_and_runs_nothing(words, tmp_path, capsys):
    assert (
        main(["ablate", "components", *words, "--task", "arrow_of_time", "--dry-run", "--only", "global", "local"]) == 0
    )
    result, told = last_line(capsys)
    assert [run["variant"] for run in result["runs"]] == ["local", "global"]
    cost = result["cost"]
    assert [one["is_cached"] for one in cost["variants"]] == [True, True]
    assert cost["cache_bytes"] == (2 * 4 + 4) * 5 * 2 * 5 * 64 * 2  # clips x [S, T', N, C] x bytes; five blocks, 3..7
    assert 0 < cost["cache_seconds"] < cost["total_seconds"]
    assert "computed once" in told
    assert "2 variants x 1 seeds" in told
    assert not (tmp_path / "out").exists()


def test_dry_run_measures_what_is_right_and_names_what_is_not(words, tmp_path, capsys):
    wrong = {"wrong": {"fusion_stages": [99]}, "no_vit": {"backbone": "test_resnet"}}
    suite = tmp_path / "mine.yaml"
    suite.write_text(json.dumps({**FAILING, "variants": {**wrong, "good": {}}}))
    assert main(["ablate", str(suite), *words, "--dry-run"]) == 1
    result, told = last_line(capsys)
    cost = result["cost"]
    assert [one["variant"] for one in cost["variants"]] == ["good"]
    assert cost["total_seconds"] == pytest.approx(cost["cache_seconds"] + cost["variants"][0]["run_seconds"])
    assert list(cost["errors"]) == ["wrong", "no_vit"]
    assert "! wrong will fail, and is not counted: ValueError: The image ViT has blocks 0 to 7" in told
    assert "! no_vit will fail, and is not counted: ValueError: 'test_resnet' (ResNet) can't be armed." in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("suite", "extra", "message"),
    [
        ("fusoin", [], "No suite is called 'fusoin'. Did you mean 'fusion'?"),
        ("fusion", ["--only", "serial"], "Suite 'fusion' has sequential, parallel, hierarchical_kv, hierarchical_q"),
        ("fusion", ["--control", "serial"], "control is one of sequential"),
        ("fusion", ["--data", "nowhere"], "There is no file or folder nowhere."),
        (
            "fusion",
            ["--backbone-weights", "nowhere.safetensors"],
            "--backbone-weights also takes 'random' and 'pretrained'",
        ),
        ("fusion", ["--max-videos", "0"], "--max-videos must be at least 1, got 0."),
        ("fusion", ["--seeds", "0"], "seeds must be different whole numbers, at least one, got []"),
        ("fusion", ["--epochs", "0"], "--epochs must be at least 1, got 0."),
        ("fusion", ["--image-size", "-3"], "--image-size must be at least 1, got -3."),
    ],
)
def test_usage_errors(suite, extra, message, words, tmp_path, capsys):
    assert main(["ablate", suite, *words, *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_suite_of_the_page(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    for name in list_suites():
        assert f"`{name}`" in page
    (suite,) = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    path = tmp_path / "mine.yaml"
    path.write_text(suite)
    assert len(read_suite(str(path)).variants) == 3
