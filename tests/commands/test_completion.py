"""``uniformerv2 completion``: what bash offers for a prefix, and that the other shells get the same words."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from uniformerv2 import cli
from uniformerv2.commands.completion import SHELLS, script

PARSERS = {verb: cli.parser_of(verb) for verb in cli.VERBS}
CANDIDATES = {
    "pre": {"predict"},
    "data ": {"--help", "--limit", "--debug", "check", "prepare"},
    "data check --de": {"--deep", "--debug"},
    "predict a.mp4 --num-h": {"--num-heads"},
    "predict --crops ": {"1", "3"},
    "train videos --precision ": {"auto", "fp32", "bf16"},
    "train videos --cache-f": {"--cache-features"},
    "completion f": {"fish"},
    "test list.csv --decoder py": {"pyav"},
    "test list.csv --root nowhere": set(),
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_offers_verbs_options_and_values(tmp_path):
    file = tmp_path / "completion.bash"
    file.write_text(script("bash", PARSERS))
    lines = ["set -e", f"source {file}", "complete -p uniformerv2 > /dev/null"]
    for line in CANDIDATES:
        words = " ".join(f"'{word}'" for word in ["uniformerv2", *line.split(" ")])
        lines.append(f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _uniformerv2 || true")
        lines.append('echo "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert dict(zip(CANDIDATES, map(set, map(str.split, done.stdout.split("\n"))), strict=False)) == CANDIDATES


def test_the_other_shells_get_the_same_words():
    assert script("zsh", PARSERS).endswith(script("bash", PARSERS))
    lines = script("fish", PARSERS).splitlines()
    assert all(line.startswith("complete -c uniformerv2 -n ") for line in lines)
    for verb, parser in PARSERS.items():
        assert any(f"__fish_use_subcommand -a {verb} -d " in line for line in lines)
        for option in parser.known_options():
            assert any(
                verb in line and f" -{'l' * option.startswith('--') or 's'} {option.lstrip('-')}" in line
                for line in lines
            )


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_printed(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == script(shell, {verb: cli.parser_of(verb) for verb in cli.VERBS})
