"""The command line: ``uniformerv2 VERB ...``.

A verb is two modules: ``commands/arguments/VERB.py`` has its options and what shows a call to be wrong, and is all that
``--help`` and a wrong call import; ``commands/VERB.py`` carries it out. Exit codes: 0 done, 1 failed on the data, 2
wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from typing import Any, ClassVar, Final, NoReturn

from uniformerv2 import __version__
from uniformerv2.commands.options import UsageError
from uniformerv2.core.limits import Limits, get_limits, parse_limits, set_limits
from uniformerv2.core.memory import is_out_of_memory
from uniformerv2.core.terminal import harmless, prepare_streams
from uniformerv2.core.workers import nothing_from_here

__all__ = ["VERBS", "main"]

VERBS: dict[str, tuple[str, str]] = {
    "predict": ("predict", "classify videos"),
    "models": ("models", "list the model zoo, or describe one model"),
    "convert": ("convert", "turn a checkpoint of any published format into our folder"),
    "data": ("data", "check videos, or prepare them for training"),
    "k710": ("k710", "build Kinetics-710 out of Kinetics-400, 600 and 700"),
    "train": ("train", "train on a folder or list of videos, without configuration"),
    "fit": ("fit", "train by a recipe or a configuration file"),
    "validate": ("fit", "measure on the validation set, one view a video"),
    "test": ("test", "measure a checkpoint on videos, by many views of each"),
    "ablate": ("ablate", "run a suite of ablations: variants, seeds, a table with intervals"),
    "evaluate": ("evaluate", "measure again from dumps: intervals, ensembles, comparison"),
    "benchmark": ("benchmark", "measure speed, memory and multiply-adds on this machine"),
}
"""Verb -> the name of its modules, and what it does."""

PARSED_BY_LIGHTNING: Final = frozenset({"fit", "validate"})
"""Verbs that parse most of their words themselves."""
LOADING: Final = frozenset({"predict", "convert", "train", "fit", "validate", "test", "ablate", "benchmark"})
"""Verbs that import PyTorch: seconds pass before anything else is seen."""
DEBUG: Final = "UNIFORMERV2_DEBUG"
LOWERED: Final = (
    "--batch-size",
    "--views-per-batch",
    "--clips",
    "--crops",
    "--num-frames",
    "--image-size",
    "--workers",
)
"""Options that decide how much memory a verb takes."""


class AddLimit(argparse.Action):
    """Notes a ``--limit`` in ``Parser.limits``, which the parsers of sub-verbs share."""

    def __call__(self, parser: argparse.ArgumentParser, _namespace: Any, values: Any, _option: Any = None) -> None:
        """Read NAME=NUMBER; exit with 2 where it is none."""
        try:
            Parser.limits.update(parse_limits(values))
        except ValueError as error:
            parser.error(f"argument --limit: {str(error).removesuffix('.')}")


class Parser(argparse.ArgumentParser):
    """An argument parser that knows what was meant, and has the options of every verb."""

    given: ClassVar[Sequence[str]] = ()
    """The words of this run, for ``error``; the parsers of sub-verbs share them."""
    limits: ClassVar[dict[str, int]] = {}
    """The limits of this run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})
        group = self.add_argument_group("for every verb")
        group.add_argument(
            "--limit", action=AddLimit, metavar="NAME=NUMBER", help="raise a limit that an error names; repeatable"
        )
        group.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help=f"show where an error came from; {DEBUG}=1 does the same",
        )

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
        sys.stderr.write(f"{self.prog}: {harmless(message + '.' + meant)}\nSee {self.prog} --help.\n")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: Words after ``uniformerv2``; those of the process where None.

    Returns:
        The exit code.
    """
    prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
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
        sys.stderr.write(f"uniformerv2: no verb is called '{harmless(verb)}'.{meant}\n")
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
        _tell(verb, words, str(error))
        return 2
    except (ValueError, OSError, ModuleNotFoundError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            _tell(verb, words, _memory_advice(verb, error))
        elif type(error) is RuntimeError:
            raise  # nothing of ours raises a bare one: a defect, to be seen with its traceback
        else:
            _tell(verb, words, str(error))
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return code


def _tell(verb: str, words: Sequence[str], message: str) -> None:
    """Say on stderr why a run ends; where it was asked for, also where the error came from."""
    if "--debug" in words or os.environ.get(DEBUG, "0") not in {"", "0"}:
        sys.stderr.write(harmless(traceback.format_exc()))
    sys.stderr.write(f"uniformerv2 {verb}: {harmless(message)}\n")


def _memory_advice(verb: str, error: BaseException) -> str:
    options = [option for option in LOWERED if option in _parser(verb).known_options()]
    advice = f" Lower {' or '.join(options)}." if options else ""
    what = "GPU memory" if "cuda" in str(error).lower() else "memory"
    return f"The {what} is not enough ({str(error).partition('. ')[0].strip() or type(error).__name__}).{advice}"


def _call(verb: str, words: list[str]) -> int:
    arguments = importlib.import_module(f"uniformerv2.commands.arguments.{VERBS[verb][0]}")
    parser = _parser(verb)
    Parser.given, Parser.limits = words, {}
    options = argparse.Namespace(words=[verb, *words])
    if verb in PARSED_BY_LIGHTNING:
        options, options.rest = parser.parse_known_args(words, options)
    else:
        parser.parse_args(words, options)
    with _limits(), nothing_from_here():
        arguments.check(options)
        is_told = verb in LOADING and getattr(options, "json", False) is not True
        with _loading() if is_told and os.environ.get("RANK", "0") == "0" else nullcontext():
            module = importlib.import_module(f"uniformerv2.commands.{VERBS[verb][0]}")
        return int(module.run(options))


def _loading() -> AbstractContextManager[object]:
    """Says what takes the first seconds."""
    sys.stderr.write("loading ...\n")
    sys.stderr.flush()
    from uniformerv2.commands.progress import Progress

    return Progress("loading", None, has_bar=False)


def _limits() -> AbstractContextManager[Limits]:
    """Those of ``--limit`` and the environment, until the run ends.

    Raises:
        UsageError: The environment names no limit.
    """
    try:
        return set_limits(**Parser.limits) if Parser.limits else nullcontext(get_limits())
    except ValueError as error:
        raise UsageError(str(error)) from error


def _parser(verb: str) -> Parser:
    name, summary = VERBS[verb]
    parser = Parser(prog=f"uniformerv2 {verb}", description=summary[0].upper() + summary[1:] + ".")
    importlib.import_module(f"uniformerv2.commands.arguments.{name}").add_arguments(parser)
    return parser


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join(
        [
            "uniformerv2: video recognition with armed image ViTs",
            "",
            "usage: uniformerv2 VERB [options]     uniformerv2 help VERB     uniformerv2 --version",
            "",
            *lines,
            "",
        ]
    )
