"""Streams that a caller closed, or whose encoding has few characters: real processes, without heavy imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from uniformerv2.core.terminal import prepare_streams
prepare_streams()
print("on stdout \\u2588 \\udce9")
print("on stderr \\u2588 \\udce9", file=sys.stderr, flush=True)
with open(sys.argv[1], "w") as file:
    file.write(str(file.fileno()))
"""


def started(tmp_path, redirection, **environment):
    """Standard output and error of the program, and the number of the next file that it opened."""
    words = ["sh", "-c", f'exec "$0" -c "$1" "$2" {redirection}', sys.executable, PROGRAM, str(tmp_path / "file")]
    done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, **environment})
    return done.stdout, done.stderr, int((tmp_path / "file").read_text())


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_closed_stream_leads_nowhere_and_its_number_stays_taken(tmp_path, redirection):
    out, err, number = started(tmp_path, redirection, PYTHONUTF8="1")
    assert bool(out) == (not redirection.startswith(">"))
    assert bool(err) == ("2>" not in redirection)
    assert number > 2


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:surrogateescape"},
    ],
)
def test_what_an_encoding_lacks_is_written_in_escapes(tmp_path, environment):
    out, err, _ = started(tmp_path, "", **environment)
    assert out.split(b" ", 2)[2] == b"\\u2588 \\udce9\n"
    assert err.split(b" ", 2)[2] == b"\\u2588 \\udce9\n"


def test_file_names_keep_their_bytes_where_the_encoding_is_utf8(tmp_path):
    out, _, _ = started(tmp_path, "", PYTHONIOENCODING="utf-8:surrogateescape")
    assert out == b"on stdout \xe2\x96\x88 \xe9\n"


def test_the_command_line_runs_without_streams():
    words = ["sh", "-c", 'exec "$0" -m uniformerv2 --version >&- 2>&-', sys.executable]
    assert subprocess.run(words, check=False).returncode == 0
