"""The lines of a text list: comments, a header, the separator, and the path before the labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from uniformerv2.data.annotations.record import AnnotationError
from uniformerv2.data.annotations.rows import Row, is_number, read_text
from uniformerv2.data.labels import LABEL_SPACES, class_names_of, whole_number
from uniformerv2.media.video_error import VIDEO_SUFFIXES

__all__ = [
    "ROLES",
    "find_separator",
    "is_header",
    "lines_of",
    "named_classes",
    "read_class_names",
    "read_list",
    "refuse_unknown_header",
    "split_at_blanks",
    "whole_lines",
    "without_comments",
]

ROLES: Final = {
    column: role
    for role, columns in {
        "path": "path video video_path file file_name filename filepath video_name",
        "label": "label labels class class_name category action",
        "start_seconds": "start_seconds start start_time time_start",
        "end_seconds": "end_seconds end end_time time_end",
        "start_frame": "start_frame",
        "end_frame": "end_frame",
        "id": "id video_id clip_id",
        "split": "split subset",
    }.items()
    for column in columns.split()
}
"""What a column of this name holds."""

# A quoted path, or everything up to a video suffix that a separator follows: so blanks and commas may be in a path.
_LEADING_PATH: Final = re.compile(
    r'"(?:[^"]|"")*"|.*?\.(?:' + "|".join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES)) + r")(?=[\t,; ]|$)",
    re.IGNORECASE,
)
_COMMENT: Final = re.compile(r"#+(\s|$)")
_LOOKED_AT: Final = 20
"""Rows that tell whether the first one is a header."""
_SEPARATORS: Final = ("\t", ",", ";", " ")


def read_list(path: str | Path) -> str:
    """A text list without its comments; see ``read_text``."""
    return without_comments(read_text(path))


def without_comments(text: str) -> str:
    r"""The text with blank lines for its comments; a header that is commented out, as NumPy writes it, stays one.

    A comment begins with ``#`` and a blank, or names no video: ``#1.mp4 0`` is a video.

    >>> without_comments("# by me\n#1.mp4 0\n"), without_comments("# path label\na.mp4 0")
    ('\n#1.mp4 0\n', 'path label\na.mp4 0')
    """
    if "#" not in text:
        return text
    lines = text.split("\n")
    top = next((number for number, line in enumerate(lines) if line.strip()), 0)
    for number, line in enumerate(lines):
        content = line.strip()
        rest = content.lstrip("#").strip()
        if not content.startswith("#"):
            continue
        names = [[cell.strip().casefold() for cell in rest.split(separator)] for separator in _SEPARATORS]
        if number == top and any(len(cells) > 1 and is_header(cells) and set(cells) <= set(ROLES) for cells in names):
            lines[number] = rest
        elif _COMMENT.match(content) or not _LEADING_PATH.match(content):
            lines[number] = ""
    return "\n".join(lines)


def find_separator(text: str) -> str:
    r"""The separator of a list: the one that follows the path in each of the first lines.

    >>> find_separator("my clip, second take.mp4 3\nb.mp4 1"), find_separator("path,label\na b.mp4,run")
    (' ', ',')
    """
    tails = []
    for _, line in lines_of(text[:20_000]):
        path = _LEADING_PATH.match(line)
        tails.append(line[path.end() :][:1] if path else line)
    # The last line may have been cut; a line that is a path alone has no separator to tell.
    tails = [tail for tail in tails[:20] if tail]
    return next((separator for separator in _SEPARATORS if tails and all(separator in tail for tail in tails)), ",")


def refuse_unknown_header(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a list without a header that is known, unless the first of them is a header that is not.

    It is one where it names no video and no folder, and is of another kind than each of the next rows: they name
    videos, or have numbers as labels.

    Raises:
        AnnotationError: It is one.
    """
    opening = list(islice(rows, _LOOKED_AT))
    if opening and not _may_be_video(opening[0]) and "/" not in opening[0].path and len(opening) > 1:
        others = opening[1:]
        if all(map(_may_be_video, others)) or (all(map(_is_numbered, others)) and _is_named(opening[0])):
            cells = ", ".join(map(repr, (opening[0].path, *_labels(opening[0]))))
            raise opening[0].error(
                f"no column is called 'path': this line looks like a header with {cells}. Call the column of the "
                "videos 'path' and that of the classes 'label', or take the line out."
            )
    yield from opening
    yield from rows


def _may_be_video(row: Row) -> bool:
    return "://" in row.path or row.path.casefold().endswith(tuple(VIDEO_SUFFIXES))


def _labels(row: Row) -> list[str]:
    return row.label if isinstance(row.label, list) else [] if row.label is None else [row.label]


def _is_numbered(row: Row) -> bool:
    return bool(_labels(row)) and all(whole_number(label) is not None for label in _labels(row))


def _is_named(row: Row) -> bool:
    return bool(_labels(row)) and all(whole_number(label) is None for label in _labels(row))


def is_header(cells: list[str]) -> bool:
    """One cell names the column of paths, and none is a path: ``a.mp4,video`` has a class called so."""
    names = [cell.strip().casefold() for cell in cells]
    return any(ROLES.get(name) == "path" for name in names) and not any(
        name.endswith(tuple(VIDEO_SUFFIXES)) for name in names
    )


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The names of a file with one a line, in their order; lines that begin with ``# `` are comments.

    Raises:
        AnnotationError: Not UTF-8, no name, or one that occurs twice.
    """
    lines = [line for _, line in lines_of(read_text(path))]
    try:
        return class_names_of([line for line in lines if not _COMMENT.match(line)]).names
    except ValueError as error:
        raise AnnotationError(str(error), file=path) from error


def whole_lines(text: str) -> Iterator[str]:
    """Lines with their ends, as ``io.StringIO(newline="")`` gives them, which takes four bytes a letter."""
    return (found[0] for found in re.finditer(r"[^\r\n]*(?:\r\n|[\r\n])|[^\r\n]+", text))


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Number from 1 and text of each line that is not blank."""
    for line, content in enumerate(whole_lines(text), start=1):
        stripped = content.strip()
        if stripped:
            yield line, stripped


def split_at_blanks(line: str) -> tuple[str, list[str]]:
    """Path and labels of ``path label``: numbers at the end are labels, any other text is one name."""
    match = _LEADING_PATH.match(line)
    if match:
        path, rest = match.group(), line[match.end() :].split()
        if path.startswith('"'):
            path = path[1:-1].replace('""', '"')
    else:
        words = line.split()
        numbers = 0
        while numbers < len(words) - 1 and is_number(words[-1 - numbers]):
            numbers += 1
        cut = len(words) - numbers if numbers else 1
        path, rest = " ".join(words[:cut]), words[cut:]
    if all(map(is_number, rest)):
        return path, rest
    return path, [" ".join(rest)]


def named_classes(word: str | Sequence[str]) -> tuple[str, ...]:
    """Class names in order: of a label space, of a file as ``read_class_names`` reads it, or as they are given.

    Raises:
        ValueError: None of these.
    """
    if isinstance(word, str) and word not in LABEL_SPACES and Path(word).is_file():
        return read_class_names(word)
    return class_names_of(word).names
