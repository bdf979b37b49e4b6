"""``uniformerv2 completion``: what bash offers for a prefix, and that the other shells get the same words."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from uniformerv2 import cli
from uniformerv2.commands.completion import SHELLS, script

PARSERS = {verb: cli.parser_of(verb) for verb in cli.VERBS}
CANDIDATES = {
    "pre": {"predict"},
    "--v": {"--version"},
    "data ": {"check", "prepare"},
    "data --": {"--help", "--limit", "--debug"},
    "data check --de": {"--deep", "--debug"},
    "data check ": set(),
    "predict ": set(),
    "train ": set(),
    "predict a.mp4 --num-h": {"--num-heads"},
    "predict --crops ": {"1", "3"},
    "predict --device ": {"auto", "cpu", "cuda", "mps"},
    "predict --device = c": {"cpu", "cuda"},
    "predict --device =": {"auto", "cpu", "cuda", "mps"},
    "predict --topk ": set(),
    "predict --model ": set(),
    "predict --model uniformerv2_b16_ssv2": {"uniformerv2_b16_ssv2_16x224", "uniformerv2_b16_ssv2_32x224"},
    "train videos --precision ": {"auto", "fp32", "bf16"},
    "train videos --cache-f": {"--cache-features"},
    "completion ": {"bash", "zsh", "fish"},
    "completion f": {"fish"},
    "help tr": {"train"},
    "help train ": {*cli.VERBS, "help"},
    "test list.csv --decoder py": {"pyav"},
    "test list.csv --root nowhere": set(),
}
TYPED = {
    "predict \t": "predict trip.mp4",
    "train \t": "train trip.mp4",
    "predict --model \t": "predict --model trip.mp4",
    "predict --model uniformerv2_b16_ssv2_1\t": "predict --model uniformerv2_b16_ssv2_16x224",
    "predict --device cu\t": "predict --device cuda",
    "predict --device tr\t": "predict --device tr",
    "predict --topk \t": "predict --topk",
    "predict --cs\t tr\t": "predict --csv trip.mp4",
    "completion tr\t": "completion tr",
    "completion f\t": "completion fish",
    "help tr\t": "help train",
}
"""What is typed where the one file is trip.mp4, and what then stands in the line."""


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


@pytest.mark.skipif(shutil.which("bash") is None or not hasattr(os, "openpty"), reason="no bash or terminal here")
def test_what_the_tab_key_does(tmp_path):
    """In an interactive bash: files are offered where one may stand, and nothing else where there are words."""
    script_file, folder = tmp_path / "completion.bash", tmp_path / "folder"
    script_file.write_text(script("bash", PARSERS) + "uniformerv2() { echo \"<$*>\"; }\nPS1='ready> '\n")
    folder.mkdir()
    (folder / "trip.mp4").touch()
    master, slave = os.openpty()
    command = ["bash", "--noprofile", "--rcfile", str(script_file), "-i"]
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "200", "INPUTRC": os.devnull}
    shown = ""
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True
    ) as shell:
        os.close(slave)
        for line in [*TYPED, "exit"]:
            typed = f"uniformerv2 {line}\n" if line in TYPED else "exit\n"
            while not (ready := shown.count("ready> ")) or ready <= shown.count("\n<"):
                shown += os.read(master, 1024).decode()
            os.write(master, typed.encode())
        while piece := _read(master):
            shown += piece
        os.close(master)
    assert dict(zip(TYPED, re.findall("\n<(.*)>", shown), strict=True)) == TYPED
    assert shell.returncode == 0


def _read(terminal: int) -> str:
    """Empty once nobody writes to it any more, which Linux tells as an error."""
    try:
        return os.read(terminal, 1024).decode()
    except OSError:
        return ""


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
