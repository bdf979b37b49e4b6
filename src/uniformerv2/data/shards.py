"""Shards: many videos in a few tar files in WebDataset's layout, for file systems and stores that dislike small files.

    write_shards(records, "shards", max_count=500)
    loader = VideoLoader(ShardDataset("shards", preprocessing, augmentation=TrainAugmentation()), batch_size=8)

A folder of shards holds ``index.json`` and ``000000.tar`` on; a tar holds for each record its video as it was
(``00000017.mp4``) and what was known about it (``00000017.json``). WebDataset: https://github.com/webdataset/webdataset

The index says at which byte of which tar each video begins, so that a ``ShardDataset`` is a ``VideoDataset`` whose
videos lie elsewhere: any of them is read alone, in any order.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from uniformerv2.core.files import write_text, write_whole
from uniformerv2.core.optional import require
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import Candidate
from uniformerv2.data.dataset import PackedRecords, VideoDataset
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.video_error import VideoError

__all__ = ["Shard", "ShardDataset", "ShardIndex", "ShardMember", "write_shards"]

INDEX: Final = "index.json"
NAME: Final = r"[\w-][\w.-]*"
"""What files in a folder of shards and videos in a shard may be called: nothing that leads elsewhere."""

SCHEMES: Final = ("http", "https", "gs", "hf", "ftp", "sftp")
"""Addresses that are handed to fsspec, which also knows how to run other programs and to read any file."""


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    num_samples: int


@dataclass(frozen=True)
class ShardMember:
    """One video in a shard.

    Attributes:
        shard: Number of the tar file.
        offset: The first byte of the video in it.
        size: Bytes of the video.
        name: Name of the video in the tar file.
        record: What was known about it; its path is where it was before.
    """

    shard: int
    offset: int
    size: int
    name: str
    record: VideoRecord


@dataclass(frozen=True)
class ShardIndex:
    """What ``index.json`` holds.

    Attributes:
        shards: Tar files, in the order in which they were written.
        members: Videos, in the order of the records.
        fingerprint: Digest of the records and of how they were divided; writing continues only where it is the same.
        missing: Paths of records whose video was not there; they are in no shard.
    """

    shards: tuple[Shard, ...]
    members: tuple[ShardMember, ...]
    fingerprint: str
    missing: tuple[str, ...] = ()

    @property
    def num_samples(self) -> int:
        """Videos in all shards."""
        return len(self.members)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> ShardIndex:
        """Read it; ``where`` is what errors call it.

        Raises:
            ValueError: Not such an index, or one with names that leave the folder.
        """
        try:
            found = json.loads(text)
            shards = tuple(Shard(str(shard["name"]), int(shard["num_samples"])) for shard in found["shards"])
            members = tuple(map(_member, found.get("videos", ())))
            index = cls(shards, members, str(found["fingerprint"]), tuple(found["missing"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{where} is no index of shards ({error!r}); write_shards makes one") from error
        for shard in shards:
            if not re.fullmatch(rf"{NAME}\.tar", shard.name) or shard.num_samples < 1:
                message = f"{where} lists the shard {shard.name!r} with {shard.num_samples} samples; not allowed"
                raise ValueError(message)
        if not shards:
            raise ValueError(f"{where} lists no shards")
        for each in members:
            if not (
                0 <= each.shard < len(shards) and min(each.offset, each.size) >= 0 and re.fullmatch(NAME, each.name)
            ):
                raise ValueError(f"{where} lists the video {each.name!r} of no shard; not allowed")
        if len(members) != sum(shard.num_samples for shard in shards):
            raise ValueError(f"{where} does not say where each video is; run write_shards into a new folder")
        return index


def _member(found: dict[str, Any]) -> ShardMember:
    known = dict(found["record"])
    several = {key: tuple(known[key]) for key in ("label", "label_name") if isinstance(known[key], list)}
    shard, offset, size = (int(found[name]) for name in ("shard", "offset", "size"))
    return ShardMember(shard, offset, size, str(found["name"]), VideoRecord(**{**known, **several}))


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
        records: Records of video files; folders of frames have to become videos first.
        out: Folder of the shards, made where it is not there.
        max_bytes: Bytes of video per shard; one video alone may be larger.
        max_count: Videos per shard.
        shuffle_seed: Neighbours in a list are of one class, and other programs read a shard from its beginning: the
            records are shuffled. None: keep their order.

    Returns:
        The index.

    Raises:
        FileNotFoundError: Not one video is there; the message shows where the first was looked for.
        ValueError: A bound below 1, a record that is no file, or a folder that holds the shards of other records.
    """
    if max_bytes < 1 or max_count < 1:
        raise ValueError(f"max_bytes and max_count are {max_bytes}, {max_count}; at least 1 is needed")
    order = list(range(len(records)))
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(order)
    sizes = {number: _size(records[number]) for number in order}
    plan = _divide([number for number in order if sizes[number] is not None], sizes, max_bytes, max_count)
    missing = [records[number].path for number in sorted(order) if sizes[number] is None]
    if not plan:
        first = f" The first was looked for at {str(Path(missing[0]).absolute())!r}." if missing else ""
        raise FileNotFoundError(f"Not one of {len(records)} videos is there.{first}")
    text = _index_text(records, sizes, plan, missing)
    folder = Path(out)
    index = ShardIndex.from_json(text, where=str(folder / INDEX))
    _claim(folder, text, index)
    for shard, part in zip(index.shards, plan, strict=True):
        if not (folder / shard.name).exists():
            _write_shard(folder / shard.name, {number: records[number] for number in part})
    return index


