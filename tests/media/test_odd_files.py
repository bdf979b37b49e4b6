"""Files that a folder of videos may hold: rare suffixes, images, files of empty boxes."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest
from PIL import Image

from tests.media import write_video
from uniformerv2.media.decoding import VideoError, open_video
from uniformerv2.media.video_error import VIDEO_SUFFIXES


@pytest.mark.parametrize(
    ("suffix", "container", "codec"),
    [
        ("m2v", "mpeg2video", "mpeg2video"),
        ("mxf", "mxf", "mpeg2video"),
        ("3g2", "3g2", "mpeg4"),
        ("divx", "avi", "mpeg4"),
        ("qt", "mov", "mpeg4"),
        ("f4v", "f4v", "libx264"),
        ("mod", "vob", "mpeg2video"),
        ("dv", "dv", "dvvideo"),
        ("264", "h264", "libx264"),
    ],
)
def test_files_of_rare_suffixes_are_read(tmp_path, suffix, container, codec):
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = (
            (720, 576, "yuv420p") if codec == "dvvideo" else (64, 48, "yuv420p")
        )
        for number in range(4):
            pixels = np.full((stream.height, stream.width, 3), 60 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
    assert path.suffix in VIDEO_SUFFIXES
    with open_video(path) as video:
        assert len(video) == 4
        levels = video.frames(range(4)).float().mean(dim=(1, 2, 3)).tolist()
    assert levels == pytest.approx([0, 60, 120, 180], abs=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "BMP", "TIFF"])
def test_an_image_is_told_to_be_one(tmp_path, kind):
    Image.new("RGB", (40, 30)).save(tmp_path / "clip.mp4", format=kind)
    with pytest.raises(VideoError, match=rf"not a video: this is an image \({kind}\); images are read as the numbered"):
        open_video(tmp_path / "clip.mp4")


def box(name, content=b""):
    return struct.pack(">I4s", 8 + len(content), name) + content


@pytest.mark.parametrize("where", ["at the end", "in the header"])
def test_two_million_empty_boxes_are_refused_before_they_are_passed_over(tmp_path, where):
    content, empty = write_video(tmp_path / "clip.mp4").read_bytes(), box(b"free") * 2_000_000
    told = content + empty if where == "at the end" else content[:32] + box(b"moov", empty) + content[32:]
    (tmp_path / "boxes.mp4").write_bytes(told)
    with pytest.raises(VideoError, match="corrupt: it holds more than 10000 empty boxes"):
        open_video(tmp_path / "boxes.mp4")
    (tmp_path / "few.mp4").write_bytes(content + box(b"free") * 1000)
    with open_video(tmp_path / "few.mp4") as video:
        assert len(video) > 1
