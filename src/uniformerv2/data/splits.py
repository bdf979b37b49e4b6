"""Which videos train, which validate: what the data say, else one source in five of each class held out."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from uniformerv2.data.annotations import VideoRecord, class_names, detect_format, read_records
from uniformerv2.data.annotations.folder import has_split_folders
from uniformerv2.data.annotations.held_out import held_out
from uniformerv2.data.annotations.rows import split_from_name

__all__ = ["Splits", "read_splits", "refuse_other_splits"]

HELD_OUT_RULE: Final = "one source in five of each class held out, at least one, by a hash of its name"
HELD_OUT: Final = 0.2
FEW: Final = 5
"""Training videos of a class below which a warning is due."""
FEW_VAL: Final = 20
"""Validation videos below which their number is told."""

SHOWN: Final = 10


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Videos to train, to validate and to test on.

    Attributes:
        train: At least one video of two classes.
        val: At least one.
        test: Empty where the data have none.
        class_names: In head order.
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
        rows = [
            [
                split,
                record.path.removeprefix(prefix),
                record.label,
                *(record.start_seconds, record.end_seconds, record.start_frame, record.end_frame),
            ]
            for split, records in (("train", self.train), ("val", self.val), ("test", self.test))
            for record in records
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

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
        unseen = set(map(_only_class, self.train)) - set(map(_only_class, self.val))
        train, held = _hold_out(self.train, wanted=unseen)
        return replace(self, train=tuple(train), val=(*self.val, *held))

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
                f"The classes have numbers only ({_few(self.class_names)}): --classes FILE, with a name a line in the "
                "order of the numbers, names them."
            )
        if len(self.val) < FEW_VAL:
            found.append(f"{len(self.val)} validation videos: each is {100 / len(self.val):.0f} % of the accuracy.")
        if untrained:
            found.append(f"No training video of {_few(untrained)}: they will never be recognised.")
        if unseen:
            found.append(f"No validation video of {_few(unseen)}: the accuracy says nothing about them.")
        if few:
            found.append(f"Fewer than {FEW} training videos of {_few(few)}: expect little of them.")
        shared = {record.path for record in self.train} & {record.path for record in (*self.val, *self.test)}
        if self.rule != HELD_OUT_RULE:  # who gives segments of a video to both sides may know why
            shared &= {r.path for r in self.every if r.start_seconds is None and r.start_frame is None}
        if shared:
            found.append(f"{len(shared)} videos train and validate: the accuracy will be too good to be true.")
        return found


def refuse_other_splits(records: Sequence[VideoRecord], data: object) -> None:
    """A split that nothing is done with would be left out in silence.

    Args:
        records: All of them.
        data: Where they come from, for the message.

    Raises:
        ValueError: Records of a split that is none of train, val and test.
    """
    if others := {record.split for record in records} - {None, "train", "val", "test"}:
        raise ValueError(
            f"{data} has videos of the split {_few(sorted(map(repr, others)))}, which is none of train, val (or "
            "validation, dev, eval) and test: call it one of these, or take its videos off the list."
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
    records = read_records(data, root=root, classes=classes)
    refuse_other_splits(records, data)
    unlabelled = [record.path for record in records if record.label is None]
    if unlabelled:
        columns = ", ".join(map(repr, records[0].extra))
        hint = f" None of its columns {columns} is called 'label' or 'class'." if columns else ""
        raise ValueError(
            f"{len(unlabelled)} of {len(records)} videos have no class, for instance {unlabelled[0]}.{hint}"
        )
    names = class_names(records)
    if classes is not None and len(names) < len(classes):
        _check_numbers(data, records, classes)
        names = tuple(classes)
    val = [record for record in records if record.split == "val"]
    test = [record for record in records if record.split == "test"]
    train = [record for record in records if record.split in {None, "train"}]
    if not train:
        named = split_from_name(data) if Path(data).is_file() else None
        why = f" Its name makes {named!r} of all that no column 'split' says otherwise: rename it." if named else ""
        raise ValueError(
            f"{data} has no videos to train on: nothing of it is 'train'.{why or ' Give the list that has them.'}"
        )
    rule = _rule(Path(data))
    if not val:
        rule = HELD_OUT_RULE
        train, val = _hold_out(train)
    splits = Splits(train=tuple(train), val=tuple(val), test=tuple(test), class_names=names, rule=rule)
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


def _rule(data: Path) -> str:
    """Who says which videos are for validation, where the reader found some."""
    is_hashed = data.is_dir() and detect_format(data) == "folder" and not has_split_folders(data)
    return HELD_OUT_RULE if is_hashed else "as the data say"


def _hold_out(
    records: Sequence[VideoRecord], *, wanted: Collection[int | None] | None = None
) -> tuple[list[VideoRecord], list[VideoRecord]]:
    """As ``read_folder`` does it, for lists; videos of several classes are taken together."""
    paths: defaultdict[int | None, set[str]] = defaultdict(set)
    for record in records:
        paths[_only_class(record)].add(record.path)
    chosen = held_out(paths, fraction=HELD_OUT, wanted=wanted)
    train = [record for record in records if record.path not in chosen]
    return train, [replace(record, split="val") for record in records if record.path in chosen]


def _only_class(record: VideoRecord) -> int | None:
    return None if isinstance(record.label, tuple) else record.label


def _counts(records: Sequence[VideoRecord]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for record in records:
        counts.update(record.label if isinstance(record.label, tuple) else [int(record.label or 0)])
    return counts


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
