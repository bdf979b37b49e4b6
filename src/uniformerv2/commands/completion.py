"""``uniformerv2 completion``: a script that completes verbs, options and their values in bash, zsh or fish."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from uniformerv2.zoo.cards import list_models

__all__ = ["add_arguments", "check", "run", "script"]

EXAMPLE: Final = 'eval "$(uniformerv2 completion bash)"     # fish: uniformerv2 completion fish | source'
SHELLS: Final = ("bash", "zsh", "fish")
NUMBERS: Final = (int, float)
KNOWN: Final = {"device": ("auto", "cpu", "cuda", "mps"), "split": ("train", "val", "test", "all")}
"""Values that no parser lists."""
BASH: Final = """_uniformerv2() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    local place="${{COMP_WORDS[1]}}" words= has_files= IFS=$' \\t\\n' zoo={zoo}
    [[ $COMP_CWORD -gt 2 ]] && case "$place ${{COMP_WORDS[2]}}" in
{tasks}
    esac
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous="${{COMP_WORDS[COMP_CWORD-2]}}"
    fi
    if [[ $COMP_CWORD == 1 ]]; then
        words={verbs}
        [[ $current == -* ]] && words="--help --version"
    elif [[ $current == -* ]]; then
        case "$place" in
{options}
        esac
    else
        case "$place $previous" in
{values}
        *)
            case "$place" in
{positions}
            *) has_files=1;;
            esac;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [[ -z $has_files ]]; then
        compopt +o default 2> /dev/null
    elif [[ -z $current ]]; then
        COMPREPLY=()
    elif [[ ${{#COMPREPLY[@]}} -gt 0 ]]; then
        compopt -o filenames 2> /dev/null
        IFS=$'\\n'
        COMPREPLY+=($(compgen -f -- "$current"))
    fi
    return 0
}}
complete -o default -F _uniformerv2 uniformerv2
"""
"""Options are offered to a word that begins with a dash; after an option its values; files wherever one may stand.

Names of the zoo are 72: they are offered to a word that begins like one of them, and files alone to an empty word.
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
        parsers: The parser of each verb.
    """
    places = dict(_places(parsers))
    if shell == "fish":
        return "".join(f"{line}\n" for line in _fish(parsers, places))
    tasks = [f"        {shlex.quote(place)}) place={shlex.quote(place)};;" for place in places if " " in place]
    options = [f"        {shlex.quote(place)}) words={_quoted(_flags(actions))};;" for place, actions in places.items()]
    values = [
        f"        {'|'.join(shlex.quote(f'{place} {flag}') for flag in action.option_strings)}) {_offer(action)};;"
        for place, actions in places.items()
        for action in actions
        if action.option_strings and action.nargs != 0
    ]
    positions = [
        f"            {shlex.quote(place)}) {_offer(action)};;"
        for place, actions in places.items()
        if (action := next((each for each in actions if not each.option_strings), None))
        and _offer(action) != "has_files=1"
    ]
    verbs = _quoted([*parsers, "help"])
    positions.append(f"            help) words={verbs};;")
    blocks = {"tasks": tasks, "options": options, "values": values, "positions": positions}
    text = BASH.format(
        verbs=verbs, zoo=_quoted(list_models()), **{name: "\n".join(lines) for name, lines in blocks.items()}
    )
    return ZSH + text if shell == "zsh" else text


def _places(parsers: Mapping[str, argparse.ArgumentParser]) -> Iterator[tuple[str, list[argparse.Action]]]:
    """A verb, or a verb and a task -> what may follow."""
    for verb, parser in parsers.items():
        yield verb, list(parser._actions)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((f"{verb} {task}", list(inner._actions)) for task, inner in action.choices.items())


def _flags(actions: list[argparse.Action]) -> list[str]:
    """The options, those that a help hides too."""
    return [flag for action in actions for flag in action.option_strings if flag.startswith("--")]


def _words(action: argparse.Action) -> list[str]:
    """All that an option or a position may be; empty where that is not known."""
    known: Iterable[object] = KNOWN.get(action.dest, ()) if action.choices is None else action.choices
    return [str(value) for value in known]


def _offer(action: argparse.Action) -> str:
    """What bash assigns: the words where they are known, nothing for a number, else files."""
    if "MODEL" in {action.metavar, action.dest.upper()}:
        return 'words="$zoo" has_files=1'
    if words := _words(action):
        return f"words={_quoted(words)}"
    return ":" if action.type in NUMBERS or action.metavar == "NAME=NUMBER" else "has_files=1"


def _quoted(words: Sequence[str]) -> str:
    return shlex.quote(" ".join(words))


def _fish(parsers: Mapping[str, argparse.ArgumentParser], places: Mapping[str, list[argparse.Action]]) -> Iterator[str]:
    start = "complete -c uniformerv2 -n"
    yield f"{start} __fish_use_subcommand -f"
    for verb, parser in parsers.items():
        summary = (parser.description or "").partition("\n")[0]
        yield f"{start} __fish_use_subcommand -a {verb} -d {shlex.quote(summary)}"
    for place, actions in places.items():
        seen = " && ".join(f"__fish_seen_subcommand_from {word}" for word in place.split())
        for action in actions:
            about = "" if action.help in {None, argparse.SUPPRESS} else f" -d {shlex.quote(str(action.help))}"
            values = " ".join(_words(action))
            for flag in action.option_strings:
                takes = f" -xa {shlex.quote(values)}" if values else " -r" * (action.nargs != 0)
                name = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                yield f"{start} {shlex.quote(seen)} {name}{takes}{about}"
            if values and not action.option_strings:
                alone = "" if isinstance(action, argparse._SubParsersAction) else " -f"
                yield f"{start} {shlex.quote(seen)}{alone} -a {shlex.quote(values)}"
    yield f"{start} '__fish_seen_subcommand_from help' -f -a {_quoted(list(parsers))}"
