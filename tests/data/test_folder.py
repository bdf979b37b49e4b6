"""A folder per class: what its names mean, which folders are read, which are named because they are not."""

from __future__ import annotations

import logging
import os

import pytest

from uniformerv2.data.annotations import AnnotationError, class_names, read_records
from uniformerv2.data.annotations.folder import folder_rows
from uniformerv2.media.video_error import BESIDE_VIDEOS, IMAGE_SUFFIXES, VIDEO_SUFFIXES


def touch(top, *names):
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()


@pytest.mark.parametrize("names", [("2019", "2020"), ("20240101", "20240102"), ("007", "7"), ("-1", "0"), ("1.0", "1")])
def test_folders_called_by_numbers_are_names(tmp_path, names):
    touch(tmp_path, *[f"{name}/{clip}.mp4" for name in names for clip in range(2)])
    for records in (read_records(tmp_path, format="folder"), read_records(tmp_path)):
        assert class_names(records) == tuple(sorted(names))
        assert [(record.label, record.label_name) for record in records[::2]] == list(enumerate(sorted(names)))


def test_folders_of_whole_numbers_stand_in_the_order_of_numbers(tmp_path):
    """Not as text, where a list's label 2 would be class "10"."""
    touch(tmp_path, *[f"videos/{number}/a.mp4" for number in range(12)])
    records = read_records(tmp_path / "videos")
    names = class_names(records)
    assert names == tuple(map(str, range(12)))
    assert {record.path.split("/")[-2]: record.label for record in records} == {str(n): n for n in range(12)}
    touch(tmp_path, "mixed/10/a.mp4", "mixed/2/a.mp4", "mixed/two/a.mp4")
    assert class_names(read_records(tmp_path / "mixed")) == ("10", "2", "two")


