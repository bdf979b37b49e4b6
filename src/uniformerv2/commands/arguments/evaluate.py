"""The options of ``uniformerv2 evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniformerv2.commands.options import UsageError, check_at_least, check_dump, check_exists, check_report

__all__ = ["add_arguments", "check"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("dumps", nargs="+", type=Path, metavar="DUMP", help="what uniformerv2 test --dump wrote")
    parser.add_argument("--ensemble-weights", nargs="+", type=float, metavar="W", help="of the dumps in their ensemble")
    parser.add_argument("--compare", action="store_true", help="of two dumps: which videos changed, McNemar's test")
    parser.add_argument("--dump", type=Path, metavar="FILE", help="write the scores of the ensemble, or another format")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write a page of figures and examples there")
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="show frames of the videos below it in the report")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap; 0: no intervals")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap")
    parser.add_argument("--json", action="store_true", help="one line of JSON; all else goes to stderr")


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: A dump that is not there, or options that contradict each other.
    """
    if options.compare and len(options.dumps) != 2:
        raise UsageError(f"--compare takes two dumps, got {len(options.dumps)}.")
    if options.compare and (options.ensemble_weights or options.dump or options.report):
        raise UsageError("--compare makes no ensemble: leave out --ensemble-weights, --dump and --report.")
    if options.ensemble_weights and len(options.dumps) == 1:
        raise UsageError("--ensemble-weights are those of an ensemble: give two dumps or more, or leave them out.")
    if options.ensemble_weights and len(options.ensemble_weights) != len(options.dumps):
        raise UsageError(f"--ensemble-weights takes a number for each of the {len(options.dumps)} dumps.")
    check_at_least(0, options, "resamples", "seed")
    if options.root is not None and options.report is None:
        raise UsageError("--root says which videos a report may show: give --report FOLDER too.")
    if options.root is not None and not options.root.is_dir():
        raise UsageError(f"There is no folder {options.root}; --root is where the videos lie that a report may show.")
    for path in options.dumps:
        check_exists(path)
    if options.dump is not None and options.dump.exists():
        raise UsageError(f"{options.dump} is there already: give another --dump, or delete it.")
    check_dump(options.dump)
    check_report(options.report)
