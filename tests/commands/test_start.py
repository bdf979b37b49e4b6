"""What is answered before anything heavy is imported: ``--help`` and wrong calls; and the options of every verb."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from uniformerv2 import cli
from uniformerv2.commands import models, options, predict
from uniformerv2.core.devices import is_out_of_memory
from uniformerv2.core.limits import ENVIRONMENT_VARIABLE, Limits, get_limits
from uniformerv2.inference.engines import EngineName, Precision
from uniformerv2.media.decoding import Decoder

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "timm", "av", "lightning", "numpy", "matplotlib")
SUB_VERBS = (("data", "check"), ("data", "prepare"), ("k710", "build"), ("benchmark", "model"), ("benchmark", "data"))
CLIP, DEMO = str(ROOT / "examples" / "archery.mp4"), str(ROOT / "models" / "demo")
WRONG = {
    ("predict", CLIP): "the following arguments are required: --model",
    ("predict", CLIP, "--model", "uniformerv2_b16_k400"): "Did you mean 'uniformerv2_b16_k400_8x224'?",
    ("predict", CLIP, "--model", "no/model"): "There is no file or folder no/model",
    ("predict", "gone.mp4", "--model", DEMO): "There is no file or folder gone.mp4",
    ("predict", CLIP, "--model", DEMO, "--topk", "0"): "--topk must be at least 1, got 0",
    ("train", "gone"): "There is no file or folder gone",
    ("train", str(ROOT / "benchmarks")): "holds no videos in class folders",
    ("train", ".", "--dropout", "2"): "--dropout must be at least 0 and below 1, got 2.0",
    ("fit", "--config", "gone.yaml"): "There is no file gone.yaml",
    ("validate", "--confg", "a.yaml"): "Did you mean --config?",
    ("data", "check", "gone"): "There is no file or folder gone",
    ("evaluate", "gone.pkl"): "There is no file or folder gone.pkl",
    ("convert", "gone.pth", "out"): "There is no file or folder gone.pth",
    ("models", "gone"): "No model is called 'gone'",
    ("ablate", "gone", "--data", "."): "No suite is called 'gone'",
    ("benchmark", "decode", "gone"): "There is no file or folder gone",
    ("predict", CLIP, "--model", DEMO, "--limit", "depht=3"): "A limit is written NAME=NUMBER, got 'depht=3'",
    ("fit", "--limit", "depth"): "A limit is written NAME=NUMBER, got 'depth'",
}
SCRIPT = """
import contextlib, io, json, resource, sys
from uniformerv2 import cli

