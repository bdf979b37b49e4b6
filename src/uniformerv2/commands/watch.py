"""``uniformerv2 watch``: a camera, a stream, a file that grows; events while they happen."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from uniformerv2.commands.options import (
    add_json,
    add_model,
    add_model_overrides,
    add_views,
    check_model,
    check_output,
    given,
    make_predictor,
)
from uniformerv2.core.messages import usage_errors
from uniformerv2.core.options import options_of
from uniformerv2.core.terminal import harmless
from uniformerv2.live.options import EventRules, LinkRules
from uniformerv2.live.webhook import check_webhook
from uniformerv2.media.live_source import LiveSource

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 watch rtsp://camera/stream --model models/demo --json"
LOADS: Final = "uniformerv2.live.watcher"
PICTURE_HEIGHT: Final = 480
"""The video that --out writes is at most so high."""
EXIT_CODES: Final = "The exit code is 0 at the end or at Ctrl-C, 1 where the source failed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    about = "file, - (stdin), /dev/video0, rtsp://, http(s)://"
    parser.add_argument("source", metavar="SOURCE", help=about)
    windows = parser.add_argument_group("windows and events")
    about = "length of a window (default: as timeline)"
    windows.add_argument("--window-seconds", type=float, metavar="S", help=about)
    about = "from window to window (default: a quarter of one)"
    windows.add_argument("--stride-seconds", type=float, metavar="S", help=about)
    windows.add_argument("--fps", type=float, metavar="N", help="frames per second where the source does not tell")
    _add(windows, EventRules)
    source = parser.add_argument_group("source")
    about = "follow a file until it has not grown for so long"
    source.add_argument("--end-after", dest="end_after_seconds", type=float, metavar="S", help=about)
    _add(source, LinkRules)
    outputs = parser.add_argument_group("output")
    add_json(outputs, "print one line of JSON per event")
    outputs.add_argument("--out", type=Path, metavar="FILE", help="write a video with the classes burnt in: .mp4")
    outputs.add_argument("--webhook", metavar="URL", help="post each event as JSON to this address")
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
        if options.webhook is not None:
            check_webhook(options.webhook)
    inputs = [Path(options.source.address)] if options.source.kind in {"file", "growing file"} else []
    check_output(options.out, option="--out", suffixes=(".mp4",), inputs=inputs)
    check_model(options.model)


def run(options: argparse.Namespace) -> int:
    """Watch until the source ends or somebody stops it; 1 where it failed, or the video could not be written.

    Raises:
        UsageError: The model cannot be used as the options ask.
    """
    from uniformerv2.core.console import make_console
    from uniformerv2.inference.windows import WindowScorer
    from uniformerv2.live.outputs import WatchOutputs
    from uniformerv2.live.watcher import Watcher

    with usage_errors():
        predictor = make_predictor(options)
        scorer = WindowScorer(**{**given(options, WindowScorer), "predictor": predictor})
    outputs = WatchOutputs(
        predictor.class_names,
        console=None if options.json else make_console(),
        video=options.out,
        webhook=options.webhook,
        drops=options.source.is_live,
        tell=_say,
    )
    height = None if options.out is None else PICTURE_HEIGHT
    settings = {"rules": options.rules, "link": options.link, "fps": options.fps, "picture_height": height}
    watching = Watcher(scorer, options.source, tell=outputs.window, **settings)
    with outputs, watching as watcher, _stopped_by_signals(watcher.stop):
        for event in watcher:
            outputs.event(event)
    return 1 if watcher.state == "failed" or outputs.has_failed else 0


def _say(sentence: str) -> None:
    sys.stderr.write(f"{harmless(sentence)}\n")


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
