"""The body of a request, streamed to a file of its own that is gone when the request is.

A body is the video itself, or a form (``multipart/form-data``) with one file and small fields. What is written to disk
at a time, what a field may hold and how long all of it may take are bounded; the name of the client's file is not kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from mimetypes import guess_extension
from pathlib import Path, PurePosixPath
from typing import Any, Final

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from uniformerv2.core.files import NO_ROOM, free_bytes
from uniformerv2.media.video_error import VIDEO_SUFFIXES
from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.own_folder import new_file
from uniformerv2.serving.problems import ServiceError

__all__ = ["ClientLeftError", "Upload", "UploadDesk", "body_chunks"]

WRITE_BYTES: Final = 2**20
"""Written at a time, outside of the event loop."""
FIELD_BYTES: Final = 1024
MOST_FIELDS: Final = 32
SPARE_BYTES: Final = 2**26
"""What stays free on the disk."""


class ClientLeftError(Exception):
    """Nobody waits for the answer."""


@dataclass
class Upload:
    """A body that was received.

    Attributes:
        path: Where the video lies.
        num_bytes: Its size.
        suffix: Of a video, as the client calls it; FFmpeg takes it for a hint where the first bytes leave a choice.
        fields: The other fields of a form.
    """

    path: Path
    num_bytes: int = 0
    suffix: str = ""
    fields: dict[str, str] = field(default_factory=dict)


async def body_chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        ClientLeftError: It broke off.
    """
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        more = message.get("more_body", False)
        yield message.get("body", b"")


class UploadDesk:
    """Receives uploads, a bounded number at a time.

    Args:
        folder: Where files are made.
        options: Limits.
        tell: Called with the number of uploads whenever it changes.
    """

    def __init__(self, folder: Path, options: ServeOptions, *, tell: Callable[[int], object]) -> None:
        self._folder = folder
        self._options = options
        self._tell = tell
        self._count = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Upload]:
        """Receive the body of a request; the file is gone at the end of the block.

        Raises:
            ServiceError: It is too large, too slow, malformed, or there is no room for it.
            ClientLeftError: It broke off.
        """
        self._check_head(request)
        path, descriptor = new_file(self._folder)
        upload = Upload(path)
        try:
            with _Counted(self):
                await self._receive(request, upload, descriptor)
            upload.path = path.rename(path.with_suffix(upload.suffix))
            yield upload
        finally:
            upload.path.unlink(missing_ok=True)

    def _check_head(self, request: Request) -> None:
        if self._count >= self._options.max_uploads:
            detail = f"{self._options.max_uploads} uploads are being received already: try again."
            raise ServiceError("queue-full", detail, retry_after=2)
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            detail = f"Content-Encoding must be left out, as a video is compressed already, got {encoding[:40]!r}."
            raise ServiceError("encoded-body", detail)
        length = request.headers.get("content-length", "0")
        if int(length) > self._options.upload_bytes:  # digits: the server has looked at it
            raise self._too_large()
        if free_bytes(self._folder) < int(length) + SPARE_BYTES:
            raise _no_room()

    def _too_large(self) -> ServiceError:
        detail = f"An upload has at most {self._options.max_upload_mb} megabytes; send a shorter or smaller video."
        return ServiceError("upload-too-large", detail)

    async def _receive(self, request: Request, upload: Upload, descriptor: int) -> None:
        body = _Body(upload, request.headers.get("content-type", ""))
        seconds = self._options.upload_seconds
        try:
            async with asyncio.timeout(seconds):
                received = 0
                async for chunk in body_chunks(request):
                    received += len(chunk)
                    if received > self._options.upload_bytes:
                        raise self._too_large()
                    body.take(chunk)
                    if len(body.waiting) >= WRITE_BYTES:
                        await _write(descriptor, body.waiting)
                await _write(descriptor, body.waiting)
            body.end()
        except TimeoutError as error:
            raise ServiceError("slow-upload", f"The upload did not end within {seconds:g} seconds.") from error
        except OSError as error:
            if error.errno in NO_ROOM:
                raise _no_room() from error
            raise
        finally:
            os.close(descriptor)


