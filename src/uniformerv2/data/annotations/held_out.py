"""The validation split where the data give none: videos are held out by their names and classes alone.

A folder, a list in any order and copies in another format therefore hold out the same videos, on every machine::

    videos/surfing/v_Surfing_g01_c01.avi  \
    videos/surfing/v_Surfing_g01_c02.avi  /  one source: never on both sides
    videos/surfing/beach.mp4                 a source of its own: its name without folders and suffix is hashed

A column ``source`` of a list says it where names do not. A source of several classes, such as a video with a segment of
each, goes to one side with all of them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, Final

from uniformerv2.data.annotations.record import VideoRecord

__all__ = ["GROUP_PATTERNS", "HELD_OUT", "held_out", "hold_out", "neighbours_apart", "source_of"]

HELD_OUT: Final = 0.2
"""The part of the sources of each class that is held out where nothing else is asked for."""

GROUP_PATTERNS: Final = (
    r"^.*_g\d+(?=_c\d+)",  # UCF101: v_Archery_g01_c02, twenty-five sources cut into clips
    r"^[\w-]{11}(?=_\d{6}_\d{6}$)",  # Kinetics: YouTube id, start, end
)
"""What the clips of one source have in common in their file names."""

Source = tuple[bytes, bytes, str]


def hold_out(
    records: Sequence[VideoRecord],
    *,
    fraction: float = HELD_OUT,
    group_pattern: str | None = None,
    wanted: Collection[int | None] | None = None,
) -> list[VideoRecord]:
    """The records, of which those that are marked ``train`` or not at all become ``train`` or ``val``.

    Args:
        records: Records in any order, which they keep; those of other splits stay as they are.
        fraction: See `held_out`; this and the following.
        group_pattern: See there.
        wanted: See there; videos of several classes are taken together, as a class None.

    Raises:
        ValueError: ``fraction`` is not from 0 to 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"val_fraction is {fraction}; it must be at least 0 and below 1.")
    paths: defaultdict[int | None, set[str]] = defaultdict(set)
    for record in records:
        if record.split in {None, "train"}:
            paths[None if isinstance(record.label, tuple) else record.label].add(record.path)
    named = {record.path: record.source for record in records if record.source}
    chosen = held_out(paths, fraction=fraction, group_pattern=group_pattern, wanted=wanted, named=named)
    sides = ("val" if record.path in chosen else "train" for record in records)
    return [
        replace(record, split=side) if record.split in {None, "train"} and record.split != side else record
        for record, side in zip(records, sides, strict=True)
    ]


def held_out(
    classes: Mapping[Any, Collection[str]],
    *,
    fraction: float,
    group_pattern: str | None = None,
    wanted: Collection[Hashable] | None = None,
    named: Mapping[str, str] | None = None,
) -> set[str]:
    """The videos of the sources with the smallest hashes, so many of each class; one source of each class stays.

    Sources are ordered by the hash of what their clips have in common in their names, else of the file name without
    suffix. Files of one name are told apart by their folders. A source is passed over where every class of it has
    enough already, or where it is the last one left of one of them.

    Args:
        classes: Paths of the videos of each class; a path that is there twice is one video.
        fraction: Part of the sources of each class, from 0 (none) to 1; at least one, where there are two.
        group_pattern: Regular expression on the file name without suffix; what it finds names the source. None:
            `GROUP_PATTERNS`.
        wanted: The classes to hold something out of; None: all.
        named: Path -> its source, where it is known and not to be told from the name.
    """
    known = named or {}
    patterns = GROUP_PATTERNS if group_pattern is None else (group_pattern,)
    sources = {
        path: (_hash(known[path]), b"", known[path]) if path in known else _source(PurePath(path), patterns)
        for paths in classes.values()
        for path in paths
    }
    classes_of: defaultdict[Source, set[Hashable]] = defaultdict(set)
    for name, paths in classes.items():
        for path in paths:
            classes_of[sources[path]].add(name)
    left = Counter(name for names in classes_of.values() for name in names)
    due = {
        name: max(round(fraction * count), 1) if fraction and (wanted is None or name in wanted) else 0
        for name, count in left.items()
    }
    chosen = set()
    for source in sorted(classes_of):
        names = classes_of[source]
        if any(due[name] > 0 for name in names) and all(left[name] > 1 for name in names):
            chosen.add(source)
            for name in names:
                due[name] -= 1
                left[name] -= 1
    return {path for path, source in sources.items() if source in chosen}


def source_of(path: str) -> str:
    """What a video was cut from, by its name: the same for all clips of one source; a video alone is its own.

    >>> source_of("a/v_Surfing_g01_c01.avi") == source_of("b/v_Surfing_g01_c02.avi"), source_of("a/b.mp4")
    (True, 'b.mp4/a')
    """
    return _source(PurePath(path), GROUP_PATTERNS)[2]


def neighbours_apart(train: Collection[str], val: Collection[str]) -> tuple[str, str] | None:
    """Two videos that are numbered one after the other and on different sides, where names tell no sources.

    Args:
        train: Paths.
        val: Paths.

    Returns:
        A training video and its neighbour; None where fewer than half of the validation videos have one.

    >>> neighbours_apart(["a/clip_1.mp4", "a/clip_3.mp4"], ["a/clip_2.mp4"])
    ('a/clip_1.mp4', 'a/clip_2.mp4')
    >>> neighbours_apart(["v_Surfing_g01_c01.avi"], ["v_Surfing_g02_c01.avi"])
    """
    known = {_numbered(path): path for path in train}
    found = []
    for path in val:
        folder, stem, number = _numbered(path)
        near = next((known[key] for key in ((folder, stem, number + step) for step in (-1, 1)) if key in known), None)
        if near is not None and number >= 0 and source_of(path) != source_of(near):
            found.append((near, path))
    is_by_name = any(re.search(pattern, PurePath(path).stem) for pattern in GROUP_PATTERNS for path in val)
    return found[0] if 2 * len(found) >= len(val) > 0 and not is_by_name else None


def _numbered(path: str) -> tuple[str, str, int]:
    """Folder, name before its last number, and that; -1 where there is none."""
    place = PurePath(path)
    match = re.fullmatch(r"(.*?)(\d{1,15})", place.stem)
    return (str(place.parent), match[1], int(match[2])) if match else (str(place.parent), place.stem, -1)


def _source(path: PurePath, patterns: tuple[str, ...]) -> Source:
    for pattern in patterns:
        if match := re.search(pattern, path.stem):
            return _hash(match.group()), b"", match.group()
    return _hash(path.stem), _hash(f"{path.parent.name}/{path.stem}"), "/".join(reversed(path.parts))


def _hash(text: str) -> bytes:
    """Depends on the text alone, unlike Python's own."""
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
