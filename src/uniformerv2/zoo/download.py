"""Fetch a file once: streamed, resumed, checked by hash, never half there.

    address -> .part (resumable) -> length checked -> hash checked -> renamed

Only a complete and checked file ever has the final name. One process downloads, others wait for it.

Environment:
    UNIFORMERV2_HOME: folder of the cache, ``~/.cache/uniformerv2`` without it.
    UNIFORMERV2_OFFLINE, HF_HUB_OFFLINE: ``1`` forbids every access to the network.
    http_proxy, https_proxy, no_proxy: honoured as everywhere.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import socket
import ssl
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from uniformerv2.core.files import cache_home
from uniformerv2.core.limits import get_limits
from uniformerv2.core.terminal import without_credentials
from uniformerv2.zoo.connections import RedirectionError, Watch, opened

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONVERT_A_COPY", "DownloadError", "cached_path", "fetch", "is_offline"]

BACKOFF_SECONDS = 0.5
SHA256_DIGITS = 64
CHUNK_BYTES = 1 << 20
CONVERT_A_COPY = "convert a copy that you have: uniformerv2 convert FILE FOLDER"

logger = logging.getLogger(__name__)


class DownloadError(RuntimeError):
    """A file could not be fetched; the message says why and what to do instead."""


class _InterruptedTransferError(Exception):
    """The transfer stopped for a reason that may pass: what arrived is kept and continued."""


class _RefusedTransferError(Exception):
    """The server does not give this file, or cannot be found; asking again would not help."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """An unfinished file, and what the server needs to know that it is still the same one."""

    path: Path

    @property
    def validator(self) -> Path:
        """Holds the ETag, or the date, of the file that the part is a part of."""
        return self.path.with_name(f"{self.path.name}.validator")

    def resumable(self) -> tuple[int, str]:
        """Bytes that are there and their validator; ``(0, "")`` where nothing can be continued safely."""
        if not (self.path.exists() and self.validator.exists()):
            return 0, ""
        return self.path.stat().st_size, self.validator.read_text(encoding="ascii")

    def restart(self, headers: http.client.HTTPMessage) -> None:
        """Drop what is there and keep the validator of the transfer that now starts from zero."""
        self.discard()
        etag = headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
        if validator:
            self.validator.write_text(validator, encoding="ascii", errors="ignore")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)


def cached_path(url: str, *, cache_dir: Path | str | None = None) -> Path:
    """Where `fetch` keeps this address, whether or not it is there; also where to place a file by hand.

    The name ends with eight digits of the address's hash, so that equal names of different addresses stay apart.

    Args:
        url: An http or https address.
        cache_dir: Folder instead of ``checkpoints`` in `cache_home`.

    Raises:
        ValueError: The address is not an http or https address.
    """
    parts, shown = urlsplit(url), without_credentials(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError(f"Only http and https addresses are fetched, got {shown!r}. Pass a local file by its path.")
    if parts.username is not None:
        raise ValueError(f"Addresses with a user and a password are not fetched: leave them out of {shown!r}.")
    folder = Path(cache_dir) if cache_dir is not None else cache_home() / "checkpoints"
    stem, dot, suffix = parts.path.rpartition("/")[2].rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", stem).lstrip(".")[:120] or "file"
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    return folder / f"{safe}-{digest}{dot}{re.sub('[^A-Za-z0-9]', '_', suffix)[:20]}"


def fetch(
    url: str,
    *,
    sha256_prefix: str | None = None,
    cache_dir: Path | str | None = None,
    instead: str = CONVERT_A_COPY,
    num_tries: int = 5,
    timeout_seconds: float = 30.0,
) -> Path:
    """The file behind an address, from the cache or downloaded into it.

    A transfer that breaks off is continued where the server allows it, in this call and in a later one.

    Args:
        url: An http or https address.
        sha256_prefix: The first 8 to 64 hex digits of the file's SHA-256. A file in the cache is checked too.
        cache_dir: Folder instead of ``checkpoints`` in `cache_home`.
        instead: What the user can do when the file can't be had; ends the message of the error.
        num_tries: Connections before giving up; the wait between them doubles from half a second.
        timeout_seconds: Silence after which a connection counts as broken, as does one that in such a time gives less
            than a kilobyte a second.

    Raises:
        DownloadError: The file could not be had, is above the limits ``download_bytes`` and ``download_seconds``, or is
            not the one that was asked for.
        ValueError: The address is not http or https, or the hash is not 8 to 64 hex digits.
    """
    if sha256_prefix is not None and not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256_prefix):
        raise ValueError(f"sha256_prefix is 8 to 64 hex digits, got {sha256_prefix!r}")
    path = cached_path(url, cache_dir=cache_dir)
    by_hand = f"Place the file at {path}, or {instead}"
    if not path.exists():
        if is_offline():
            raise DownloadError(
                f"{without_credentials(url)} is not in the cache and offline mode is on (UNIFORMERV2_OFFLINE, "
                f"HF_HUB_OFFLINE). {by_hand}"
            )
        with _only_one_process(path):
            if not path.exists():
                _download(url, path, sha256_prefix, by_hand, num_tries, timeout_seconds)
                _say_how_checked(path, sha256_prefix)
                return path
    if difference := _hash_difference(path, sha256_prefix):
        raise DownloadError(f"{path} is not the published file: {difference}. Remove it to download it again")
    return path


def _say_how_checked(path: Path, sha256_prefix: str | None) -> None:
    """Warn of a new file that nobody can vouch for, or of which little was compared."""
    if sha256_prefix is None:
        logger.warning("%s is not verified: no SHA-256 of it is published. Its own is %s.", path.name, _sha256(path))
    elif len(sha256_prefix) < SHA256_DIGITS:
        logger.warning(
            "%s is verified by the first %d of %d digits of its SHA-256 alone: no more are published. Its own is %s.",
            path.name,
            len(sha256_prefix),
            SHA256_DIGITS,
            _sha256(path),
        )


def is_offline() -> bool:
    """Whether the environment forbids access to the network."""
    names = ("UNIFORMERV2_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in {"1", "on", "yes", "true"} for name in names)


@contextmanager
def _only_one_process(path: Path) -> Iterator[None]:
    """Hold the lock of this file; the system frees it if the process dies."""
    from filelock import FileLock

    locks = path.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{path.name}.lock"):
        yield


def _download(
    url: str, path: Path, sha256_prefix: str | None, by_hand: str, num_tries: int, timeout_seconds: float
) -> None:
    """Fill the part over as many connections as it takes, check it, and give it its name.

    Raises:
        DownloadError: The server refuses, breaks off each time, or gives another file.
    """
    part = _Part(path=path.with_name(f"{path.name}.part"))
    shown, deadline = without_credentials(url), time.monotonic() + get_limits().download_seconds
    for attempt in range(1, num_tries + 1):
        try:
            _transfer(url, part, timeout_seconds, deadline=deadline, is_checked=sha256_prefix is not None)
            break
        except _InterruptedTransferError as error:
            if attempt == num_tries:
                kept, _ = part.resumable()
                later = f"; the next call continues after {kept:,} bytes" if kept else ""
                raise DownloadError(f"{shown} failed {num_tries} times: {error}{later}. {by_hand}") from error
            logger.warning("%s: %s; connecting again", shown, error)
            time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
        except _RefusedTransferError as error:
            raise DownloadError(f"{shown} {error}. {by_hand}") from error
    if difference := _hash_difference(part.path, sha256_prefix):
        part.discard()
        raise DownloadError(f"{shown} gave another file, which was thrown away: {difference}. {by_hand}")
    part.path.replace(path)
    part.discard()


def _transfer(url: str, part: _Part, timeout_seconds: float, *, deadline: float, is_checked: bool) -> None:
    """One connection: append to the part, or start it anew where the server does not continue it.

    Raises:
        _InterruptedTransferError: The connection failed, broke off or is too slow, or the server asks to try later.
        _RefusedTransferError: The server refuses for good, its name has no address, or a limit is met.
    """
    start, validator = part.resumable()
    headers = {"User-Agent": "uniformerv2", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    watch = Watch(window_seconds=timeout_seconds, deadline=deadline)
    try:
        with watch, opened(url, headers, watch=watch, timeout_seconds=timeout_seconds) as response:
            _raise_where_cut(watch)  # in the middle of the headers, which then end as if they were whole
            if response.headers.get_content_type() == "text/html":
                raise _RefusedTransferError("answered with a web page, not with a file")
            if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                total = _total_bytes(response.headers.get("Content-Range", ""), start)
                if total is None:
                    part.discard()
                    raise _InterruptedTransferError(f"another part came than the one from byte {start:,}")
            else:
                start, total = 0, 0
                part.restart(response.headers)
            total = total or (start + response.length if response.length is not None else 0)
            if not (total or response.chunked or is_checked):
                raise _RefusedTransferError("does not say how long the file is, so that nobody could tell a cut one")
            _write(response, part, start, total, watch)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.discard()
        elif error.code < 500 and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
            raise _RefusedTransferError(f"answered {error.code} {error.reason}") from error
        raise _InterruptedTransferError(f"{error.code} {error.reason}") from error
    except RedirectionError as error:
        raise _RefusedTransferError(str(error)) from error
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        _raise_where_cut(watch)
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror) and not start:  # later it may be a short gap, and worth a wait
            raise _RefusedTransferError(f"cannot be found; perhaps there is no network ({reason})") from error
        raise _InterruptedTransferError(str(reason) or type(error).__name__) from error
    _raise_where_cut(watch)
    size = part.path.stat().st_size
    if size == 0 or (total and size != total):
        raise _InterruptedTransferError(f"{size:,} of {total:,} bytes arrived")


def _raise_where_cut(watch: Watch) -> None:
    if watch.is_late:
        limit = get_limits().download_seconds
        raise _RefusedTransferError(f"took longer than the limit download_seconds={limit}; what arrived is kept")
    if watch.reason:
        raise _InterruptedTransferError(watch.reason)


def _total_bytes(content_range: str, start: int) -> int | None:
    """The whole length told by ``bytes START-END/TOTAL``: 0 where that is not told, None for another start."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range.strip())
    if not match or int(match[1]) != start:
        return None
    return 0 if match[2] == "*" else int(match[2])


