"""What a file's name says it is: the one set of suffixes that readers, checks and commands ask."""

from __future__ import annotations

from typing import Final

__all__ = ["BESIDE_VIDEOS", "IMAGE_SUFFIXES", "VIDEO_SUFFIXES"]


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
