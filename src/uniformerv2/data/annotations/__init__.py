"""Readers: every annotation format in scope -> ``list[VideoRecord]``.

`read_records` finds the format; the others read one format each and have its options. All of them take ``classes``
(the name of a label space, or the class names in head order), ``root`` (where relative paths start; None: the folder
that holds the annotations) and ``split`` (keep only these). What cannot be used as it is raises `AnnotationError`
with file and line: no videos, a label outside the classes, a path twice with two labels, bytes that are not UTF-8.
"""

from __future__ import annotations

from uniformerv2.data.annotations.activitynet import read_activitynet, read_hacs
from uniformerv2.data.annotations.auto import AnnotationFormat, detect_format, read_lists, read_records
from uniformerv2.data.annotations.files import FileCheck, check_files
from uniformerv2.data.annotations.folder import read_folder
from uniformerv2.data.annotations.kinetics import read_kinetics
from uniformerv2.data.annotations.record import AnnotationError, VideoRecord, class_names
from uniformerv2.data.annotations.something_something import (
    read_jester,
    read_something_something_v1,
    read_something_something_v2,
)
from uniformerv2.data.annotations.split_files import read_diving48, read_hmdb51, read_moments_in_time, read_ucf101
from uniformerv2.data.annotations.table import (
    read_jsonl,
    read_parquet,
    read_rawframe_list,
    read_table,
)
from uniformerv2.media.suffixes import VIDEO_SUFFIXES

__all__ = [
    "VIDEO_SUFFIXES",
    "AnnotationError",
    "AnnotationFormat",
    "FileCheck",
    "VideoRecord",
    "check_files",
    "class_names",
    "detect_format",
    "read_activitynet",
    "read_diving48",
    "read_folder",
    "read_hacs",
    "read_hmdb51",
    "read_jester",
    "read_jsonl",
    "read_kinetics",
    "read_lists",
    "read_moments_in_time",
    "read_parquet",
    "read_rawframe_list",
    "read_records",
    "read_something_something_v1",
    "read_something_something_v2",
    "read_table",
    "read_ucf101",
]
