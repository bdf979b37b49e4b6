"""Room on a disk, before work and while it lasts."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from types import SimpleNamespace

import pytest
import torch

from uniformerv2.core.files import NO_ROOM, DiskFullError, check_room, free_bytes, telling_full_disk, write_text
from uniformerv2.zoo.files import write_tensors


def test_too_little_room_is_said_before_work_starts(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=3 * 2**20))
    place = tmp_path / "not" / "yet" / "there"
    check_room(place, 3 * 2**20, what="The model")
    with pytest.raises(DiskFullError) as caught:
        check_room(place, 3 * 2**20 + 1, what="The model")
    said = (
        f"The model needs about 3.0 MiB, and the disk of {place} has 3.0 MiB free: make room, or choose another place."
    )
    assert str(caught.value) == said
    assert caught.value.errno == errno.ENOSPC
    assert set(asked) == {tmp_path}
    assert not place.exists()


def test_free_bytes_are_those_of_the_system(tmp_path):
    assert 0 <= free_bytes(tmp_path / "absent") <= shutil.disk_usage(tmp_path).total


@pytest.mark.parametrize("number", sorted(NO_ROOM))
def test_what_the_system_says_of_a_full_disk_names_the_file(tmp_path, number):
    with (
        pytest.raises(DiskFullError, match=rf"a\.csv could not be written \({os.strerror(number)}\): make room"),
        telling_full_disk(tmp_path / "a.csv"),
    ):
        raise OSError(number, os.strerror(number))
    with pytest.raises(PermissionError), telling_full_disk(tmp_path / "a.csv"):
        raise PermissionError(errno.EACCES, "no")


def test_files_without_room_leave_nothing(tmp_path):
    """Files may have no more than so many bytes: the same words from the system as for a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        for write in (
            lambda: write_text(tmp_path / "a", "x" * 2000),
            lambda: write_tensors(tmp_path / "a", {"a": torch.zeros(2000)}),  # whose library hides the system's error
        ):
            with pytest.raises(DiskFullError, match="File too large"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
