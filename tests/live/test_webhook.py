"""Events to an address on loopback that takes them, fails, hangs, drips or redirects."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.live.watched import wait_until
from uniformerv2.live.webhook import SIZE, Webhook, check_webhook


class Hook(BaseHTTPRequestHandler):
    """Answers with the next status of the server; the last one stays."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), json.loads(body)))
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        if status == "hang":
            self.server.release.wait(10)
            return
        if status == "drip":
            for letter in b"HTTP/1.1 200 " + b"O" * 100:
                if self.server.release.wait(0.1):
                    return
                self.wfile.write(bytes([letter]))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.daemon_threads, server.handle_error = True, lambda *_: None
    server.got, server.statuses, server.release = [], [200], threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


def hook_of(server, *, path="/hook?key=x", user="", **options):
    said = []
    address = f"http://{user}127.0.0.1:{server.server_port}{path}"
    return Webhook(address, tell=said.append, **{"first_wait": 0.01, "seconds": 0.4, **options}), said


def test_events_arrive_in_their_order_as_json(server):
    hook, said = hook_of(server, user="me:p%40ss@")
    for number in range(5):
        hook.send({"event": "new", "id": number, "label": "é"})
    hook.close()
    assert [body["id"] for _, _, body in server.got] == list(range(5))
    path, headers, body = server.got[0]
    assert (path, body["label"], headers["Content-Type"]) == ("/hook?key=x", "é", "application/json")
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert (hook.num_sent, hook.num_lost, said) == (5, 0, [])


def test_what_fails_is_tried_three_times_and_told_once(server):
    server.statuses = [503, 503, 200, 500]
    hook, said = hook_of(server)
    for number in range(3):
        hook.send({"id": number})
    wait_until(lambda: len(server.got) == 9)
    hook.close()
    assert [body["id"] for _, _, body in server.got] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (hook.num_sent, hook.num_lost) == (1, 2)
    assert said == ["http://127.0.0.1 does not take events: it answers 500"]
    server.statuses = [200]


def test_a_redirect_and_a_refusal_are_not_followed(server):
    for status in (302, 401):
        server.got.clear()
        server.statuses = [status]
        hook, said = hook_of(server)
        hook.send({"id": 1})
        wait_until(lambda said=said: said)
        hook.close()
        assert [path for path, _, _ in server.got] == ["/hook?key=x"]
        assert said == [f"http://127.0.0.1 does not take events: it answers {status}"]


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_one_that_hangs_holds_nothing_up(how, server):
    server.statuses = [how]
    hook, said = hook_of(server)
    begin = time.monotonic()
    for number in range(SIZE + 20):
        hook.send({"id": number})
    assert time.monotonic() - begin < 0.3
    wait_until(lambda: said)
    assert [body["id"] for _, _, body in server.got[:3]] == [server.got[0][2]["id"]] * 3
    begin = time.monotonic()
    hook.close(seconds=0.2)
    assert time.monotonic() - begin < 1
    assert hook.num_sent == 0
    assert hook.num_lost == SIZE + 20


def test_nobody_listens():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    said = []
    hook = Webhook(f"http://me:secret@127.0.0.1:{port}/T00/secret?key=secret", first_wait=0.01, tell=said.append)
    hook.send({"id": 1})
    wait_until(lambda: said)
    hook.close()
    assert said == ["http://127.0.0.1 does not take events: Connection refused"]


@pytest.mark.parametrize(
    "address", ["ftp://a/b", "file:///etc/passwd", "a/b", "http://", "http://a:99999/", "http://a/b c", "http://a/é\n"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="webhook takes an address"):
        check_webhook(address)