def _index_text(
    records: Sequence[VideoRecord], sizes: dict[int, int | None], plan: list[list[int]], missing: list[str]
) -> str:
    """What ``index.json`` will hold; where each video begins in its tar is known before it is written."""
    described = _json([[(number, sizes[number], _described(records[number])) for number in part] for part in plan])
    shards: list[dict[str, Any]] = []
    videos: dict[int, dict[str, Any]] = {}
    for place, part in enumerate(plan):
        shards.append({"name": f"{place:06d}.tar", "num_samples": len(part)})
        end = 0
        for number in part:
            record, size = records[number], sizes[number] or 0
            where = {"shard": place, "offset": end + tarfile.BLOCKSIZE, "size": size}
            videos[number] = {**where, "name": _video_name(number, record), "record": _described(record)}
            end += sum(tarfile.BLOCKSIZE + _padded(length) for length in (size, len(_known(number, record))))
    fingerprint = blake2b(described.encode(), digest_size=16).hexdigest()
    found = {"shards": shards, "fingerprint": fingerprint, "missing": missing}
    return _json({**found, "videos": [videos[number] for number in sorted(videos)]})


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


def _claim(folder: Path, text: str, index: ShardIndex) -> None:
    """Put the index into the folder, or make sure that the one there is the same.

    Raises:
        ValueError: It is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / INDEX
    if not path.exists():
        write_text(path, text)
    elif ShardIndex.from_json(path.read_text(encoding="utf-8"), where=str(path)) != index:
        raise ValueError(f"{folder} holds shards of other records, or divided in another way; choose another folder")


def _write_shard(path: Path, members: dict[int, VideoRecord]) -> None:
    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, record in members.items():
                name, known = _video_name(number, record), _known(number, record)
                with Path(record.path).open("rb") as video:
                    tar.addfile(_header(name, os.fstat(video.fileno()).st_size), video)
                tar.addfile(_header(f"{number:08d}.json", len(known)), io.BytesIO(known))

    write_whole(path, write)


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = size
    return header


def _padded(size: int) -> int:
    """What a file of this size takes in a tar, its header aside."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _video_name(number: int, record: VideoRecord) -> str:
    suffix = Path(record.path).suffix.casefold().removeprefix(".")
    return f"{number:08d}.{suffix if suffix.isascii() and suffix.isalnum() and suffix != 'json' else 'video'}"


def _known(number: int, record: VideoRecord) -> bytes:
    return _json({"index": number, **_described(record)}).encode()


