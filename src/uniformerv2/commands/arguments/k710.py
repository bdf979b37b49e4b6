"""The options of ``uniformerv2 k710``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from uniformerv2.commands.options import check_exists, refuse_input
from uniformerv2.data.kinetics710 import KINETICS710_FILE

__all__ = ["SETS", "add_arguments", "check"]

SETS: Final = {"k400": "Kinetics-400", "k600": "Kinetics-600", "k700": "Kinetics-700"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    build = tasks.add_parser("build", help="write lists, label maps and a report", allow_abbrev=False)
    for name, title in SETS.items():
        build.add_argument(
            f"--{name}",
            nargs="+",
            required=True,
            type=Path,
            metavar="PATH",
            help=f"the train, val and test CSV files of {title}, or a folder that holds them",
        )
    build.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to write")
    build.add_argument(
        "--file-name",
        default=KINETICS710_FILE,
        metavar="PATTERN",
        help=f"where the merged lists look for a clip (default: {KINETICS710_FILE})",
    )
    build.add_argument("--json", action="store_true", help="print the report as one line of JSON")


def check(options: argparse.Namespace) -> None:
    """Refuse lists that are not there, and a folder of theirs: the merged ones are called ``train.csv`` too."""
    for name in SETS:
        for path in getattr(options, name):
            check_exists(path)
            refuse_input(options.out, option="--out", inputs=(path if path.is_dir() else path.parent,))
