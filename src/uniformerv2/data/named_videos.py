"""What a user's words name: files of folders and patterns, the videos of a test, and which class is which."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.core.messages import UsageError, usage_errors
from uniformerv2.data.annotations import AnnotationError, VideoRecord, detect_format, read_records
from uniformerv2.data.annotations.folder import files_below
from uniformerv2.data.annotations.rows import of_split
from uniformerv2.data.annotations.text_lists import named_classes
from uniformerv2.data.labels import LABEL_SPACES, RENAMED, ClassNames
from uniformerv2.media.video_error import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from uniformerv2.data.transforms import Preprocessing

__all__ = [
    *("TestVideos", "in_head_order", "named_files", "named_records", "read_classes", "read_test_videos"),
    *("recipe_views", "subset"),
]

SHOWN: Final = 3
LIST_SUFFIXES: Final = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet"})


@dataclass(frozen=True)
class TestVideos:
    """The videos to test on.

    Attributes:
        records: At least one.
        source: Where the list was read from.
        split: Which part of it this is, in words.
        recipe: The ``data.preprocessing`` of the recipe; empty where none was given.
        matched: How their classes were matched with those of a network, in words.
    """

    __test__ = False  # pytest takes a class of this name for tests

    records: Sequence[VideoRecord]
    source: str
    split: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    matched: str = ""


def named_files(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files as they are, folders as the videos that training reads from them, patterns as what they match.

    A folder without videos that has images is a folder of frames.

    Args:
        words: Paths and patterns.

    Returns:
        The videos; and a sentence about what is passed over in each folder.

    Raises:
        UsageError: A folder or a pattern without a video.
    """
    videos: list[Path] = []
    told: list[str] = []
    for word in words:
        path = Path(word)
        if path.exists() or not glob.has_magic(word):
            matches = [path]
        else:
            matches = sorted(map(Path, glob.glob(word, recursive=True)))  # noqa: PTH207  Path takes no absolute pattern
            if not matches:
                raise UsageError(f"No file matches {word}.")
        for match in matches:
            inside, passed_over = _inside(match) if match.is_dir() else ([match], "")
            videos += inside
            told += [f"Passed over in {match}: {passed_over}."] if passed_over else []
    return videos, told


def named_records(
    words: Sequence[str], *, root: str | Path | None = None, split: str | None = None
) -> tuple[list[VideoRecord], list[str]]:
    """As ``named_files``, with what lists and folders per class say of the videos; a list gives its records.

    Args:
        words: Paths of videos, folders and lists, and patterns.
        root: Where relative paths of lists start; None: at the list.
        split: Only these, and videos of which nothing says the split.

    Returns:
        The videos; and a sentence about what is passed over in each folder.

    Raises:
        UsageError: As ``named_files``; a list that cannot be used; or no video is of the split.
    """
    records: list[VideoRecord] = []
    told: list[str] = []
    for word in words:
        path = Path(word)
        if _is_list(path):
            with usage_errors():
                records += read_records(path, root=root, val_fraction=0.0)
            continue
        known: dict[Path, VideoRecord] = {}
        if path.is_dir():
            with suppress(AnnotationError):  # videos without class folders
                known = {Path(one.path): one for one in read_records(path, val_fraction=0.0)}
        videos, passed_over = named_files([word])
        records += [known.get(video, VideoRecord(str(video))) for video in videos]
        told += passed_over
    with usage_errors():
        return of_split(records, split, source=", ".join(words)), told


def _is_list(path: Path) -> bool:
    if path.is_dir():
        return detect_format(path) != "folder"
    return path.is_file() and Path(path.name.removesuffix(".gz")).suffix.casefold() in LIST_SUFFIXES


def _inside(folder: Path) -> tuple[list[Path], str]:
    """The videos of a folder, and how many other files it has.

    Raises:
        UsageError: There is none.
    """
    found = files_below(folder)
    if found.videos:
        return [folder / name for name in found.videos], found.passed_over()
    if any(item.suffix.casefold() in IMAGE_SUFFIXES for item in folder.iterdir()):
        return [folder], ""
    rest = found.passed_over()
    raise UsageError(f"There is no video in the folder {folder}" + (f": it has {rest}." if rest else "."))


