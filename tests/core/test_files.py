"""Files written whole, and folders held by one process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from uniformerv2.core.files import FolderInUseError, lock_folder, write_text, write_whole


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "any.txt").write_text("x")
    write_text(tmp_path / "new" / "ours.txt", "über")
    assert (tmp_path / "new" / "ours.txt").read_text(encoding="utf-8") == "über"
    assert (tmp_path / "new" / "ours.txt").stat().st_mode == (tmp_path / "any.txt").stat().st_mode


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(path, write)
    assert [item.name for item in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_writing_never_touches_the_umask(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask belongs to the whole process"))
    write_text(tmp_path / "file.txt", "x")


HOLD = """
import sys
from pathlib import Path
from uniformerv2.core.files import lock_folder
with lock_folder(Path(sys.argv[1]), what="A training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_until_its_process_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        second = lock_folder(tmp_path, what="A training")
        with pytest.raises(FolderInUseError, match=r"A training is running in .*: wait"):
            second.__enter__()
        holder.kill()
        holder.communicate()
    with lock_folder(tmp_path, what="A training"):
        pass