AS_TEXT = tuple(sorted(map(str, range(12))))
"""As class folders called by numbers were sorted once, and as checkpoints of that time have them."""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "a.mp4,2\nb.mp4,10\n"),
        ("list.txt", "a.mp4 02\nb.mp4 10\n"),
        ("list.csv", "path,label\na.mp4,2.0\nb.mp4,10.0\n"),
        ("list.jsonl", '{"path": "a.mp4", "label": 2}\n{"path": "b.mp4", "label": 10}\n'),
        ("list.json", '[{"path": "a.mp4", "label": 2.0}, {"path": "b.mp4", "label": "10"}]'),
    ],
)
def test_numbers_of_a_list_are_matched_with_names_that_are_numbers(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = read_records(tmp_path / name, classes=AS_TEXT)
    assert [(record.label, record.label_name) for record in found] == [(4, "2"), (2, "10")]
    with pytest.raises(
        AnnotationError, match=r"label 2 is none of the given classes, whose names .*: '10', '11'\. Such"
    ):
        read_records(tmp_path / name, classes=["10", "11"])


def test_a_number_that_may_be_a_name_or_a_place_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("a.mp4,2\n")
    with pytest.raises(AnnotationError, match=r"label 2 may be class 0, which is called '2', or class 2, .* 'run'"):
        read_records(tmp_path / "list.csv", classes=["2", "jump", "run"])
    assert read_records(tmp_path / "list.csv", classes=["jump", "run", "2"])[0].label == 2


def test_lists_of_names_and_of_numbers_need_a_file_of_names(tmp_path):
    (tmp_path / "train.csv").write_text("a.mp4,run\nb.mp4,jump\n")
    (tmp_path / "val.jsonl").write_text('{"path": "c.mp4", "label": 0}\n')
    with pytest.raises(AnnotationError, match=r"train\.csv has class names, such as 'run', and val\.jsonl .* 0: write"):
        read_records(tmp_path)
    (tmp_path / "classes.txt").write_text("# by me\nrun\njump\n")
    assert [record.label for record in read_records(tmp_path)] == [0, 1, 0]


def test_class_names_given_may_be_of_the_numbers(tmp_path):
    touch(tmp_path, "0/a.mp4", "1/b.mp4")
    assert [record.label_name for record in read_records(tmp_path, classes=["run", "swim"], format="folder")] == [
        "run",
        "swim",
    ]


def test_links_to_folders_are_read_once(tmp_path):
    """Inside a class as at its place; what they lead back to is not read again."""
    touch(tmp_path, "videos/run/a.mp4", "videos/swim/b.mp4", "disk/more/c.mp4", "disk/more/deep/d.mp4", "disk/x.mp4")
    run = tmp_path / "videos" / "run"
    for name, to in {
        "linked": tmp_path / "disk" / "more",
        "twice": tmp_path / "disk" / "more",
        "self": run,
        "up": tmp_path / "videos",
        "above": tmp_path,
        "broken": tmp_path / "gone",
        ".hidden": tmp_path / "disk",
    }.items():
        (run / name).symlink_to(to)
    (tmp_path / "disk" / "more" / "back").symlink_to(run)
    (tmp_path / "videos" / "walk").symlink_to(tmp_path / "disk")
    assert [row.path for row in folder_rows(tmp_path / "videos")] == [
        "run/a.mp4",
        "run/linked/c.mp4",
        "run/linked/deep/d.mp4",
        "swim/b.mp4",
        "walk/more/back/a.mp4",
        "walk/more/c.mp4",
        "walk/more/deep/d.mp4",
        "walk/x.mp4",
    ]
    with pytest.raises(AnnotationError, match=r"'walk/more/back/a\.mp4' has the label 'walk' here and 'run' in run/a"):
        read_records(tmp_path / "videos", format="folder")


def test_a_folder_is_read_at_its_own_place_and_not_by_a_link(tmp_path):
    touch(tmp_path, "run/zoo/a.mp4", "swim/b.mp4")
    (tmp_path / "run" / "ape").symlink_to(tmp_path / "run" / "zoo")
    assert [record.id for record in read_records(tmp_path, format="folder")] == ["run/zoo/a.mp4", "swim/b.mp4"]


def test_class_folders_without_a_video_are_named(tmp_path, caplog):
    touch(tmp_path, "run/a.mp4", "jump/b.mp4", "swim/a.lrv", "swim/b.lrv")
    (tmp_path / "bare").mkdir()
    with caplog.at_level(logging.WARNING):
        assert {record.label_name for record in read_records(tmp_path, format="folder")} == {"run", "jump"}
    [message] = caplog.messages
    told = "no video is in the class folders bare, swim; not read: 2 files with the suffix .lrv (2); files are read"
    assert f"{tmp_path}: {told}" in message
    caplog.clear()
    (tmp_path / "swim" / "a.lrv").rename(tmp_path / "swim" / "a.mp4")
    (tmp_path / "swim" / "b.lrv").rename(tmp_path / "bare" / "b.mp4")
    read_records(tmp_path, format="folder")
    assert not caplog.messages


def test_what_may_be_meant_as_a_video_is_read_or_counted(tmp_path, caplog):
    suffixes = ("mp4", "m2v", "MXF", "3g2", "divx", "qt", "f4v")
    touch(tmp_path, *(f"run/a.{suffix}" for suffix in suffixes), "swim/b.mp4", "swim/notes.txt", "swim/cover.jpg")
    with caplog.at_level(logging.WARNING):
        assert len(read_records(tmp_path, format="folder")) == 8
    assert not caplog.text
    touch(
        tmp_path,
        "run/a.lrv",
        "run/b.LRV",
        "swim/deep/noise",
        "swim/.hidden.lrv",
        "swim/frames/1.jpg",
        "swim/frames/2.jpg",
    )
    with caplog.at_level(logging.WARNING):
        assert len(read_records(tmp_path, format="folder")) == 8
    assert "not read: 3 files with the suffix .lrv (2), no suffix (1) and 1 folder of images" in caplog.text


def test_every_suffix_is_of_one_kind():
    kinds = (VIDEO_SUFFIXES, IMAGE_SUFFIXES, BESIDE_VIDEOS)
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))
    assert all(suffix == f".{suffix[1:].casefold()}" for kind in kinds for suffix in kind)


def test_classes_beside_the_splits_are_named(tmp_path, caplog):
    touch(tmp_path, "train/run/a.mp4", "train/swim/b.mp4", "dev/run/c.mp4", "extra/run/d.mp4", "notes/texts/e.txt")
    (tmp_path / "dev" / "swim").mkdir()  # of a class that train has
    with caplog.at_level(logging.WARNING):
        assert [record.split for record in read_records(tmp_path, format="folder")] == ["val", "train", "train"]
    assert caplog.messages == [f"{tmp_path}: extra is not read, as the splits are dev, train"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everywhere")
def test_a_closed_folder_beside_the_splits_is_no_matter(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "val/run/b.mp4")
    (tmp_path / "lost+found").mkdir(mode=0)
    assert len(read_records(tmp_path, format="folder")) == 2


def test_a_source_of_several_classes_stays_together(tmp_path):
    """Kinetics calls the clips of one video by its id, and they may be of two classes."""
    ids = [f"abcdefghij{letter}" for letter in "ABCDEFGHIJ"]
    touch(
        tmp_path,
        *[f"{name}/{key}_00000{start}_00000{start + 1}.mp4" for name, start in (("eat", 0), ("run", 5)) for key in ids],
    )
    touch(tmp_path, *[f"eat/{number}.mp4" for number in range(20)])
    sides = {}
    for record in read_records(tmp_path, format="folder"):
        sides.setdefault(record.id.partition("/")[2][:11], set()).add(record.split)
    assert {len(side) for side in sides.values()} == {1}
    val = [record.label_name for record in read_records(tmp_path, split="val", format="folder")]
    assert (val.count("run"), val.count("eat")) == (2, 6)
