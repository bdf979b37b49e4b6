"""An HTTP server on loopback whose every path misbehaves in its own way."""

from __future__ import annotations

import hashlib
import http.server
import random
import socket
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

BODY = random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
ETAG = f'"{DIGEST[:16]}"'
LENGTH = len(BODY)
HALF = LENGTH // 2
COMMIT = "0123456789abcdef0123456789abcdef01234567"


LONG = 10.0
"""Seconds; far more than a client waits that does what it should. One that waits longer fails its test, and ends."""

NO_ONE = "http://127.0.0.1:9"
"""Nobody listens at the port of discarded bytes."""


def place_hub(monkeypatch, address):
    """From now on the Hugging Face hub is there."""
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


class Handler(http.server.BaseHTTPRequestHandler):
    """Each path misbehaves in its own way; every request is logged with its Range."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.hub_file(send_body=False)

    def do_GET(self):
        seen = self.server.seen
        seen.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        name = self.path.rpartition("/")[2]
        if name in self.server.hub_files or name.startswith("hub"):
            return self.hub_file(send_body=True)
        return getattr(self, name.partition(".")[0].replace("-", "_"))(first=len(seen) == 1)

    def reply(self, body, *, status=200, length=LENGTH, etag=ETAG, **headers):
        self.send_response(status)
        for key, value in ({"ETag": etag, "Content-Length": length} | headers).items():
            if value is not None:
                self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def ranged(self, etag=ETAG):
        """What remains, where the client asks for it and still has the same file; else all."""
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start and self.headers.get("If-Range") == etag:
            if start >= LENGTH:
                return self.send_error(416)
            content_range = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
            return self.reply(BODY[start:], status=206, length=len(BODY) - start, Content_Range=content_range)
        return self.reply(BODY, etag=etag)

    def whole(self, first):
        self.ranged()

    def missing(self, first):
        self.send_error(404)

    def page(self, first):
        self.reply(b"<html>for sale</html>", length=21, Content_Type="text/html; charset=utf-8")

    def truncated(self, first):
        self.reply(BODY[:HALF])

    def cut(self, first):
        self.reply(BODY[:HALF]) if first else self.ranged()

    def reset(self, first):
        if not first:
            return self.ranged()
        self.reply(BODY[:HALF])
        linger_for_no_time = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
        return self.connection.close()

    def cut_without_range(self, first):
        self.reply(BODY[:HALF] if first else BODY)

    def cut_without_validator(self, first):
        self.reply(BODY[:HALF] if first else BODY, etag=None)

    def cut_then_replaced(self, first):
        self.reply(bytes(HALF), etag='"old"') if first else self.ranged()

    def cut_then_other_part(self, first):
        if first:
            self.reply(BODY[:HALF])
        elif self.headers.get("Range"):
            self.reply(BODY[:10], status=206, length=10, Content_Range=f"bytes 0-9/{len(BODY)}")
        else:
            self.reply(BODY)

    def busy(self, first):
        self.send_error(503) if first else self.ranged()

    def chunked_cut(self, first):
        self.reply(b"%x\r\n" % len(BODY) + BODY[:HALF], length=None, Transfer_Encoding="chunked")

    def drip_header(self, first):
        self.drip(b"HTTP/1.1 200 OK\r\nX: ")

    def drip_body(self, first):
        self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")

    def drip_chunk(self, first):
        self.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")

    def again(self, content, *, every):
        """Now and then, until the client has gone, the test is over or ``LONG`` has passed."""
        end = time.monotonic() + LONG
        while time.monotonic() < end and not self.server.let_go.wait(every):
            self.wfile.write(content)

    def drip(self, start):
        self.wfile.write(start)
        self.again(b"x", every=0.1)

    def endless(self, first):
        self.reply(b"", length=None, Transfer_Encoding="chunked")
        self.again(b"8000\r\n" + bytes(0x8000) + b"\r\n", every=0.01)

    def no_length(self, first):
        self.reply(BODY, length=None)

    def moved_with_a_body(self, first):
        self.reply(b"", status=302, length=None, Location="whole.pyth")
        self.again(b"x", every=0.1)

    def circle(self, first):
        if len(self.server.seen) > 30:
            return self.send_error(508)
        return self.reply(b"", status=302, length=0, Location="circle.pyth")

    def moved(self, first):
        self.reply(b"", status=302, length=0, Location="whole.pyth")

    def moved_to_file(self, first):
        self.reply(b"", status=302, length=0, Location=Path(__file__).as_uri())

    def waiting(self, first):
        """Half, then nothing more until the test lets the rest go."""
        if not first:
            return self.ranged()
        self.reply(BODY[:HALF])
        self.wfile.flush()
        self.server.half_sent.set()
        if self.server.let_go.wait(30):
            self.wfile.write(BODY[HALF:])
        return None

    def hub_file(self, *, send_body):
        if not send_body:
            self.server.asked.append(self.path)
        body = self.server.hub_files.get(self.path.rpartition("/")[2])
        if body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            return self.end_headers()
        etag = f'"{self.server.hub_etag or hashlib.sha256(body).hexdigest()}"'
        return self.reply(body if send_body else b"", length=len(body), etag=etag, X_Repo_Commit=COMMIT)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.asked = [], []
        self.hub_files = {"hub-weights.pyth": BODY}
        self.hub_etag = ""
        self.half_sent, self.let_go = threading.Event(), threading.Event()

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.let_go.set()
            self.shutdown()
            thread.join()
            self.server_close()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def url(self, name):
        return f"{self.address}/weights/{name}.pyth"

    def handle_error(self, request, client_address):
        """A client that is killed in the middle is part of the tests."""
