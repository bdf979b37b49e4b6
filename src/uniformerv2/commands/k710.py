"""``uniformerv2 k710 build``: Kinetics-400, 600 and 700 merged, without repeats and leaks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from uniformerv2.commands.options import UsageError
from uniformerv2.data.kinetics710 import KINETICS710_FILE, build_kinetics710

__all__ = ["add_arguments", "run"]

_SETS = {"k400": "Kinetics-400", "k600": "Kinetics-600", "k700": "Kinetics-700"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    build = tasks.add_parser("build", help="write lists, label maps and a report", allow_abbrev=False)
    for name, title in _SETS.items():
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


def run(options: argparse.Namespace) -> int:
    """Merge, and print the report.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: A list is not there.
    """
    given = {name: getattr(options, name) for name in _SETS}
    for path in (path for paths in given.values() for path in paths):
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}.")
    report = build_kinetics710(**given, out=options.out, file_name=options.file_name)
    if options.json:
        sys.stdout.write(json.dumps({"folder": str(options.out), **report.as_json()}) + "\n")
    else:
        sys.stdout.write(f"{report}\nWritten to {options.out}\n")
    return 0
