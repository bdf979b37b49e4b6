"""What the page "Export and deploy" shows works: its commands run as they stand there, on a tiny network."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.export.networks import named
from tests.model.test_uniformerv2 import MOTION, make
from uniformerv2.cli import main
from uniformerv2.zoo.checkpoint import save_model

pytestmark = pytest.mark.export
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "export_and_deploy.md"
ELSEWHERE = {
    "pip install": "installed already",
    "uniformerv2 benchmark engines": "tests/commands/test_benchmark.py, with fewer rounds",
    "python -m pytest": "test_full_size.py itself, which is slow",
    "cd demo && python -m venv": "test_portable.py, with the packages in a fresh environment",
    ".venv/bin/python predict.py": "test_portable.py",
    "python -c": "test_pt2.py, with a compiler",
    "TORCH=": "test_pt2.py, with a compiler",
    "g++": "test_pt2.py, with a compiler",
    "./scores": "test_pt2.py, with a compiler",
}
"""Commands of the page by their first words, and where they are run instead."""


def test_commands_and_code_of_the_page_run(tmp_path, monkeypatch, capsys):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    for name in ("models/demo", "runs/mine"):
        save_model(named(make(MOTION), resize="bilinear_uint8", num_crops=1), tmp_path / name)
    (tmp_path / "examples").mkdir()
    for name in ("clip.mp4", "examples/archery.mp4"):
        shutil.copy(ROOT / "examples" / "archery.mp4", tmp_path / name)
    (tmp_path / "val.csv").write_text("path,label\nclip.mp4,a\nexamples/archery.mp4,b\n")
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text("utf-8")
    lines = re.findall(r"^\$ (.*)$", "\n".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL)), re.MULTILINE)
    run = [line for line in lines if not line.startswith(tuple(ELSEWHERE))]
    assert [words for words in ELSEWHERE if not any(line.startswith(words) for line in lines)] == []
    assert len(run) >= 8
    for line in sorted(dict.fromkeys(run), key=lambda line: not line.startswith("uniformerv2 export")):
        command, *words = shlex.split(line)
        assert command == "uniformerv2"
        assert main(words) == 0, line
        capsys.readouterr()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    Path("model.onnx").unlink(), Path("model.onnx.json").unlink()
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["prediction"].top(1)[0].name in "abcde"
