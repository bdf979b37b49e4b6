"""Limits: defaults, words of the command line and the environment, and what child processes see."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from uniformerv2.core.limits import ENVIRONMENT_VARIABLE, Limits, get_limits, parse_limits, set_limits


def test_what_is_set_ends_with_the_block():
    with set_limits(depth=7) as limits:
        assert limits.depth == get_limits().depth == 7
        with set_limits(width=9):
            assert (get_limits().depth, get_limits().width) == (7, 9)
        assert get_limits().width == Limits().width
    assert get_limits() == Limits()
    assert ENVIRONMENT_VARIABLE not in os.environ


def test_a_child_process_has_the_same_limits():
    script = "from uniformerv2.core.limits import get_limits; print(get_limits().depth)"
    with set_limits(depth=7):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "7"


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, " depth=300, seconds_per_video=5 ,")
    assert (get_limits().depth, get_limits().seconds_per_video) == (300, 5)


@pytest.mark.parametrize("text", ["deep=3", "depth", "depth=", "depth=many", "depth=-1", "depth=1e9"])
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match=r"NAME=NUMBER.*pixels_per_frame"):
        parse_limits(text)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_limit_is_a_positive_whole_number(value):
    with pytest.raises(ValueError, match="depth must be a whole number of at least 1"):
        set_limits(depth=value)
    assert get_limits() == Limits()


def test_the_error_says_how_to_raise_it():
    Limits().check("depth", 256, what="a network of 256 blocks")
    with pytest.raises(ValueError, match=r"above the limit depth=256; to allow it: --limit depth=257"):
        Limits().check("depth", 257, what="a network of 257 blocks")
