"""Damaged copies of real videos: bits flipped, pieces cut out, pieces of another file put in. Seeds are fixed."""

from __future__ import annotations

import random
from pathlib import Path

SUFFIXES = {".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif", ".3gp", ".mpg"}


def write_mutants(sources: Path, folder: Path, *, count: int, max_bytes: int) -> list[Path]:
    """``count`` mutants of the videos in ``sources`` that have at most ``max_bytes``."""
    files = sorted(file for file in sources.rglob("*") if file.suffix in SUFFIXES and file.stat().st_size <= max_bytes)
    mutants = []
    for seed in range(count):
        draw = random.Random(seed)
        source = files[seed % len(files)]
        data = bytearray(source.read_bytes())
        (flip_bits, cut, splice)[seed % 3](data, draw, files)
        mutant = folder / f"{seed:03d}_{(flip_bits, cut, splice)[seed % 3].__name__}_{source.stem}{source.suffix}"
        mutant.write_bytes(data)
        mutants.append(mutant)
    return mutants


def flip_bits(data, draw, files):
    """A few, and mostly in the first part, where the headers are."""
    reach = len(data) if draw.random() < 0.5 else min(len(data), 4096)
    for _ in range(draw.choice([1, 4, 16, 64, 256])):
        data[draw.randrange(reach)] ^= 1 << draw.randrange(8)


def cut(data, draw, files):
    """A piece, or the whole end."""
    start = draw.randrange(len(data))
    end = len(data) if draw.random() < 0.5 else min(len(data), start + draw.randrange(1, 4096))
    del data[start:end]


def splice(data, draw, files):
    """A piece of another file, over what was there or between it."""
    other = draw.choice(files).read_bytes()
    start = draw.randrange(len(other))
    piece = other[start : start + draw.randrange(1, 8192)]
    place = draw.randrange(len(data))
    data[place : place + (len(piece) if draw.random() < 0.5 else 0)] = piece
