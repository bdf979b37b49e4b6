"""Folders and files that somebody else holds, as seen from a test."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uniformerv2.core.files import lock_folder


class GiveBack(logging.Handler):
    """Gives back what is held as soon as somebody says that it waits, and keeps the words."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self.event, self.words = event, ""

    def emit(self, record: logging.LogRecord) -> None:
        self.words += record.getMessage()
        self.event.set()


@contextmanager
def given_back_to_who_waits(path: Path) -> Iterator[GiveBack]:
    """A folder that another thread holds until somebody says that it waits."""
    logger = logging.getLogger("uniformerv2.core.files")
    with held_elsewhere(path) as give_back:
        handler = GiveBack(give_back)
        logger.addHandler(handler)
        try:
            yield handler
        finally:
            logger.removeHandler(handler)


@contextmanager
def held_elsewhere(path: Path, *, lock=lock_folder) -> Iterator[threading.Event]:
    """Another thread, which for a lock is as good as another process, holds the path; the event gives it back."""
    held, give_back = threading.Event(), threading.Event()

    def hold() -> None:
        with lock(path, what="Somebody"):
            held.set()
            give_back.wait(60)

    other = threading.Thread(target=hold, daemon=True)
    other.start()
    assert held.wait(60)
    try:
        yield give_back
    finally:
        give_back.set()
        other.join()
