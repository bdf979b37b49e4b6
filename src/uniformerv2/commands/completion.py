"""``uniformerv2 completion``: a script that completes verbs, options and their values in bash, zsh or fish."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["add_arguments", "check", "run", "script"]

EXAMPLE: Final = "source <(uniformerv2 completion bash)     # fish: uniformerv2 completion fish | source"
SHELLS: Final = ("bash", "zsh", "fish")
BASH: Final = """_uniformerv2() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words=
    local place="${{COMP_WORDS[1]}}"
    case "$place ${{COMP_WORDS[2]}}" in
{tasks}
    esac
    case "$place" in
{options}
    esac
    case "$place $previous" in
{values}
    esac
    [[ $COMP_CWORD == 1 ]] && words={verbs}
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _uniformerv2 uniformerv2
"""
ZSH: Final = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def check(_options: argparse.Namespace) -> None:
    """Nothing else can be wrong."""


def run(options: argparse.Namespace) -> int:
    """Print the script; ``options.parsers`` has the parser of each verb."""
    sys.stdout.write(script(options.shell, options.parsers))
    return 0


def script(shell: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """The text that a shell runs.

    Args:
        shell: "bash", "zsh" or "fish".
        parsers: Of each verb.
    """
    places = dict(_places(parsers))
    if shell == "fish":
        return "".join(f"{line}\n" for line in _fish(parsers, places))
    tasks = [f"        {shlex.quote(place)}) place={shlex.quote(place)};;" for place in places if " " in place]
    options = [f"        {shlex.quote(place)}) words={_words(actions)};;" for place, actions in places.items()]
    values = [
        f"        {shlex.quote(f'{place} {flag}')}) words={shlex.quote(' '.join(map(str, action.choices)))};;"
        for place, actions in places.items()
        for action in actions
        if action.choices
        for flag in action.option_strings
    ]
    verbs = shlex.quote(" ".join([*parsers, "help"]))
    text = BASH.format(tasks="\n".join(tasks), options="\n".join(options), values="\n".join(values), verbs=verbs)
    return ZSH + text if shell == "zsh" else text


def _places(parsers: Mapping[str, argparse.ArgumentParser]) -> Iterator[tuple[str, list[argparse.Action]]]:
    """A verb, or a verb and a task -> what may follow."""
    for verb, parser in parsers.items():
        yield verb, list(parser._actions)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((f"{verb} {task}", list(inner._actions)) for task, inner in action.choices.items())


def _words(actions: list[argparse.Action]) -> str:
    """Options, tasks and values of positions; the options that a help hides too."""
    words = [flag for action in actions for flag in action.option_strings if flag.startswith("--")]
    words += [str(value) for action in actions if not action.option_strings for value in action.choices or ()]
    return shlex.quote(" ".join(words))


def _fish(parsers: Mapping[str, argparse.ArgumentParser], places: Mapping[str, list[argparse.Action]]) -> Iterator[str]:
    start = "complete -c uniformerv2 -n"
    for verb, parser in parsers.items():
        summary = (parser.description or "").partition("\n")[0]
        yield f"{start} __fish_use_subcommand -a {verb} -d {shlex.quote(summary)}"
    for place, actions in places.items():
        seen = " && ".join(f"__fish_seen_subcommand_from {word}" for word in place.split())
        for action in actions:
            about = "" if action.help in {None, argparse.SUPPRESS} else f" -d {shlex.quote(str(action.help))}"
            values = " ".join(map(str, action.choices or ()))
            for flag in action.option_strings:
                takes = f" -xa {shlex.quote(values)}" if values else " -r" * (action.nargs != 0)
                name = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                yield f"{start} {shlex.quote(seen)} {name}{takes}{about}"
            if values and not action.option_strings:
                yield f"{start} {shlex.quote(seen)} -a {shlex.quote(values)}"
