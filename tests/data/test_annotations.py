"""Readers: real annotation files whole, miniatures with the true layout elsewhere, each refusal with file and line."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import pickle
import random
import re
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from uniformerv2.core.limits import set_limits
from uniformerv2.data.annotations import (
    AnnotationError,
    VideoRecord,
    check_files,
    class_names,
    detect_format,
    read_records,
    text_lists,
)
from uniformerv2.data.labels import label_names

read_activitynet = partial(read_records, format="activitynet")
read_diving48 = partial(read_records, format="diving48")
read_folder = partial(read_records, format="folder")
read_hacs = partial(read_records, format="hacs")
read_hmdb51 = partial(read_records, format="hmdb51")
read_jester = partial(read_records, format="jester")
read_jsonl = partial(read_records, format="jsonl")
read_kinetics = partial(read_records, format="kinetics")
read_lists = partial(read_records, format="lists")
read_moments_in_time = partial(read_records, format="moments_in_time")
read_parquet = partial(read_records, format="parquet")
read_rawframes = partial(read_records, format="rawframes")
read_something_something_v1 = partial(read_records, format="something_something_v1")
read_something_something_v2 = partial(read_records, format="something_something_v2")
read_table = partial(read_records, format="table")
read_ucf101 = partial(read_records, format="ucf101")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding, newline="")
    return path


def seen(records):
    return [(record.path, record.label) for record in records]


# --- real files, read whole -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "classes"),
    [
        ("kinetics-400_val", 19_906, "kinetics400"),
        ("kinetics-400_test", 38_685, "kinetics400"),
        ("kinetics-400_train_partial", 60_000, "kinetics400"),
        ("kinetics-600_val", 30_000, "kinetics600"),
        ("kinetics-600_test", 72_924, "kinetics600"),
        ("kinetics-600_train_partial", 19_200, "kinetics600"),
        ("kinetics-700_val", 35_000, "kinetics700"),
        ("kinetics-700_test", 70_000, "kinetics700"),
        ("kinetics-700_2020_val", 34_198, "kinetics700"),
        ("kinetics-700_2020_test", 67_767, "kinetics700"),
    ],
)
def test_real_kinetics_lists(shared, name, rows, classes):
    path = shared(f"facts/kinetics/{name}.csv.gz")
    assert detect_format(path) == "kinetics"
    records = read_kinetics(path, classes=classes, root="videos")
    assert len(records) == rows
    split = next(split for split in ("train", "val", "test") if split in name)
    assert {record.split for record in records} == {split}
    assert all(re.fullmatch(r"videos/[\w-]{11}_\d{6}_\d{6}\.mp4", record.path) for record in records)
    assert {record.path[7:18] == record.id for record in records} == {True}
    if split == "test":
        assert {record.label for record in records} == {None}
    else:
        assert class_names(records) == label_names(classes)


def test_real_kinetics_list_with_underscores_names_its_classes_as_published(shared):
    records = read_kinetics(shared("facts/kinetics/kinetics-600_train_partial.csv.gz"))
    assert class_names(records) == label_names("kinetics600")


def test_real_something_something_v2(shared):
    path = shared("facts/something_something/something-something-v2-validation.json.gz")
    records = read_records(path)
    assert records == read_something_something_v2(path)
    assert len(records) == 24_777
    assert class_names(records) == label_names("something_something_v2")
    raw = json.loads(gzip.decompress(path.read_bytes()))
    numbers = json.loads(shared("facts/something_something/something-something-v2-labels.json").read_text())
    expected = [int(numbers[entry["template"].replace("[", "").replace("]", "")]) for entry in raw]
    assert [record.label for record in records] == expected
    assert [record.id for record in records] == [entry["id"] for entry in raw]
    assert records[0].extra == {"label": "spinning cube that quickly stops spinning", "placeholders": ["cube"]}
    assert {record.split for record in records} == {"val"}


def test_real_folder_of_lists_with_classes(shared):
    folder = shared("data/ucf101_6class")
    records = read_records(folder)
    assert Counter(record.split for record in records) == {"train": 529, "val": 112}
    assert class_names(records) == tuple((folder / "classes.txt").read_text().split())
    assert {record.label_name == Path(record.path).parent.name for record in records} == {True}
    assert len(check_files(records).present) == 641
    assert read_records(folder, split="val") == [record for record in records if record.split == "val"]


def test_real_folder_of_classes_never_lets_a_source_straddle(shared):
    folder = shared("data/ucf101_6class")
    records = read_folder(folder)
    assert len(records) == 641
    sides = {}
    for record in records:
        sides.setdefault((record.label, re.search(r"_g\d\d", record.path).group()), set()).add(record.split)
    assert {len(side) for side in sides.values()} == {1}
    for label in range(6):
        sources = Counter(next(iter(side)) for (number, _), side in sides.items() if number == label)
        assert sources["val"] == round(0.2 * sources.total())
    assert class_names(records) == (
        "Archery",
        "BasketballDunk",
        "HorseRace",
        "PlayingPiano",
        "PlayingViolin",
        "Surfing",
    )


# --- lists of one's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a.mp4,0\nb.mp4,2\n", [("a.mp4", 0), ("b.mp4", 2)], id="comma"),
        pytest.param("a.mp4\t0\nb.mp4\t2\n", [("a.mp4", 0), ("b.mp4", 2)], id="tab"),
        pytest.param("a.mp4;0\nb.mp4;2\n", [("a.mp4", 0), ("b.mp4", 2)], id="semicolon"),
        pytest.param("a.mp4 0\nb.mp4 2\n", [("a.mp4", 0), ("b.mp4", 2)], id="blank"),
        pytest.param("\ufeffa.mp4 0\r\n\r\nb.mp4 2\r\n", [("a.mp4", 0), ("b.mp4", 2)], id="byte-order-mark-and-crlf"),
        pytest.param("path,label\na.mp4,run\nb.mp4,eat\n", [("a.mp4", 1), ("b.mp4", 0)], id="header-and-names"),
        pytest.param("a.mp4,video\nb.mp4,file\n", [("a.mp4", 1), ("b.mp4", 0)], id="names-that-could-head-a-column"),
        pytest.param(
            "path label\na.mp4 run\n'b.mp4' eat\n".replace("'", '"'), [("a.mp4", 1), ("b.mp4", 0)], id="blank-header"
        ),
        pytest.param("Label\tVideo\nrun\ta b.mp4\n", [("a b.mp4", 0)], id="header-in-another-order"),
        pytest.param('"a, b.mp4",0\n"c ""d"".mp4",1\n', [("a, b.mp4", 0), ('c "d".mp4', 1)], id="quoted-comma"),
        pytest.param('"a b, c.mp4" 0\nd.mp4 1\n', [("a b, c.mp4", 0), ("d.mp4", 1)], id="quoted-blank"),
        pytest.param("my run, one.mp4 3\nb.MP4 1\n", [("my run, one.mp4", 3), ("b.MP4", 1)], id="bare-blanks-in-path"),
        pytest.param("a.mp4 horse race\nb.mp4 run\n", [("a.mp4", 0), ("b.mp4", 1)], id="blanks-in-name"),
        pytest.param("a.mp4 0 3\nb.mp4 2\n", [("a.mp4", (0, 3)), ("b.mp4", (2,))], id="several-numbers"),
        pytest.param("a.mp4,cat,dog\nb.mp4,dog\n", [("a.mp4", (0, 1)), ("b.mp4", (1,))], id="several-columns-ragged"),
        pytest.param(
            "path,label\na.mp4,cat;dog\nb.mp4,dog\n", [("a.mp4", (0, 1)), ("b.mp4", (1,))], id="several-in-one"
        ),
        pytest.param("a.mp4\nb c.mp4\n", [("a.mp4", None), ("b c.mp4", None)], id="paths-alone"),
        pytest.param("dir/clip one 4\ndir/clip two 5", [("dir/clip one", 4), ("dir/clip two", 5)], id="no-suffix"),
        pytest.param("a.mp4 3\nb.mp4 cat\n", [("a.mp4", 0), ("b.mp4", 1)], id="a-number-among-names-is-a-name"),
        pytest.param("a.mp4,10.0\nb.mp4,2.0\n", [("a.mp4", 10), ("b.mp4", 2)], id="numbers-as-pandas-writes-them"),
        pytest.param("a.mp4,1.0\nb.mp4,1.5\n", [("a.mp4", 0), ("b.mp4", 1)], id="versions-are-names"),
        pytest.param(
            "path, label, split\na.mp4, run, train\n b.mp4, eat, val\n",
            [("a.mp4", 1), ("b.mp4", 0)],
            id="comma-and-blank",
        ),
        pytest.param("# by me\na.mp4 10\n# a.mp4 3\n\n#\nb.mp4 2\n", [("a.mp4", 10), ("b.mp4", 2)], id="comments"),
        pytest.param("#cats\n# x, y\na.mp4,10\n#1.mp4,2\n", [("a.mp4", 10), ("#1.mp4", 2)], id="comments-and-commas"),
        pytest.param(
            "# path,label,id\na.mp4,run,1\nb.mp4,eat,2\n", [("a.mp4", 1), ("b.mp4", 0)], id="header-in-a-comment"
        ),
        pytest.param("dir/1,run\na.mp4,eat\n", [("dir/1", 1), ("a.mp4", 0)], id="a-folder-of-frames-comes-first"),
        pytest.param("clip1,run\nclip2,eat\n", [("clip1", 1), ("clip2", 0)], id="folders-and-names"),
        pytest.param("label, path\nrun, a.mp4\neat, b.mp4\n", [("a.mp4", 1), ("b.mp4", 0)], id="blank-before-the-path"),
    ],
)
def test_text_lists(tmp_path, text, expected):
    path = write(tmp_path / "list.txt", text)
    wanted = [(str(tmp_path / listed), label) for listed, label in expected]
    assert seen(read_table(path)) == wanted
    assert seen(read_records(path)) == wanted


def test_columns_of_a_header(tmp_path):
    path = write(
        tmp_path / "list.csv",
        "path,label,start,end_seconds,start_frame,end_frame,id,subset,weather\n"
        "a.mp4,run,1.5,4,,,x1,validation,rain\n"
        "a.mp4,eat,4,9.25,,,x2,train,\n"
        "b.mp4,eat,,,10,20,x3,extra,sun\n",
    )
    first, second, third = read_table(path, root="videos")
    assert first == VideoRecord(
        path="videos/a.mp4",
        label=1,
        label_name="run",
        id="x1",
        split="val",
        start_seconds=1.5,
        end_seconds=4.0,
        extra={"weather": "rain"},
    )
    assert (second.start_seconds, second.end_seconds, second.split, second.label) == (4.0, 9.25, "train", 0)
    assert (third.start_frame, third.end_frame, third.start_seconds, third.split) == (10, 20, None, "extra")


def test_frames_as_pandas_writes_them_beside_gaps(tmp_path):
    path = write(tmp_path / "list.csv", "path,label,start_frame,end_frame\na.mp4,0,5.0,20.0\nb.mp4,1,,\n")
    assert [(record.start_frame, record.end_frame) for record in read_table(path)] == [(5, 20), (None, None)]


def test_json_lines_parquet_and_json_read_the_same(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"path": "a b.mp4", "label": ["run", "eat"], "start_seconds": 1.0, "end_seconds": 2.5},
        {"path": "c.mp4", "label": ["eat"], "start_seconds": None, "end_seconds": None},
    ]
    lines = write(tmp_path / "list.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "list.parquet")
    whole = write(tmp_path / "list.json", json.dumps(rows))
    records = read_jsonl(lines)
    assert seen(records) == [(str(tmp_path / "a b.mp4"), (1, 0)), (str(tmp_path / "c.mp4"), (0,))]
    assert records[0].label_name == ("run", "eat")
    assert records[0].end_seconds == 2.5
    assert read_parquet(tmp_path / "list.parquet") == records
    assert [read_records(path) for path in (lines, whole, tmp_path / "list.parquet")] == [records] * 3


def test_numbers_that_a_table_with_gaps_made_floats(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"path": ["a.mp4", "b.mp4"], "label": [3.0, 1.0]}), tmp_path / "list.parquet")
    assert [record.label for record in read_parquet(tmp_path / "list.parquet")] == [3, 1]


def test_rawframe_lists(tmp_path):
    path = write(tmp_path / "train.txt", "a/clip_1 163 1\na/clip two 122 0\n")
    records = read_rawframes(path, root="frames")
    assert seen(records) == [("frames/a/clip_1", 1), ("frames/a/clip two", 0)]
    assert [(record.start_frame, record.end_frame) for record in records] == [(0, 163), (0, 122)]
    assert read_records(path, root="frames") == records


def test_paths_start_from_the_list_or_root_unless_they_are_absolute_or_addresses(tmp_path):
    path = write(tmp_path / "list.csv", f"a.mp4,0\n{tmp_path}/b.mp4,0\nhttps://host/c.mp4,0\n")
    absolute = [f"{tmp_path}/b.mp4", "https://host/c.mp4"]
    assert [record.path for record in read_table(path)] == [f"{tmp_path}/a.mp4", *absolute]
    assert [record.path for record in read_table(path, root="/data")] == ["/data/a.mp4", *absolute]
    assert read_table(path)[0].id == "a.mp4"


def test_classes_fix_the_numbers(tmp_path):
    train = read_table(write(tmp_path / "train.csv", "a.mp4,ant\nb.mp4,bee\nc.mp4,cat\n"))
    val = write(tmp_path / "val.csv", "d.mp4,cat\n")
    assert class_names(train) == ("ant", "bee", "cat")
    assert [record.label for record in read_table(val)] == [0]
    assert [record.label for record in read_table(val, classes=class_names(train))] == [2]
    numbers = read_table(write(tmp_path / "numbers.csv", "d.mp4,2\n"), classes=class_names(train))
    assert (numbers[0].label, numbers[0].label_name) == (2, "cat")
    folder_name = read_table(write(tmp_path / "k.csv", "d.mp4,Riding_a_bike\n"), classes="kinetics400")
    assert folder_name[0].label_name == "riding a bike"


def test_class_names_of_several_labels_of_numbers_and_of_none(tmp_path):
    several = read_table(write(tmp_path / "a.csv", "a.mp4,cat,ant\nb.mp4,bee\n"))
    assert class_names(several) == ("ant", "bee", "cat")
    assert class_names(read_table(write(tmp_path / "b.csv", "a.mp4,0,3\nb.mp4,1\n"))) == ("0", "1", "2", "3")
    assert class_names(read_table(write(tmp_path / "c.csv", "a.mp4,2\n"))) == ("0", "1", "2")
    assert class_names(read_table(write(tmp_path / "d.txt", "a.mp4\n"))) == ()


def test_years_and_dates_are_no_class_numbers(tmp_path):
    """They make no thousands of classes; where names are given, they may be the names, in any format."""
    years = read_table(write(tmp_path / "years.csv", "a.mp4,2019\nb.mp4,2020\n"))
    with pytest.raises(
        ValueError, match=r"The label 2020 is far above the 2 different labels.* 2021 classes.*--classes"
    ):
        class_names(years)
    named = ["2018", "2019", "2020"]
    assert [record.label for record in read_table(tmp_path / "years.csv", classes=named)] == [1, 2]
    lines = write(tmp_path / "years.jsonl", '{"path":"a.mp4","label":2019}\n{"path":"b.mp4","label":2018}\n')
    assert [record.label_name for record in read_jsonl(lines, classes=named)] == ["2019", "2018"]
    assert len(class_names([VideoRecord("a.mp4", label=709)])) == 710  # one video of a known space
    assert len(class_names([VideoRecord("a.mp4", label=10 * number) for number in range(380)])) == 3791


def test_split_keeps_what_is_asked_and_names_what_says_nothing(tmp_path):
    listed = write(tmp_path / "list.csv", "path,label,split\na.mp4,x,train\nb.mp4,y,valid\n")
    assert seen(read_table(listed, split="val")) == [(str(tmp_path / "b.mp4"), 1)]
    assert read_table(listed, split="validation") == read_table(listed, split="val")
    dev = write(tmp_path / "other.csv", "path,label,split\na.mp4,x,dev\nb.mp4,y,Eval\nc.mp4,y,extra\n")
    assert [record.split for record in read_table(dev)] == ["val", "val", "extra"]
    unnamed = write(tmp_path / "mine.csv", "a.mp4,x\n")
    assert [record.split for record in read_table(unnamed)] == [None]
    assert [record.split for record in read_table(unnamed, split="test")] == ["test"]
    with pytest.raises(AnnotationError, match="no video is of the split 'test'; the splits here are 'train', 'val'"):
        read_table(listed, split="test")


def test_folder_of_lists_numbers_its_classes_together(tmp_path):
    write(tmp_path / "train.csv", "a.mp4,ant\nb.mp4,cat\n")
    write(tmp_path / "val.txt", "c.mp4 cat\n")
    assert seen(read_lists(tmp_path)) == [
        (str(tmp_path / "a.mp4"), 0),
        (str(tmp_path / "b.mp4"), 1),
        (str(tmp_path / "c.mp4"), 1),
    ]
    assert [record.label for record in read_records(tmp_path, split="val")] == [1]
    (tmp_path / "val.txt").rename(tmp_path / "dev.txt")
    assert [record.split for record in read_records(tmp_path)] == ["train", "train", "val"]
    write(tmp_path / "val.txt", "\n")
    with pytest.raises(AnnotationError, match="empty") as error:
        read_records(tmp_path)
    assert error.value.file == str(tmp_path / "val.txt")
    write(tmp_path / "classes.txt", "ant\ncat\nant\n")
    with pytest.raises(AnnotationError, match=r"classes\.txt: .*'ant' occurs twice"):
        read_records(tmp_path)


# --- a folder per class -----------------------------------------------------------------------------------------------


def touch(top, *names):
    for name in names:
        write(top / name, "x")


def test_folders_named_after_splits(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "train/eat/b.MKV", "validation/run/deep/c.avi", "notes/run/x.mp4")
    touch(tmp_path, "train/run/readme.txt", "train/run/._a.mp4", "train/.cache/z.mp4")
    records = read_records(tmp_path)
    assert [(record.id, record.label_name, record.split) for record in records] == [
        ("train/eat/b.MKV", "eat", "train"),
        ("train/run/a.mp4", "run", "train"),
        ("validation/run/deep/c.avi", "run", "val"),
    ]
    assert [record.label for record in read_folder(tmp_path, split="val")] == [1]


def test_a_class_called_train_is_a_class(tmp_path):
    touch(tmp_path, "train/a.mp4", "bus/b.mp4")
    assert {record.label_name for record in read_folder(tmp_path)} == {"train", "bus"}


def test_split_by_hash_is_stable_and_gives_each_class_both_sides(tmp_path):
    names = [f"{label}/{number}.mp4" for label in ("run", "eat") for number in range(50)]
    touch(tmp_path, *names, "rare/only.mp4", "pair/a.mp4", "pair/b.mp4")
    records = read_folder(tmp_path)
    assert Counter((record.label_name, record.split) for record in records) == {
        ("eat", "train"): 40,
        ("eat", "val"): 10,
        ("run", "train"): 40,
        ("run", "val"): 10,
        ("pair", "train"): 1,
        ("pair", "val"): 1,
        ("rare", "train"): 1,
    }
    program = (
        "import sys; from uniformerv2.data.annotations import read_records\n"
        "print([record.id for record in read_records(sys.argv[1], split='val')])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([record.id for record in records if record.split == "val"])
    before = {record.id: record.split for record in records}
    touch(tmp_path, "run/another.mp4")
    after = {record.id: record.split for record in read_folder(tmp_path)}
    assert sum(after[name] != split for name, split in before.items()) <= 1
    assert {record.split for record in read_folder(tmp_path, val_fraction=0)} == {"train"}


def test_own_group_pattern(tmp_path):
    touch(tmp_path, *[f"run/cam{camera}-{take}.mp4" for camera in range(6) for take in range(4)])
    sides = {}
    for record in read_folder(tmp_path, group_pattern=r"^cam\d+", val_fraction=0.5):
        sides.setdefault(Path(record.path).name[:4], set()).add(record.split)
    assert Counter(next(iter(side)) for side in sides.values() if len(side) == 1) == {"train": 3, "val": 3}


def test_kinetics_clips_of_one_id_stay_together(tmp_path):
    touch(
        tmp_path, *[f"run/{'abcdefghij'}{key}_{start:06d}_{start + 10:06d}.mp4" for key in "ABCD" for start in (0, 50)]
    )
    sides = {}
    for record in read_folder(tmp_path, val_fraction=0.5):
        sides.setdefault(Path(record.path).name[:11], set()).add(record.split)
    assert sorted(map(sorted, sides.values())) == [["train"], ["train"], ["val"], ["val"]]


def test_folder_refusals(tmp_path):
    with pytest.raises(AnnotationError, match="holds no videos"):
        read_folder(tmp_path)
    touch(tmp_path, "run/a.mp4", "swim/b.mp4")
    with pytest.raises(AnnotationError, match=r"'swim'.*Did you mean 'swimming'"):
        read_folder(tmp_path, classes=["run", "swimming"])
    with pytest.raises(ValueError, match=r"val_fraction is 1\.5"):
        read_folder(tmp_path, val_fraction=1.5)
    with pytest.raises(AnnotationError, match="is no folder"):
        read_folder(tmp_path / "run" / "a.mp4")


# --- benchmarks, in miniature -----------------------------------------------------------------------------------------


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """The layout that the docs page describes, with few rows; the working directory is there."""
    k = "label,youtube_id,time_start,time_end,split,is_cc\n"
    write(
        tmp_path / "kinetics/val.csv",
        k + "abseiling,0wR5jVB-WPk,417,427,val,0\nair drumming,3caPS4FHFF8,36,46,val,0\n",
    )
    write(tmp_path / "kinetics/test.csv", "youtube_id,time_start,time_end,split\n--6bJUbfpnQ,17,27,test\n")
    entry = {
        "id": "74225",
        "label": "spinning cube that quickly stops spinning",
        "template": "Spinning [something] that quickly stops spinning",
        "placeholders": ["cube"],
    }
    write(tmp_path / "ssv2/something-something-v2-validation.json", json.dumps([entry]))
    write(tmp_path / "ssv2/something-something-v2-test.json", '[{"id":"1420"},{"id":"42"}]')
    write(
        tmp_path / "ssv1/something-something-v1-train.csv",
        "100218;Something falling like a feather or paper\n24413;Closing something\n",
    )
    write(tmp_path / "ssv1/something-something-v1-test.csv", "1\n2\n")
    write(tmp_path / "jester/jester-v1-train.csv", "34870;Doing other things\n56557;Swiping Left\n")
    write(
        tmp_path / "moments/validationSet.csv",
        "clapping/flickr-1.mp4,clapping,4,0\npraying/yt-2.mp4,praying,3,1\n",
    )
    segments = [
        {"segment": [0.28, 55.15], "label": "Ironing clothes"},
        {"segment": [60, 71.5], "label": "Ironing clothes"},
        {"segment": [80, 80], "label": "Ironing clothes"},
    ]
    videos = {
        "sJbgr8bGC7A": {"duration": 92.0, "subset": "training", "annotations": segments},
        "WsfYzQaCzGk": {"duration": 70.1, "subset": "validation", "annotations": segments[1:]},
        "aaaaaaaaaaa": {"duration": 12.0, "subset": "testing", "annotations": []},
    }
    whole = {"version": "VERSION 1.3", "taxonomy": [], "database": videos}
    write(tmp_path / "activitynet/activity_net.v1-3.min.json", json.dumps(whole))
    hacs = {"Sr2BSq_8FMw": {**videos["sJbgr8bGC7A"], "url": "https://host/watch?v=Sr2BSq_8FMw"}}
    write(tmp_path / "hacs/HACS_segments_v1.1.1.json", json.dumps({"database": hacs}))
    ucf = tmp_path / "ucf101/ucfTrainTestlist"
    write(ucf / "classInd.txt", "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n")
    write(
        ucf / "trainlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 3\r\n"
    )
    write(ucf / "testlist01.txt", "ApplyLipstick/v_ApplyLipstick_g01_c01.avi\r\n")
    hmdb = tmp_path / "hmdb51/testTrainMulti_7030_splits"
    write(
        hmdb / "brush_hair_test_split1.txt",
        "".join(f"April_09_brush_hair_u_nm_np1_ba_goo_{use - 1}.avi {use} \n" for use in (1, 2))
        + "another one.avi 0 \n",
    )
    write(hmdb / "cartwheel_test_split1.txt", "Bodenturnen_cartwheel_1.avi 1 \n")
    write(hmdb / "cartwheel_test_split2.txt", "Bodenturnen_cartwheel_1.avi 2 \n")
    dive = [{"vid_name": "-mmq0PT-u8k_00155", "label": 0, "start_frame": 0, "end_frame": 48}]
    write(tmp_path / "diving48/Diving48_V2_train.json", json.dumps(dive))
    write(tmp_path / "lists/train_video.txt", "some video.mp4 1\nsome other.mp4 0\n")
    write(tmp_path / "lists/train_official.csv", "abseiling/a.mp4,0\narchery/b c.mp4,2\n")
    write(tmp_path / "lists/train_frames.txt", "clip_1 163 1\nclip_2 122 0\n")
    touch(tmp_path, "clips/some video.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_documented_examples_run(benchmarks, capsys, caplog):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 9
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), {})
    assert "1 videos are missing; 1 records are left:\n  clips/some other.mp4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "reader", "found"),
    [
        ("kinetics/val.csv", read_kinetics, "kinetics"),
        ("kinetics/test.csv", read_kinetics, "kinetics"),
        ("ssv2/something-something-v2-validation.json", read_something_something_v2, "something_something_v2"),
        ("ssv2/something-something-v2-test.json", read_something_something_v2, "something_something_v2"),
        ("ssv1/something-something-v1-train.csv", read_something_something_v1, "something_something_v1"),
        ("moments/validationSet.csv", read_moments_in_time, "moments_in_time"),
        ("activitynet/activity_net.v1-3.min.json", read_activitynet, "activitynet"),
        ("hacs/HACS_segments_v1.1.1.json", read_hacs, "activitynet"),
        ("ucf101/ucfTrainTestlist", read_ucf101, "ucf101"),
        ("hmdb51/testTrainMulti_7030_splits", read_hmdb51, "hmdb51"),
        ("diving48/Diving48_V2_train.json", read_diving48, "diving48"),
        ("lists/train_video.txt", read_table, "table"),
        ("lists/train_official.csv", read_table, "table"),
        ("lists/train_frames.txt", read_rawframes, "rawframes"),
    ],
)
def test_auto_reads_what_the_format_s_own_reader_reads(benchmarks, path, reader, found):
    assert detect_format(path) == found
    assert read_records(path) == reader(path) != []


@pytest.mark.parametrize(
    "path",
    [
        "kinetics/val.csv",
        "ssv1/something-something-v1-train.csv",
        "moments/validationSet.csv",
        "ucf101/ucfTrainTestlist/trainlist01.txt",
        "hmdb51/testTrainMulti_7030_splits",
        "lists/train_video.txt",
        "lists/train_official.csv",
        "lists/train_frames.txt",
    ],
)
def test_comments_are_in_no_format_a_row(benchmarks, path):
    """Above the first line, and between two."""
    top = Path(path).parent if path.startswith("ucf101") else Path(path)
    plain, found = read_records(top), detect_format(top)
    for file in Path(path).glob("*_split1.txt") if Path(path).is_dir() else [Path(path)]:
        first, *others = file.read_text().splitlines(keepends=True)
        write(file, "".join(["# by me, 2 of 3 lists; checked\n", first, "# these are new\n", *others]))
    assert detect_format(top) == found
    assert read_records(top) == plain


def test_a_kinetics_header_in_quotes_is_one(benchmarks):
    path = Path("kinetics/val.csv")
    plain = read_records(path)
    write(path, "".join(f'"{line.replace(",", chr(34) + "," + chr(34))}"\n' for line in path.read_text().splitlines()))
    assert path.read_text().startswith('"label","youtube_id"')
    assert detect_format(path) == "kinetics"
    assert read_records(path) == plain


def test_a_kinetics_header_with_blanks_after_commas_is_one(benchmarks):
    path = Path("kinetics/val.csv")
    plain, lines = read_records(path), path.read_text().splitlines()
    for mark in ("", '"'):
        write(path, "".join(mark + line.replace(",", f"{mark}, {mark}") + mark + "\n" for line in lines))
        assert detect_format(path) == "kinetics"
        assert read_records(path) == plain


def test_formats_that_look_like_another_are_read_by_name(benchmarks):
    records = read_records("jester/jester-v1-train.csv", format="jester")
    assert records == read_jester("jester/jester-v1-train.csv")
    assert [record.label_name for record in records] == ["Doing other things", "Swiping Left"]
    assert read_records("hacs/HACS_segments_v1.1.1.json", format="hacs")[0].end_seconds == 55.15


def test_labels_are_the_numbers_of_the_published_heads(benchmarks):
    def names(space, records):
        assert [label_names(space)[record.label] for record in records] == [record.label_name for record in records]
        return [record.label_name for record in records]

    assert names("ucf101", read_ucf101("ucf101/ucfTrainTestlist")) == ["ApplyEyeMakeup", "Archery", "ApplyLipstick"]
    assert names("moments_in_time_v1", read_moments_in_time("moments/validationSet.csv")) == ["clapping", "praying"]
    assert names("something_something_v1", read_something_something_v1("ssv1/something-something-v1-train.csv")) == [
        "Something falling like a feather or paper",
        "Closing something",
    ]
    assert names("hmdb51", read_hmdb51("hmdb51/testTrainMulti_7030_splits")) == [
        "brush_hair",
        "brush_hair",
        "cartwheel",
    ]
    assert names("diving48", read_diving48("diving48/Diving48_V2_train.json")) == [label_names("diving48")[0]]


def test_test_lists_have_no_labels(benchmarks):
    for path in ("ssv2/something-something-v2-test.json", "kinetics/test.csv"):
        assert {(record.label, record.split) for record in read_records(path)} == {(None, "test")}
    ids = read_something_something_v1("ssv1/something-something-v1-test.csv", root="frames")
    assert [(record.path, record.label, record.split) for record in ids] == [
        ("frames/1", None, "test"),
        ("frames/2", None, "test"),
    ]


def test_hmdb51_and_ucf101_folds(benchmarks):
    first = read_hmdb51("hmdb51/testTrainMulti_7030_splits", fold=1)
    assert Counter(record.split for record in first) == {"train": 2, "test": 1}
    assert not any("another one" in record.path for record in first)
    assert [record.split for record in read_hmdb51("hmdb51/testTrainMulti_7030_splits", fold=2)] == ["test"]
    assert Counter(record.split for record in read_ucf101("ucf101/ucfTrainTestlist")) == {"train": 2, "test": 1}
    assert len(read_ucf101("ucf101/ucfTrainTestlist/testlist01.txt")) == 1
    with pytest.raises(AnnotationError, match=r"trainlist03\.txt is not there"):
        read_ucf101("ucf101/ucfTrainTestlist", fold=3)
    with pytest.raises(AnnotationError, match=r"no file \*_test_split3\.txt"):
        read_hmdb51("hmdb51/testTrainMulti_7030_splits", fold=3)


def test_activitynet_counts_the_segments_it_leaves_out(benchmarks, caplog):
    with caplog.at_level(logging.WARNING):
        records = read_activitynet("activitynet/activity_net.v1-3.min.json")
    assert [record.split for record in records] == ["train", "train", "val", "test"]
    assert records[2].label_name == "Ironing clothes"
    assert (records[2].start_seconds, records[2].end_seconds) == (None, None)
    assert records[3].label is None
    assert "1 training segments of no length were left out" in caplog.text


def test_activitynet_leaves_out_and_counts_the_videos_without_a_segment(benchmarks, caplog):
    path = Path("activitynet/activity_net.v1-3.min.json")
    whole = json.loads(path.read_text())
    before = read_activitynet(path)
    for identity, subset in (("bbbbbbbbbbb", "validation"), ("ccccccccccc", "training")):
        whole["database"][identity] = {"duration": 12.0, "subset": subset, "annotations": []}
    write(path, json.dumps(whole))
    with caplog.at_level(logging.WARNING):
        assert read_activitynet(path) == read_records(path) == before
    assert f"{path}: 2 videos without a segment were left out" in caplog.text


# --- refusals: which error, which file, which line --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("a.csv", b"", None, "empty"),
        ("a.csv", b"\n \n\n", None, "empty"),
        ("a.csv", b"path,label\n", None, "empty"),
        ("a.jsonl", b"\n", None, "empty"),
        ("a.json", b"[]", None, "list of objects"),
        ("a.csv", b"a.mp4,0\nb.mp4,\xe9t\xe9\n", 2, "0xe9 is not UTF-8.*another encoding"),
        ("a.csv", "a.mp4,0\n".encode("utf-16"), 1, "0xff is not UTF-8.*UTF-16"),
        ("a.csv", b"\0\xff\0", None, "is no text, and so no list of videos"),
        ("a.csv.gz", b"a.mp4,0\n", None, "not a whole gzip file"),
        ("a.csv.gz", gzip.compress(b"a.mp4,0\n" * 1000, mtime=0)[:-20], None, "not a whole gzip file"),
        ("a.csv", b"a.mp4,0\nb.mp4,1\na.mp4,1\n", 3, r"a\.mp4' has the label '1' here and '0' in .*a\.csv:1"),
        ("a.csv", b"a.mp4,0\nb.mp4,-1\n", 2, "label -1 is outside the classes: numbers from 0"),
        ("a.csv", b"a.mp4,0\nb.mp4,\n", 2, "has no label, though other rows have one"),
        ("a.csv", b"path,label\na.mp4,0\n,1\n", 3, "no path"),
        ("a.csv", b"path,label\na.mp4,0\nb,c.mp4,1\n", 3, "3 columns, but the header has 2; quote a path"),
        ("a.csv", b'a.mp4,0\n"b.mp4,1\nc.mp4,2\n', 2, "broken quotes"),
        ("a.csv", b"path,label,start\na.mp4,0,soon\n", 2, "start_seconds is 'soon'; a number is needed"),
        ("a.csv", b"path,label,start,end\na.mp4,0,5,5\n", 2, "from 5.0 to 5.0 seconds is empty"),
        ("a.csv", b"path,label,start\na.mp4,0,nan\n", 2, "starts at nan seconds"),
        ("a.csv", b"path,label,start_frame,end_frame\na.mp4,0,9,3\n", 2, "from frame 9 to 3 is empty"),
        ("a.csv", b"a\0b.mp4,0\n", 1, "zero byte"),
        ("a.jsonl", b'{"path":"a.mp4","label":0}\n{"path":\n', 2, "not JSON"),
        ("a.jsonl", b"[1]\n", 1, "no JSON object"),
        ("a.jsonl", b'{"path":"a.mp4","label":true}\n', 1, "True is no label"),
        ("a.jsonl", b'{"path":"a.mp4","label":[]}\n', 1, "empty list of labels"),
        ("a.jsonl", b'{"path":"a.mp4","label":{"x":1}}\n', 1, "is no label"),
        ("a.jsonl", b'{"video_url":"a.mp4"}\n', 1, "the columns are 'video_url', and one called 'path' is needed"),
        ("a.json", b'{"a":\n 1,,}', 2, "not JSON"),
        ("a.json", b'{"a": 1}', None, "no annotations"),
        ("a.json", b'[{"path":"a.mp4"},{"label":1}]', 2, "has no 'path'"),
        ("a.json", b"[" * 200_000, None, "recursion"),
        ("a.json", b'{"database":{"x":{"subset":"training","annotations":[{"label":"a"}]}}}', 1, "video 'x' is broken"),
        ("a.json", b'{"database":[]}', None, "key 'database' is needed"),
        (
            "a.csv",
            b"File Path,Label\nx/a.mp4,x\ny/b.mp4,y\n",
            1,
            "no column is called 'path'.* with 'File Path', 'Label'",
        ),
        ("a.txt", b"Clips\na.mp4\nb.mp4\n", 1, "no column is called 'path'"),
        ("a.txt", b"# by me\nMovie Class\na.m2v 0\nb.mxf 1\n", 2, "no column is called 'path'.* 'Movie', 'Class'"),
        ("a.tsv", b"Clip\tClass Id\nclip1\t0\nclip2\t1\n", 1, "no column is called 'path'.* 'Clip', 'Class Id'"),
        ("a.csv", b"label,youtube_id,time_start\nrun,aaaaaaaaaaa,1\n", 1, r"columns \['time_end'\] are missing"),
        ("a.csv", b"youtube_id,time_start,time_end\naaaaaaaaaaa,1\n", 2, "does not fit the columns"),
        ("a.txt", b"a 12 1\nb 0 1\n", 2, "from frame 0 to 0 is empty"),
        ("a.parquet", b"PAR1 nothing", None, "not a readable Parquet file"),
        ("a.mp4", b"....ftyp", None, "is a video"),
        (
            "a.jsonl",
            b'{"path":"a.mp4","label":0,"start_frame":Infinity}\n',
            1,
            "start_frame is inf; a whole number is needed",
        ),
        ("a.csv", b"path,label,start_frame\na.mp4,0,5.5\n", 2, "start_frame is '5.5'; a whole number is needed"),
        ("a.jsonl", b'{"path":"a.mp4","label":0,"end_frame":5.5}\n', 1, "end_frame is 5.5; a whole number is needed"),
        ("a.json", b'[{"path":"a.mp4","label":' + b"9" * 5000 + b"}]", None, "not an annotation file"),
    ],
)
def test_broken_lists_are_refused_with_file_and_line(tmp_path, name, content, line, message):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=message) as error:
        read_records(path)
    assert (error.value.file, error.value.line) == (str(path), line)
    assert str(error.value).startswith(str(path) if line is None else f"{path}:{line}: ")
    assert path.read_bytes() == content


@pytest.mark.parametrize(("name", "cell"), [("names", "File Path"), ("numbers", "Video Name")])
def test_shared_lists_with_an_unknown_header_are_refused(shared, name, cell):
    with pytest.raises(AnnotationError, match=f"no column is called 'path'.*'{cell}'") as error:
        read_records(shared(f"cases/unknown_header_{name}.csv"))
    assert error.value.line == 1


def test_shared_list_with_a_comment(shared):
    records = read_records(shared("cases/comment_line.txt"))
    assert [(Path(record.path).name, record.label) for record in records] == [(f"v{n}.mp4", n) for n in range(12)]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused_and_never_crash(benchmarks, seed):
    draw = random.Random(seed)
    outcomes = Counter()
    write(
        benchmarks / "own.jsonl", '{"path":"a.mp4","label":["x",3],"start":1}\n{"path":"b.mp4","label":"y","end":2}\n'
    )
    write(benchmarks / "own.tsv", 'path\tlabel\tstart_frame\n"a b.mp4"\trun;eat\t3\nb.mp4\teat\t\n')
    files = sorted(path for path in benchmarks.rglob("*") if path.suffix in {".csv", ".txt", ".json", ".jsonl", ".tsv"})
    for file in files:
        for _ in range(12):
            data = bytearray(file.read_bytes())
            for _ in range(draw.randint(1, 4)):
                place = draw.randrange(len(data))
                damage = draw.choice(["flip", "cut", "splice"])
                if damage == "flip":
                    data[place] ^= 1 << draw.randrange(8)
                elif damage == "cut":
                    del data[place + 1 :]
                else:
                    data[place:place] = draw.choice([b'"', b",", b";", b"\n", b"\0", b"[", b"-1", b"9" * 40, b" "])
            mutant = file.with_name(f"mutant-{file.name}")
            mutant.write_bytes(data)
            try:
                outcomes["read"] += bool(read_records(mutant))
            except AnnotationError as error:
                outcomes["refused"] += error.file == str(mutant)
    assert outcomes.total() == 12 * len(files)
    assert min(outcomes["read"], outcomes["refused"]) > 20


@pytest.mark.parametrize(
    ("reader", "text", "line", "message"),
    [
        (read_something_something_v1, "1;Closing something;x\n", 1, "3 cells; 'id;label' is needed"),
        (read_something_something_v1, "1;Closing nothing\n", 1, "Did you mean 'Closing something'"),
        (read_something_something_v2, '[{"id": 1}, {"template": "x"}]', 2, "has no 'id'"),
        (read_diving48, '{"a": 1}', None, "a list of entries is needed; this is a dict"),
        (read_diving48, '[{"vid_name": "a", "label": 48}]', 1, "48 is outside the classes: numbers from 0 to 47"),
        (read_moments_in_time, "clapping/a.mp4\n", 1, "is not path, class, votes"),
        (read_ucf101, "v_Archery_g08_c01.avi 3\n", 1, "is not 'Class/video.avi number'"),
        (read_rawframes, "clip_1 many\n", 1, "is not 'folder frames label'"),
        (read_kinetics, "path,label\na.mp4,0\n", 1, "no Kinetics list"),
    ],
)
def test_readers_of_one_format_refuse_another(tmp_path, reader, text, line, message):
    path = write(tmp_path / "list.txt", text)
    with pytest.raises(AnnotationError, match=message) as error:
        reader(path)
    assert (error.value.file, error.value.line) == (str(path), line)


def test_hmdb51_line_with_an_unknown_use(tmp_path):
    path = write(tmp_path / "run_test_split1.txt", "a.avi 1\nb.avi 7\n")
    with pytest.raises(AnnotationError, match=r"'b.avi 7' is not") as error:
        read_hmdb51(tmp_path)
    assert (error.value.file, error.value.line) == (str(path), 2)


def test_label_outside_the_classes_is_refused_with_a_hint(tmp_path):
    path = write(tmp_path / "list.csv", "a.mp4,run\nb.mp4,swiming\n")
    with pytest.raises(AnnotationError, match=r"is called 'swiming'.*Did you mean 'swimming'") as error:
        read_table(path, classes=["run", "swimming"])
    assert error.value.line == 2
    path = write(tmp_path / "list.csv", "a.mp4,1\nb.mp4,2\n")
    with pytest.raises(AnnotationError, match="label 2 is outside the classes: numbers from 0 to 1"):
        read_table(path, classes=["run", "swimming"])


def test_same_path_twice_with_one_label_or_in_two_segments_is_fine(tmp_path):
    twice = write(tmp_path / "twice.csv", "a.mp4,0\na.mp4,0\n")
    assert len(read_table(twice)) == 2
    segments = write(tmp_path / "segments.csv", "path,label,start,end\na.mp4,0,0,5\na.mp4,1,5,9\n")
    assert [record.label for record in read_table(segments)] == [0, 1]


def test_absent_files_and_unknown_formats(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.csv"))):
        read_records(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"No format is called 'cvs'. Allowed: auto, activitynet"):
        read_records(tmp_path, format="cvs")
    with pytest.raises(AnnotationError, match="holds no list"):
        read_lists(tmp_path)


def test_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(AnnotationError("broken", file="a.csv", line=3)))
    assert (str(error), error.file, error.line) == ("a.csv:3: broken", "a.csv", 3)


# --- missing videos, and what records cost ----------------------------------------------------------------------------


def test_missing_files_are_counted_and_listed(tmp_path):
    touch(tmp_path, "there.mp4")
    names = ["there.mp4", *(f"gone{number:02d}.mp4" for number in range(25)), "gone00.mp4"]
    records = read_table(write(tmp_path / "list.csv", "".join(f"{name},0\n" for name in names)))
    check = check_files(records, missing_list=tmp_path / "missing.txt")
    assert [record.path for record in check.present] == [str(tmp_path / "there.mp4")]
    gone = [str(tmp_path / name) for name in names[1:-1]]
    assert list(check.missing) == gone
    assert (tmp_path / "missing.txt").read_text().splitlines() == gone
    shown = str(check).splitlines()
    assert shown[0] == "25 videos are missing; 1 records are left:"
    assert shown[1:-1] == [f"  {path}" for path in gone[:10]]
    assert shown[-1] == f"  and 15 more, all in {tmp_path / 'missing.txt'}"
    assert not list(tmp_path.glob(".*"))
    few = check_files(records[:3], missing_list=tmp_path / "few.txt")
    assert (len(few.missing), few.written_to, (tmp_path / "few.txt").exists()) == (2, None, False)


def test_all_missing_is_an_error_that_shows_one_resolved_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = read_table(write(tmp_path / "list.csv", "a.mp4,0\nb.mp4,1\n"), root="wrong")
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "wrong" / "a.mp4"))):
        check_files(records)
    remote = [VideoRecord("https://host/a.mp4")]
    assert check_files(remote).present == remote


def test_records_are_small_hashable_and_travel(tmp_path):
    records = read_table(write(tmp_path / "list.csv", "a.mp4,run\nb.mp4,eat\n"))
    assert pickle.loads(pickle.dumps(records)) == records
    assert len(set(records)) == 2
    assert records[0].extra is records[1].extra
    assert not hasattr(records[0], "__dict__")
    assert sys.getsizeof(records[0]) < 160
    with pytest.raises(AttributeError):
        records[0].label = 3


def test_import_brings_no_optional_package():
    program = "import sys, uniformerv2.data.annotations, uniformerv2.data.kinetics710; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "torch", "lightning", "fsspec", "pandas"} & set(done.stdout.split())


@pytest.mark.slow
def test_a_million_records_are_cheap(tmp_path):
    rows = (
        f"class {number % 700:03d}/video_{number:07d}.mp4,class {number % 700:03d}\n" for number in range(1_200_000)
    )
    write(tmp_path / "list.csv", "path,label\n" + "".join(rows))
    program = """
