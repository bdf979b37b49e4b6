"""Shards: many videos in a few tar files in WebDataset's layout, for file systems and stores that dislike small files.

    write_shards(records, "shards", max_count=500)
    loader = VideoLoader(ShardDataset("shards", preprocessing, augmentation=TrainAugmentation()), batch_size=8)

A folder of shards holds ``index.json`` and ``000000.tar`` on; a tar holds for each record its video as it was
(``00000017.mp4``) and what was known about it (``00000017.json``). WebDataset: https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.utils.data import get_worker_info

from uniformerv2.core.files import write_text, write_whole
from uniformerv2.core.optional import require
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import Candidate, ClipReader, SampleKey, VideoSample
from uniformerv2.data.dataset import check_labels
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import Decoder

if TYPE_CHECKING:  # as in dataset.py
    from uniformerv2.data.augmentation import TrainAugmentation

__all__ = ["INDEX", "Shard", "ShardDataset", "ShardIndex", "write_shards"]

INDEX: Final = "index.json"


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    num_samples: int


@dataclass(frozen=True)
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
            found = json.loads(text)
            shards = tuple(Shard(str(shard["name"]), int(shard["num_samples"])) for shard in found["shards"])
            index = cls(shards, str(found["fingerprint"]), tuple(found["missing"]))
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
    write_text(path, json.dumps(asdict(index), indent=1))


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
    known = {field.name: getattr(record, field.name) for field in fields(record)}
    return {**known, "extra": {str(name): str(value) for name, value in record.extra.items()}}


SCHEMES: Final = ("http", "https", "gs", "hf", "ais", "sftp", "ftps", "scp")
"""Addresses that are handed to WebDataset. Its ``pipe:`` runs a shell and is not among them."""


@dataclass(frozen=True)
class _Packed:
    """A member of a shard: what is known about it, its video in memory, its name, and how often it came before."""

    index: int
    record: VideoRecord
    video: bytes
    name: str
    draw: int

    @classmethod
    def from_tar(cls, sample: dict[str, Any], draw: int) -> _Packed:
        name = f"{sample['__url__']}/{sample['__key__']}"
        videos = {suffix: value for suffix, value in sample.items() if not suffix.startswith("__") and suffix != "json"}
        if "json" not in sample or len(videos) != 1:
            raise ValueError(f"{name} holds {sorted(videos)}; one video and a json are needed: see write_shards")
        known = json.loads(sample["json"])
        index = int(known.pop("index"))
        ((suffix, video),) = videos.items()
        several = {key: tuple(known[key]) for key in ("label", "label_name") if isinstance(known[key], list)}
        return cls(index, VideoRecord(**{**known, **several}), video, f"{name}.{suffix}", draw)


class ShardDataset:
    """The items of a ``VideoDataset``, read from shards: the same record, seed and epoch give the same clip.

    Training: the shards are shuffled and dealt to the workers of all processes; each worker gives equally many samples,
    and to that end leaves some out or starts its shards again, others in each epoch. A broken video is replaced by the
    next one. Testing: each sample comes once, in order.

    Args:
        shards: Folder that ``write_shards`` made, or the address of one: http, https, gs, hf, sftp (needs ``curl``, for
            ``gs`` ``gsutil``).
        preprocessing: What the network wants; for testing also how many clips and crops.
        augmentation: For training.
        repeats: See ``VideoDataset``; this and the following.
        num_classes: See there; a label beyond it is refused when its video is read, as the index holds no labels.
        seed: See there.
        decoder: See there.
        timeout_seconds: See there.
        shuffle_buffer: Videos that a worker holds in memory to draw the next one from.
        rank: Number of this process, where several work together.
        world_size: Processes.

    Raises:
        FileNotFoundError: The folder, or one of its shards, is not there.
        ValueError: An argument outside what is allowed, or an index that is none.
    """

    def __init__(
        self,
        shards: str | Path,
        preprocessing: Preprocessing,
        *,
        augmentation: TrainAugmentation | None = None,
        repeats: int = 1,
        num_classes: int | None = None,
        seed: int = 0,
        decoder: Decoder = "auto",
        timeout_seconds: float | None = None,
        shuffle_buffer: int = 100,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer is {shuffle_buffer}; it must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with world_size={world_size} it must be from 0 to {world_size - 1}")
        self.root = str(shards).rstrip("/")
        self.index = self._read_index()
        self.reader = ClipReader(
            preprocessing=preprocessing,
            augmentation=augmentation,
            repeats=repeats,
            num_classes=num_classes,
            seed=seed,
            decoder=decoder,
            timeout_seconds=timeout_seconds,
        )
        self.shuffle_buffer = shuffle_buffer
        self.rank = rank
        self.world_size = world_size
        # Epoch, batches to leave out, and their size: in memory that workers which stay alive see.
        self._start = torch.zeros(3, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """Of the next pass."""
        return int(self._start[0])

    def __len__(self) -> int:
        """Samples of this process in an epoch, were it to read with one worker."""
        return sum(self._counts(1))

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch, from its beginning."""
        self._start[:] = torch.tensor([epoch, 0, 1])

    def start_at(self, num_batches: int, *, batch_size: int) -> None:
        """The next pass leaves out so many batches.

        Raises:
            ValueError: In testing; its order is not that of whole rounds of workers.
        """
        if self.reader.augmentation is None:
            raise ValueError("Testing on shards can't go on in the middle; start it again")
        self._start[1:] = torch.tensor([num_batches, batch_size])

    def num_batches(self, *, batch_size: int, num_workers: int, drop_last: bool) -> int:
        """Batches of an epoch in this process.

        Raises:
            ValueError: In training, fewer shards than workers.
        """
        counts = self._counts(num_workers)
        if self.reader.augmentation is not None and len(self.index.shards) < self.world_size * len(counts):
            workers = f"{len(counts)} workers" + (f" in {self.world_size} processes" if self.world_size > 1 else "")
            raise ValueError(
                f"{self.root} has {len(self.index.shards)} shards for {workers}; each needs one: "
                "take fewer workers, or write more shards with a smaller max_count"
            )
        return sum(number // batch_size if drop_last else -(-number // batch_size) for number in counts)

    def __iter__(self) -> Iterator[VideoSample | list[VideoSample]]:
        worker = get_worker_info()
        number, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, num_batches, batch_size = self._start.tolist()
        if self.reader.augmentation is None:
            return self._test(self._dealt(epoch, number, num_workers))
        # Workers take turns, batch by batch, and the first one always begins: it plays the one whose turn it is.
        played = (number + num_batches) % num_workers
        given = -(-(num_batches - played) // num_workers) * batch_size
        left = max(self._counts(num_workers)[played] - given, 0)  # its last batch may not have been full
        return islice(self._train(epoch, played, num_workers, skip=given), left)

    def _train(
        self, epoch: int, worker: int, num_workers: int, *, skip: int
    ) -> Iterator[VideoSample | list[VideoSample]]:
        packed = islice(self._shuffled(epoch, worker, num_workers), skip, None)
        ahead: deque[_Packed] = deque()

        def following() -> Iterator[_Packed]:
            """The next one, and those after it, which keep their own turns."""
            for position in count():
                if position == len(ahead):
                    ahead.append(next(packed))
                yield ahead[position]

        with TemporaryDirectory(prefix="uniformerv2-") as folder:
            while True:
                drawn = next(following())
                with closing(_on_disk(following(), Path(folder))) as candidates:
                    key = SampleKey(drawn.index, epoch, drawn.draw)
                    samples = self.reader.first_readable(candidates, key=key)
                ahead.popleft()
                yield samples if self.reader.repeats > 1 else samples[0]

    def _test(self, shards: list[Shard]) -> Iterator[VideoSample]:
        packed = (member for shard in shards for member in self._members(shard, 0))
        with TemporaryDirectory(prefix="uniformerv2-") as folder, closing(_on_disk(packed, Path(folder))) as candidates:
            for index, record, file in candidates:
                yield self.reader.test(record, index=index, file=file)

    def _shuffled(self, epoch: int, worker: int, num_workers: int) -> Iterator[_Packed]:
        """Without end: the worker's shards again and again, drawn from a buffer."""
        wds = require("webdataset", extra="shards")
        shards = self._dealt(epoch, worker, num_workers)
        slot = self.rank * num_workers + worker
        rng = random.Random(int(np.random.default_rng((self.reader.seed, epoch, slot)).integers(2**63)))
        shuffle = wds.filters.shuffle(self.shuffle_buffer, initial=self.shuffle_buffer, rng=rng)
        for draw in count():
            yield from shuffle(member for shard in shards for member in self._members(shard, draw))

    def _dealt(self, epoch: int, worker: int, num_workers: int) -> list[Shard]:
        """The shards of a worker in this epoch."""
        shards = self.index.shards
        order = np.arange(len(shards))
        if self.reader.augmentation is not None:
            order = np.random.default_rng((self.reader.seed, epoch)).permutation(order)
        dealt = order[self.rank * num_workers + worker :: self.world_size * num_workers]
        return [shards[number] for number in dealt]

    def _counts(self, num_workers: int) -> list[int]:
        """Samples of each worker of this process."""
        num_workers = max(num_workers, 1)
        if self.reader.augmentation is not None:
            return [self.index.num_samples // (self.world_size * num_workers)] * num_workers
        dealt = (self._dealt(0, worker, num_workers) for worker in range(num_workers))
        return [sum(shard.num_samples for shard in shards) for shards in dealt]

    def _members(self, shard: Shard, draw: int) -> Iterator[_Packed]:
        """The members of a shard, of which there must be as many as the index says.

        Raises:
            ValueError: There are more or fewer, or one has a label that ``num_classes`` does not allow.
        """
        wds = require("webdataset", extra="shards")
        address = f"{self.root}/{shard.name}"
        num_members = 0
        with _open(address) as stream:
            files = wds.tariterators.tar_file_expander([{"url": address, "stream": stream}])
            for sample in wds.tariterators.group_by_keys(files):
                num_members += 1
                member = _Packed.from_tar(sample, draw)
                check_labels([member.record], self.reader.num_classes)
                yield member
        if num_members != shard.num_samples:
            raise ValueError(
                f"{address} holds {num_members} videos, its index says {shard.num_samples}; fetch it again"
            )

    def _read_index(self) -> ShardIndex:
        with _open(f"{self.root}/{INDEX}") as stream:
            index = ShardIndex.from_json(stream.read().decode("utf-8", "replace"), where=f"{self.root}/{INDEX}")
        if "://" not in self.root:
            absent = [shard.name for shard in index.shards if not Path(self.root, shard.name).is_file()]
            if absent:
                raise FileNotFoundError(
                    f"{self.root} lacks {len(absent)} of {len(index.shards)} shards, {absent[0]} first: "
                    "run write_shards again, it goes on where it stopped"
                )
        return index


def _open(address: str) -> IO[bytes]:
    """A file, or an address by way of WebDataset.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An address of another kind.
    """
    scheme, found, _ = address.partition("://")
    if not found:
        if not Path(address).is_file():  # opening a pipe would wait for ever
            raise FileNotFoundError(f"{address} is not there, or no regular file.")
        return Path(address).open("rb")
    if scheme not in SCHEMES:
        raise ValueError(f"{address}: shards come from a folder or from {', '.join(SCHEMES)}")
    stream: IO[bytes] = require("webdataset.gopen", extra="shards").gopen(address)
    return stream


def _on_disk(packed: Iterable[_Packed], folder: Path) -> Generator[Candidate]:
    """Each video as a file, as long as it is looked at."""
    for number, member in enumerate(packed):
        path = folder / str(number)
        path.write_bytes(member.video)
        try:
            yield member.index, replace(member.record, path=member.name), str(path)  # failures name the member
        finally:
            path.unlink()
