"""Readers: every annotation format in scope -> ``list[VideoRecord]``.

`read_records` reads them all: it finds the format, or is told it (``format="ucf101", fold=2``). What cannot be used as
it is raises `AnnotationError` with file and line: no videos, a label outside the classes, a path twice with two labels,
bytes that are not UTF-8.
"""

from __future__ import annotations

from uniformerv2.data.annotations.auto import AnnotationFormat, detect_format, find_videos, read_records
from uniformerv2.data.annotations.record import (
    AnnotationError,
    FileCheck,
    VideoRecord,
    check_files,
    class_names,
    records_digest,
)

__all__ = [
    "AnnotationError",
    "AnnotationFormat",
    "FileCheck",
    "VideoRecord",
    "check_files",
    "class_names",
    "detect_format",
    "find_videos",
    "read_records",
    "records_digest",
]