import resource, time
from uniformerv2.data.annotations import read_records
start = time.monotonic()
records = read_records("list.csv")
print(len(records), time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows, seconds, gigabytes = map(float, done.stdout.split())
    assert rows == 1_200_000
    assert seconds < 60
    assert gigabytes < 2


BOMBS = {
    "list.csv.gz": gzip.compress(b"path,label\n" + b"a.mp4,1\n" * 100_000),
    "rows.csv": b"path,label\n" + b"a.mp4,1\n" * 5_000,
    "cells.csv": b"path,label\n" + b"," * 30_000,
    "labels.txt": b"a.mp4" + b" 1" * 30_000,
    "list.jsonl": b'{"path": "a.mp4", "label": [' + b"0," * 30_000 + b"0]}\n",
    "list.json.gz": gzip.compress(b"[" + b"{}," * 20_000 + b"{}]"),
    "list.json": b"[" * 20_000 + b"]" * 20_000,
}


@pytest.mark.parametrize(("name", "content"), BOMBS.items(), ids=BOMBS)
def test_a_list_that_would_fill_the_memory_is_refused_before(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with (
        set_limits(text_bytes=600_000),
        pytest.raises(AnnotationError, match=rf"{name}: .*above the limit text_bytes=600000"),
    ):
        read_records(tmp_path / name)


def test_one_long_text_of_many_rows_counts_each_time(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"path": ["x" * 10_000] * 1000, "label": [1] * 1000})
    parquet.write_table(table, tmp_path / "list.parquet")
    assert (tmp_path / "list.parquet").stat().st_size < 20_000
    with set_limits(text_bytes=1_000_000), pytest.raises(ValueError, match="letters is above the limit text_bytes"):
        read_records(tmp_path / "list.parquet")


def test_lines_end_as_python_ends_them():
    text = "a\r\nb\rc\n\nd\x0be"
    assert list(text_lists.whole_lines(text)) == list(io.StringIO(text, newline=""))