def _write(response: http.client.HTTPResponse, part: _Part, start: int, total: int, watch: Watch) -> None:
    """Append what arrives.

    Raises:
        _RefusedTransferError: It is more than the limit ``download_bytes``.
    """
    with part.path.open("ab" if start else "wb") as file, _progress(part.path.name, start, total) as advance:
        size = max(start, total)
        try:
            get_limits().check("download_bytes", size, what=f"holds {size:,} bytes, which")
            while chunk := response.read1(CHUNK_BYTES):  # what has arrived, not more: a break loses nothing
                start += len(chunk)
                get_limits().check("download_bytes", start, what=f"sends {start:,} bytes and more, which")
                watch.arrived += len(chunk)
                file.write(chunk)
                advance(len(chunk))
        except ValueError as error:
            part.discard()
            raise _RefusedTransferError(str(error)) from error


@contextmanager
def _progress(name: str, start: int, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal's error stream; nothing where that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total or None, completed=start)
        yield lambda num_bytes: bar.advance(task, num_bytes)


def _hash_difference(path: Path, sha256_prefix: str | None) -> str:
    """How the file's SHA-256 differs from the expected one; empty where it does not, or nothing is expected."""
    if sha256_prefix is None:
        return ""
    found = _sha256(path)[: len(sha256_prefix)]
    return "" if found == sha256_prefix.lower() else f"its SHA-256 begins with {found}, not with {sha256_prefix}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
