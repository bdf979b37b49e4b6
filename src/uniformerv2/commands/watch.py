"""``uniformerv2 watch``: a camera, a stream, a file that grows; events while they happen."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import (
    add_json,
    add_model,
    add_model_overrides,
    add_views,
    check_model,
    given,
    model_overrides,
)
from uniformerv2.core.messages import usage_errors
from uniformerv2.core.options import options_of
from uniformerv2.live.options import EventRules, LinkRules
from uniformerv2.media.live_source import LiveSource

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.live.events import WatchEvent

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 watch rtsp://camera/stream --model models/demo --json"
LOADS: Final = "uniformerv2.live.watcher"
EXIT_CODES: Final = (
    "The exit code is 0 where the source ended or was stopped (Ctrl-C), 1 where it failed, and 2 for a wrong call."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    about = "file, - (stdin), /dev/video0, rtsp://..., http(s)://..."
    parser.add_argument("source", metavar="SOURCE", help=about)
    windows = parser.add_argument_group("windows and events")
    about = "length of a window (default: a clip of dense sampling, else 1)"
    windows.add_argument("--window-seconds", type=float, metavar="S", help=about)
    about = "from window to window (default: a quarter of one)"
    windows.add_argument("--stride-seconds", type=float, metavar="S", help=about)
    windows.add_argument("--fps", type=float, metavar="N", help="frames per second of a source that does not tell")
    _add(windows, EventRules)
    source = parser.add_argument_group("source")
    about = "the file is still written, and ends when it has not grown for so long"
    source.add_argument("--end-after", dest="end_after_seconds", type=float, metavar="S", help=about)
    _add(source, LinkRules)
    add_json(parser.add_argument_group("output"), "print one line of JSON per event")
    add_views(add_model(parser), clips=False)
    add_model_overrides(parser)
    parser.epilog = f"{EXIT_CODES}\n{parser.epilog}"


def _add(group: Any, rules: type) -> None:
    for one in options_of(rules):
        about = one.about if one.default is None else f"{one.about} (default: {one.default:g})"
        kind = int if one.default is None else float
        group.add_argument(one.flag, type=kind, default=one.default, metavar=one.metavar, help=about)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; ``options.source`` becomes a ``LiveSource``.

    Raises:
        UsageError: No such source or model, or rules that are not allowed.
    """
    with usage_errors():
        options.source = LiveSource.of(options.source, end_after_seconds=options.end_after_seconds)
        options.rules = EventRules(**given(options, EventRules))
        options.link = LinkRules(**given(options, LinkRules))
    check_model(options.model)


def run(options: argparse.Namespace) -> int:
    """Watch until the source ends or somebody stops it; 1 where it failed.

    Raises:
        UsageError: The model cannot be used as the options ask.
    """
    from uniformerv2.core.console import make_console, write_line
    from uniformerv2.inference.engines import load_network
    from uniformerv2.inference.predictor import Predictor
    from uniformerv2.inference.windows import WindowScorer
    from uniformerv2.live.watcher import Watcher

    with usage_errors():
        model = load_network(options.model, **model_overrides(options))
        predictor = Predictor(**{**given(options, Predictor), "model": model})
        scorer = WindowScorer(**{**given(options, WindowScorer), "predictor": predictor})
    console = make_console()
    with Watcher(scorer, options.source, rules=options.rules, link=options.link, fps=options.fps) as watcher:
        with _stopped_by_signals(watcher.stop):
            for event in watcher:
                if options.json:
                    write_line(event.to_json())
                else:
                    _show(console, event)
        return 1 if watcher.state == "failed" else 0


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the watching with its last events; a second one ends it at once."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def on_signal(number: int, _frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)
        stop()

    for number in numbers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _show(console: Console, event: WatchEvent) -> None:
    from rich.markup import escape

    from uniformerv2.live.events import StateEvent

    if isinstance(event, StateEvent):
        reason = f": {event.reason}" if event.reason else ""
        wait = "" if event.wait_seconds is None else f", next try in {event.wait_seconds:.1f} s"
        sys.stdout.flush()
        console.print(f"[dim]{escape(event.source)} {event.state}{escape(reason)}{wait}[/]")
        return
    words = {"new": "begins", "update": "goes on", "end": "ended"}
    times = f"{event.start_seconds:.1f} to {event.end_seconds:.1f} s"
    console.print(f"{escape(event.label)} {words[event.kind]}, {times}, {event.score:.2f}")
