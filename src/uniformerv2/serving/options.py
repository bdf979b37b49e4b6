"""ServeOptions: every option of a service, said once."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uniformerv2.core.options import option

__all__ = ["ServeOptions", "is_loopback"]

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
"""How a client on the same machine may call it."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How a service listens, and what a request may ask of it.

    Attributes:
        host: Address to listen at.
        port: 0 is any free one.
        token_file: Holds the tokens that clients may send, one per line.
        allow_anonymous: Listen beyond this machine without tokens.
        allow_host: Names by which clients may call the service, with commas between them.
        queue_size: Requests that wait or are computed at a time; the next one is refused.
        max_uploads: Uploads at a time; the next one is refused.
        max_upload_mb: Megabytes (2 ** 20 bytes) of an upload.
        max_video_seconds: Duration of an uploaded video.
        max_pixels: Width times height of its frames.
        max_memory_mb: Memory that the views of one request take, known before anything is decoded.
        max_views: Clips times crops of one request.
        upload_seconds: From the head of a request to its last byte.
        decode_seconds: Time of a worker process for one video, or for the next frames of a long one.
        request_seconds: From the last byte of an upload to the answer.
        timeline_seconds: The same where the whole of a video is looked at: timelines, and features of windows.
        drain_seconds: How long requests may go on after SIGTERM.
        num_workers: Processes that decode; None: half the cores (all of them beside a GPU), 1 to 8.
        temp_folder: Where uploads lie while they are read; None: the system's folder for temporary files.

    Raises:
        ValueError: A field outside its range.
    """

    host: str = option("address to listen at", "127.0.0.1", metavar="HOST")
    port: int = option("port; 0: any free one", 8000, metavar="N")
    token_file: str | None = option("tokens that clients may send, one per line", metavar="FILE")
    allow_anonymous: bool = option("listen beyond this machine without tokens", False)
    allow_host: str | None = option("names by which clients call the service, with commas", metavar="NAMES")
    queue_size: int = option("requests at a time; the next gets 429", 16, metavar="N", least=1)
    max_uploads: int = option("uploads at a time; the next gets 429", 32, metavar="N", least=1)
    max_upload_mb: int = option("megabytes of an upload", 256, metavar="N", least=1)
    max_video_seconds: float = option("duration of an uploaded video", 3600.0, metavar="S", least=1)
    max_pixels: int = option("width times height of its frames", 2**24, metavar="N", least=1)
    max_memory_mb: int = option("megabytes that a request takes", 512, metavar="N", least=1)
    max_views: int = option("clips times crops of a request", 60, metavar="N", least=1)
    upload_seconds: float = option("time of an upload", 60.0, metavar="S", least=0.1)
    decode_seconds: float = option("time to decode a video", 30.0, metavar="S", least=0.1)
    request_seconds: float = option("time from the upload to the answer", 60.0, metavar="S", least=0.1)
    timeline_seconds: float = option("the same for timelines and windows", 600.0, metavar="S", least=0.1)
    drain_seconds: float = option("how long requests go on after SIGTERM", 30.0, metavar="S", least=0.1)
    num_workers: int | None = option(
        "processes that decode (default: by the cores)", metavar="N", flag="--workers", least=1
    )
    temp_folder: str | None = option("where uploads lie while they are read", metavar="FOLDER")

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port is a number from 0 to 65535, got {self.port}.")
        for name, item in type(self).__dataclass_fields__.items():
            least, value = item.metadata.get("least"), getattr(self, name)
            if least is not None and value is not None and not least <= value < math.inf:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        if not is_loopback(self.host) and self.token_file is None and not self.allow_anonymous:
            raise ValueError(
                f"Everybody who reaches {self.host} could use the service: give --token-file FILE, whose tokens "
                "clients send, or --allow-anonymous."
            )

    @property
    def upload_bytes(self) -> int:
        """The most that an upload may have."""
        return self.max_upload_mb * 2**20

    @property
    def memory_bytes(self) -> int:
        """The most that the views of a request may take."""
        return self.max_memory_mb * 2**20

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names by which clients may call the service; none: any name."""
        given = tuple(name.strip().lower() for name in (self.allow_host or "").split(",") if name.strip())
        return (*given, *LOOPBACK_NAMES) if given or is_loopback(self.host) else ()

    def tokens(self) -> tuple[str, ...]:
        """Those of the file.

        Raises:
            ValueError: The file holds none, or a short one.
            OSError: It cannot be read.
        """
        if self.token_file is None:
            return ()
        lines = (line.strip() for line in Path(self.token_file).read_text("utf-8").splitlines())
        found = tuple(line for line in lines if line and not line.startswith("#"))
        if not found:
            raise ValueError(f"{self.token_file} holds no token; write one per line.")
        if short := [number for number, token in enumerate(found, 1) if len(token) < 16 or not token.isascii()]:
            raise ValueError(
                f"{self.token_file}: token {short[0]} is not 16 or more ASCII characters; "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one."
            )
        return found
