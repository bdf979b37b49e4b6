"""The options of ``uniformerv2 models``."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniformerv2.commands.options import UsageError
from uniformerv2.zoo.cards import list_models, model_card

__all__ = ["add_arguments", "check", "is_pattern"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "name",
        nargs="?",
        default="*",
        metavar="NAME",
        help="a name, a pattern in quotes ('*k400*'), a folder, a file",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON a model")


def check(options: argparse.Namespace) -> None:
    """Refuse a name that no model has.

    Raises:
        UsageError: No such model.
    """
    if Path(options.name).exists():
        return
    if is_pattern(options.name):
        if not list_models(options.name):
            raise UsageError(f"No model of the zoo matches {options.name}.")
        return
    try:
        model_card(options.name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def is_pattern(name: str) -> bool:
    """Whether a word stands for several names."""
    return any(sign in name for sign in "*?[")
