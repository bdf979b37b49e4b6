"""Streams of an HTTP server on loopback: MPEG-TS without end, HLS, MJPEG; what a playlist may not open."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest
from PIL import Image

from tests.inference.test_windows import scorer_of
from tests.live.watched import EASY, QUICK, Watched, assert_windows_of_timeline, states, watched
from tests.media.made_videos import make_video
from uniformerv2.live.options import LinkRules
from uniformerv2.live.watcher import Watcher


class Server(ThreadingHTTPServer):
    """Paths with what is sent for them: bytes, or a function of the request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Request)
        self.answers, self.asked = {}, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_):
        pass

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Request(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path.partition("?")[0], 404)
        if callable(answer):
            answer(self)
        elif isinstance(answer, int):
            self.send_error(answer)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with contextlib.closing(Server()) as server:
        server.close = server.server_close
        yield server
        server.shutdown()


def stream(content, *, seconds=2.0):
    """Sends without saying how much it is, in pieces."""

    def answer(request):
        request.send_response(200)
        request.send_header("Content-Type", "video/mp2t")
        request.end_headers()
        for begin in range(0, len(content), len(content) // 20):
            request.wfile.write(content[begin : begin + len(content) // 20])
            time.sleep(seconds / 20)

    return answer


def hls(server, video, folder, *, ends=True):
    """The packets of a video as a playlist and its segments."""
    with av.open(str(video)) as source, av.open(str(folder / "list.m3u8"), "w", format="hls") as copy:
        copy_of = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy_of
                copy.mux(packet)
    for path in folder.iterdir():
        if path.suffix in {".ts", ".m3u8"}:
            server.answers[f"/{path.name}"] = path.read_bytes()
    if not ends:
        server.answers["/list.m3u8"] = server.answers["/list.m3u8"].replace(b"#EXT-X-ENDLIST\n", b"")


def test_a_file_of_a_server_ends_and_has_the_windows_of_timeline(server, tmp_path):
    video = make_video(tmp_path / "a.mp4", frames=40, fps=10, gop=10)
    server.answers["/a.mp4"] = video.read_bytes()
    scorer = scorer_of(window_seconds=1.0, stride_seconds=0.5)
    windows, events = watched(scorer, f"{server.address}/a.mp4?token=s3cret")
    assert states(events) == ["connecting", "running", "ended"]
    assert_windows_of_timeline(scorer, video, windows)
    assert not any(event.dropped_frames for event in events)
    assert "s3cret" not in "".join(event.to_json() for event in events)
    assert any("s3cret" in path for path in server.asked)


def test_a_playlist_that_ends_is_played_to_its_end(server, tmp_path):
    hls(server, make_video(tmp_path / "a.mp4", frames=60, fps=10, gop=10), tmp_path)
    windows, events = watched(scorer_of(window_seconds=1.0, stride_seconds=0.5), f"{server.address}/list.m3u8")
    assert states(events) == ["connecting", "running", "ended"]
    assert windows[-1].end_seconds == pytest.approx(6.0, abs=0.3)


def test_a_playlist_that_does_not_go_on_stalls_and_is_opened_anew(server, tmp_path):
    hls(server, make_video(tmp_path / "a.mp4", frames=60, fps=10, gop=10), tmp_path, ends=False)
    live = Watched(f"{server.address}/list.m3u8")
    live.wait_for("running", "stalled", "reconnecting", "connecting")
    assert live.stop() < 2
    assert live.windows


def test_a_stream_without_end_is_taken_up_again(server, tmp_path):
    server.answers["/live"] = stream(make_video(tmp_path / "a.ts", frames=40, fps=20, gop=10).read_bytes(), seconds=1)
    live = Watched(f"{server.address}/live")
    live.wait_for("running", "reconnecting", "connecting", "running")
    assert live.stop() < 2
    assert server.asked.count("/live") >= 2


def test_pictures_one_after_the_other_are_a_stream(server):
    def answer(request):
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for number in range(400):
            file = io.BytesIO()
            Image.fromarray(np.full((48, 64, 3), number % 256, np.uint8)).save(file, "JPEG")
            body = file.getvalue()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
            request.wfile.write(head.encode() + body + b"\r\n")
            time.sleep(0.02)

    server.answers["/mjpeg"] = answer
    live = Watched(f"{server.address}/mjpeg", link=LinkRules(open_seconds=10))
    live.wait_for("connecting", "running")
    while len(live.windows) < 5:
        time.sleep(0.05)
    assert live.stop() < 2


@pytest.mark.parametrize("answer", [404, 401, 500, b"<html>nothing</html>", b""])
def test_what_is_no_stream_is_tried_again_and_then_fails_with_the_reason(answer, server):
    server.answers["/x"] = answer
    _, events = watched(
        scorer_of(), f"http://me:s3cret@127.0.0.1:{server.server_port}/x", link=LinkRules(retries=1, max_wait=0.1)
    )
    assert states(events) == ["connecting", "reconnecting", "connecting", "failed"]
    assert events[-1].reason
    assert "s3cret" not in "".join(event.to_json() for event in events)
    if isinstance(answer, int):
        assert str(answer) in events[-1].reason or "5XX" in events[-1].reason


@pytest.mark.parametrize("place", ["file://{path}", "{path}", "concat:{path}", "subfile,,start,0,end,0,,:{path}"])
def test_a_playlist_of_a_server_opens_no_file_of_this_machine(place, server, tmp_path):
    video = make_video(tmp_path / "secret.ts", frames=40, fps=10, gop=10)
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{place.format(path=video)}\n#EXT-X-ENDLIST\n"
    server.answers["/list.m3u8"] = text.encode()
    windows, events = watched(scorer_of(), f"{server.address}/list.m3u8", link=LinkRules(retries=0))
    assert windows == []
    assert states(events)[-1] in {"failed", "ended"}


def test_a_server_may_not_send_a_watcher_to_a_file(server, tmp_path):
    video = make_video(tmp_path / "secret.mp4", frames=40, fps=10)

    def answer(request):
        request.send_response(302)
        request.send_header("Location", f"file://{video}")
        request.end_headers()

    server.answers["/x"] = answer
    windows, events = watched(scorer_of(), f"{server.address}/x", link=LinkRules(retries=0))
    assert (windows, states(events)[-1]) == ([], "failed")


def test_a_file_of_this_machine_opens_no_address(server, tmp_path):
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:4,\n{server.address}/a.ts\n#EXT-X-ENDLIST\n")
    _, events = watched(scorer_of(), str(tmp_path / "list.m3u8"))
    assert states(events)[-1] == "failed"
    assert server.asked == []


def test_a_slow_network_loses_the_oldest_frames_of_a_live_source(server, tmp_path, monkeypatch):
    server.answers["/live"] = stream(make_video(tmp_path / "a.ts", frames=200, fps=50, gop=10).read_bytes(), seconds=2)
    scorer = scorer_of(window_seconds=0.2, stride_seconds=0.05)
    fuse = scorer.predictor.model.fuse_tokens
    monkeypatch.setattr(scorer.predictor.model, "fuse_tokens", lambda *arguments: time.sleep(0.15) or fuse(*arguments))
    windows = []
    with Watcher(scorer, f"{server.address}/live", rules=EASY, link=QUICK, tell=windows.append) as watcher:
        for event in watcher:
            if event.dropped_frames > 8:
                watcher.stop()
    assert watcher.num_dropped > 8
    assert max(time.monotonic() - window.arrived_at for window in windows[-1:]) < 5
