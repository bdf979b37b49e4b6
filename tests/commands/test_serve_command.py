"""``uniformerv2 serve`` where the words alone are wrong; what it does is tested in ``tests/serving``."""

from __future__ import annotations

import pytest

from uniformerv2.cli import main

pytest.importorskip("fastapi")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "give --token-file FILE"),
        (["{model}"], "Two models are called 'default': give each a name: NAME=MODEL."),
        (["a={model}", "a={model}"], "Two models are called 'a'"),
        (["a b={model}"], "A model's name has letters"),
        (["--queue-size", "0"], "must be at least 1, got 0."),
        (["--clips", "0"], "--clips must be at least 1"),
        (["--token-file", "nothing.txt"], "There is no file or folder nothing.txt."),
        (["--token-file", "{model}"], "is a folder: give a file"),
        (["x=nothing/here"], "There is no file or folder nothing/here"),
    ],
)
def test_wrong_calls_end_at_once(tmp_path, capsys, words, told):
    (tmp_path / "model").mkdir()
    model = str(tmp_path / "model")
    assert main(["serve", model, *(word.format(model=model) for word in words)]) == 2
    assert told in capsys.readouterr().err
