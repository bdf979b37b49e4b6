"""The page of the service: static files of this package at / and below /page/, and the bundled clips as examples.

Nothing in them is secret, so that they load without a token; what the page asks of the service needs one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response

from uniformerv2.core.bundled import bundled_clips
from uniformerv2.core.messages import UsageError
from uniformerv2.serving.problems import ServiceError

__all__ = ["add_page"]

TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "mp4": "video/mp4",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:",
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    )
)
"""What the page may load: files of this service, and what it holds itself."""
HEADERS: Final = {
    "content-security-policy": POLICY,
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class StaticFile:
    """One file, read once.

    Attributes:
        content: Its bytes.
        media_type: What it is.
        etag: Other bytes have another one.
    """

    content: bytes
    media_type: str
    etag: str


def _static(name: str, content: bytes) -> StaticFile:
    digest = hashlib.sha256(content).hexdigest()[:32]
    return StaticFile(content, TYPES[name.rpartition(".")[2]], f'"{digest}"')


def _read_files() -> dict[str, StaticFile]:
    """Every file by its place below /page/; the colours and the type are those of the reports."""
    own = resources.files("uniformerv2.serving.http") / "page_files"
    found = {file.name: file.read_bytes() for file in own.iterdir()}
    found["report.css"] = (resources.files("uniformerv2.evaluation") / "templates" / "report.css").read_bytes()
    try:
        clips = bundled_clips()
    except UsageError:
        clips = ()
    found.update({f"examples/{clip.name}": clip.read_bytes() for clip in clips})
    found["examples.json"] = json.dumps([clip.name for clip in clips]).encode()
    return {name: _static(name, content) for name, content in found.items()}


def add_page(service: FastAPI) -> None:
    """Serve the page; it is not in the document, which is for programs.

    Args:
        service: It asks the other addresses of it.
    """
    files = _read_files()

    @service.get("/", include_in_schema=False)
    @service.head("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return _answer(request, files["index.html"])

    @service.get("/page/{name:path}", include_in_schema=False)
    @service.head("/page/{name:path}", include_in_schema=False)
    async def part(request: Request) -> Response:
        file = files.get(request.path_params["name"])
        if file is None:
            raise ServiceError("not-found", "The page has no such file.")
        return _answer(request, file)


def _answer(request: Request, file: StaticFile) -> Response:
    headers = {**HEADERS, "etag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
