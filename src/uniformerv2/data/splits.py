"""Training, validation and test videos: as the data say, else one source in five of each class is held out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from uniformerv2.core.messages import counted, first_few
from uniformerv2.data.annotations import VideoRecord, class_names, read_records, records_digest
from uniformerv2.data.annotations.held_out import hold_out, neighbours_apart
from uniformerv2.data.annotations.rows import split_from_name
from uniformerv2.data.check import VideoCheck, beyond_end

__all__ = ["Split", "Splits", "by_split", "check_labelled", "read_splits", "without_unreadable"]

Split = Literal["train", "val", "test"]

HELD_OUT_RULE: Final = "one source in five of each class held out, at least one, by a hash of its name"
FEW: Final = 5
"""Training videos of a class below which a warning is due."""
FEW_VAL: Final = 20
"""Validation videos below which their number is told."""
SHOWN_FILES: Final = 5


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Videos to train, to validate and to test on.

    Attributes:
        train: At least one video of two classes.
        val: At least one.
        test: Empty where the data have none.
        class_names: Names of the classes in head order.
        rule: Who decided the split, in words.
    """

    train: tuple[VideoRecord, ...]
    val: tuple[VideoRecord, ...]
    test: tuple[VideoRecord, ...]
    class_names: tuple[str, ...]
    rule: str

    @property
    def is_multi_label(self) -> bool:
        """Whether a training video has several classes."""
        return any(isinstance(record.label, tuple) for record in self.train)

    @property
    def every(self) -> tuple[VideoRecord, ...]:
        """All records."""
        return self.train + self.val + self.test

    def digest(self, top: str | Path) -> str:
        """SHA-256 of which videos they are: path below ``top``, class, segment and split of each, in their order."""
        prefix = os.path.join(top, "")  # noqa: PTH118 as the readers begin the paths
        parts = (("train", self.train), ("val", self.val), ("test", self.test))
        names = [(split, record.path.removeprefix(prefix)) for split, records in parts for record in records]
        return records_digest(self.every, names)

    def without(self, records: Collection[VideoRecord]) -> Splits:
        """Leave out these videos, or segments.

        Where the split is ours, a class that loses its validation videos so gets one source of its training videos.

        Raises:
            ValueError: What is left cannot be trained on.
        """
        lost = set(records)

        def kept(records: Sequence[VideoRecord]) -> tuple[VideoRecord, ...]:
            return tuple(record for record in records if record not in lost)

        left = replace(self, train=kept(self.train), val=kept(self.val), test=kept(self.test))
        left = left._refilled() if self.rule == HELD_OUT_RULE else left
        left.check()
        return left

    def _refilled(self) -> Splits:
        unseen = {_only_class(record) for record in self.train} - {_only_class(record) for record in self.val}
        divided = by_split(hold_out(self.train, wanted=unseen))
        return replace(self, train=tuple(divided["train"]), val=(*self.val, *divided["val"]))

    def check(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            ValueError: Fewer than two classes, or no video to train or to validate on.
        """
        if len(self.class_names) < 2:
            raise ValueError(f"There is one class, {self.class_names[0]!r}; to tell classes apart, two are needed.")
        if len(_counts(self.train)) < 2:
            raise ValueError("The training videos are all of one class; to tell classes apart, two are needed.")
        if not self.val:
            raise ValueError(
                "No video is left to validate on: each class has videos of one source only, and that one trains. Give "
                "two or more a class (twenty make sense), or a list or folder that says which are 'val'."
            )

    def warnings(self) -> list[str]:
        """What can be trained on, but will not give what is hoped for; a sentence each."""
        train, val = _counts(self.train), _counts(self.val)
        untrained = [name for number, name in enumerate(self.class_names) if not train[number]]
        unseen = [name for number, name in enumerate(self.class_names) if train[number] and not val[number]]
        few = [f"{name} ({train[number]})" for number, name in enumerate(self.class_names) if 0 < train[number] < FEW]
        found = []
        if all(record.label_name is None for record in self.train):
            found.append(
                f"The classes have numbers only ({first_few(self.class_names)}): --classes FILE, with a name a line in "
                "the order of the numbers, names them."
            )
        if len(self.val) < FEW_VAL:
            found.append(
                f"{counted(len(self.val), 'validation video')}: each is {100 / len(self.val):.0f} % of the accuracy."
            )
        if untrained:
            found.append(f"No training video of {first_few(untrained)}: they will never be recognised.")
        if unseen:
            found.append(f"No validation video of {first_few(unseen)}: the accuracy says nothing about them.")
        if few:
            found.append(f"Fewer than {FEW} training videos of {first_few(few)}: expect little of them.")
        shared = {record.path for record in self.train} & {record.path for record in (*self.val, *self.test)}
        if self.rule != HELD_OUT_RULE:  # who gives segments of a video to both sides may know why
            shared &= {r.path for r in self.every if r.start_seconds is None and r.start_frame is None}
        if shared:
            verbs = "trains and validates" if len(shared) == 1 else "train and validate"
            found.append(f"{counted(len(shared), 'video')} {verbs}: the accuracy will be too good to be true.")
        if self.rule == HELD_OUT_RULE and not any(record.source for record in self.train):
            found += self._neighbours()
        return found

    def _neighbours(self) -> list[str]:
        """A sentence where what is numbered one after the other is on both sides, and names tell no sources."""
        near = neighbours_apart([record.path for record in self.train], [record.path for record in self.val])
        if near is None:
            return []
        names = " trains and ".join(Path(path).name for path in near)
        return [
            f"Names do not say what the videos were cut from, and neighbours are on both sides: {names} validates. If "
            "they are of one recording, the accuracy will be too good to be true: a list with a column 'source' (or "
            "'split') keeps them together, and so do names such as NAME_g01_c02.mp4."
        ]


def without_unreadable(splits: Splits, checks: Mapping[str, VideoCheck]) -> tuple[Splits, list[str]]:
    """Leave out videos that cannot be read, and segments after the end of their video.

    Args:
        splits: The videos.
        checks: What was found of them, by path.

    Returns:
        What is left, and what is left out, in sentences.

    Raises:
        ValueError: What is left cannot be trained on.
    """
    num_videos = len({record.path for record in splits.every if "://" not in record.path})
    bad, late = _left_out(splits, checks)
    if bad and len(bad) == num_videos:
        raise ValueError(
            f"Not one of {counted(num_videos, 'video')} can be read, for instance {next(iter(bad.values()))}. "
            "Relative paths of a list start at its folder; --root names another one."
        )
    told = []
    if bad:
        some = first_few(sorted(bad.values()), shown=SHOWN_FILES, separator="; ")
        told.append(f"{len(bad)} of {counted(num_videos, 'video')} cannot be read and are left out: {some}")
    if late:
        short, some = (
            {record.path for record in late},
            first_few(sorted(late.values()), shown=SHOWN_FILES, separator="; "),
        )
        told.append(
            f"{len(short)} of {counted(num_videos, 'video')} are too short for their segment, so {len(late)} of "
            f"{len(splits.every)} segments are left out: {some}"
        )
    if not told:
        return splits, []
    try:
        return splits.without([*late, *(record for record in splits.every if record.path in bad)]), told
    except ValueError as error:
        raise ValueError("\n".join((*told, str(error)))) from error


def _left_out(splits: Splits, checks: Mapping[str, VideoCheck]) -> tuple[dict[str, str], dict[VideoRecord, str]]:
    """Videos that cannot be read, and segments after the end of their video, each with its reason."""
    late = {
        record: f"{record.path}: {why}"
        for record in splits.every
        if (found := checks.get(record.path)) and found.status == "too short" and (why := beyond_end(found, record))
    }
    short = {record.path for record in late}
    wrong = {path: check for path, check in checks.items() if check.status != "ok" and path not in short}
    return {path: f"{path}: {check.detail or check.status}" for path, check in wrong.items()}, late


def by_split(records: Sequence[VideoRecord], data: object = "The list") -> dict[Split, list[VideoRecord]]:
    """The records of each split; those of which nothing says the split train.

    Args:
        records: All of them.
        data: The folder or list, named in the message.

    Raises:
        ValueError: Records of another split, which would be left out in silence.
    """
    parts: dict[Split, list[VideoRecord]] = {"train": [], "val": [], "test": []}
    others = set()
    for record in records:
        if record.split in {None, "train", "val", "test"}:
            parts[record.split or "train"].append(record)  # type: ignore[index]
        else:
            others.add(repr(record.split))
    if others:
        raise ValueError(
            f"{data} has videos of the split {first_few(sorted(others))}, which is none of train, val (or "
            "validation, dev, eval) and test: call it one of these, or take its videos off the list."
        )
    return parts


def check_labelled(records: Sequence[VideoRecord], *, what: str = "videos") -> None:
    """Refuse records without a class, where each video has one.

    Raises:
        ValueError: There are some; ``what`` is what the message calls the records.
    """
    unlabelled = [record.path for record in records if record.label is None]
    if unlabelled:
        columns = ", ".join(map(repr, records[0].extra))
        hint = f" None of its columns {columns} is called 'label' or 'class'." if columns else ""
        raise ValueError(
            f"{len(unlabelled)} of {len(records)} {what} have no class, for instance {unlabelled[0]}.{hint} Give a "
            "list that names one for each, or a folder of class folders."
        )


def read_splits(data: str | Path, *, root: str | Path | None = None, classes: Sequence[str] | None = None) -> Splits:
    """The videos of a folder or a list, in any format that ``read_records`` knows.

    Args:
        data: Folder of class folders, list, CSV, folder of lists.
        root: Where relative paths of a list start; its folder where None.
        classes: Names of the classes, in the order of their numbers.

    Returns:
        Splits that can be trained on.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: Videos without a class, fewer than two classes, nothing to validate on, more names than numbers, a
            split that is none of train, val and test.
    """
    records = read_records(data, root=root, classes=classes, val_fraction=0.0)
    parts = by_split(records, data)
    check_labelled(records)
    names = class_names(records)
    if classes is not None and len(names) < len(classes):
        _check_numbers(data, records, classes)
        names = tuple(classes)
    if not parts["train"]:
        named = split_from_name(data) if Path(data).is_file() else None
        why = f" Its name makes {named!r} of all that no column 'split' says otherwise: rename it." if named else ""
        raise ValueError(
            f"{data} has no videos to train on: nothing of it is 'train'.{why or ' Give the list that has them.'}"
        )
    rule = "as the data say"
    if not parts["val"]:
        rule = HELD_OUT_RULE
        parts |= {**by_split(hold_out(parts["train"])), "test": parts["test"]}
    splits = Splits(**{name: tuple(part) for name, part in parts.items()}, class_names=names, rule=rule)
    splits.check()
    return splits


def _check_numbers(data: str | Path, records: Sequence[VideoRecord], classes: Sequence[str]) -> None:
    """Names may be more than the videos need, where the list has names; numbers would be called wrongly.

    Raises:
        ValueError: The list has numbers, and fewer than there are names.
    """
    listed = read_records(data)
    are_numbers = [(record.label, None) for record in records] == [(r.label, r.label_name) for r in listed]
    if are_numbers:
        count = len(class_names(listed))
        raise ValueError(
            f"{len(classes)} class names are given, but the class numbers of {data} end at {count - 1}: give "
            f"{count} names, that of number 0 first."
        )


def _only_class(record: VideoRecord) -> int | None:
    return None if isinstance(record.label, tuple) else record.label


def _counts(records: Sequence[VideoRecord]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for record in records:
        counts.update(record.labels)
    return counts
