"""What the page "Your own videos" shows works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.data.clips_on_disk import write_clip
from uniformerv2.cli import main

pytest.importorskip("lightning.pytorch")
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "your_own_videos.md"


def test_documented_examples_run(tmp_path, monkeypatch, capsys):
    for label, base in (("archery", 20), ("surfing", 60)):
        for step, name in enumerate("abcde"):
            write_clip(tmp_path / "videos" / label / f"{name}.mp4", base=base + 4 * step, height=72, width=96)
    monkeypatch.chdir(tmp_path)
    text = DOCS.read_text(encoding="utf-8")
    [listed] = [block for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) if block.startswith("path,")]
    Path("clips.csv").write_text(listed, encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 11
    commands = re.findall(r"```console\nuniformerv2 (.*)\n```", text)
    assert [main(shlex.split(command)) for command in commands] == [0, 0]
    assert len(list(Path("prepared").rglob("*.mp4"))) == 10
    names = {"__name__": "your_own_videos"}
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), names)
    assert "epoch 1: 1 of 3 samples could not be read" in capsys.readouterr().out
