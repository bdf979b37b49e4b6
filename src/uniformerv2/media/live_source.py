"""LiveSource: what a word of ``uniformerv2 watch`` means; parsed without opening anything."""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

from uniformerv2.core.messages import did_you_mean
from uniformerv2.core.terminal import harmless_address

__all__ = ["LiveSource", "SourceKind"]

SourceKind = Literal["file", "growing file", "pipe", "device", "rtsp", "http"]

SCHEMES: Final[dict[str, SourceKind]] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}


@dataclass(frozen=True)
class LiveSource:
    """What is watched.

    Attributes:
        address: As it was given; never shown.
        kind: What it is.
        shown: The address without what is secret in it.
        end_after_seconds: A growing file ends when it has not grown for so long.
    """

    address: str = field(repr=False)
    kind: SourceKind
    shown: str
    end_after_seconds: float | None = None

    @classmethod
    def of(cls, word: str, *, end_after_seconds: float | None = None) -> Self:
        """What a word of the command line means.

        Args:
            word: A file; ``-``, which is stdin; a device such as ``/dev/video0``; an address.
            end_after_seconds: The file is still being written, and ends when it has not grown for so long.

        Raises:
            ValueError: It is none of these.

        >>> LiveSource.of("rtsp://me:secret@camera/stream")
        LiveSource(kind='rtsp', shown='rtsp://camera/stream', end_after_seconds=None)
        """
        scheme, is_address, _ = word.partition("://")
        kind: SourceKind
        if is_address:
            if scheme.lower() not in SCHEMES:
                meant = did_you_mean(scheme, SCHEMES)
                raise ValueError(f"An address begins with {', '.join(SCHEMES)}, got {scheme!r}.{meant}")
            kind = SCHEMES[scheme.lower()]
        elif word == "-":
            kind = "pipe"
        else:
            kind = _kind_of_file(Path(word), is_growing=end_after_seconds is not None)
        if end_after_seconds is not None and not 0 < end_after_seconds < math.inf:
            raise ValueError(f"end_after_seconds must be above 0, got {end_after_seconds}.")
        if end_after_seconds is not None and kind != "growing file":
            raise ValueError(f"end_after_seconds is for a file that grows, and {harmless_address(word)} is a {kind}.")
        shown = "stdin" if kind == "pipe" else harmless_address(word)
        return cls(word, kind, shown, end_after_seconds)

    @property
    def is_live(self) -> bool:
        """Whether it goes on by itself: what is not taken in time is lost, and a connection may come back."""
        return self.kind in {"device", "rtsp", "http"}


def _kind_of_file(path: Path, *, is_growing: bool) -> SourceKind:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValueError(f"There is no file, device or address {path}.") from None
    if stat.S_ISCHR(mode):
        return "device"
    if stat.S_ISFIFO(mode):
        raise ValueError(f"{path} is a pipe: give it as stdin, uniformerv2 watch - < {path}")
    return "growing file" if is_growing else "file"
