"""The options of ``uniformerv2 convert``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from uniformerv2.commands.options import UsageError, add_model_overrides, check_model, refuse_input

__all__ = ["add_arguments", "check"]

WEIGHTS: Final = "model.safetensors"
"""As ``checkpoint.WEIGHTS``, which brings torch."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("checkpoint", metavar="IN", help="a file, a name of the zoo, or hf:user/name")
    parser.add_argument("folder", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument(
        "--head-classes", metavar="SPACE|FILE", help="names of the checkpoint's classes, e.g. kinetics400"
    )
    parser.add_argument("--force", action="store_true", help="replace a model that is in the folder already")
    parser.add_argument("--json", action="store_true", help="print what was written as one line of JSON")
    add_model_overrides(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: A model is in the folder already, there is none to convert, or no such label space.
    """
    if (options.folder / WEIGHTS).exists() and not options.force:
        raise UsageError(f"There is a model in {options.folder} already: choose another folder or add --force.")
    if options.folder.exists() and not options.folder.is_dir():
        raise UsageError(f"{options.folder} is a file; OUT names a folder.")
    check_model(options.checkpoint)
    given = Path(options.checkpoint)
    for written in (options.folder, options.folder / WEIGHTS):
        refuse_input(written, option="OUT", inputs=(given,))