class _Counted:
    """An upload that is under way."""

    def __init__(self, desk: UploadDesk) -> None:
        self._desk = desk

    def __enter__(self) -> None:
        self._add(1)

    def __exit__(self, *_: object) -> None:
        self._add(-1)

    def _add(self, count: int) -> None:
        self._desk._count += count
        self._desk._tell(self._desk._count)


class _Body:
    """Takes a body apart as it comes: ``waiting`` is what is to be written of the video."""

    def __init__(self, upload: Upload, content_type: str) -> None:
        self.upload = upload
        self.waiting = bytearray()
        kind, parameters = parse_options_header(content_type)
        upload.suffix = _known(guess_extension(kind.decode("latin-1"), strict=False) or "")
        self._form = _Form(self, parameters.get(b"boundary", b"")) if kind == b"multipart/form-data" else None

    def take(self, chunk: bytes) -> None:
        """The next bytes of the body.

        Raises:
            ServiceError: They are no form, where the body should be one.
        """
        if self._form is None:
            self.video(chunk)
        else:
            self._form.take(chunk)

    def video(self, chunk: bytes) -> None:
        """The next bytes of the video."""
        self.waiting += chunk
        self.upload.num_bytes += len(chunk)

    def end(self) -> None:
        """The body is whole.

        Raises:
            ServiceError: It is a form that breaks off, or holds no file.
        """
        if self._form is not None:
            self._form.end()


class _Form:
    """``multipart/form-data`` with one file and small fields (RFC 7578)."""

    def __init__(self, body: _Body, boundary: bytes) -> None:
        self._body = body
        self._header = [b"", b""]
        self._name = ""
        self._is_file = self._has_file = self._is_whole = False
        self._value = bytearray()
        callbacks: Any = {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._finish,
        }
        if not boundary:
            raise _malformed("its Content-Type names no boundary")
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _malformed(str(error)) from error

    def take(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed("it does not follow RFC 7578") from error

    def end(self) -> None:
        if not self._is_whole:
            raise _malformed("it breaks off")
        if not self._has_file:
            raise _malformed("it holds no file; curl -F file=@clip.mp4 sends one")

    def _begin_part(self) -> None:
        self._name, self._is_file = "", False
        self._value.clear()

    def _add(self, place: int, data: bytes) -> None:
        self._header[place] += data

    def _end_header(self) -> None:
        name, value = self._header
        self._header = [b"", b""]
        if name.lower() == b"content-disposition":
            _, options = parse_options_header(value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            self._is_file = b"filename" in options or self._name == "file"
            if self._is_file:
                file_name = options.get(b"filename", b"").decode("utf-8", "replace")
                self._body.upload.suffix = _known(PurePosixPath(file_name.replace("\0", "")).suffix)

    def _end_headers(self) -> None:
        if self._is_file and self._has_file:
            raise _malformed("it holds two files; send one at a time")
        self._has_file |= self._is_file

    def _data(self, data: bytes) -> None:
        if self._is_file:
            self._body.video(data)
            return
        self._value += data
        if len(self._value) > FIELD_BYTES:
            raise _malformed(f"a field has more than {FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if self._is_file:
            return
        fields = self._body.upload.fields
        if self._name in fields:
            raise _malformed(f"the field {self._name[:40]!r} comes twice")
        if len(fields) >= MOST_FIELDS:
            raise _malformed(f"it has more than {MOST_FIELDS} fields")
        fields[self._name] = self._value.decode("utf-8", "replace")

    def _finish(self) -> None:
        self._is_whole = True


async def _write(descriptor: int, waiting: bytearray) -> None:
    """Write and forget what waits."""

    def write() -> None:
        left = memoryview(bytes(waiting))
        while left:
            left = left[os.write(descriptor, left) :]

    if waiting:
        await asyncio.to_thread(write)
        waiting.clear()


def _malformed(why: str) -> ServiceError:
    return ServiceError("bad-request", f"The form cannot be read: {why}.")


def _no_room() -> ServiceError:
    return ServiceError("disk-full", "There is no room for the upload now: try again later.", retry_after=30)


def _known(suffix: str) -> str:
    """A suffix of videos, or none."""
    return suffix.lower() if suffix.lower() in VIDEO_SUFFIXES else ""
