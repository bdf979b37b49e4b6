"""A service as it is started, in a process of its own, and what a client sends it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def kind(self):
        """Of a refusal, whose form is checked."""
        assert self.headers["content-type"] == "application/problem+json", self
        problem = self.json
        assert set(problem) == {"type", "title", "status", "detail", "request_id"}
        assert problem["status"] == self.status
        assert problem["request_id"] == self.headers["x-request-id"]
        text = self.body.decode()
        assert "Traceback" not in text
        assert "/tmp" not in text
        return problem["type"].removeprefix("urn:uniformerv2:")


class Service:
    """``uniformerv2 serve`` with these words; ``largest_file``: bytes above which no file grows, as on a full disk."""

    def __init__(self, folder: Path, *words: str, largest_file: int | None = None):
        self.temp = folder / "uploads"
        self.log = folder / "log.txt"
        command = [sys.executable, "-m", "uniformerv2", "serve", *words]
        if largest_file is not None:
            limit = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file},) * 2)"
            command = [sys.executable, "-c", f"{limit}; os.execv(sys.argv[1], sys.argv[1:])", *command]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--temp-folder", str(self.temp)],
                stderr=log,
                stdout=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        end = time.monotonic() + 280
        while not (ready := [line for line in self.lines() if line["event"] == "ready"]):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)
        self.port = ready[0]["port"]

    def lines(self):
        """Of the log, those that are JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def ask(self, method, path, body=None, *, timeout=60, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            found = connection.getresponse()
            return Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def post(self, path, body, **headers):
        return self.ask("POST", path, body, **headers)

    def form(self, path, video, *, file_name="clip.mp4", **fields):
        body, kind = form_of(video, file_name=file_name, **fields)
        return self.post(path, body, content_type=kind)

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    @property
    def uploads(self):
        """Files that lie in the folders of services."""
        return [path for path in self.temp.rglob("*") if path.is_file() and path.name != ".lock"]

    def workers(self):
        """The processes that decode."""
        servers = [
            pid for pid in children(self.process.pid) if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return [worker for pid in servers for worker in children(pid)]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


@contextmanager
def serving(folder, *words, largest_file=None):
    service = Service(folder, *words, largest_file=largest_file)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.process.kill()
        service.process.wait()


def form_of(video, *, file_name="clip.mp4", **fields):
    """The body of a form, and its type."""
    parts = [
        b'--edge\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), str(value).encode())
        for name, value in fields.items()
    ]
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n' % file_name.encode()
    parts.append(head + b"Content-Type: video/mp4\r\n\r\n" + video + b"\r\n")
    return b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def exchange(service, data, *, more=(), half_closed=False):
    """All that comes back for these bytes, until the service hangs up; ``more`` is sent after pauses."""
    with service.socket() as connection:
        connection.sendall(data)
        for pause, piece in more:
            time.sleep(pause)
            connection.sendall(piece)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while piece := connection.recv(65536):
                found += piece
        except ConnectionResetError:
            pass
        return found