def read_test_videos(
    source: str | Path,
    *,
    root: str | Path | None = None,
    classes: str | Sequence[str] | None = None,
    split: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
) -> TestVideos:
    """The videos of a list, of a folder, or of a recipe.

    Args:
        source: A list or a folder; with a recipe its name, for messages.
        root: Where relative paths start.
        classes: Names of the list's class numbers: a label space, a file with one name per line, or the names.
        split: Only these; "all"; None: the test videos, else the validation videos, else the ones without a mark.
        recipe: Its content; its section ``data`` names the list, the root and the classes.
        data: The list to test on instead of the recipe's own.

    Returns:
        The videos, with the class numbers of the list.

    Raises:
        UsageError: There is no such list or folder, or none of its videos is of the split.
    """
    if recipe is None:
        return _chosen(str(source), _read(str(source), root, classes), split)
    section = recipe.get("data") or {}
    role = next((name for name in ("test", "val", "train") if section.get(name)), None)
    found_in = data or (section[role] if role else None)
    if found_in is None:
        raise UsageError(f"{source} does not say where the videos are: give --data LIST, perhaps with --root FOLDER.")
    root = root or section.get("root")
    whole = data is None and role != "train"  # a list that is there for testing need not mark its videos
    records = _read(str(found_in), root, classes or section.get("classes"), whole=whole)
    split_or_role = split or (role if whole else None)
    found = _chosen(str(found_in), records, split_or_role, takes_all=whole and split is None)
    return replace(found, recipe=section.get("preprocessing") or {})


def subset(
    records: Sequence[VideoRecord], *, only_classes: Sequence[str] | None = None, max_videos: int | None = None
) -> list[VideoRecord]:
    """The first videos of some classes.

    Args:
        records: At least one.
        only_classes: Names, or numbers where the list has no names; None: all.
        max_videos: None: all.

    Raises:
        UsageError: No video is of these classes.
    """
    kept = list(records)
    if only_classes:
        wanted = ClassNames(only_classes, called="--only-classes")
        kept = [record for record in kept if any(wanted.find(str(name)) is not None for name in _called(record))]
        if not kept:
            raise UsageError(f"No video is of the classes {', '.join(only_classes)}.")
    return kept[:max_videos]


def _called(record: VideoRecord) -> tuple[object, ...]:
    named = record.label if record.label_name is None else record.label_name
    return named if isinstance(named, tuple) else (named,)


def recipe_views(recipe: Mapping[str, Any], own: Preprocessing) -> dict[str, int]:
    """The number of clips and crops of a recipe, for a checkpoint that it fits.

    Args:
        recipe: Its ``data.preprocessing``.
        own: The checkpoint's.

    Raises:
        UsageError: The recipe is of another number of frames or another size.
    """
    for name in ("num_frames", "image_size"):
        if name in recipe and recipe[name] != getattr(own, name):
            raise UsageError(
                f"The recipe has {name} {recipe[name]}, the checkpoint {getattr(own, name)}. Give the recipe of this "
                "checkpoint; or the list itself, with --clips and --crops."
            )
    return {name: int(recipe[name]) for name in ("num_clips", "num_crops") if name in recipe}


def read_classes(word: str | Sequence[str]) -> tuple[str, ...]:
    """Class names in order: of a label space, or of a file with a name a line.

    Raises:
        UsageError: Neither.
    """
    try:
        return named_classes(word)
    except (ValueError, OSError) as error:
        raise UsageError(f"{error} Or give a file with a class name a line.") from error


