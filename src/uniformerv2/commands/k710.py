"""``uniformerv2 k710 build``: Kinetics-400, 600 and 700 merged, without repeats and leaks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from uniformerv2.commands.options import add_json, check_exists, example, refuse_input
from uniformerv2.core.terminal import harmless
from uniformerv2.data.kinetics710 import KINETICS710_FILE, build_kinetics710

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 k710 build --k400 lists/k400 --k600 lists/k600 --k700 lists/k700 --out lists/k710"
SETS: Final = {"k400": "Kinetics-400", "k600": "Kinetics-600", "k700": "Kinetics-700"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    summary = "write lists, label maps and a report"
    build = tasks.add_parser("build", help=summary, **example(f"Merge the three: {summary}.", EXAMPLE))
    for name, title in SETS.items():
        about = f"the train, val and test CSV files of {title}, or a folder that holds them"
        build.add_argument(f"--{name}", nargs="+", required=True, type=Path, metavar="PATH", help=about)
    build.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the folder to write")
    where = f"where the merged lists look for a clip (default: {KINETICS710_FILE})"
    build.add_argument("--file-name", default=KINETICS710_FILE, metavar="PATTERN", help=where.replace("%", "%%"))
    add_json(build)


def check(options: argparse.Namespace) -> None:
    """Refuse lists that are not there, and a folder of theirs: the merged ones are called ``train.csv`` too."""
    for name in SETS:
        for path in getattr(options, name):
            check_exists(path)
            refuse_input(options.out, option="--out", inputs=(path if path.is_dir() else path.parent,))


def run(options: argparse.Namespace) -> int:
    """Merge, and print the report."""
    given = {name: getattr(options, name) for name in SETS}
    report = build_kinetics710(**given, out=options.out, file_name=options.file_name)
    if options.json:
        sys.stdout.write(json.dumps({"folder": str(options.out), **report.as_json()}) + "\n")
    else:
        sys.stdout.write(harmless(f"{report}\nWritten to {options.out}\n"))
    return 0
