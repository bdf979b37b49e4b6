from __future__ import annotations

import csv
import http.server
import os
import pickle
import random
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from uniformerv2.media import video_file
from uniformerv2.media.decoding import VideoError, open_video
from uniformerv2.media.frame_sources import torchcodec_decoder


def has_torchcodec() -> bool:
    """It is installed, and so are the FFmpeg libraries that it needs."""
    try:
        torchcodec_decoder()
    except (ImportError, RuntimeError, OSError):
        return False
    return True


needs_torchcodec = pytest.mark.skipif(not has_torchcodec(), reason="torchcodec does not load here")
DECODERS = ["pyav", pytest.param("torchcodec", marks=(needs_torchcodec, pytest.mark.ffmpeg))]


@pytest.fixture(scope="module")
def odd(shared):
    """The folder of odd videos and the rows of its table."""
    folder = shared("data/odd_videos")
    with (folder / "ffprobe.tsv").open() as table:
        return folder, list(csv.DictReader(table, delimiter="\t"))


@pytest.fixture
def demo(shared):
    return shared("goldens/pipeline/demo.mp4")


def decoded_in_one_pass(path: Path) -> np.ndarray:
    """All frames as FFmpeg gives them without any seek, [T, C, H, W], turned upright."""
    with av.open(str(path), metadata_errors="replace") as container:
        frames = [
            np.rot90(
                frame.reformat(format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray(), frame.rotation // 90
            )
            for frame in container.decode(video=0)
        ]
    return np.stack(frames).transpose(0, 3, 1, 2)


def write_video(path: Path, num_frames: int = 30, codec: str = "libx264", **options: str) -> Path:
    """Moving noise of 64x48; ``container_*`` options go to the container, the others to the encoder."""
    container_options = {key[10:]: value for key, value in options.items() if key.startswith("container_")}
    generator = np.random.default_rng(0)
    pattern = generator.integers(0, 256, (48, 256, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.options = {key: value for key, value in options.items() if key[:10] != "container_"}
        for number in range(num_frames):
            picture = np.ascontiguousarray(pattern[:, 2 * number : 2 * number + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def refusal(path: Path, decoder: str = "pyav") -> VideoError:
    with pytest.raises(VideoError) as caught:
        open_video(path, decoder=decoder)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith((".", "OUT.mp4", "read."))
    return caught.value


# What a file gives


def outcome(path: Path, decoder: str) -> tuple:
    """First, middle and last frame; or the kind of the error."""
    try:
        with open_video(path, decoder=decoder) as video:
            wanted = sorted({0, len(video) // 2, len(video) - 1})
            return len(video), video.info, video.frames(wanted)
    except VideoError as error:
        return (error.kind,)


@needs_torchcodec
@pytest.mark.ffmpeg
def test_every_odd_file_gives_the_same_frames_in_both_decoders_or_a_video_error(odd, capfd):
    folder, rows = odd
    faults, kinds = [], Counter()
    for row in rows:
        name, expected = row["file"], int(row["frames_decoded"])
        start = time.perf_counter()
        ours, theirs = (outcome(folder / name, decoder) for decoder in ("pyav", "torchcodec"))
        if time.perf_counter() - start > 10:
            faults.append(f"{name}: slow")
        if len(ours) == 1:
            kinds[ours[0]] += 1
            if ours != theirs or (expected and not row["ffmpeg_message"]):
                faults.append(f"{name}: {ours} {theirs}")
            continue
        num_frames, info, frames = ours
        difference = (frames.float() - theirs[2].float()).abs().mean(dim=(1, 2, 3)).max()
        if theirs[:2] != ours[:2] or difference > 2:
            faults.append(f"{name}: {ours[:2]} {theirs[:2]} differ by {difference}")
        if row["ffmpeg_message"]:
            continue
        if num_frames != expected or info.codec != row["codec"]:
            faults.append(f"{name}: {info} instead of {row}")
        if not row["avg_fps"].endswith("/0") and info.fps != pytest.approx(float(Fraction(row["avg_fps"])), rel=1e-3):
            faults.append(f"{name}: {info.fps} instead of {row['avg_fps']} frames per second")
    assert len(rows) == 185
    assert faults == []
    assert kinds["no video"] == 43
    assert kinds["encrypted"] == 15
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "name",
    [
        "torchcodec/discard_first_keyframe.mp4",  # an edit list that hides the frames after the first keyframe
        "torchcodec/test_non_zero_start.mp4",
        "torchcodec/var_fps_video.mp4",
        "torchcodec/sine_stereo_mp2.mpg",  # timestamps on some packets only
        "torchcodec/animated.gif",
        "decord/unordered.mov",
        "decord/video_90.mov",
        "decord/video_180.mov",
        "decord/video_270.mov",
        "firefox/bipbop.mp4",
        "firefox/frame_order.mp4",
        "torchvision/RATRACE_wave_f_nm_np1_fr_goo_37.avi",  # no timestamps, two frames in one packet
        "torchvision/v_SoccerJuggling_g23_c01.avi",
    ],
)
def test_frames_in_any_order_equal_one_pass_without_seeks(odd, name, decoder):
    path = odd[0] / name
    expected = decoded_in_one_pass(path)
    order = list(range(len(expected)))
    random.Random(0).shuffle(order)
    order = order[:12]
    with open_video(path, decoder=decoder) as video:
        assert (len(video), 3, video.height, video.width) == expected.shape
        for numbers in (order, *([number] for number in order[:4])):
            difference = np.abs(video.frames(numbers).numpy().astype(int) - expected[numbers])
            # Another release of FFmpeg may round an inverse transform differently: a few pixels by one level.
            assert difference.mean(axis=(1, 2, 3)).max() < (0.01 if decoder == "torchcodec" else 1e-9)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("name", "num_frames"), [("demo.mp4", 280), ("R6llTwEh07w.mp4", 303)])
def test_golden_videos_decode_to_the_same_bytes(shared, name, num_frames, decoder):
    path = shared(f"goldens/pipeline/{name}")
    with open_video(path, decoder=decoder) as video:
        assert (len(video), video.decoder) == (num_frames, decoder)
        clip = video.frames(range(num_frames))
    assert clip.dtype == torch.uint8
    assert np.array_equal(clip.numpy(), decoded_in_one_pass(path))


def test_info_tells_rate_size_rotation_and_keyframes(odd, shared):
    folder, _ = odd
    with open_video(folder / "torchvision/basketball.mp4") as video:
        assert (video.info.codec, video.info.container, video.info.constant_rate) == ("h264", "mov", True)
        assert video.fps == pytest.approx(29.97, abs=0.001)
        assert video.info.duration_seconds == pytest.approx(333 / 29.97, abs=0.01)
        assert len(video.timestamps) == 333
        assert video.keyframes[0] == 0
        assert video.info.gop_length == max(np.diff([*video.keyframes, 333]))
    with open_video(folder / "torchcodec/var_fps_video.mp4") as video:
        assert not video.info.constant_rate
    with open_video(folder / "decord/video_90.mov") as video:
        assert (video.info.rotation, video.height, video.width) == (90, 568, 320)
    with open_video(folder / "torchcodec/gradient.gif") as video:
        assert (len(video), video.fps, video.timestamps) == (1, 0.0, ())


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_size_that_changes_on_the_way_becomes_the_first_size(odd, decoder):
    with open_video(odd[0] / "firefox/resolution-change.webm", decoder=decoder) as video:
        clip = video.frames(range(len(video)))
    assert clip.shape == (197, 3, 40, 60)
    assert clip[2:].float().std(dim=(1, 2, 3)).min() > 1  # resized, not left blank; the film opens with black


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_frame_that_does_not_decode_is_named_and_not_replaced(odd, decoder):
    with open_video(odd[0] / "decord/corrupted.mp4", decoder=decoder) as video:
        assert video.frames([29, 31]).shape[0] == 2
        with pytest.raises(VideoError, match="frame 30 of 50") as caught:
            video.frames([29, 30, 31])
        assert caught.value.kind == "corrupt"
        assert video.frames([29, 31]).shape[0] == 2


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_frame_that_is_silently_dropped_is_not_replaced_by_the_next(tmp_path, decoder):
    options = {"g": "10", "keyint_min": "10", "lag-in-frames": "0", "auto-alt-ref": "0"}
    path = write_video(tmp_path / "dropped.webm", 30, "libvpx-vp9", **options)
    with av.open(str(path)) as container:
        keyframe = [bytes(packet) for packet in container.demux(video=0)][10]
    hidden = bytes([keyframe[0] & ~2]) + keyframe[1:]  # the bit that says "show"
    path.write_bytes(path.read_bytes().replace(keyframe, hidden))
    expected = decoded_in_one_pass(path)
    assert len(expected) == 29
    with open_video(path, decoder=decoder) as video:
        assert np.array_equal(video.frames([9, 20]).numpy(), expected[[9, 19]])
        for wanted in ([10], [9, 10, 20]):
            with pytest.raises(VideoError, match="frame 10 of 30"):
                video.frames(wanted)
        assert np.array_equal(video.frames([9, 20]).numpy(), expected[[9, 19]])


@pytest.mark.parametrize("decoder", DECODERS)
def test_packets_that_are_not_shown_are_not_counted(tmp_path, decoder):
    plain, path = write_video(tmp_path / "plain.webm", 20, "libvpx"), tmp_path / "hidden.webm"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                hidden = av.Packet(bytes([bytes(packet)[0] & ~0x10]) + bytes(packet)[1:])  # the bit that says "show"
                hidden.pts = hidden.dts = packet.pts + 10
                hidden.time_base, hidden.stream, hidden.is_keyframe = packet.time_base, stream, packet.is_keyframe
                packet.stream = stream
                target.mux(packet)
                if packet.pts:
                    target.mux(hidden)
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 39
    expected = decoded_in_one_pass(path)
    with open_video(path, decoder=decoder) as video:
        assert len(video) == len(expected) == 20
        assert np.array_equal(video.frames([19, 7]).numpy(), expected[[19, 7]])


# How frames are asked for


@pytest.mark.parametrize("decoder", DECODERS)
def test_indices_may_repeat_and_come_in_any_order_and_type(demo, decoder):
    with open_video(demo, decoder=decoder) as video:
        clip = video.frames([5, 270, 5, 0])
        assert clip.shape == (4, 3, video.height, video.width)
        assert torch.equal(clip[0], clip[2])
        assert not torch.equal(clip[0], clip[3])
        for indices in (torch.tensor([5, 270, 5, 0]), np.array([5, 270, 5, 0]), iter((5, 270, 5, 0))):
            assert torch.equal(video.frames(indices), clip)
        assert video.frames([]).shape == (0, 3, video.height, video.width)
        for wrong in (-1, 280):
            with pytest.raises(IndexError, match=rf"no frame {wrong}: its 280 frames are 0 to 279"):
                video.frames([0, wrong])
        with pytest.raises(TypeError):
            video.frames([0.5])
        assert torch.equal(video.frames([270])[0], clip[1])


def test_wrong_choices_are_refused(demo):
    with pytest.raises(ValueError, match="'auto', 'pyav', 'torchcodec'"):
        open_video(demo, decoder="decord")
    with pytest.raises(ValueError, match="at least 1"):
        open_video(demo, num_threads=0)


def test_threads_change_nothing(demo):
    clips = []
    for num_threads in (1, 3):
        with open_video(demo, decoder="pyav", num_threads=num_threads) as video:
            clips.append(video.frames([279, 3, 100, 101]))
    assert torch.equal(*clips)


def test_one_pass_over_a_gop_and_seeks_only_beyond_the_next_keyframe(tmp_path, monkeypatch):
    path = write_video(tmp_path / "gop.mp4", 120, g="30", bf="2", **{"sc_threshold": "0"})
    done = Counter()
    seek, decode = video_file.VideoFile.seek, video_file.VideoFile.decode

    def counted_seek(self, timestamp):
        done["seeks"] += 1
        seek(self, timestamp)

    def counted_decode(self):
        for frame in decode(self):
            done["frames"] += 1
            yield frame

    monkeypatch.setattr(video_file.VideoFile, "seek", counted_seek)
    monkeypatch.setattr(video_file.VideoFile, "decode", counted_decode)
    with open_video(path, decoder="pyav") as video:
        assert video.keyframes == (0, 30, 60, 90)
        for wanted, num_seeks, num_frames in (
            ([0], 0, 0),  # decoded when the video was opened
            ([20, 5, 25], 0, 25),
            ([27, 29], 0, 4),
            ([100, 95, 65], 2, 6 + 11),
            ([103], 0, 3),
            ([102], 1, 13),
        ):
            done.clear()
            video.frames(wanted)
            assert (done["seeks"], done["frames"]) == (num_seeks, num_frames), wanted


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
@pytest.mark.parametrize("decoder", DECODERS)
def test_closing_ends_the_threads_and_the_file(demo, decoder):
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    with open_video(demo, decoder=decoder, num_threads=4) as video:  # loads what stays loaded
        video.frames([0, 200])
    before = held()
    for _ in range(3):
        video = open_video(demo, decoder=decoder, num_threads=4)
        clip = video.frames([0, 200])
        assert held()[0] > before[0]
        video.close()
        assert held() == before
        video.close()
    assert clip.float().mean() > 1  # the frames outlive the reader
    with pytest.raises(ValueError, match="open_video again"):
        video.frames([0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_reader_does_not_cross_a_fork(demo, decoder):
    with open_video(demo, decoder=decoder) as video:
        read_end, write_end = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
            child = os.fork()
        if not child:
            try:
                video.frames([0])
                os.write(write_end, b"frames")
            except RuntimeError as error:
                os.write(write_end, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            assert "opened in another process" in pipe.read()
        assert video.frames([0]).shape[0] == 1


# What cannot be read


def test_the_error_pickles_and_says_what_to_do():
    error = pickle.loads(pickle.dumps(VideoError("a/b.mp4", "truncated", "5 bytes are not there")))
    assert (error.path, error.kind, error.detail) == (Path("a/b.mp4"), "truncated", "5 bytes are not there")
    assert str(error).startswith("a/b.mp4: truncated: 5 bytes are not there. Fetch it again")


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"hello world\n" * 200, "not a video"),
        (bytes(50_000), "not a video"),
        (random.Random(0).randbytes(50_000), "not a video"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(100), "corrupt"),
    ],
)
def test_content_that_is_no_video(tmp_path, content, kind, decoder):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert refusal(path, decoder).kind == kind


def test_paths_that_lead_to_no_video(tmp_path, demo):
    assert refusal(tmp_path / "absent.mp4").kind == "missing"
    assert refusal(demo / "inside.mp4").kind == "missing"
    assert refusal(Path("https://example.com/clip.mp4")).kind == "missing"
    assert refusal(tmp_path).kind == "empty"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refusal(tmp_path / "pipe.mp4").kind == "unreadable"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    path.chmod(0)
    assert refusal(path).kind == "unreadable"


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("header_last.mp4", "libx264", {}),
        ("header_first.mp4", "libx264", {"container_movflags": "faststart"}),
        ("fragments.mp4", "libx264", {"container_movflags": "frag_keyframe+empty_moov", "g": "5"}),
        ("clip.mkv", "libx264", {}),
        ("clip.webm", "libvpx", {}),
        ("clip.avi", "mpeg4", {}),
    ],
)
def test_a_file_that_ends_early_is_truncated(tmp_path, name, codec, options, decoder):
    whole = write_video(tmp_path / name, codec=codec, **options)
    with open_video(whole, decoder=decoder) as video:
        assert len(video) == 30
    content = whole.read_bytes()
    part = tmp_path / f"part_{name}"
    for fraction in (0.5, 0.8):
        part.write_bytes(content[: int(fraction * len(content))])
        assert refusal(part, decoder).kind == "truncated"
    part.write_bytes(content + b"appended by a careless tool")
    with open_video(part, decoder=decoder) as video:
        assert len(video) == 30


def test_unknown_codec_sound_and_header_only(tmp_path, odd):
    path = write_video(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    assert refusal(path).kind == "unsupported"
    assert refusal(odd[0] / "firefox/small-shot-mp3.mp4").kind == "no video"
    assert refusal(odd[0] / "firefox/bipbop-cenc-video-10s.mp4").kind == "encrypted"
    assert refusal(odd[0] / "firefox/bipbop_360w_253kbps-clearkey-video-vp8.webm").kind == "encrypted"
    assert refusal(odd[0] / "firefox/bipbop_cbcs_9_8_video_init.mp4").kind == "encrypted"
    assert refusal(odd[0] / "firefox/1859384.mp4").kind == "corrupt"


class _Recorder(http.server.BaseHTTPRequestHandler):
    requests: list[str]

    def do_GET(self):
        self.server.requests.append(self.path)
        self.send_error(404)

    def log_message(self, *_):
        """Silent."""


@pytest.fixture
def web_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Recorder)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {}\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".mpd"])
@pytest.mark.parametrize("playlist", [HLS, CONCAT, DASH, SDP], ids=["hls", "concat", "dash", "sdp"])
def test_a_playlist_reaches_neither_the_network_nor_another_file(tmp_path, web_server, playlist, suffix, decoder):
    path = tmp_path / f"clip{suffix}"
    address = f"http://127.0.0.1:{web_server.server_address[1]}/secret.mp4"
    pipe = tmp_path / "secret.ts"  # a pipe, because opening one to write tells whether anybody opens it to read
    os.mkfifo(pipe)
    was_read = threading.Event()

    def wait_for_reader():
        os.close(os.open(pipe, os.O_WRONLY))
        was_read.set()

    waiting = threading.Thread(target=wait_for_reader)
    waiting.start()
    try:
        for target in (address, str(pipe), pipe.name, f"file:{pipe}"):
            path.write_text(playlist.format(target))
            assert refusal(path, decoder).kind == "not a video"
            assert web_server.requests == []
            assert not was_read.is_set()
    finally:
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
        waiting.join()


def test_the_pipe_and_the_server_would_notice(tmp_path, web_server):
    # FFmpeg with its own defaults does follow a playlist: what the test above sees is not chance.
    path = tmp_path / "clip.m3u8"
    path.write_text(HLS.format(f"http://127.0.0.1:{web_server.server_address[1]}/secret.ts"))
    with pytest.raises(av.FFmpegError), av.open(str(path), options={"protocol_whitelist": "file,http,tcp,crypto"}):
        pass
    assert web_server.requests


# Folders of frames


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (32, 24)) -> None:
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", size, (10 * number, 0, 200)).save(folder / name, quality=95)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    folder = tmp_path / "frames"
    write_images(folder, [f"img_{number}.jpg" for number in range(1, 13)])
    write_images(folder, ["flow_x_1.jpg", "flow_y_1.jpg", "poster.jpg", ".img_99.jpg"])
    (folder / "notes.txt").write_text("12 frames")
    with open_video(folder) as video:
        assert (len(video), video.decoder, video.fps, video.height, video.width) == (12, "images", 0.0, 24, 32)
        clip = video.frames([11, 0, 11, 9])
    assert clip.shape == (4, 3, 24, 32)
    assert clip[:, 0].float().mean(dim=(1, 2)).tolist() == pytest.approx([110, 0, 110, 90], abs=3)
    assert clip[:, 2].float().mean().item() == pytest.approx(200, abs=3)


