"""The command line: ``uniformerv2 VERB ...``.

A verb is a module that is imported when it is used; it adds its options to a parser and runs. Exit codes: 0 done,
1 failed on the data, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar, NoReturn

from uniformerv2 import __version__
from uniformerv2.commands.options import UsageError

__all__ = ["VERBS", "main"]

VERBS: dict[str, tuple[str, str]] = {
    "predict": ("uniformerv2.commands.predict", "classify videos"),
    "models": ("uniformerv2.commands.models", "list the model zoo, or describe one model"),
    "convert": ("uniformerv2.commands.convert", "turn a checkpoint of any published format into our folder"),
    "data": ("uniformerv2.commands.data", "check videos, or prepare them for training"),
    "k710": ("uniformerv2.commands.k710", "build Kinetics-710 out of Kinetics-400, 600 and 700"),
    "train": ("uniformerv2.commands.train", "train on a folder or list of videos, without configuration"),
    "fit": ("uniformerv2.commands.fit", "train by a recipe or a configuration file"),
    "validate": ("uniformerv2.commands.fit", "measure on the validation set, one view a video"),
    "test": ("uniformerv2.commands.test", "measure a checkpoint on videos, by many views of each"),
    "ablate": ("uniformerv2.commands.ablate", "run a suite of ablations: variants, seeds, a table with intervals"),
    "evaluate": ("uniformerv2.commands.evaluate", "measure again from dumps: intervals, ensembles, comparison"),
    "benchmark": ("uniformerv2.commands.benchmark", "measure speed, memory and multiply-adds on this machine"),
}

PARSED_BY_LIGHTNING = frozenset({"fit", "validate"})
"""Verbs whose module takes the words as they are."""


class Parser(argparse.ArgumentParser):
    """An argument parser that knows what was meant."""

    given: ClassVar[Sequence[str]] = ()
    """The words of this run, for ``error``; the parsers of sub-verbs share them."""

    def known_options(self) -> list[str]:
        """The options of this parser and of its sub-verbs."""
        known = [option for action in self._actions for option in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                known += [option for parser in action.choices.values() for option in parser.known_options()]
        return known

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, with the nearest option where one was mistyped, and exit with 2.

        Raises:
            SystemExit: Always.
        """
        options = self.known_options()
        given = [word.partition("=")[0] for word in self.given if word.startswith("--")]
        hints = [(word, get_close_matches(word, options, n=1)) for word in given if word not in options]
        meant = "".join(f" For {word}, did you mean {hint[0]}?" for word, hint in hints if hint)
        sys.stderr.write(f"{self.prog}: {message}.{meant}\nSee {self.prog} --help.\n")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: Words after ``uniformerv2``; those of the process where None.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a file name that is not UTF-8 must not end a long run
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help"}:
        sys.stdout.write(_help())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"uniformerv2 {__version__}\n")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        hint = get_close_matches(verb, VERBS, n=1)
        meant = f" Did you mean '{hint[0]}'?" if hint else f" There are: {', '.join(VERBS)}."
        sys.stderr.write(f"uniformerv2: no verb is called '{verb}'.{meant}\n")
        return 2
    return _run(verb, rest)


def _run(verb: str, words: list[str]) -> int:
    try:
        code = _call(verb, words)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has enough, as ``head`` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UsageError as error:
        sys.stderr.write(f"uniformerv2 {verb}: {error}\n")
        return 2
    except (ValueError, OSError, ModuleNotFoundError, RuntimeError) as error:
        if type(error) is RuntimeError:
            raise  # nothing of ours raises a bare one: a defect, to be seen with its traceback
        sys.stderr.write(f"uniformerv2 {verb}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return code


def _call(verb: str, words: list[str]) -> int:
    module_name, summary = VERBS[verb]
    module = importlib.import_module(module_name)
    if verb in PARSED_BY_LIGHTNING:
        return int(module.run(verb, words))
    parser = Parser(prog=f"uniformerv2 {verb}", description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
    module.add_arguments(parser)
    Parser.given = words
    return int(module.run(parser.parse_args(words, argparse.Namespace(words=[verb, *words]))))


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join(
        [
            "uniformerv2: video recognition with armed image ViTs",
            "",
            "usage: uniformerv2 VERB [options]     uniformerv2 VERB --help     uniformerv2 --version",
            "",
            *lines,
            "",
        ]
    )