answers = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(words)
        except SystemExit as error:
            code = error.code
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    answers.append([words, code, out.getvalue() + err.getvalue(), heavy])
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([answers, used.ru_utime + used.ru_stime]))
"""


@pytest.fixture(scope="module")
def answers():
    """Every ``--help`` and every wrong call in one fresh interpreter: words -> (exit code, what was said)."""
    helps = [[verb, "--help"] for verb in cli.VERBS] + [[*words, "--help"] for words in SUB_VERBS]
    words = [*helps, *map(list, WRONG)]
    command = [sys.executable, "-c", SCRIPT, json.dumps(words), json.dumps(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, seconds = json.loads(done.stdout)
    assert [(words, heavy) for words, _, _, heavy in found if heavy] == []
    assert seconds < 0.5  # all of them together
    return {tuple(words): (code, said) for words, code, said, _ in found}


def test_every_help_is_told_without_anything_heavy(answers):
    for words, (code, said) in answers.items():
        if words[-1] == "--help":
            assert code == 0
            assert said.startswith(f"usage: uniformerv2 {' '.join(words[:-1])} ")
            assert {"--limit NAME=NUMBER", "--debug"} <= set(re.findall(r"--limit NAME=NUMBER|--debug", said)), words


@pytest.mark.parametrize("columns", [80, 100])
def test_every_help_fits_two_screens_and_opens_with_an_example(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    parsers = {verb: cli.parser_of(verb) for verb in cli.VERBS}
    parsers |= {" ".join(words): parsers[words[0]].sub_verbs()[words[1]] for words in SUB_VERBS}
    for name, parser in parsers.items():
        lines = parser.format_help().splitlines()
        assert len(lines) <= 48, name
        command = name if name != "completion" else 'eval "$(uniformerv2 completion'
        assert lines[4].startswith(("  uniformerv2 " + command, "  " + command)), name
        assert max(len(line) for line in lines[6:]) <= 100, name


def test_options_mean_the_same_in_every_verb():
    """One kind of value for each word, whatever the verb."""
    kinds = {}
    for words in [(verb,) for verb in cli.VERBS] + list(SUB_VERBS):
        parser = cli.parser_of(words[0])
        for name in words[1:]:
            parser = parser.sub_verbs()[name]
        for action in parser._actions:
            for option in action.option_strings:
                kinds.setdefault(option, set()).add(type(action).__name__)
    several = {option for option, found in kinds.items() if len(found) > 1}
    assert several <= {"--freeze-backbone", "--no-freeze-backbone"}  # ablate may unfreeze what its suite freezes
    assert {"--model", "--device", "--precision", "--decoder", "--out", "--json", "--resume", "--dry-run"} <= set(kinds)
    assert not {"--weights", "--arm", "--labels", "--frames", "--size"} & set(kinds)


def test_every_wrong_call_is_told_without_anything_heavy(answers):
    for words, message in WRONG.items():
        code, said = answers[words]
        assert (code, message in said) == (2, True), said


def test_the_words_of_options_are_those_of_python():
    assert get_args(Precision) == options.PRECISIONS
    assert get_args(EngineName) == options.ENGINES
    assert get_args(Decoder) == options.DECODERS


def test_help_verb_is_verb_help(capsys):
    for words in (["help", "models"], ["models", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(words)
    printed = capsys.readouterr().out
    assert printed[: len(printed) // 2] == printed[len(printed) // 2 :]
    assert cli.main(["help"]) == 0
    assert "help VERB" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["help", "data", "check"])
    assert capsys.readouterr().out.startswith("usage: uniformerv2 data check ")


def failing(monkeypatch, error):
    """``uniformerv2 models`` with a defect in its work."""

    def run(options):
        raise error

    monkeypatch.setattr(models, "run", run)


@pytest.mark.parametrize("way", ["option", "environment", "neither"])
def test_debug_shows_where_an_error_came_from(monkeypatch, capsys, way):
    failing(monkeypatch, ValueError("nothing fits"))
    if way == "environment":
        monkeypatch.setenv("UNIFORMERV2_DEBUG", "1")
    assert cli.main(["models", *(["--debug"] if way == "option" else [])]) == 1
    said = capsys.readouterr().err
    assert said.endswith("uniformerv2 models: nothing fits\n")
    assert ("Traceback (most recent call last)" in said, "in run" in said) == (way != "neither", way != "neither")


def test_debug_shows_where_a_wrong_call_was_refused(capsys):
    assert cli.main(["models", "gone", "--debug"]) == 2
    assert "check(options)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "The memory is not enough (MemoryError)."),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
            "The GPU memory is not enough (CUDA out of memory).",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate memory: you tried"),
            "The memory is not enough ([enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate memory",
        ),
    ],
)
def test_too_little_memory_says_what_to_lower(monkeypatch, capsys, error, said):
    monkeypatch.setattr(predict, "run", lambda options: (_ for _ in ()).throw(error))
    assert cli.main(["predict", CLIP, "--model", DEMO]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"uniformerv2 predict: {said}")
    assert last.endswith("Lower --clips or --crops or --num-frames.")


def test_what_pytorch_says_of_too_much_memory_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert is_out_of_memory(raised.value)


def test_a_limit_holds_for_one_run_and_the_processes_that_it_starts(monkeypatch):
    seen = []
    monkeypatch.setattr(models, "run", lambda options: seen.append((get_limits().depth, get_limits().width)) or 0)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    assert cli.main(["models", "--limit", "depth=300", "--limit", "width=70000,image_size=5000"]) == 0
    assert cli.main(["models"]) == 0
    assert seen == [(300, 70_000), (Limits().depth, Limits().width)]
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "dept=3")
    assert cli.main(["models"]) == 2


def test_what_a_verb_loads_is_there():
    loaded = {
        getattr(importlib.import_module(f"uniformerv2.commands.{name}"), "LOADS", "") for name, _ in cli.VERBS.values()
    }
    assert all(importlib.util.find_spec(name) for name in loaded - {""})
    assert len(loaded) > 5


def test_what_takes_seconds_to_import_says_so(monkeypatch, capsys):
    """Of several processes the first; not among lines of JSON, and not where nothing heavy is imported."""
    for module in (predict, models):
        monkeypatch.setattr(module, "run", lambda options: 0)
    words = ["predict", CLIP, "--model", DEMO]
    assert cli.main(words) == cli.main([*words, "--json"]) == cli.main(["models"]) == 0
    monkeypatch.setenv("RANK", "1")
    assert cli.main(words) == 0
    assert capsys.readouterr().err == "loading ...\n"


@pytest.mark.parametrize(
    "words", [("train", "videos"), ("fit", "--trainer.max_epochs", "1"), ("ablate", "table6", "--data", "videos")]
)
def test_a_package_that_is_not_installed_is_told_before_anything_heavy(words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos" / "bus").mkdir(parents=True)
    (tmp_path / "videos" / "bus" / "1.mp4").touch()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchmetrics" else find(name))
    assert cli.main(list(words)) == 1
    advice = "pip install 'uniformerv2[train]', or in a clone: pip install -c constraints.txt '.[train]'"
    assert capsys.readouterr().err == f"uniformerv2 {words[0]}: torchmetrics is needed here: {advice}\n"


def test_limits_and_debug_do_not_reach_lightning(monkeypatch):
    seen = []
    fit = importlib.import_module("uniformerv2.commands.fit")
    monkeypatch.setattr(fit, "run", lambda options: seen.append((options.rest, get_limits().depth)) or 0)
    words = ["--trainer.max_epochs", "1", "--limit", "depth=300", "--debug", "--data.val=x"]
    assert cli.main(["validate", *words]) == 0
    assert seen == [(["--trainer.max_epochs", "1", "--data.val=x"], 300)]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["predict", "--model", DEMO, "--csv", "link.csv", "clip.mp4"], "--csv"),
        (["test", "list.csv", "--model", DEMO, "--dump", "./list.csv"], "--dump"),
        (["data", "check", "list.csv", "--manifest", "list.csv"], "--manifest"),
        (["benchmark", "decode", "list.json", "--out", "list.json"], "--out"),
        (["train", ".", "--out", "."], "--out"),
        (["ablate", "fusion", "--data", ".", "--out", "."], "--out"),
        (["convert", "model", "./model", "--force"], "OUT"),
        (["convert", "model/model.safetensors", "model", "--force"], "OUT"),
        (["k710", "build", "--k400", "list.csv", "--k600", "list.csv", "--k700", "list.csv", "--out", "."], "--out"),
    ],
)
def test_nothing_is_written_to_what_is_read(words, option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "list.csv", "list.json"):
        Path(name).write_text(name)
    Path("link.csv").symlink_to("clip.mp4")
    Path("model").mkdir()
    Path("model", "model.safetensors").write_text("weights")
    assert cli.main(words) == 2
    assert f"{option} would write to " in capsys.readouterr().err
    assert {path.name: path.read_text() for path in Path().rglob("*") if path.is_file()} == {
        "model.safetensors": "weights",
        **{name: name for name in ("clip.mp4", "list.csv", "list.json")},
        "link.csv": "clip.mp4",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "clip.mp4", "--model", DEMO, "--csv", "out.txt"], "--csv writes a file that ends with .csv"),
        (["test", "list.csv", "--model", DEMO, "--dump", "out.txt"], "A dump is called"),
        (["data", "check", "list.csv", "--manifest", "out.txt"], "--manifest writes a file that ends with .csv or .p"),
        (["benchmark", "decode", "list.csv", "--out", "out.txt"], "--out writes a file that ends with .json"),
        (["benchmark", "decode", "list.csv", "--plot", "out.txt"], "--plot writes a file that ends with .png or .svg"),
        (["predict", "clip.mp4", "--model", DEMO, "--csv", "folder.csv"], "and folder.csv is a folder"),
        (["convert", DEMO, "list.csv"], "OUT takes a folder, and list.csv is a file"),
        (["train", ".", "--out", "list.csv"], "list.csv is a file; --out names a folder"),
    ],
)
def test_a_file_of_another_kind_is_not_written(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    for name in ("clip.mp4", "list.csv"):
        Path(name).write_text(name)
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["clip.mp4", "folder.csv", "list.csv"]
