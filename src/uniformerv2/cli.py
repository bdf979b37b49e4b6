"""The command line: ``uniformerv2 VERB ...``.

A verb is a module ``commands/VERB.py``: ``add_arguments(parser)`` and ``check(options)`` import nothing heavy and are
all that ``--help`` and a wrong call run; ``run(options)`` imports what it needs. Exit codes: 0 done, 1 failed on the
data, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import ModuleType
from typing import Any, ClassVar, Final, NoReturn

from uniformerv2 import __version__
from uniformerv2.commands.options import example
from uniformerv2.core.devices import is_out_of_memory
from uniformerv2.core.limits import Limits, get_limits, parse_limits, set_limits
from uniformerv2.core.messages import UsageError, did_you_mean, usage_errors
from uniformerv2.core.terminal import harmless, prepare_streams, without_credentials
from uniformerv2.core.workers import nothing_from_here

__all__ = ["VERBS", "main", "parser_of"]

VERBS: dict[str, tuple[str, str]] = {
    "predict": ("predict", "classify videos"),
    "timeline": ("timeline", "find what happens when in long videos"),
    "watch": ("watch", "watch a camera, a stream or a file that grows; events while they happen"),
    "explain": ("explain", "show where in a video the model looked"),
    "features": ("features", "write features of videos, for localisation and retrieval"),
    "search": ("search", "find the videos that are most like another one"),
    "serve": ("serve", "serve models over HTTP"),
    "models": ("models", "list the model zoo, or describe one model"),
    "convert": ("convert", "turn a checkpoint of any published format into our folder"),
    "export": ("export", "turn a checkpoint into ONNX and other files, proved to say the same"),
    "data": ("data", "check videos, or prepare them for training"),
    "k710": ("k710", "build Kinetics-710 out of Kinetics-400, 600 and 700"),
    "train": ("train", "train on a folder or list of videos, without configuration"),
    "fit": ("fit", "train by a recipe or a configuration file"),
    "validate": ("fit", "measure on the validation set, one view per video"),
    "test": ("test", "measure a checkpoint on videos, with many views of each"),
    "ablate": ("ablate", "run a suite of ablations: variants, seeds, a table with intervals"),
    "evaluate": ("evaluate", "measure again from dumps: intervals, ensembles, comparison"),
    "benchmark": ("benchmark", "measure speed, memory and multiply-adds on this machine"),
    "doctor": ("doctor", "say what this machine has for the package, and what is missing"),
    "completion": ("completion", "print a script that completes verbs and options in bash, zsh or fish"),
}
"""Verb -> the name of its module, and what it does."""

PARSED_BY_LIGHTNING: Final = frozenset({"fit", "validate"})
"""Verbs that parse most of their words themselves."""
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
FOR_EVERY_VERB: Final = "for every verb"
WIDTH: Final = 100
"""Columns of a help text where there is no terminal, and the most of them."""


class AddLimit(argparse.Action):
    """Notes a ``--limit`` in ``Parser.limits``, which the parsers of sub-verbs share."""

    def __call__(self, parser: argparse.ArgumentParser, _namespace: Any, values: Any, _option: Any = None) -> None:
        """Read NAME=NUMBER; exit with 2 where it is none."""
        try:
            Parser.limits.update(parse_limits(values))
        except ValueError as error:
            parser.error(f"argument --limit: {str(error).removesuffix('.')}")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """One line per option where it can be: of several values the first is shown."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        shown = super()._format_args(action, default_metavar)
        return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..." if action.nargs == "+" else shown