def in_head_order(records: Sequence[VideoRecord], head_names: Sequence[str]) -> tuple[list[VideoRecord], str]:
    """The records with the class numbers of the network's head.

    Names are matched where the list has any; Kinetics' classes that were renamed are the same class. Where the list
    has numbers, and the network's classes are called by whole numbers, these are matched (``ClassNames.numbered``).

    Args:
        records: With the class numbers of their list.
        head_names: How the network's classes are called, in the order of its head; may be empty.

    Returns:
        The records, and what was done, in words.

    Raises:
        UsageError: A class of the list is none of the network's, or cannot be compared with them.
    """
    names = {name: None for record in records for name in record.label_names}
    if not names:
        return _numbered(records, head_names)
    if not head_names:
        raise UsageError(
            "The list names its classes, the checkpoint does not: say which class is which with --head-classes, a file "
            "with a name a line in the order of the head, or one of " + ", ".join(LABEL_SPACES) + "."
        )
    known = ClassNames(head_names, called="the checkpoint's classes")
    numbers = {name: _number(name, known) for name in names}
    if missing := [name for name, number in numbers.items() if number is None]:
        raise UsageError(
            f"The checkpoint has no class {_some(missing)} ({len(missing)} of the {len(names)} classes of the list); "
            f"its {len(head_names)} classes are {_some(head_names)}. Leave their videos out with "
            "--only-classes, or say the names with --classes (of the list) and --head-classes (of the checkpoint)."
        )
    places = {name: number for name, number in numbers.items() if number is not None}
    matched = [record.relabelled([places[name] for name in record.label_names]) for record in records]
    changed = any(new.label != old.label for new, old in zip(matched, records, strict=True))
    return matched, "classes are matched by name" + ", their order differs" * changed


def _numbered(records: Sequence[VideoRecord], head_names: Sequence[str]) -> tuple[list[VideoRecord], str]:
    """As ``in_head_order``, for a list of class numbers.

    Raises:
        UsageError: A number is none of the network's classes.
    """
    labels = {label for record in records for label in record.labels}
    if not labels:
        return list(records), "the list has no labels"
    taken = "the list's class numbers are taken as the checkpoint's"
    if not head_names:
        return list(records), taken
    known = ClassNames(head_names, called="the checkpoint's classes")
    try:
        places = {label: known.numbered(label) for label in labels}
    except ValueError as error:
        raise UsageError(
            f"{error} The list has the numbers {_some(sorted(labels))}. Name them with --classes (of the list), or the "
            "checkpoint's classes with --head-classes."
        ) from error
    if all(label == place for label, place in places.items()):
        return list(records), taken
    matched = [record.relabelled([places[label] for label in record.labels]) for record in records]
    return matched, "class numbers are matched by the checkpoint's names, their order differs"


def _read(source: str, root: str | Path | None, classes: Any, *, whole: bool = False) -> list[VideoRecord]:
    known = None if classes is None else read_classes(classes)
    try:
        return read_records(source, classes=known, root=root, val_fraction=0.0 if whole else None)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error


def _chosen(source: str, records: list[VideoRecord], split: str | None, *, takes_all: bool = False) -> TestVideos:
    """The records of a split; ``takes_all``: all of them where none is marked so.

    Raises:
        UsageError: There are none.
    """
    marks = {record.split for record in records}
    if split is None:
        tested = any(record.split == "test" and record.label is not None for record in records)
        split = "test" if tested else "val" if "val" in marks else None
        if split is None and None not in marks:
            raise UsageError(
                f"{source} has no test or validation videos, only {', '.join(sorted(map(repr, marks)))}; choose with "
                "--split, or --split all."
            )
    if split == "all":
        return TestVideos(records, source, "all")
    kept = [record for record in records if record.split == split]
    if not kept and (takes_all or marks == {None}):
        return TestVideos(records, source, "all")
    if not kept:
        there = ", ".join(sorted(repr(mark) for mark in marks if mark))
        raise UsageError(f"No video of {source} is of the split {split!r}; there are {there}; 'all' takes every one.")
    words = f"{split}: {len(kept)} of {len(records)}" if len(kept) < len(records) else split or "all"
    return TestVideos(kept, source, words)


def _some(values: Sequence[object]) -> str:
    return ", ".join(map(repr, values[:SHOWN])) + (" ..." if len(values) > SHOWN else "")


def _number(name: str, known: ClassNames) -> int | None:
    """The number of a class, also by its name in another release of Kinetics; None where there is no such class."""
    others = [RENAMED[name]] if name in RENAMED else []
    others += [old for old, new in RENAMED.items() if new in {name, *others}]
    found = (known.find(called) for called in (name, *others))
    return next((number for number in found if number is not None), None)
