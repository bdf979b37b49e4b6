"""Files of shards: the index, and ``write_shards``. How they are read: ``uniformerv2.data.shards``."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np

from uniformerv2.core.files import write_text, write_whole
from uniformerv2.core.optional import require
from uniformerv2.data.annotations import VideoRecord

__all__ = ["INDEX", "Shard", "ShardIndex", "write_shards"]

INDEX: Final = "index.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    num_samples: int


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """What ``index.json`` holds.

    Attributes:
        shards: In the order they were written.
        fingerprint: Of the records and the way they were divided; writing goes on only where it is the same.
        missing: Paths of records whose video was not there; they are in no shard.
    """

    shards: tuple[Shard, ...]
    fingerprint: str
    missing: tuple[str, ...] = ()

    @property
    def num_samples(self) -> int:
        """In all shards."""
        return sum(shard.num_samples for shard in self.shards)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> ShardIndex:
        """Read it; ``where`` is what errors call it.

        Raises:
            ValueError: Not such an index, or one with names that leave the folder.
        """
        try:
            fields = json.loads(text)
            shards = tuple(Shard(str(shard["name"]), int(shard["num_samples"])) for shard in fields["shards"])
            index = cls(shards, str(fields["fingerprint"]), tuple(fields["missing"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where} is no index of shards ({error!r}); write_shards makes one") from error
        for shard in shards:
            if not re.fullmatch(r"[\w-][\w.-]*\.tar", shard.name) or shard.num_samples < 1:
                raise ValueError(
                    f"{where} lists the shard {shard.name!r} with {shard.num_samples} samples; not allowed"
                )
        if not shards:
            raise ValueError(f"{where} lists no shards")
        return index


def write_shards(
    records: Sequence[VideoRecord],
    out: str | Path,
    *,
    max_bytes: int = 1 << 30,
    max_count: int = 1000,
    shuffle_seed: int | None = 0,
) -> ShardIndex:
    """Pack the videos of records into shards.

    A shard appears whole or not at all. Run again with the same records, it writes the shards that are not there yet.
    Videos that are not there are left out and listed in the index.

    Args:
        records: Of files; folders of frames have to become videos first.
        out: Folder of the shards, made where it is not there.
        max_bytes: Of the videos in a shard; one video alone may be larger.
        max_count: Videos in a shard. Training needs at least one shard for each worker of each process.
        shuffle_seed: Neighbours in a list are of one class, and training reads a shard from its beginning: the records
            are shuffled. None: keep their order.

    Returns:
        The index.

    Raises:
        FileNotFoundError: Not one video is there; the message shows where the first was looked for.
        ValueError: A bound below 1, a record that is no file, or a folder that holds the shards of other records.
    """
    if max_bytes < 1 or max_count < 1:
        raise ValueError(f"max_bytes and max_count are {max_bytes}, {max_count}; at least 1 is needed")
    wds = require("webdataset", extra="shards")
    order = list(range(len(records)))
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(order)
    sizes = {number: _size(records[number]) for number in order}
    plan = _divide([number for number in order if sizes[number] is not None], sizes, max_bytes, max_count)
    missing = tuple(records[number].path for number in sorted(order) if sizes[number] is None)
    if not plan:
        first = f" The first was looked for at {str(Path(missing[0]).absolute())!r}." if missing else ""
        raise FileNotFoundError(f"Not one of {len(records)} videos is there.{first}")
    shards = tuple(Shard(f"{number:06d}.tar", len(members)) for number, members in enumerate(plan))
    described = _json([[(number, sizes[number], _describe(records[number])) for number in part] for part in plan])
    index = ShardIndex(shards, blake2b(described.encode(), digest_size=16).hexdigest(), missing)
    folder = Path(out)
    _claim(folder, index)
    for shard, members in zip(shards, plan, strict=True):
        if not (folder / shard.name).exists():
            _write_shard(wds, folder / shard.name, {number: records[number] for number in members})
    return index


def _size(record: VideoRecord) -> int | None:
    """Bytes of the video; None where there is none.

    Raises:
        ValueError: It is no file.
    """
    if "://" in record.path:
        raise ValueError(f"{record.path} is an address; shards are written from files: download it first")
    if os.path.isdir(record.path):  # noqa: PTH112 a million calls
        raise ValueError(f"{record.path} is a folder; shards are written from files: encode its frames first")
    try:
        return Path(record.path).stat().st_size
    except OSError:
        return None


def _divide(order: list[int], sizes: dict[int, int | None], max_bytes: int, max_count: int) -> list[list[int]]:
    shards: list[list[int]] = []
    room = 0
    for number in order:
        size = sizes[number] or 0
        if not shards or size > room or len(shards[-1]) == max_count:
            shards.append([])
            room = max_bytes
        shards[-1].append(number)
        room -= size
    return shards


def _claim(folder: Path, index: ShardIndex) -> None:
    """Put the index into the folder, or make sure that the one there is the same.

    Raises:
        ValueError: It is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / INDEX
    if path.exists():
        if ShardIndex.from_json(path.read_text("utf-8"), where=str(path)).fingerprint != index.fingerprint:
            raise ValueError(
                f"{folder} holds shards of other records, or divided in another way; choose another folder"
            )
        return
    write_text(path, json.dumps(dataclasses.asdict(index), indent=1))


def _write_shard(wds: Any, path: Path, members: dict[int, VideoRecord]) -> None:
    def write(temporary: Path) -> None:
        with (
            temporary.open("wb") as file,
            wds.TarWriter(file, encoder=False, mtime=0, user="", group="") as tar,
        ):
            for number, record in members.items():
                suffix = Path(record.path).suffix.casefold().removeprefix(".")
                suffix = suffix if suffix.isascii() and suffix.isalnum() and suffix != "json" else "video"
                described = _json({"index": number, **_describe(record)}).encode()
                tar.write({"__key__": f"{number:08d}", suffix: Path(record.path).read_bytes(), "json": described})

    write_whole(path, write)


def _json(value: object) -> str:
    """Also with numbers of NumPy, which labels read from an array are."""
    return json.dumps(value, default=np.generic.item)


def _describe(record: VideoRecord) -> dict[str, Any]:
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {**fields, "extra": {str(name): str(value) for name, value in record.extra.items()}}
