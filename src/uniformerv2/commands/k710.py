"""``uniformerv2 k710 build``: Kinetics-400, 600 and 700 merged, without repeats and leaks."""

from __future__ import annotations

import argparse
import json
import sys

from uniformerv2.commands.arguments.k710 import SETS
from uniformerv2.core.terminal import harmless
from uniformerv2.data.kinetics710 import build_kinetics710

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Merge, and print the report.

    Args:
        options: As ``add_arguments`` made them.
    """
    given = {name: getattr(options, name) for name in SETS}
    report = build_kinetics710(**given, out=options.out, file_name=options.file_name)
    if options.json:
        sys.stdout.write(json.dumps({"folder": str(options.out), **report.as_json()}) + "\n")
    else:
        sys.stdout.write(harmless(f"{report}\nWritten to {options.out}\n"))
    return 0