class Parser(argparse.ArgumentParser):
    """An argument parser that knows what was meant, has the options of every verb, and prints a short usage."""

    given: ClassVar[Sequence[str]] = ()
    """The words of this run, for ``error``; the parsers of sub-verbs share them."""
    limits: ClassVar[dict[str, int]] = {}
    """The limits of this run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False, "add_help": False})
        self._positionals = self._optionals
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        columns = min(WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns)
        self.formatter_class = partial(HelpFormatter, max_help_position=34 if columns >= WIDTH else 28, width=columns)
        group = self.add_argument_group(FOR_EVERY_VERB)
        about = "raise a limit that an error names; repeatable"
        group.add_argument("--limit", action=AddLimit, metavar="NAME=NUMBER", help=about)
        about = f"show where an error came from (or set {DEBUG}=1)"
        group.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=about)

    def known_options(self) -> list[str]:
        """The options of this parser and of its sub-verbs."""
        known = [option for action in self._actions for option in action.option_strings]
        return known + [option for parser in self.sub_verbs().values() for option in parser.known_options()]

    def flags(self) -> dict[str, str]:
        """How the argument of a name is typed, also one of a sub-verb."""
        own = {action.dest: action.option_strings[0] for action in reversed(self._actions) if action.option_strings}
        return {name: flag for parser in self.sub_verbs().values() for name, flag in parser.flags().items()} | own

    def sub_verbs(self) -> dict[str, Parser]:
        """The parsers of sub-verbs by name."""
        tasks = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return {name: parser for task in tasks for name, parser in task.choices.items()}

    def format_help(self) -> str:
        """As ``ArgumentParser.format_help``, with what must be given and no list of options in the usage."""
        self._action_groups.sort(key=lambda group: group.title == FOR_EVERY_VERB)
        if self.usage is None:
            needed = [action for action in self._actions if action.required or not action.option_strings]
            words = [self._in_usage(action) for action in sorted(needed, key=lambda one: bool(one.option_strings))]
            self.usage = " ".join([self.prog, *words, "[options]"])
        return super().format_help()

    @staticmethod
    def _in_usage(action: argparse.Action) -> str:
        word = str(action.metavar or action.dest)
        word += " ..." * (action.nargs == "+")
        word = f"[{word}]" if action.nargs == "?" else word
        return " ".join([*action.option_strings[:1], word])

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, with the nearest option where one was mistyped, and exit with 2.

        Raises:
            SystemExit: Always.
        """
        options = self.known_options()
        given = [word.partition("=")[0] for word in self.given if word.startswith("--")]
        hints = [(word, did_you_mean(word, options)) for word in given if word not in options]
        meant = "".join(f" For {word}, did{hint.strip()[3:].replace(chr(39), '')}" for word, hint in hints if hint)
        sys.stderr.write(
            f"{self.prog}: {harmless(without_credentials(f'{message}.{meant}'))}\nSee {self.prog} --help.\n"
        )
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
        words = [*words[1:], "--help"]
    if not words or words[0] in {"-h", "--help"}:
        sys.stdout.write(_help())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"uniformerv2 {__version__}\n")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        meant = did_you_mean(verb, VERBS) or f" There are: {', '.join(VERBS)}."
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
        _tell(verb, words, in_options(str(error), parser_of(verb)))
        return 2
    except (ValueError, OSError, ModuleNotFoundError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            _tell(verb, words, _memory_advice(verb, error))
        elif type(error) is RuntimeError:
            raise  # nothing of ours raises a bare one: a defect, to be seen with its traceback
        else:
            _tell(verb, words, in_options(str(error), parser_of(verb)))
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return code


def _tell(verb: str, words: Sequence[str], message: str) -> None:
    """Say on stderr why a run ends; where it was asked for, also where the error came from."""
    if "--debug" in words or os.environ.get(DEBUG, "0") not in {"", "0"}:
        sys.stderr.write(harmless(traceback.format_exc()))
    sys.stderr.write(f"uniformerv2 {verb}: {harmless(without_credentials(message))}\n")


def in_options(message: str, parser: Parser) -> str:
    """A message of a function in the words of the command line: its arguments are called as the options are typed.

    A name before a number is a field of something: "The recipe has num_frames 16".

    >>> in_options("stride_seconds must be above 0, got 0.", parser_of("timeline"))
    '--stride-seconds must be above 0, got 0.'
    >>> in_options("fps must be above 0, got 0.", parser_of("timeline")), in_options("50 fps", parser_of("timeline"))
    ('--fps must be above 0, got 0.', '50 fps')

    Args:
        message: As a script would see it.
        parser: Whose options.
    """
    for name, flag in parser.flags().items():
        if "_" in name:
            message = re.sub(rf"(?<![\w.'\"/-]){name}(?![\w='\"/(-]|\.\w| \d)", flag, message)
        elif message.startswith(f"{name} must be "):
            message = flag + message.removeprefix(name)
    return message


def _memory_advice(verb: str, error: BaseException) -> str:
    options = [option for option in LOWERED if option in parser_of(verb).known_options()]
    advice = f" Lower {' or '.join(options)}." if options else ""
    what = "GPU memory" if "cuda" in str(error).lower() else "memory"
    return f"The {what} is not enough ({str(error).partition('. ')[0].strip() or type(error).__name__}).{advice}"


def _call(verb: str, words: list[str]) -> int:
    module, parser = _module(verb), parser_of(verb)
    Parser.given, Parser.limits = words, {}
    options = argparse.Namespace(words=[verb, *words])
    if verb in PARSED_BY_LIGHTNING:
        options, options.rest = parser.parse_known_args(words, options)
    else:
        parser.parse_args(words, options)
    if verb == "completion":
        options.parsers = {each: parser_of(each) for each in VERBS}
    with _limits(), nothing_from_here():
        module.check(options)
        if loads := getattr(module, "LOADS", None):  # brings PyTorch: seconds pass before anything else is seen
            is_told = not getattr(options, "json", False) and os.environ.get("RANK", "0") == "0"
            with _loading() if is_told else nullcontext():
                importlib.import_module(loads)
        return int(module.run(options))


def _loading() -> AbstractContextManager[object]:
    """Says what takes the first seconds."""
    sys.stderr.write("loading ...\n")
    sys.stderr.flush()
    from uniformerv2.core.console import Progress

    return Progress("loading", None, has_bar=False)


def _limits() -> AbstractContextManager[Limits]:
    """Those of ``--limit`` and the environment, until the run ends."""
    with usage_errors():
        return set_limits(**Parser.limits) if Parser.limits else nullcontext(get_limits())


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"uniformerv2.commands.{VERBS[verb][0]}")


def parser_of(verb: str) -> Parser:
    """The parser of a verb, whose help opens with an example."""
    module, summary = _module(verb), VERBS[verb][1]
    command = module.EXAMPLE if isinstance(module.EXAMPLE, str) else module.EXAMPLE[verb]
    parser = Parser(prog=f"uniformerv2 {verb}", **example(f"{summary[0].upper()}{summary[1:]}.", command))
    module.add_arguments(parser)
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
