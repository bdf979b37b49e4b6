"""Names and messages from outside, on a terminal: shown, never obeyed."""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress

import pytest
from rich.table import Table
from rich.text import Text

from uniformerv2 import cli
from uniformerv2.core import console
from uniformerv2.core.terminal import HarmlessFormatter, harmless, without_credentials

OBEYED = ["\x1b[2J", "\x1b]0;title\x07", "\r", "\b", "\x7f", "\x9b31m", "\u202e", "\u2066", "\u200f", "\u2028", "\0"]
SHOWN = ["plain", "tab\there", "two\nlines", "ü 中文 \U0001f3b8", "a\\b", "[bold]not markup[/]"]


@pytest.mark.parametrize("text", OBEYED, ids=ascii)
def test_what_a_terminal_obeys_is_written_out(text):
    shown = harmless(f"a{text}b")
    assert "\\u00" in shown or "\\u20" in shown or "\\r" in shown or "\\b" in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200f\u2028\u202e\u2066]", shown)
    assert harmless(shown) == shown


@pytest.mark.parametrize("text", SHOWN)
def test_everything_else_stays(text):
    assert harmless(text) == text


@pytest.mark.parametrize("text", OBEYED, ids=ascii)
def test_a_line_of_json_stays_the_same_value(text):
    line = json.dumps({"name": text}, ensure_ascii=False)
    assert json.loads(harmless(line)) == {"name": text}


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_console_has_no_sequences_but_its_own(monkeypatch, capsys, is_terminal):
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    printer = console.make_console()
    table = Table(box=None)
    table.add_column("name\x1b[5m")
    table.add_row("class\x1b[2J\x9b5m", style="bold red")
    printer.print(table)
    printer.print("path\x1b]0;title\x07.mp4", style="bold", markup=False)
    printer.print(Text("text\x1b[2J"))
    printed = capsys.readouterr().out
    assert "text\\u001b[2J" in printed
    assert "class\\u001b[2J\\u009b5m" in printed
    assert "path\\u001b]0;title" in printed
    own = re.findall(r"\x1b\[[0-9;]*m", printed)
    assert bool(own) == is_terminal
    assert not re.search(r"[\x1b\x07\x9b]", re.sub(r"\x1b\[[0-9;]*m", "", printed))
    assert "\x1b[5m" not in printed


def test_a_line_and_an_error_have_none(capsys, tmp_path):
    console.write_line('{"name": "a\x9b2J"}')
    assert capsys.readouterr().out == '{"name": "a\\u009b2J"}\n'
    (tmp_path / "no\x1b[2Jdump.csv").write_bytes(b"nothing")
    for words in (["evaluate", str(tmp_path / "no\x1b[2Jdump.csv")], ["no\x1b[2Jverb"], ["models", "x", "no\x1b[2J"]):
        with suppress(SystemExit):
            assert cli.main(words) == 2
        printed = capsys.readouterr()
        assert "no\\u001b[2J" in printed.err
        assert "\x1b" not in printed.out + printed.err


def test_a_log_message_has_none():
    record = logging.LogRecord("a", logging.WARNING, "", 0, "%s is broken", ("a\x1b[2J.mp4",), None)
    assert HarmlessFormatter().format(record) == "a\\u001b[2J.mp4 is broken"
    assert cli.main(["--version"]) == 0
    assert isinstance(logging.lastResort.formatter, HarmlessFormatter)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@a.org/x.pth is gone", "https://a.org/x.pth is gone"),
        ("for url 'https://a.org/x?key=secret'.", "for url 'https://a.org/x?...'."),
        ("(http://a.org/?a=secret)", "(http://a.org/?...)"),
        ("mail me@a.org, or s3://key:secret@bucket/x", "mail me@a.org, or s3://bucket/x"),
        ("what? nothing", "what? nothing"),
    ],
)
def test_addresses_lose_their_secrets(text, shown):
    assert without_credentials(text) == shown
