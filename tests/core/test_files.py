"""Files written whole, and folders held by one process."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.evaluation.made_evaluations import make_evaluation
from tests.locks import given_back_to_who_waits, held_elsewhere
from uniformerv2.core.files import (
    FolderInUseError,
    lock_file,
    lock_folder,
    refuse_held,
    remove_leftovers,
    write_text,
    write_whole,
)
from uniformerv2.evaluation.dumps import write_dump
from uniformerv2.training.resume import WholeFileIO
from uniformerv2.zoo.files import write_tensors


def writes_a_checkpoint(path):
    WholeFileIO().save_checkpoint({"a": torch.zeros(2)}, path)


WRITERS = {
    "text": lambda path: write_text(path, "über"),
    "tensors": lambda path: write_tensors(path, {"a": torch.zeros(2)}),
    "checkpoint": writes_a_checkpoint,
    "dump": lambda path: write_dump(path.with_suffix(".pkl"), make_evaluation(num_videos=2)).replace(path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_has_the_permissions_of_any_other(write, tmp_path):
    (tmp_path / "any").write_text("x")
    write(tmp_path / "new" / "ours")
    assert (tmp_path / "new" / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "new" / "ours.txt", "über")
    assert (tmp_path / "new" / "ours.txt").read_text(encoding="utf-8") == "über"


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


def test_who_holds_a_folder_may_ask_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with lock_folder(tmp_path / "out", what="A training"), lock_folder(Path("out"), what="A training"):
        pass
    assert not list((tmp_path / "out").iterdir())


def test_a_file_is_held_by_its_own_lock(tmp_path):
    with lock_file(tmp_path / "a.csv", what="A check"), lock_file(tmp_path / "b.csv", what="A check"):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".a.csv.lock", ".b.csv.lock"]


def test_who_waits_says_so_and_then_has_the_folder(tmp_path):
    with given_back_to_who_waits(tmp_path) as told, lock_folder(tmp_path, what="A training", waits=True):
        assert told.words == f"A training is running in {tmp_path}; this one waits until it ends."


def test_what_another_holds_is_refused_and_nothing_is_written(tmp_path):
    refuse_held(tmp_path / "gone", what="A training")
    assert not list(tmp_path.iterdir())
    with held_elsewhere(tmp_path / "run"), held_elsewhere(tmp_path / "a.csv", lock=lock_file):
        for name in ("run", "a.csv"):
            with pytest.raises(FolderInUseError, match=rf"A test .*{name}.*: wait until it ends, or choose another"):
                refuse_held(tmp_path / name, what="A test")
    refuse_held(tmp_path / "run", what="A test")


def test_leftovers_are_those_of_this_file(tmp_path):
    begun = [tmp_path / f".{name}.0123abcd.part" for name in ("a[1].json", "a1.json")]
    for path in begun:
        path.touch()
    remove_leftovers(tmp_path, glob.escape("a[1].json"))
    assert list(tmp_path.iterdir()) == begun[1:]


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