def test_folders_that_are_no_video(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    assert refusal(folder).kind == "empty"
    (folder / "notes.txt").write_text("none yet")
    assert refusal(folder).kind == "not a video"
    write_images(folder, ["left_1.png", "right_1.png"])
    assert refusal(folder).kind == "unsupported"


def test_images_that_vanish_break_or_change_size(tmp_path):
    folder = tmp_path / "frames"
    write_images(folder, [f"{number:05d}.jpg" for number in range(1, 5)])
    write_images(folder, ["00003.jpg"], size=(40, 24))
    with open_video(folder) as video:
        (folder / "00002.jpg").unlink()
        (folder / "00004.jpg").write_bytes(b"no picture")
        for number, kind, name in ((1, "missing", "00002"), (2, "corrupt", "00003"), (3, "corrupt", "00004")):
            with pytest.raises(VideoError, match=name) as caught:
                video.frames([0, number])
            assert caught.value.kind == kind
        assert video.frames([0]).shape == (1, 3, 24, 32)


# With and without torchcodec


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_without_torchcodec_the_name_says_what_to_install(demo):
    code = """
import sys
import uniformerv2.media.decoding as decoding
assert "torchcodec" not in sys.modules and "PIL" not in sys.modules
sys.modules["torchcodec"] = None
with decoding.open_video(sys.argv[1]) as video:
    assert video.decoder == "pyav" and video.frames([3]).shape[0] == 1
try:
    decoding.open_video(sys.argv[1], decoder="torchcodec")
except ModuleNotFoundError as error:
    sys.stdout.write(str(error))
"""
    assert run(code, demo).startswith("torchcodec is needed here: pip install 'uniformerv2[torchcodec]', or in a clone")


def test_auto_is_pyav(demo):
    with open_video(demo) as video:
        assert video.decoder == "pyav"


# Hostile and slow


def mutants(rows: list[dict[str, str]], folder: Path, number: int):
    """Real files with bits flipped, cut, spliced or blanked; the seed is fixed."""
    generator = random.Random(0)
    small = [folder / row["file"] for row in rows if (folder / row["file"]).stat().st_size < 300_000]
    for _ in range(number):
        content = bytearray(generator.choice(small).read_bytes())
        place = generator.randrange(len(content))
        match generator.choice(("flip", "header", "cut", "splice", "blank")):
            case "flip":
                for _ in range(30):
                    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            case "header":
                for _ in range(20):
                    content[generator.randrange(min(600, len(content)))] = generator.randrange(256)
            case "cut":
                del content[place + 1 :]
            case "splice":
                content[place : place + 1000] = generator.choice(small).read_bytes()[place : place + 5000]
            case "blank":
                content[place : place + 2000] = bytes(2000)
        yield bytes(content)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("number", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_mutants_give_frames_or_a_video_error(odd, tmp_path, number, decoder, capfd):
    folder, rows = odd
    path, seen = tmp_path / "mutant.mp4", Counter()
    for content in mutants(rows, folder, number):
        path.write_bytes(content)
        start = time.perf_counter()
        result = outcome(path, decoder)
        assert time.perf_counter() - start < 10
        seen["frames" if len(result) == 3 else result[0]] += 1
    assert seen.total() == number
    assert seen["frames"] > number / 10
    assert seen["truncated"] > 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("num_wanted", [8, None], ids=["8 frames", "all frames"])
def test_speed_is_within_a_quarter_of_torchcodec(shared, decoder, num_wanted):
    torchcodec = pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, RuntimeError))
    clips = sorted(shared("data/ucf101_6class").glob("*/*.mp4"))
    clips = random.Random(0).sample(clips, 60)

    def wanted(num_frames: int) -> list[int]:
        count = num_wanted or num_frames
        return [int((number + 0.5) * num_frames / count) for number in range(count)]

    def ours(path: Path) -> torch.Tensor:
        with open_video(path, decoder=decoder) as video:
            return video.frames(wanted(len(video)))

    def theirs(path: Path) -> torch.Tensor:
        reader = torchcodec.VideoDecoder(path)
        return reader.get_frames_at(wanted(len(reader))).data

    def seconds(read, path: Path) -> float:
        start = time.process_time()  # this process alone, so that a busy machine does not decide
        read(path)
        return time.process_time() - start

    assert torch.equal(ours(clips[0]), theirs(clips[0]))
    ratios = [
        min(seconds(ours, path) for _ in range(3)) / min(seconds(theirs, path) for _ in range(3)) for path in clips
    ]
    assert statistics.median(ratios) < 1.25
