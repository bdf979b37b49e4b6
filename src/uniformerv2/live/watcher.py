"""Watcher: a source in, events out, as they happen.

    with Watcher(Predictor("models/demo"), "rtsp://camera/stream") as watcher:
        for event in watcher:
            print(event.to_json())

A thread reads the source into a bounded ring of resized frames; the thread that asks for events computes windows,
follows actions and keeps the connection. ``stop`` may be called from any other thread, or from a signal handler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Final, Self

from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.windows import WindowScorer
from uniformerv2.live.events import ActionEvent, StateEvent, WatchEvent
from uniformerv2.live.link import FINAL, Attempt, Change, Link, State
from uniformerv2.live.options import EventRules, LinkRules
from uniformerv2.live.ring import FrameRing
from uniformerv2.live.steps import Item, StepMaker, StepReader
from uniformerv2.live.tracker import Action, EventTracker
from uniformerv2.live.windows import SeenWindow, SlidingWindows
from uniformerv2.media.live_source import LiveSource
from uniformerv2.media.live_stream import SourceError
from uniformerv2.media.video_error import VideoError

__all__ = ["Watcher"]

LOOK_SECONDS: Final = 0.1
"""Between two looks at the source while nothing comes, and at whether to stop."""
WINDOWS_IN_RING: Final = 2
"""How much of a live source waits: more would be old before it is looked at."""
END_SECONDS: Final = 1.0
"""How long the end waits for the thread that reads."""


class Watcher:
    """Watches one source, once.

    Args:
        predictor: Network and preprocessing; a ``WindowScorer`` where windows of another length are wanted.
        source: A file, ``-`` for stdin, a device, an address; see ``LiveSource.of``.
        rules: When an action begins and ends; None: the defaults.
        link: When a source counts as silent, and how it is taken up again; None: the defaults.
        fps: Frames per second of a source that does not tell.
        picture_height: Of the pictures in ``SeenWindow``; None: none are made.
        tell: Called with each window as soon as it is computed.

    Attributes:
        source: What is watched.
    """

    def __init__(
        self,
        predictor: Predictor | WindowScorer,
        source: str | LiveSource,
        *,
        rules: EventRules | None = None,
        link: LinkRules | None = None,
        fps: float | None = None,
        picture_height: int | None = None,
        tell: Callable[[SeenWindow], object] | None = None,
    ) -> None:
        scorer = predictor if isinstance(predictor, WindowScorer) else WindowScorer(predictor, fps=fps)
        self.source = LiveSource.of(source) if isinstance(source, str) else source
        self._predictor = scorer.predictor
        self._rules, self._link_rules = rules or EventRules(), link or LinkRules()
        self._maker = StepMaker(scorer=scorer, fps=fps, picture_height=picture_height)
        self._tell = tell
        num_frames = self._predictor.preprocessing.num_frames
        self._ring: FrameRing[Item] = FrameRing(WINDOWS_IN_RING * num_frames)
        self._at_once = num_frames * max(1, self._predictor.views_per_batch // self._predictor.preprocessing.num_crops)
        self._windows = SlidingWindows(scorer, name=self.source.shown)
        self._tracker = EventTracker(
            len(self._predictor.class_names), self._rules, is_multi_label=self._predictor.is_multi_label
        )
        self._link = Link(self._start, self._link_rules, is_live=self.source.is_live)
        self._reading: _Reading | None = None
        self._first_frame_at: float | None = None
        self._wall_offset: float | None = None
        self._start_offsets: dict[int, float | None] = {}
        self._arrived_at = 0.0
        self._is_stopping = False
        self._events = self._watch()

    @property
    def state(self) -> State:
        """The present state of the source."""
        return self._link.state

    @property
    def num_dropped(self) -> int:
        """Frames that came too fast to be looked at."""
        return self._ring.num_dropped

    @property
    def open_labels(self) -> tuple[str, ...]:
        """The classes of the actions that last."""
        return tuple(self._predictor.class_names[index] for index in self._tracker.open_classes)

    def stop(self) -> None:
        """Let the events end: what lasts gets its ``end``, the last event is the state ``stopped``. From any thread."""
        self._is_stopping = True

    def close(self) -> None:
        """End at once, without events; closing twice is harmless."""
        self._is_stopping = True
        self._link.close()
        if self._reading is not None:
            self._reading.join(END_SECONDS)

    def __iter__(self) -> Iterator[WatchEvent]:
        return self._events

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> Attempt:
        self._reading = _Reading(
            self.source, self._maker, self._ring, rules=self._link_rules, begun_at=self._first_frame_at
        )
        self._reading.start()
        return self._reading

    def _watch(self) -> Iterator[WatchEvent]:
        try:
            while not self._is_stopping and self.state not in FINAL:
                for change in self._link.look(is_drained=not len(self._ring)):
                    yield from self._changed(change)
                if self.state in FINAL:
                    return
                items = self._ring.take(self._at_once, timeout=LOOK_SECONDS)
                try:
                    for window in self._windows.push(items):
                        yield from self._seen(window)
                        if self._is_stopping:
                            break
                except VideoError as error:
                    yield from self._changed(self._link.fail(error.reason))
            if self.state not in FINAL:
                yield from self._changed(self._link.stop())
        finally:
            self.close()

    def _seen(self, window: SeenWindow) -> Iterator[ActionEvent]:
        self._wall_offset, self._arrived_at = window.wall_offset, window.arrived_at
        if self._reading is not None:
            self._first_frame_at = self._reading.first_frame_at
        actions = self._tracker.see(*window.stretch, window.scores)
        if self._tell is not None:
            self._tell(window)
        yield from map(self._event, actions)

    def _changed(self, change: Change) -> Iterator[WatchEvent]:
        """A source that is lost or has ended shows no action any more."""
        if change.state in FINAL or change.state == "reconnecting":
            yield from map(self._event, self._tracker.finish())
        yield StateEvent(
            source=self.source.shown,
            state=change.state,
            reason=change.reason,
            wait_seconds=change.wait_seconds,
            time=time.time(),
            dropped_frames=self.num_dropped,
        )

    def _event(self, action: Action) -> ActionEvent:
        offset = self._wall_offset
        start_offset = self._start_offsets.setdefault(action.number, offset)  # clocks drift: one start for an action
        if action.kind == "end":
            del self._start_offsets[action.number]
        return ActionEvent(
            source=self.source.shown,
            kind=action.kind,
            number=action.number,
            label=self._predictor.class_names[action.index],
            index=action.index,
            score=action.score,
            start_seconds=action.start_seconds,
            end_seconds=action.end_seconds,
            start_time=None if start_offset is None else start_offset + action.start_seconds,
            end_time=None if offset is None else offset + action.end_seconds,
            latency_seconds=time.monotonic() - self._arrived_at,
            dropped_frames=self.num_dropped,
        )


class _Reading:
    """One try to read a source, in a thread of its own; see ``Attempt``."""

    def __init__(
        self,
        source: LiveSource,
        maker: StepMaker,
        ring: FrameRing[Item],
        *,
        rules: LinkRules,
        begun_at: float | None,
    ) -> None:
        self._is_cancelled = self._waits_for_room = self.is_over = False
        self.error: SourceError | None = None
        self._ring, self._is_live = ring, source.is_live
        self._reader = StepReader(
            source,
            maker,
            is_cancelled=lambda: self._is_cancelled,
            open_seconds=rules.open_seconds,
            read_seconds=rules.give_up_seconds,
            begun_at=begun_at,
        )
        self._thread = Thread(target=self._run, name="watch", daemon=True)

    @property
    def last_frame_at(self) -> float | None:
        """See ``Attempt``; a reader that waits for room is not silent."""
        return time.monotonic() if self._waits_for_room else self._reader.last_frame_at

    @property
    def first_frame_at(self) -> float | None:
        """When the first frame of the source came."""
        return self._reader.first_frame_at

    @property
    def has_end(self) -> bool:
        """See ``Attempt``."""
        return self._reader.has_end

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def cancel(self) -> None:
        """See ``Attempt``."""
        self._is_cancelled = True

    def join(self, seconds: float) -> None:
        """Wait for the thread; one that hangs in a source is left behind."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            for item in self._reader.items():
                drops = self._is_live and not self._reader.has_end
                while not self._is_cancelled and not self._ring.put(item, drops=drops, timeout=LOOK_SECONDS):
                    self._waits_for_room = True
                self._waits_for_room = False
                if self._is_cancelled:
                    return
        except SourceError as error:
            self.error = error
        except Exception as error:  # its words might hold the address
            self.error = SourceError(f"{type(error).__name__} while it was read", is_final=True)
        finally:
            self.is_over = True
