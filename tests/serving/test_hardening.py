"""What a machine does to a service: a disk that is full, SIGKILL; a body of 10 GB that is really sent, and bombs."""

from __future__ import annotations

import gzip
import os
import threading
import time
import zipfile
import zlib
from io import BytesIO

import pytest

from tests.media import write_video
from tests.media.made_videos import make_video
from tests.media.test_limits import box, numbers, track
from tests.model.test_uniformerv2 import TINY, make
from tests.serving.service import serving
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.checkpoint import save_model

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits the size of files by RLIMIT_FSIZE")

LARGEST_FILE = 100_000
HEAD = b"POST /v1/timeline HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hardening")
    model = make(TINY)
    model.info = CheckpointInfo(class_names=tuple("abcde"))
    save_model(model, folder / "model")
    return folder


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_full_disk_then_sigkill_then_the_next_start(folder):
    """507 and nothing left where no more can be written; what a killed one left is gone when the next one starts."""
    small = write_video(folder / "small.mp4").read_bytes()
    large = make_video(folder / "large.mp4", frames=60, size=(320, 240)).read_bytes()
    assert len(small) < LARGEST_FILE < len(large)
    with serving(folder, str(folder / "model"), largest_file=LARGEST_FILE) as service:
        before = service.post("/v1/predict", small)
        assert before.status == 200, before
        for answer in (service.post("/v1/predict", large), service.form("/v1/features", large)):
            assert (answer.status, answer.kind) == (507, "disk-full")
            assert int(answer.headers["retry-after"]) >= 1
        until(lambda: service.uploads == [])
        assert service.post("/v1/predict", small).json["scores"] == before.json["scores"]
        with service.socket() as half:
            half.sendall(HEAD + b"Content-Length: 50000\r\n\r\n" + small[:2000])
            until(lambda: service.uploads)
            service.process.kill()
            service.process.wait()
        left = service.uploads
        assert left
    with serving(folder, str(folder / "model"), "--max-upload-mb", "2") as service:
        assert service.uploads == []
        assert not any(path.exists() for path in left)
        assert len([path for path in service.temp.iterdir() if path.is_dir()]) == 1
        assert service.post("/v1/predict", small).json["scores"] == before.json["scores"]  # as another replica
        _send_ten_gigabytes(service)
        _send_bombs(service)
        assert service.post("/v1/predict", small).status == 200
        assert service.stop() == 0
        assert list(service.temp.iterdir()) == []


def _send_ten_gigabytes(service):
    """A body without a length, as fast as it goes: it is refused at the limit, cut off soon after, and never stored."""
    piece = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    answer, largest, sent = bytearray(), 0, 0
    connection = service.socket()

    def listen():
        try:
            while data := connection.recv(65536):
                answer.extend(data)
        except OSError:
            pass

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(10 * 2**10):
            connection.sendall(piece)
            sent += 1
            largest = max([largest, *(path.stat().st_size for path in service.uploads if path.exists())])
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        pass
    finally:
        connection.close()
        listener.join()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"upload-too-large" in answer
    assert largest <= 3 * 2**20
    assert sent < 200  # megabytes
    until(lambda: service.uploads == [])


def _send_bombs(service):
    """What says, or unpacks to, far more than it is: an archive, and the table of an MP4."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("clip.mp4", bytes(100 * 2**20))
    head, table = box(b"ftyp", b"qt  "), zlib.compress(bytes(2**20))
    told = box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", numbers(2**31), table)))
    many = box(b"moov", track(2**31))
    for bomb, status in (
        (archive.getvalue(), 415),
        (gzip.compress(bytes(2**24)), 415),
        (head + told, 413),
        (many, 413),
    ):
        answer = service.post("/v1/predict", bomb)
        assert answer.status == status, answer
    until(lambda: service.uploads == [])
