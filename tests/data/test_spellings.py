"""A video is the same one however its path is spelled: in conflicts of labels, in leaks, in what is held out."""

from __future__ import annotations

import shutil

import pytest

from uniformerv2.data.annotations import AnnotationError, read_records
from uniformerv2.data.splits import read_splits


@pytest.fixture
def videos(tmp_path):
    """``A/0.mp4`` and ``B/0.mp4``, the folder ``A`` also as ``link``, ``B/0.mp4`` also as ``B/copy.mp4``."""
    for name in ("A", "B", "C"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.mp4").touch()
    (tmp_path / "link").symlink_to("A")
    (tmp_path / "B" / "copy.mp4").symlink_to("0.mp4")
    return tmp_path


def test_the_leak_of_the_shared_case_is_told(shared, videos):
    for case in ("alias_leak.csv", "alias_conflict.csv"):
        shutil.copyfile(shared(f"cases/{case}"), videos / case)
    told = "2 videos train and validate: the accuracy will be too good to be true."
    assert told in read_splits(videos / "alias_leak.csv").warnings()
    with pytest.raises(AnnotationError, match=r"conflict\.csv:3: '\./A/0\.mp4' has the label 'B' here and 'A' in .*:2"):
        read_records(videos / "alias_conflict.csv")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A/0.mp4", "./A/0.mp4"),
        ("A//0.mp4", "A/0.mp4"),
        ("C/../A/0.mp4", "A/0.mp4"),
        ("link/0.mp4", "A/0.mp4"),
        ("A/0.mp4", "link/../link/./0.mp4"),
        ("B/0.mp4", "B/copy.mp4"),
        ("B/copy.mp4", "B/0.mp4"),
        ("B/copy.mp4", "C/../B/copy.mp4"),
        ("A", "A/"),
        ("link", "A/."),
        ("gone/0.mp4", "./gone/0.mp4"),
    ],
)
def test_every_spelling_is_the_first_one(videos, first, second):
    """And both are refused as one video of two classes; absolute ones too."""
    for other in (second, f"{videos}/{second}"):
        (videos / "list.csv").write_text(f"path,label,split\n{first},x,train\nC/0.mp4,x,train\n{other},x,val\n")
        found = read_records(videos / "list.csv")
        assert [record.path for record in found] == [f"{videos}/{name}" for name in (first, "C/0.mp4", first)]
        assert [record.id for record in found] == [first, "C/0.mp4", other]
        (videos / "list.csv").write_text(f"path,label\n{first},x\n{other},y\n")
        with pytest.raises(AnnotationError, match="which is the same video"):
            read_records(videos / "list.csv")


def test_others_keep_their_own_paths(videos):
    listed = ["A/0.mp4", "B/0.mp4", "link/1.mp4", "https://host/A/../A/0.mp4", "https://host/A/0.mp4", "0.mp4"]
    (videos / "list.txt").write_text("".join(f"{name} {number}\n" for number, name in enumerate(listed)))
    found = [record.path for record in read_records(videos / "list.txt")]
    assert found == [f"{videos}/A/0.mp4", f"{videos}/B/0.mp4", f"{videos}/A/1.mp4", *listed[3:5], f"{videos}/0.mp4"]


def test_spellings_stay_on_one_side_where_some_are_held_out(videos):
    rows = [f"{prefix}{name}/{clip}.mp4,{name}" for name in "AB" for clip in range(9) for prefix in ("", "./", "C/../")]
    (videos / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    splits = read_splits(videos / "list.csv")
    assert (len(splits.train), len(splits.val)) == (42, 12)
    assert not {record.path for record in splits.train} & {record.path for record in splits.val}


def test_a_link_into_another_class_is_a_conflict(videos):
    (videos / "link").unlink()
    (videos / "C" / "0.mp4").unlink()
    (videos / "C" / "0.mp4").symlink_to("../A/0.mp4")
    with pytest.raises(
        AnnotationError, match=r"'C/0\.mp4' has the label 'C' here and 'A' in A/0\.mp4, which is the sa"
    ):
        read_records(videos, format="folder")
