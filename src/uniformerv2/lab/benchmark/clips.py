"""The videos that decoding, loading and the pipeline are measured on."""

from __future__ import annotations

from pathlib import Path

from uniformerv2.data.annotations import VideoRecord, read_records

__all__ = ["evenly_chosen"]


def evenly_chosen(data: str | Path, count: int) -> list[VideoRecord]:
    """So many videos, evenly spread over a list, which is often in the order of the classes.

    Args:
        data: What ``read_records`` reads.
        count: How many; all of them where there are fewer.

    Raises:
        ValueError: There are no videos.
    """
    records = read_records(data)
    if not records:
        raise ValueError(f"There is no video in {data}.")
    count = min(count, len(records))
    return [records[index * len(records) // count] for index in range(count)]
