"""Kinetics-710: Kinetics-400, 600 and 700 merged, without repeated videos and without leaks into any val or test list.

Li et al., "UniFormerV2", 2022. Classes are joined through `uniformerv2.data.labels.RENAMED`. A training video, known
by its YouTube id, is kept where it comes first (Kinetics-400, then 600, then 700), and is dropped where any val or
test list of the three has it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.files import write_text
from uniformerv2.data.annotations.benchmarks import KINETICS_FILE, KineticsClip, clip_file, kinetics_clips
from uniformerv2.data.annotations.record import AnnotationError
from uniformerv2.data.labels import RENAMED, class_names_of, label_map, label_names
from uniformerv2.data.list_files import csv_text

__all__ = ["KINETICS710_FILE", "Kinetics710Report", "build_kinetics710", "merged_class_names"]

KINETICS710_FILE: Final = "{source}/{split}/" + KINETICS_FILE
"""The path of a clip in the merged lists: ``k400/train/<YouTube id>_000010_000020.mp4``."""

_SPACES: Final = {"k400": "kinetics400", "k600": "kinetics600", "k700": "kinetics700"}
_SPLITS: Final = ("train", "val", "test")


@dataclass(frozen=True)
class Kinetics710Report:
    """What went in, what was dropped and why, what came out.

    A list is named ``"k400 train"``. Ids are YouTube ids, counted once each; clips are lines.

    Attributes:
        clips: Lines of each list.
        ids: Different ids of each list.
        shared: Ids that two lists share, for each pair that shares any. A training list with a val or test list: a
            leak. Two training lists: videos that the published sets repeat.
        conflicts: Ids of two training lists that have another class in each of them, by pair.
        leaked: Training clips dropped because a val or test list has their id, by training list.
        repeated: Training clips dropped because an earlier set trains on their id, by training list.
        doubled: Training clips dropped because their own list has the same clip before, by training list.
        kept: Training clips that came out, by training list.
        kept_ids: Different ids that came out.
        val: Val clips that came out: each clip once, and each id from the first set that has it.
    """

    clips: dict[str, int]
    ids: dict[str, int]
    shared: dict[tuple[str, str], int]
    conflicts: dict[tuple[str, str], int]
    leaked: dict[str, int]
    repeated: dict[str, int]
    doubled: dict[str, int]
    kept: dict[str, int]
    kept_ids: int
    val: int

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values; a pair of lists is written ``"k400 train & k600 val"``."""
        pairs = {
            name: {" & ".join(pair): count for pair, count in getattr(self, name).items()}
            for name in ("shared", "conflicts")
        }
        return {**vars(self), **pairs}

    def __str__(self) -> str:
        """The report for people."""
        lines = ["Lists read (clips, different YouTube ids)"]
        lines += [f"  {name:<12}{self.clips[name]:>9}{self.ids[name]:>9}" for name in self.clips]
        lines += ["", "Training clips (read, leaked, repeated in an earlier set, doubled in their own list, kept)"]
        lines += [
            f"  {name:<12}{self.clips[name]:>9}{self.leaked[name]:>9}{self.repeated[name]:>9}"
            f"{self.doubled[name]:>9}{self.kept[name]:>9}"
            for name in self.kept
        ]
        lines += [f"  out: {sum(self.kept.values())} training clips of {self.kept_ids} ids, {self.val} val clips"]
        titles = {
            "Leaks: ids of a training list that a val or test list has": lambda trains: trains == 1,
            "Repeats: ids that two training lists share (of these with another class)": lambda trains: trains == 2,
            "Ids that two val or test lists share": lambda trains: trains == 0,
        }
        for title, wanted in titles.items():
            lines += ["", title]
            for pair, count in self.shared.items():
                if wanted(sum(name.endswith("train") for name in pair)):
                    conflicts = f" ({self.conflicts[pair]})" if pair in self.conflicts else ""
                    lines.append(f"  {' & '.join(pair):<24}{count:>9}{conflicts}")
        return "\n".join(lines) + "\n"


