"""Which videos validate where nothing says it: decided by the videos of a class alone.

So a folder, a list in any order and copies of another format hold out the same ones, on every machine::

    videos/surfing/v_Surfing_g01_c01.avi  \
    videos/surfing/v_Surfing_g01_c02.avi  /  one source: never on both sides
    videos/surfing/beach.mp4                 a source of its own: its name without folders and suffix is hashed
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import PurePath
from typing import Final

__all__ = ["GROUP_PATTERNS", "held_out"]

GROUP_PATTERNS: Final = (
    r"^.*_g\d+(?=_c\d+)",  # UCF101: v_Archery_g01_c02, twenty-five sources cut into clips
    r"^[\w-]{11}(?=_\d{6}_\d{6}$)",  # Kinetics: YouTube id, start, end
)
"""What the clips of one source have in common in their file names."""

Source = tuple[bytes, bytes, str]


def held_out(paths: Iterable[str], *, fraction: float, group_pattern: str | None = None) -> set[str]:
    """The videos of the sources with the smallest hashes; at least one source stays on either side.

    Sources are ordered by the hash of what their clips have in common in their names, else of the file name without
    suffix. Files of one name are told apart by their folders.

    Args:
        paths: Of the videos of one class; a path that is there twice is one video.
        fraction: Of the sources, from 0 (none) to 1.
        group_pattern: Regular expression on the file name without suffix; what it finds names the source. None:
            `GROUP_PATTERNS`.
    """
    patterns = GROUP_PATTERNS if group_pattern is None else (group_pattern,)
    sources = {path: _source(PurePath(path), patterns) for path in paths}
    order = sorted(set(sources.values()))
    count = min(max(round(fraction * len(order)), 1), len(order) - 1) if fraction else 0
    chosen = set(order[: max(count, 0)])
    return {path for path, source in sources.items() if source in chosen}


def _source(path: PurePath, patterns: tuple[str, ...]) -> Source:
    for pattern in patterns:
        if match := re.search(pattern, path.stem):
            return _hash(match.group()), b"", match.group()
    return _hash(path.stem), _hash(f"{path.parent.name}/{path.stem}"), "/".join(reversed(path.parts))


def _hash(text: str) -> bytes:
    """Depends on the text alone, unlike Python's own."""
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
