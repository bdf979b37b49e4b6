"""What messages share, and that they speak of options as they are typed."""

from __future__ import annotations

import pytest

from uniformerv2.cli import in_options, main, parser_of
from uniformerv2.core.messages import counted, first_few


def test_one_more_name_is_named():
    assert first_few(["a", "b", "c", "d", "e", "f"], shown=5) == "a, b, c, d, e, f"
    assert first_few(["a", "b", "c", "d", "e", "f", "g"], shown=5) == "a, b, c, d, e and 2 more"


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(1, "video", "1 video"), (2, "class", "2 classes"), (0, "validation video", "0 validation videos")],
)
def test_a_number_has_its_noun(number, noun, words):
    assert counted(number, noun) == words


def test_an_error_names_options_as_they_are_typed(tmp_path, capsys):
    assert main(["timeline", str(tmp_path / "no.mp4"), "--model", "no", "--window-seconds", "0"]) != 0
    assert "window_seconds" not in capsys.readouterr().err
    train = parser_of("train")
    assert in_options("num_clips must be at least 1.", train) == "--clips must be at least 1."
    for left in ("my_num_clips.csv", "'num_clips'", "info.num_clips", "num_clips=3", "folder/num_clips"):
        assert in_options(left, train) == left