def _json(value: object) -> str:
    """JSON, also with numbers of NumPy, which labels read from an array are."""
    return json.dumps(value, default=np.generic.item)


def _described(record: VideoRecord) -> dict[str, Any]:
    known = {field.name: getattr(record, field.name) for field in fields(record)}
    return {**known, "extra": {str(name): str(value) for name, value in record.extra.items()}}


class ShardDataset(VideoDataset):
    """A ``VideoDataset`` of the records of shards: the same record, seed and epoch give the same clip.

    Args:
        shards: Folder that ``write_shards`` made, or the address of one: http, https, gs, hf, ftp, sftp, each of which
            needs what fsspec needs for it. A video is then one request.
        preprocessing: See ``VideoDataset``; this and the options.

    Raises:
        FileNotFoundError: The folder, or one of its shards, is not there.
        ValueError: An argument outside what is allowed, an index that is none, or a shard that was cut.
    """

    def __init__(self, shards: str | Path, preprocessing: Preprocessing, **options: Any) -> None:
        self.root = str(shards).rstrip("/")
        where = f"{self.root}/{INDEX}"
        index = ShardIndex.from_json(_read(where).decode("utf-8", "replace"), where=where)
        if "://" not in self.root:
            _check_files(Path(self.root), index)
        super().__init__([member.record for member in index.members], preprocessing, **options)
        self.shards = index.shards
        self._members = PackedRecords([replace(member, record=VideoRecord("")) for member in index.members])

    def _candidate(self, index: int) -> Candidate:
        member = self._members[index]
        name = f"{self.root}/{self.shards[member.shard].name}/{member.name}"
        return index, replace(self.records[index], path=name), partial(_on_disk, self.root, self.shards, member)


def _check_files(folder: Path, index: ShardIndex) -> None:
    absent = [shard.name for shard in index.shards if not (folder / shard.name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{folder} lacks {len(absent)} of {len(index.shards)} shards, {absent[0]} first: "
            "run write_shards again, it goes on where it stopped"
        )
    sizes = [(folder / shard.name).stat().st_size for shard in index.shards]
    whole = Counter(each.shard for each in index.members if each.offset + each.size <= sizes[each.shard])
    for number, shard in enumerate(index.shards):
        if whole[number] != shard.num_samples:
            where = folder / shard.name
            raise ValueError(
                f"{where} holds {whole[number]} videos, its index says {shard.num_samples}; fetch it again"
            )


@contextmanager
def _on_disk(root: str, shards: Sequence[Shard], member: ShardMember) -> Iterator[str]:
    """The video as a file, as long as it is looked at.

    Raises:
        VideoError: It does not come.
    """
    address = f"{root}/{shards[member.shard].name}"
    try:
        video = _read(address, member.offset, member.size)
    except Exception as error:  # each kind of address has errors of its own
        raise VideoError(f"{address}/{member.name}", "unreadable", f"{type(error).__name__}: {error}") from error
    if len(video) != member.size:
        raise VideoError(f"{address}/{member.name}", "truncated", f"{len(video)} of its {member.size} bytes came")
    with TemporaryDirectory(prefix="uniformerv2-") as folder:
        path = Path(folder, member.name)
        path.write_bytes(video)
        yield str(path)


def _read(address: str, offset: int = 0, size: int | None = None) -> bytes:
    """Bytes of a file, or of an address by way of fsspec; without a size all of them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An address of another kind.
    """
    scheme, found, _ = address.partition("://")
    if not found:
        if not Path(address).is_file():  # opening a pipe would wait for ever
            raise FileNotFoundError(f"{address} is not there, or no regular file.")
        with Path(address).open("rb") as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)
    if scheme not in SCHEMES:
        raise ValueError(f"{address}: shards come from a folder or from {', '.join(SCHEMES)}")
    system, path = require("fsspec", extra="shards").core.url_to_fs(address)
    content: bytes = system.cat_file(path, start=offset or None, end=None if size is None else offset + size)
    if size is not None and len(content) >= offset + size > size:  # a server that knows no ranges sends everything
        return content[offset : offset + size]
    return content
