"""WatchOutputs: where events and windows of a watched source go: lines, a display, a webhook, a video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from rich.console import Console

from uniformerv2.core.console import write_line
from uniformerv2.live.display import WatchDisplay, top_classes
from uniformerv2.live.events import WatchEvent
from uniformerv2.live.overlay import OverlayVideo
from uniformerv2.live.webhook import Webhook
from uniformerv2.live.windows import SeenWindow

__all__ = ["WatchOutputs"]

SHOWN_CLASSES: Final = 3
"""In the video."""


class WatchOutputs:
    """Hands on what a watcher says. Use it with ``with``.

    Args:
        class_names: In the order of the scores.
        console: Where people look; None: a line of JSON per event on stdout.
        video: The file of the video with the classes burnt in; None: none.
        webhook: The address that gets every event; None: none.
        drops: See ``OverlayVideo``.
        tell: Called with sentences about what goes wrong.
    """

    def __init__(
        self,
        class_names: tuple[str, ...],
        *,
        console: Console | None,
        video: Path | None,
        webhook: str | None,
        drops: bool,
        tell: Callable[[str], object],
    ) -> None:
        self._names, self._tell, self._path = class_names, tell, video
        self._display = None if console is None else WatchDisplay(console, class_names)
        self._webhook = None if webhook is None else Webhook(webhook, tell=tell)
        self._video = None if video is None else OverlayVideo(video, drops=drops)

    @property
    def has_failed(self) -> bool:
        """The video could not be written."""
        return self._video is not None and self._video.error is not None

    def window(self, window: SeenWindow) -> None:
        """The newest scores."""
        if self._display is not None:
            self._display.window(window)
        if self._video is not None:
            labels = top_classes(window, self._names, shown=SHOWN_CLASSES)
            for seconds, picture in window.pictures:
                self._video.add(seconds, picture, labels)

    def event(self, event: WatchEvent) -> None:
        """What happened."""
        if self._display is None:
            write_line(event.to_json())
        else:
            self._display.event(event)
        if self._webhook is not None:
            self._webhook.send(event.to_dict())

    def __enter__(self) -> Self:
        if self._display is not None:
            self._display.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """All that is still to be done; little of it where a second Ctrl-C came, before or meanwhile."""
        if self._display is not None:
            self._display.__exit__()
        try:
            if kind is None or issubclass(kind, Exception):
                self._finish()
        except BaseException as error:
            kind = type(error)
            raise
        finally:
            if kind is not None and not issubclass(kind, Exception) and self._video is not None:
                self._video.abandon()

    def _finish(self) -> None:
        if self._webhook is not None:
            self._webhook.close()
            if self._webhook.num_lost:
                self._tell(f"{self._webhook.shown} did not take {self._webhook.num_lost} of the events.")
        if self._video is not None:
            self._video.close()
            if self._video.error is not None:
                self._tell(f"{self._path} could not be written: {self._video.error}")
            elif self._video.num_written:
                self._tell(f"Written: {self._path}")