def merged_class_names() -> tuple[str, ...]:
    """The 710 names, made from the three lists through `RENAMED`, in the published order.

    Raises:
        ValueError: The merged names are not the published 710.
    """
    merged = {RENAMED.get(name, name) for space in _SPACES.values() for name in label_names(space)}
    published = label_names("kinetics710")
    if merged != set(published):
        raise ValueError(f"The merged classes differ from the published 710: {sorted(merged ^ set(published))}.")
    return published


def build_kinetics710(
    *,
    k400: str | Path | Sequence[str | Path],
    k600: str | Path | Sequence[str | Path],
    k700: str | Path | Sequence[str | Path],
    out: str | Path,
    file_name: str = KINETICS710_FILE,
) -> Kinetics710Report:
    """Merge the three sets; write lists, maps and report into ``out``.

    Written are ``train.csv`` and ``val.csv`` (path, label, id; read by `read_records`), ``classes.txt``,
    ``removed.csv`` (each dropped training clip with the reason), ``kinetics710_to_kinetics400.json`` and so on (the
    710 rows that a smaller head picks), ``report.json`` and ``report.txt``.

    Args:
        k400: A folder with the official CSV files of Kinetics-400 (``*.csv``, ``*.csv.gz``), or the files. The
            column ``split``, or else the file name, says train, val or test.
        k600: The same of Kinetics-600.
        k700: The same of Kinetics-700; the files of Kinetics-700-2020 may be among them.
        out: The folder to write; made where absent.
        file_name: The path of a clip in the merged lists, from ``{source}`` (``k400``) and the fields of
            `kinetics_rows`.

    Raises:
        ValueError: A set has no val list, or none has a training list.
    """
    classes = merged_class_names()
    given = {"k400": k400, "k600": k600, "k700": k700}
    lists = {source: _read_set(source, paths) for source, paths in given.items()}
    if not any(splits["train"] for splits in lists.values()):
        raise ValueError("No training list is among the files; at least one of k400, k600, k700 needs one.")
    for source, splits in lists.items():
        if not splits["val"]:
            raise ValueError(f"{source} has no val list among its files: leaks into it would go unseen. Add it.")
    tested = {clip.youtube_id for splits in lists.values() for name in ("val", "test") for clip in splits[name]}
    kept, removed = _sort_out(lists, "train", leaked=tested)
    val, _ = _sort_out(lists, "val")
    report = _report(lists, kept, removed, len(val))

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "train.csv", _as_list(kept, file_name))
    write_text(folder / "val.csv", _as_list(val, file_name))
    rows = ((clip_file(clip, file_name=file_name, source=source), why) for source, clip, why in removed)
    write_text(folder / "removed.csv", csv_text(("path", "reason"), rows))
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in classes))
    for space in _SPACES.values():
        write_text(folder / f"kinetics710_to_{space}.json", json.dumps(label_map("kinetics710", space)) + "\n")
    write_text(folder / "report.json", json.dumps(report.as_json(), indent=1) + "\n")
    write_text(folder / "report.txt", str(report))
    return report


def _read_set(source: str, paths: str | Path | Sequence[str | Path]) -> dict[str, list[KineticsClip]]:
    """The clips of one set by split; labels become the names of Kinetics-710.

    Raises:
        AnnotationError: An unknown split or class; with file and line.
    """
    clips: dict[str, list[KineticsClip]] = {split: [] for split in _SPLITS}
    names = class_names_of(_SPACES[source])
    merged = label_names("kinetics710")
    to_merged = [merged[number] for number in label_map("kinetics710", _SPACES[source])]
    for file in _csv_files(source, paths):
        for clip in kinetics_clips(file):
            if clip.split not in clips:
                message = f"the split is {clip.split!r}; train, val or test is needed, in the column or the file name."
                raise AnnotationError(message, file=file, line=clip.line)
            if clip.split == "test" and not clip.label:
                clips["test"].append(clip)
                continue
            try:
                label = to_merged[names.index(clip.label or "")]
            except ValueError as error:
                raise AnnotationError(str(error), file=file, line=clip.line) from error
            clips[clip.split].append(clip._replace(label=label))
    return clips


