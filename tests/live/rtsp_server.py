"""A real RTSP server on loopback, GStreamer's, for the tests of ``watch``; run by Debian's Python, not by ours.

    python3 rtsp_server.py PORT [--user NAME --password WORD]

It prints ``ready``, then does what it is told on stdin, a word a line: ``silent`` and ``loud`` (no frames, frames),
``size 96x64`` (from the next frame on), ``cut`` (all clients are disconnected), ``quit``.
"""

from __future__ import annotations

import argparse
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern=ball ! capsfilter name=size "
    "caps=video/x-raw,format=I420,width={width},height={height},framerate=20/1 ! valve name=valve "
    "drop={silent} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)


def say(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


class Camera(GstRtspServer.RTSPMediaFactory):
    """One camera, shared by all clients."""

    def __init__(self):
        super().__init__()
        self.set_shared(True)
        self.silent, self.size, self.pipelines = False, (64, 48), []

    def do_create_element(self, url):
        width, height = self.size
        text = PIPELINE.format(width=width, height=height, silent=str(self.silent).lower())
        pipeline = Gst.parse_launch(text)
        self.pipelines.append(pipeline)
        return pipeline

    def told(self, word, server):
        if word in {"silent", "loud"}:
            self.silent = word == "silent"
            for pipeline in self.pipelines:
                pipeline.get_by_name("valve").set_property("drop", self.silent)
        elif word.startswith("size "):
            self.size = tuple(map(int, word.split()[1].split("x")))
            caps = Gst.Caps.from_string("video/x-raw,format=I420,width={},height={},framerate=20/1".format(*self.size))
            for pipeline in self.pipelines:
                pipeline.get_by_name("size").set_property("caps", caps)
        elif word == "cut":
            server.client_filter(lambda *_: GstRtspServer.RTSPFilterResult.REMOVE)
        say(f"did {word}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--user")
    parser.add_argument("--password")
    options = parser.parse_args()
    Gst.init(None)
    server, camera = GstRtspServer.RTSPServer(), Camera()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    if options.user:
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", options.user)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
        server.set_auth(auth)
        camera.add_role_from_structure(
            Gst.Structure.from_string(f"{options.user}, media.factory.access=true, media.factory.construct=true")[0]
        )
    server.get_mount_points().add_factory("/live", camera)
    server.attach(None)
    loop = GLib.MainLoop()

    def listen():
        for line in sys.stdin:
            if line.strip() == "quit":
                break
            GLib.idle_add(camera.told, line.strip(), server)
        loop.quit()

    threading.Thread(target=listen, daemon=True).start()
    say("ready")
    loop.run()


if __name__ == "__main__":
    main()
