"""Videos that few tools write: in palettes, interlaced, mirrored, piped, without timestamps. Each is made here."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from tests.media.made_videos import make_video
from tests.media.test_decoding import DECODERS
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.media.decoding import open_video

COLOURS = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)


def moving_noise(num_frames: int, *, height: int, width: int) -> NDArray[np.uint8]:
    """[T, H, W]; no two frames are alike."""
    noise = np.random.default_rng(1).integers(0, 256, (height, width), np.uint8)
    return np.stack([np.roll(noise, number, axis=1) for number in range(num_frames)])


def write(path: Path, codec: str, frames: Iterable[av.VideoFrame], *, pixels: str, rate: int = 25, **options) -> Path:
    """Encode frames that may bring their own times, in ticks of one over ``rate``."""
    frames = list(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixels
        stream.codec_context.time_base = Fraction(1, rate)
        for number, frame in enumerate(frames):
            frame.time_base = Fraction(1, rate)
            frame.pts = number if frame.pts is None else frame.pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def all_frames(path: Path, decoder: str = "pyav") -> NDArray[np.uint8]:
    """[T, H, W, C], the last frame asked for first."""
    with open_video(path, decoder=decoder) as video:
        return video.frames(range(len(video))[::-1]).permute(0, 2, 3, 1).numpy()[::-1]


# Folders


def test_a_folder_is_read_anew_each_time(tmp_path, monkeypatch):
    from PIL import Image

    for grey, place in enumerate(("one", "two")):
        (tmp_path / place / "frames").mkdir(parents=True)
        Image.new("L", (8, 6), 100 * grey).save(tmp_path / place / "frames/1.png")
        monkeypatch.chdir(tmp_path / place)
        assert all_frames(Path("frames")).max() == 100 * grey
    Image.new("L", (8, 6), 7).save(tmp_path / "two/frames/2.png")
    assert all_frames(Path("frames"))[:, 0, 0, 0].tolist() == [100, 7]


def test_images_of_16_bits_keep_their_high_byte(tmp_path):
    from PIL import Image

    levels = np.arange(0, 65536, 64, np.uint16).reshape(32, 32)
    Image.fromarray(levels).save(tmp_path / "1.png")
    assert np.array_equal(all_frames(tmp_path)[0], np.stack([levels // 256] * 3, axis=2))


# Palettes


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mov", "smc"), ("a.mov", "png"), ("a.avi", "rawvideo"), ("a.nut", "rawvideo"), ("b.avi", "zmbv")],
)
@pytest.mark.parametrize("size", [(64, 96), (65, 97)], ids=["even", "odd"])
def test_paletted_video_has_its_colours(tmp_path, name, codec, size, decoder):
    pictures = moving_noise(6, height=size[0], width=size[1])
    palette = np.column_stack([np.full(256, 255, np.uint8), COLOURS])  # alpha first
    frames = [av.VideoFrame.from_ndarray((picture, palette), format="pal8") for picture in pictures]
    path = write(tmp_path / name, codec, frames, pixels="pal8")
    assert np.array_equal(all_frames(path, decoder), COLOURS[pictures])
    with open_video(path) as video:
        assert (video.fps, video.info.constant_rate) == (25.0, True)
        assert video.timestamps == pytest.approx([number / 25 for number in range(6)])
        assert video.keyframes[0] == 0


@pytest.mark.parametrize("decoder", DECODERS)
def test_grey_quicktime_animation_is_not_black(tmp_path, decoder):
    pictures = moving_noise(6, height=64, width=96)
    frames = [av.VideoFrame.from_ndarray(picture, format="gray") for picture in pictures]
    path = write(tmp_path / "a.mov", "qtrle", frames, pixels="gray")
    assert np.array_equal(all_frames(path, decoder), np.stack([pictures] * 3, axis=3))


# Interlaced


@pytest.mark.parametrize("decoder", DECODERS)
def test_interlaced_video_has_the_colours_of_plain_video(tmp_path, decoder):
    pictures = COLOURS[moving_noise(6, height=64, width=96)]
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    path = write(tmp_path / "a.mp4", "libx264", frames, pixels="yuv420p", flags="+ildct+ilme", crf="5")
    expected = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.interlaced_frame
            plain = av.VideoFrame.from_ndarray(frame.to_ndarray(), format="yuv420p")
            expected.append(plain.to_ndarray(format="rgb24", interpolation=Interpolation.BICUBIC))
    assert np.array_equal(all_frames(path, decoder), expected)


# Turned and mirrored

ONE = 1 << 16


def with_matrix(path: Path, *, a: int, b: int, c: int, d: int) -> Path:
    """A copy of an MP4 whose track header has another display matrix."""
    content = bytearray(path.read_bytes())
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    other = path.with_name("matrix.mp4")
    other.write_bytes(content)
    return other


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("matrix", "rotation", "mirrored", "expected"),
    [
        ((ONE, 0, 0, ONE), 0, False, lambda picture: picture),
        ((0, ONE, -ONE, 0), 90, False, lambda picture: np.rot90(picture, -1)),
        ((-ONE, 0, 0, -ONE), 180, False, lambda picture: np.rot90(picture, 2)),
        ((0, -ONE, ONE, 0), 270, False, lambda picture: np.rot90(picture)),
        ((-ONE, 0, 0, ONE), 0, True, lambda picture: picture[:, ::-1]),
        ((ONE, 0, 0, -ONE), 180, True, lambda picture: picture[::-1]),
        ((0, ONE, ONE, 0), 270, True, lambda picture: picture.swapaxes(0, 1)),
        ((0, -ONE, -ONE, 0), 90, True, lambda picture: np.rot90(picture, 2).swapaxes(0, 1)),
        ((0, 0, 0, 0), 0, False, lambda picture: picture),
        ((65526, 1144, -1144, 65526), 0, False, lambda picture: picture),  # one degree
        ((46341, 46341, -46341, 46341), 0, False, lambda picture: picture),  # 45 degrees: torchcodec turns by 90
    ],
    ids=["plain", "90", "180", "270", "hflip", "vflip", "transpose", "transverse", "zero", "1", "45"],
)
def test_a_display_matrix_turns_and_mirrors(
    tmp_path,
    matrix: tuple[int, int, int, int],
    rotation: int,
    mirrored: bool,
    expected: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    decoder: str,
):
    plain = make_video(tmp_path / "plain.mp4", frames=6)
    turned = with_matrix(plain, **dict(zip("abcd", matrix, strict=True)))
    pictures = np.stack([expected(picture) for picture in all_frames(plain)])
    assert np.array_equal(all_frames(turned, decoder), pictures)
    with open_video(turned, decoder=decoder) as video:
        assert (video.info.rotation, video.info.mirrored) == (rotation, mirrored)
        assert (video.height, video.width) == pictures.shape[1:3]
        assert video.decoder == ("pyav" if mirrored else decoder)


def test_a_picture_with_exif_is_turned(tmp_path):
    from PIL import Image

    exif, picture = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # a quarter turn to the right
    pixels = np.full((48, 64, 3), 20, np.uint8)
    pixels[:24] = 200
    Image.fromarray(pixels).save(picture, "JPEG", exif=exif)
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
        packet.time_base = Fraction(1, 25)
        container.mux(packet)
    [upright] = all_frames(path)
    assert np.abs(upright.astype(int) - np.rot90(pixels, -1)).max() < 10


# Piped


class Pipe(io.RawIOBase):
    """Takes bytes, and cannot go back."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, part) -> int:
        self.content += part
        return len(part)


