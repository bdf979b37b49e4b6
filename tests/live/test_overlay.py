"""The video with the classes burnt in."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from uniformerv2.live.outputs import WatchOutputs
from uniformerv2.live.overlay import OverlayVideo, draw_labels


def test_the_video_shows_the_frames_at_their_times_with_labels(tmp_path):
    path = tmp_path / "out.mp4"
    grey = np.full((97, 129, 3), 200, np.uint8)
    with OverlayVideo(path, drops=False) as video:
        for number in range(30):
            video.add(number / 8, grey, [("archery", 0.9), ("violin", 0.05)])
        video.add(1000.0, grey[:48, :64], [])
    assert (video.num_written, video.error) == (31, None)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert (frames[0].width, frames[0].height, len(frames)) == (128, 96, 31)
    assert np.allclose([frame.time for frame in frames[:30]], np.arange(30) / 8, atol=0.002)
    assert frames[30].time - frames[29].time == 1.0
    pixels = frames[0].to_ndarray(format="rgb24").astype(int)
    assert abs(pixels[:40] - 200).max() < 12
    assert pixels[-12:, :60].mean() < 150
    assert sorted(tmp_path.iterdir()) == [path]


def test_labels_do_not_leave_the_picture_whatever_their_names():
    for size in ((16, 16), (320, 240)):
        picture = Image.new("RGB", size, (90, 90, 90))
        drawn = draw_labels(picture, [("x" * 500 + "\x1b[2J\n", 2.0), ("", -1.0), ("漢字", 0.5)])
        assert drawn.size == size
        assert drawn.tobytes() != picture.tobytes()
    assert draw_labels(picture, []) is picture


def test_a_disk_that_takes_nothing_is_told_and_holds_nothing_up(tmp_path):
    path = tmp_path / "absent" / "file" / "out.mp4"
    (tmp_path / "absent").write_text("a file")
    with OverlayVideo(path, drops=False) as video:
        for number in range(300):
            video.add(number / 8, np.zeros((16, 16, 3), np.uint8), [("a", 0.5)])
    assert isinstance(video.error, OSError)


def test_without_frames_there_is_no_file(tmp_path):
    with OverlayVideo(tmp_path / "out.mp4", drops=True) as video:
        pass
    assert list(tmp_path.iterdir()) == []
    assert video.error is None


def test_what_is_interrupted_leaves_nothing(tmp_path):
    video = OverlayVideo(tmp_path / "out.mp4", drops=False)
    for number in range(30):
        video.add(number / 8, np.zeros((16, 16, 3), np.uint8), [("a", 0.5)])
    video.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_second_ctrl_c_leaves_no_part_of_the_video(tmp_path, monkeypatch, moment):
    def interrupted(self):
        raise KeyboardInterrupt

    outputs = WatchOutputs(
        ("a",), console=None, video=tmp_path / "out.mp4", webhook=None, drops=False, tell=lambda sentence: None
    )
    outputs._video.add(0.0, np.zeros((16, 16, 3), np.uint8), [("a", 0.5)])
    if moment == "meanwhile":
        monkeypatch.setattr(OverlayVideo, "close", interrupted)

    def use():
        with outputs:
            if moment == "before":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert list(tmp_path.iterdir()) == []
