"""Damaged copies of any file: bytes flipped, cut and spliced; in JSON and YAML also values replaced by hostile ones."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path

import yaml

from tests.media.mutants import cut, flip_bits, splice

HOSTILE = [
    None,
    True,
    0,
    -1,
    0.5,
    10**9,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x1b[31mred",
    "../../etc/passwd",
    "hf-hub:user/name",
    "a" * 5000,
    [],
    {},
    [[[[[[]]]]]],
    [0, 0],
    ["a", "a"],
    {"a": {"b": None}},
    "os.system",
    "\ud800",
]
STRUCTURED = {".json": (json.loads, json.dumps), ".yaml": (yaml.safe_load, yaml.safe_dump)}


def mutate(source: Path, target: Path, *, seed: int, others: list[Path]) -> None:
    """Write a mutant of a file, or of a folder in which one file is damaged.

    Args:
        source: A file or a folder.
        target: Does not exist yet.
        seed: The same mutant each time.
        others: Files from which pieces are taken.
    """
    draw = random.Random(seed)
    if source.is_dir():
        shutil.copytree(source, target)
        files = sorted(file for file in target.rglob("*") if file.is_file())
        weights = [5 if file.suffix in STRUCTURED else 1 for file in files]
        damaged = draw.choices(files, weights)[0]
    else:
        damaged = shutil.copyfile(source, target)
    if damaged.suffix in STRUCTURED and draw.random() < 0.7:
        read, write = STRUCTURED[damaged.suffix]
        value = replaced(read(damaged.read_text(encoding="utf-8")), draw)
        damaged.write_bytes(write(value).encode("utf-8", errors="surrogatepass"))
        return
    data = bytearray(damaged.read_bytes())
    if data:
        draw.choice([flip_bits, cut, splice])(data, draw, others)
    damaged.write_bytes(data)


def replaced(value, draw):
    """A copy in which one to three nodes are gone, doubled or hostile."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        places = [(value, key) for value in containers(value) for key in keys(value)]
        if not places:
            return draw.choice(HOSTILE)
        container, key = draw.choice(places)
        change = draw.random()
        if change < 0.2:
            del container[key]
        elif change < 0.3 and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif change < 0.4 and isinstance(container, dict):
            container[draw.choice(["x", "", "name", "\x1b[2J"])] = container.pop(key)
        else:
            container[key] = copy.deepcopy(draw.choice(HOSTILE))
    return value


def containers(value):
    """Every dictionary and list in a value."""
    if isinstance(value, dict | list):
        yield value
        for key in keys(value):
            yield from containers(value[key])


def keys(container):
    return list(container) if isinstance(container, dict) else list(range(len(container)))
