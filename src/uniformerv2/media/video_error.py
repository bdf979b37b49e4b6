"""What can be wrong with a video, and what the first bytes of a broken one tell about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final, Literal

from uniformerv2.core.limits import get_limits

__all__ = [
    "BESIDE_VIDEOS",
    "IMAGE_SUFFIXES",
    "TRUNCATED",
    "VIDEO_SUFFIXES",
    "VideoError",
    "VideoErrorKind",
    "check_limit",
    "missing_bytes",
    "why_no_packets",
    "why_not_opened",
]


def _suffixes(text: str) -> frozenset[str]:
    return frozenset(f".{suffix}" for suffix in text.split())


VIDEO_SUFFIXES: Final = _suffixes(
    "3g2 3gp 3gp2 3gpp f4v ismv m4v mj2 mov mp4 qt "  # QuickTime and its kin
    "mk3d mkv webm avi divx xvid flv asf wmv ogm ogv gif "
    "m2t m2ts mts tod tp trp ts "  # MPEG transport streams
    "evo m2p mod mpe mpeg mpg vob "  # MPEG program streams
    "mxf nut rm rmvb dv ivf obu y4m "
    "264 265 avc h263 h264 h265 hevc m1v m2v mp2v mpv vc1"  # streams without a container
)
"""Files that are read as videos; a folder's other files are counted and named."""

IMAGE_SUFFIXES: Final = _suffixes("jpg jpeg png webp bmp")
"""Frames of a folder of frames."""

BESIDE_VIDEOS: Final = _suffixes(
    "csv gz htm html ini json jsonl log md npy npz parquet pdf pickle pkl py sh srt tar toml tsv txt vtt xlsx xml yaml "
    "yml zip"
)
"""What lies beside videos and is not meant to be one."""


VideoErrorKind = Literal[
    "missing",
    "unreadable",
    "empty",
    "not a video",
    "no video",
    "truncated",
    "encrypted",
    "unsupported",
    "corrupt",
    "too large",
    "timeout",
    "no score",
]

_ADVICE: dict[VideoErrorKind, str] = {
    "missing": "Check the path, and the folder it is joined to.",
    "unreadable": "Check its permissions and the disk.",
    "empty": "Fetch it again, or leave it out.",
    "not a video": "Leave it out; a video in another format can be converted: ffmpeg -i IN OUT.mp4",
    "no video": "Leave it out, or give the file that has the pictures.",
    "truncated": "Fetch it again; ffmpeg -i IN -c copy OUT keeps what is there, where anything can be read.",
    "encrypted": "Decrypt it first; no key is asked for here.",
    "unsupported": "Convert it: ffmpeg -i IN -c:v libx264 OUT.mp4",
    "corrupt": "Fetch it again, or re-encode what can be read: ffmpeg -i IN OUT.mp4",
    "too large": "Leave it out, or make it smaller: ffmpeg -i IN -vf scale=-2:480 OUT.mp4",
    "timeout": "Fetch it again or re-encode it (ffmpeg -i IN OUT.mp4), or allow more: --limit seconds_per_video=N",
    "no score": "Try --precision fp32; where that changes nothing, the weights are damaged.",
}

TRUNCATED: Final = "{} of the bytes that its header promises are not there"

_IMAGES: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
}
"""What the files of an image format begin with."""


class VideoError(Exception):
    """A video cannot be read.

    Args:
        path: The file or folder.
        kind: What is wrong, from a closed set.
        detail: What was found.
    """

    def __init__(self, path: str | Path, kind: VideoErrorKind, detail: str) -> None:
        super().__init__(str(path), kind, detail)  # the constructor's arguments, so that the error pickles
        self.path = Path(path)
        self.kind = kind
        self.detail = detail

    @property
    def reason(self) -> str:
        """What is wrong and what to do, without the path, for a row that has it already."""
        return f"{self.kind}: {self.detail}. {_ADVICE[self.kind]}"

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def check_limit(path: str | Path, name: str, value: int, *, what: str) -> None:
    """Refuse a video that asks for more than ``Limits`` allow; see ``Limits.check``.

    Raises:
        VideoError: It does.
    """
    try:
        get_limits().check(name, value, what=what)
    except ValueError as error:
        raise VideoError(path, "too large", str(error)) from error


def why_not_opened(file: BinaryIO, reason: str) -> tuple[VideoErrorKind, str]:
    """Kind and detail of the error for a file in which FFmpeg finds no container, for ``reason``."""
    missing = missing_bytes(file)
    if missing:
        return "truncated", TRUNCATED.format(missing)
    if _signature(file):
        return "corrupt", f"its container cannot be read ({reason})"
    if image := _image(file):
        return "not a video", f"this is an image ({image}); images are read as the numbered frames of a folder"
    return "not a video", f"it is none of the containers that are read here ({reason})"


def why_no_packets(file: BinaryIO) -> tuple[VideoErrorKind, str]:
    """Kind and detail of the error for a file with a video stream that has no packets."""
    file.seek(0)
    if b"encv" in file.read(65536):  # the MP4 sample entry of encrypted video
        return "encrypted", "its video track needs a key, and holds no frames"
    return "truncated", "it has the header of a video and no frames"


def _signature(file: BinaryIO) -> Literal["mp4", "matroska", "avi"] | None:
    file.seek(0)
    head = file.read(12)
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"moof", b"styp", b"sidx", b"free", b"skip", b"wide"}:
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    return None


def _image(file: BinaryIO) -> str:
    """The kind of an image, by its first bytes; empty where it is none that is known."""
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and int.from_bytes(head[2:6], "little") == os.fstat(file.fileno()).st_size:
        return "BMP"
    return next((name for start, name in _IMAGES.items() if head.startswith(start)), "")


def missing_bytes(file: BinaryIO) -> int:
    """How many bytes the outermost boxes promise beyond the end of the file; 0 where nothing is promised."""
    size = os.fstat(file.fileno()).st_size
    promised = 0
    match _signature(file):
        case "mp4":
            promised = _mp4_end(file, size)
        case "matroska":
            promised = _matroska_end(file, size)
        case "avi":
            file.seek(4)
            length = int.from_bytes(file.read(4), "little")
            promised = 8 + length if length < 0xFFFFFFFF else 0  # that is what is written where no one can seek back
    return promised - size if promised > size + 8 else 0  # writers differ about a few bytes of padding


def _mp4_end(file: BinaryIO, size: int) -> int:
    position = 0
    for _ in range(100_000):  # a hostile file may hold as many boxes as it has room for
        file.seek(position)
        header = file.read(16)
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            return 0
        position += length
        if position > size:
            return position if name in {b"ftyp", b"moov", b"mdat", b"moof"} else 0  # anything else: appended noise
    return 0


def _matroska_end(file: BinaryIO, size: int) -> int:
    segment = _ebml_end(file, 0, b"\x1a\x45\xdf\xa3")
    return _ebml_end(file, segment, b"\x18\x53\x80\x67") if 0 < segment < size else 0


def _ebml_end(file: BinaryIO, position: int, name: bytes) -> int:
    """The end of the element ``name`` at ``position``; 0 where it is another one or does not tell it (RFC 8794)."""
    file.seek(position)
    head = file.read(12)
    if head[:4] != name or not head[4:5].strip(b"\0"):
        return 0
    num_bytes = 9 - head[4].bit_length()  # the leading zeros of the first byte tell the length of the size
    unknown = (1 << 7 * num_bytes) - 1
    length = int.from_bytes(head[4 : 4 + num_bytes], "big") & unknown
    return 0 if length == unknown else position + 4 + num_bytes + length
