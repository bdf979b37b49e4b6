"""Uploads without a server: a full disk, bodies that break off, and what is left of them."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

pytest.importorskip("fastapi")
from fastapi import Request

from tests.serving.service import form_of
from uniformerv2.serving.http import uploads
from uniformerv2.serving.http.uploads import ClientLeftError, UploadDesk
from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.problems import ServiceError


def receive(folder, chunks, *, options=None, **headers):
    """Content, suffix and fields of an upload whose body comes in these pieces; None: the client leaves."""
    pieces = list(chunks)

    async def message():
        if not pieces:
            await asyncio.sleep(60)
        piece = pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    desk = UploadDesk(folder, options or ServeOptions(), tell=lambda _count: None)

    async def take():
        async with desk.receive(Request({"type": "http", "headers": given}, message)) as upload:
            return upload.path.read_bytes(), upload.path.suffix, upload.fields

    try:
        return asyncio.run(take())
    finally:
        assert list(folder.iterdir()) == []
        assert desk._count == 0


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_form_in_pieces_of_any_size(tmp_path, size):
    video = bytes(range(256)) * 40 + b"\r\n--edg\r\n-"
    body, kind = form_of(video, file_name="Clip.MKV", top_k=3)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert receive(tmp_path, pieces, content_type=kind) == (video, ".mkv", {"top_k": "3"})


def test_the_suffix_is_one_of_videos(tmp_path):
    assert receive(tmp_path, [b"x"], content_type="video/webm")[1] == ".webm"
    for kind in ("text/html", "application/x-sh", "", "video/../../x", "é"):
        assert receive(tmp_path, [b"x"], content_type=kind)[1] == ""


def test_a_client_that_leaves(tmp_path):
    with pytest.raises(ClientLeftError):
        receive(tmp_path, [b"some", None])


def test_a_client_that_says_nothing(tmp_path):
    with pytest.raises(ServiceError, match="did not end within"):
        receive(tmp_path, [], options=ServeOptions(upload_seconds=0.2))


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(uploads.os, "write", full)
    with pytest.raises(ServiceError, match="no room") as refused:
        receive(tmp_path, [b"some"])
    assert refused.value.status == 507
    monkeypatch.undo()
    monkeypatch.setattr(uploads, "free_bytes", lambda _path: 1000)
    with pytest.raises(ServiceError, match="no room"):
        receive(tmp_path, [b"some"])