def _csv_files(source: str, paths: str | Path | Sequence[str | Path]) -> list[Path]:
    files: list[Path] = []
    for path in [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]:
        inside = sorted(path.glob("*.csv")) + sorted(path.glob("*.csv.gz"))
        if path.is_dir() and not inside:
            raise AnnotationError(f"no *.csv and no *.csv.gz is there; {source} needs its lists.", file=path)
        files += inside or [path]
    return files


def _sort_out(
    lists: Mapping[str, Mapping[str, list[KineticsClip]]], split: str, *, leaked: Collection[str] = ()
) -> tuple[list[tuple[str, KineticsClip]], list[tuple[str, KineticsClip, str]]]:
    """The clips of a split that stay, and the others with the reason; in the order of the sets and lines."""
    owner: dict[str, str] = {}
    kept: list[tuple[str, KineticsClip]] = []
    removed: list[tuple[str, KineticsClip, str]] = []
    for source in _SPACES:
        seen: set[tuple[str, int, int]] = set()
        for clip in lists[source][split]:
            key = (clip.youtube_id, clip.start, clip.end)
            if clip.youtube_id in leaked:
                removed.append((source, clip, "leaked"))
            elif owner.setdefault(clip.youtube_id, source) != source:
                removed.append((source, clip, "repeated"))
            elif key in seen:
                removed.append((source, clip, "doubled"))
            else:
                seen.add(key)
                kept.append((source, clip))
    return kept, removed


def _report(
    lists: Mapping[str, Mapping[str, list[KineticsClip]]],
    kept: list[tuple[str, KineticsClip]],
    removed: list[tuple[str, KineticsClip, str]],
    num_val: int,
) -> Kinetics710Report:
    named = {f"{source} {split}": lists[source][split] for source in _SPACES for split in _SPLITS}
    named = {name: clips for name, clips in named.items() if clips}
    ids = {name: {clip.youtube_id for clip in clips} for name, clips in named.items()}
    shared = {(one, other): len(ids[one] & ids[other]) for one, other in combinations(named, 2)}
    trains = [name for name in named if name.endswith("train")]
    labels = {name: {clip.youtube_id: clip.label for clip in named[name]} for name in trains}
    conflicts = {
        (one, other): sum(labels[one][key] != labels[other][key] for key in labels[one].keys() & labels[other].keys())
        for one, other in combinations(trains, 2)
    }
    why = Counter((f"{source} train", reason) for source, _, reason in removed)
    out = Counter(f"{source} train" for source, _ in kept)
    return Kinetics710Report(
        clips={name: len(clips) for name, clips in named.items()},
        ids={name: len(found) for name, found in ids.items()},
        shared={pair: count for pair, count in shared.items() if count},
        conflicts={pair: count for pair, count in conflicts.items() if count},
        leaked={name: why[name, "leaked"] for name in trains},
        repeated={name: why[name, "repeated"] for name in trains},
        doubled={name: why[name, "doubled"] for name in trains},
        kept={name: out[name] for name in trains},
        kept_ids=len({clip.youtube_id for _, clip in kept}),
        val=num_val,
    )


def _as_list(clips: Iterable[tuple[str, KineticsClip]], file_name: str) -> str:
    number = {name: place for place, name in enumerate(label_names("kinetics710"))}
    rows = (
        (clip_file(clip, file_name=file_name, source=source), number[clip.label or ""], clip.youtube_id)
        for source, clip in clips
    )
    return csv_text(("path", "label", "id"), rows)