def test_an_avi_written_to_a_pipe_is_whole(tmp_path):
    source, pipe = make_video(tmp_path / "a.mp4", frames=12), Pipe()
    with av.open(str(source)) as before, av.open(pipe, "w", format="avi") as after:
        stream = after.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        for frame in before.decode(video=0):
            after.mux(stream.encode(frame))
        after.mux(stream.encode(None))
    assert pipe.content[4:8] == b"\xff\xff\xff\xff"
    path = tmp_path / "piped.avi"
    path.write_bytes(pipe.content)
    assert len(all_frames(path)) == 12


# Times

UNEVEN = [*range(50), 200, 250]  # fiftieths of a second


def grey_frames(times: Iterable[int]) -> list[av.VideoFrame]:
    times = list(times)
    frames = [
        av.VideoFrame.from_ndarray(picture, format="gray") for picture in moving_noise(len(times), height=48, width=64)
    ]
    for frame, time in zip(frames, times, strict=True):
        frame.pts = time
    return frames


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.webm"])
def test_a_variable_rate_has_its_times_and_its_mean(tmp_path, name):
    codec = "libvpx" if name == "a.webm" else "libx264"
    path = write(tmp_path / name, codec, grey_frames(UNEVEN), pixels="yuv420p", rate=50)
    with open_video(path) as video:
        assert video.timestamps == pytest.approx([time / 50 for time in UNEVEN], abs=1e-3)
        assert video.fps == pytest.approx(51 / 5)
        assert video.info.duration_seconds == pytest.approx(5 + 5 / 51)
        assert not video.info.constant_rate
        record = VideoRecord(str(path), start_seconds=1.2, end_seconds=4.5)
        assert video.segment_frames(*record.segment) == (49, 51)


@pytest.mark.parametrize("name", ["a.avi", "a.ts", "a.mpg", "a.h264"])
def test_a_constant_rate_is_told_though_packets_do_not_tell_the_frames(tmp_path, name):
    # The AVI has a place for a packet every fiftieth of a second, and fills every other one.
    codec = "mpeg1video" if name == "a.mpg" else "libx264"
    rate = 50 if name == "a.avi" else 25
    path = write(
        tmp_path / name, codec, grey_frames(range(0, rate * 2, rate // 25)), pixels="yuv420p", rate=rate, bf="2"
    )
    with open_video(path) as video:
        assert (len(video), video.fps, video.info.constant_rate) == (50, 25.0, True)
        assert video.timestamps == pytest.approx([number / 25 for number in range(50)])
        assert video.info.duration_seconds == pytest.approx(2.0)


def test_times_that_start_again_are_no_times(tmp_path):
    path = write(tmp_path / "a.ts", "libx264", grey_frames(range(25)), pixels="yuv420p", bf="2")
    path.write_bytes(path.read_bytes() * 2)  # how recordings are joined
    with open_video(path) as video:
        assert (len(video), video.fps) == (50, 25.0)
        assert video.timestamps == pytest.approx([number / 25 for number in range(50)])
