"""The Kinetics-710 builder: the real lists against independent set arithmetic, miniatures by hand, full size."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import shlex
import shutil
import string
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from uniformerv2.cli import main
from uniformerv2.data.annotations import AnnotationError, read_records
from uniformerv2.data.kinetics710 import build_kinetics710, merged_class_names
from uniformerv2.data.labels import RENAMED, label_names

HEADER = "label,youtube_id,time_start,time_end,split\n"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "kinetics710.md"


@pytest.fixture(scope="module")
def built(shared, tmp_path_factory):
    """The documented command on the real lists: the given files, the report, the folder, what it printed."""
    folder, given, reports, printed = tmp_path_factory.mktemp("real"), {}, [], io.StringIO()
    for size in (400, 600, 700):
        given[f"k{size}"] = sorted(shared("facts/kinetics").glob(f"kinetics-{size}_*.csv.gz"))
        (folder / "lists" / f"k{size}").mkdir(parents=True)
        for file in given[f"k{size}"]:
            shutil.copy(file, folder / "lists" / f"k{size}")

    def watched(**options):
        reports.append(build_kinetics710(**options))
        return reports[-1]

    [command] = re.findall(r"```console\nuniformerv2 k710 build (.*)\n```", DOCS.read_text(encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(printed):
        patched.chdir(folder)
        patched.setattr("uniformerv2.commands.k710.build_kinetics710", watched)
        assert main(["k710", "build", *shlex.split(command)]) == 0
    [report] = reports
    return given, report, folder / "k710", printed.getvalue()


@pytest.fixture
def real(built):
    """The given files, the report, the folder."""
    return built[:3]


def real_rows(files):
    """Independent of the package: (split, id, start, end) of each row."""
    rows = []
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                split = {"validate": "val"}.get(row["split"], row["split"])
                rows.append((split, row["youtube_id"], row["time_start"], row["time_end"]))
    return rows


def test_classes_and_maps_are_the_published_ones(real, shared):
    _, _, out = real
    published = shared("facts/labels/kinetics710.txt").read_text(encoding="utf-8").splitlines()
    assert list(merged_class_names()) == published
    assert (out / "classes.txt").read_text(encoding="utf-8").splitlines() == published
    for size in (400, 600, 700):
        name = f"kinetics710_to_kinetics{size}.json"
        assert json.loads((out / name).read_text()) == json.loads(shared(f"facts/labels/{name}").read_text())


def test_counts_equal_independent_set_arithmetic(real):
    given, report, out = real
    rows = {source: real_rows(files) for source, files in given.items()}
    ids = {}
    for source, found in rows.items():
        for split in ("train", "val", "test"):
            members = {row[1] for row in found if row[0] == split}
            if members:
                ids[f"{source} {split}"] = members
    assert report.ids == {name: len(members) for name, members in ids.items()}
    names = list(ids)
    pairs = {(a, b): len(ids[a] & ids[b]) for i, a in enumerate(names) for b in names[i + 1 :]}
    assert report.shared == {pair: count for pair, count in pairs.items() if count}
    # Numbers told by the issue and counted once by hand.
    assert report.shared["k400 val", "k600 val"] == 13_569
    assert report.shared["k400 train", "k600 val"] == 132
    assert report.shared["k400 train", "k700 val"] == 65
    assert report.clips["k400 val"] == 19_906

    tested = set().union(*(members for name, members in ids.items() if not name.endswith("train")))
    expected = (ids["k400 train"] | ids["k600 train"]) - tested
    with (out / "train.csv").open(encoding="utf-8") as lines:
        written = list(csv.DictReader(lines))
    assert {row["id"] for row in written} == expected
    assert report.kept_ids == len(expected)
    assert len(written) == sum(report.kept.values()) == 77_002
    for name in ("k400 train", "k600 train"):
        assert (
            report.clips[name] == report.leaked[name] + report.repeated[name] + report.doubled[name] + report.kept[name]
        )
    with (out / "removed.csv").open(encoding="utf-8") as lines:
        assert sum(1 for _ in csv.DictReader(lines)) == 60_000 + 19_200 - 77_002


def test_labels_written_are_the_labels_read(real):
    given, _, out = real
    names = label_names("kinetics710")
    read = {}
    for file in reversed([file for source in ("k400", "k600") for file in given[source] if "train" in file.name]):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                label = row["label"].replace("_", " ")
                read[row["youtube_id"], int(row["time_start"])] = RENAMED.get(label, label)
    records = read_records(out, split="train")
    assert len(records) == 77_002
    for record in records:
        start = int(record.path.rpartition("_")[0][-6:])
        assert record.label_name == read[record.id, start] == names[record.label]


def test_report_is_written_for_people_and_programs(real):
    _, report, out = real
    assert (out / "report.txt").read_text() == str(report)
    assert re.search(r"k400 val & k600 val +13569\n", str(report))
    assert re.search(r"k400 train & k600 train +1801 \(6\)\n", str(report))
    written = json.loads((out / "report.json").read_text())
    assert written["shared"]["k400 val & k600 val"] == 13_569
    assert written["kept"] == report.kept


def small(folder, **lists):
    """A folder per set with the given ``split="rows"`` lists."""
    for name, rows in lists.items():
        source, split = name.split("_")
        (folder / source).mkdir(exist_ok=True)
        (folder / source / f"{split}.csv").write_text(HEADER + rows, encoding="utf-8")
    return {source: folder / source for source in ("k400", "k600", "k700")}


VALS = {
    "k400_val": "abseiling,val40000000,0,10,val\n",
    "k600_val": "abseiling,val60000000,0,10,validate\n",
    "k700_val": "zumba,val70000000,0,10,val\n",
}


def test_each_rule_on_rows_one_can_count(tmp_path):
    given = small(
        tmp_path,
        **VALS,
        k400_train=(
            "dying hair,aaaaaaaaaaa,5,15,train\n"  # kept
            "dying hair,aaaaaaaaaaa,25,35,train\n"  # kept: another clip of the same id in the same list
            "zumba,val70000000,0,10,train\n"  # leaks into another set's val list
        ),
        k600_train=(
            "dyeing_hair,aaaaaaaaaaa,5,15,train\n"  # repeated
            "yoga,bbbbbbbbbbb,0,10,train\n"  # kept
            "yoga,bbbbbbbbbbb,0,10,train\n"  # doubled
            "yoga,val60000000,0,10,train\n"  # leaks into its own val list
        ),
        k700_train="zumba,bbbbbbbbbbb,0,10,train\npicking apples,ccccccccccc,1,11,train\n",  # repeated, kept
    )
    report = build_kinetics710(**given, out=tmp_path / "out")
    assert report.leaked == {"k400 train": 1, "k600 train": 1, "k700 train": 0}
    assert report.repeated == {"k400 train": 0, "k600 train": 1, "k700 train": 1}
    assert report.doubled == {"k400 train": 0, "k600 train": 1, "k700 train": 0}
    assert report.kept == {"k400 train": 2, "k600 train": 1, "k700 train": 1}
    assert report.conflicts == {("k600 train", "k700 train"): 1}
    train = read_records(tmp_path / "out", root="videos", split="train")
    assert [(record.path, record.label_name) for record in train] == [
        ("videos/k400/train/aaaaaaaaaaa_000005_000015.mp4", "dyeing hair"),
        ("videos/k400/train/aaaaaaaaaaa_000025_000035.mp4", "dyeing hair"),
        ("videos/k600/train/bbbbbbbbbbb_000000_000010.mp4", "yoga"),
        ("videos/k700/train/ccccccccccc_000001_000011.mp4", "picking apples"),
    ]
    assert len(read_records(tmp_path / "out", split="val")) == report.val == 3
    assert (tmp_path / "out" / "removed.csv").read_text().splitlines()[1] == (
        "k400/train/val70000000_000000_000010.mp4,leaked"
    )
    assert not list((tmp_path / "out").glob(".*"))


def test_unknown_class_is_named_with_file_and_line_and_nothing_is_written(tmp_path):
    given = small(tmp_path, **VALS, k600_train="yoga,bbbbbbbbbbb,0,10,train\nyogaa,ccccccccccc,0,10,train\n")
    with pytest.raises(AnnotationError, match=r"train.csv:3: .*kinetics600 is called 'yogaa'.*Did you mean 'yoga'"):
        build_kinetics710(**given, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_set_without_val_list_is_refused_because_leaks_would_go_unseen(tmp_path):
    given = small(tmp_path, **VALS, k400_train="yoga,aaaaaaaaaaa,0,10,train\n")
    (given["k700"] / "val.csv").write_text(HEADER)
    with pytest.raises(ValueError, match="k700 has no val list"):
        build_kinetics710(**given, out=tmp_path / "out")


def test_other_unusable_inputs(tmp_path):
    given = small(tmp_path, **VALS)
    with pytest.raises(ValueError, match="No training list"):
        build_kinetics710(**given, out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="k400 needs its lists"):
        build_kinetics710(**{**given, "k400": tmp_path / "empty"}, out=tmp_path / "out")
    odd = tmp_path / "k400" / "more.csv"
    odd.write_text(HEADER + "yoga,aaaaaaaaaaa,0,10,holdout\n")
    with pytest.raises(AnnotationError, match=r"more.csv:2: the split is 'holdout'"):
        build_kinetics710(**given, out=tmp_path / "out")
    odd.write_text(HEADER + "yoga,aaaaaaaaaaa,zero,10,train\n")
    with pytest.raises(AnnotationError, match=r"more.csv:2: .*does not fit the columns"):
        build_kinetics710(**given, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_documented_command_runs(built):
    _, _, out, printed = built
    assert "77002 training clips" in printed
    assert "Written to k710" in printed
    assert printed.startswith((out / "report.txt").read_text())


def test_documented_code_runs(tmp_path, monkeypatch, capsys):
    """On lists of the same columns that are short."""
    (tmp_path / "lists").mkdir()
    small(tmp_path / "lists", **VALS, k400_train="abseiling,aaaaaaaaaaa,0,10,train\nzumba,val70000000,0,10,train\n")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), {})
    assert capsys.readouterr().out.strip() == (tmp_path / "k710" / "report.txt").read_text().strip()


def test_documented_table_is_the_table_in_use():
    rows = [
        line.strip("| \n").split(" | ") for line in DOCS.read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    ]
    rows = [row for row in rows if len(row) == 4 and row[0] in set(label_names("kinetics400"))]
    spaces = ("kinetics400", "kinetics600", "kinetics700")
    joined = {}
    for *names, merged in rows:
        for name, space in zip(names, spaces, strict=True):
            assert name in label_names(space)
            if name != merged:
                joined[name] = merged
    assert joined == RENAMED


@pytest.mark.slow
def test_a_million_rows_in_half_a_minute_and_two_gigabytes(tmp_path):
    draw = random.Random(0)
    letters = string.ascii_letters + string.digits + "-_"
    pool = ["".join(draw.choices(letters, k=11)) for _ in range(800_000)]
    for source, train, val in (("k400", 240_000, 20_000), ("k600", 390_000, 30_000), ("k700", 485_000, 35_000)):
        names = label_names(f"kinetics{source[1:]}")
        (tmp_path / source).mkdir()
        for split, count in (("train", train), ("val", val)):
            rows = (
                f"{names[number % len(names)]},{identity},{number % 500},{number % 500 + 10},{split}\n"
                for number, identity in enumerate(draw.sample(pool, count))
            )
            (tmp_path / source / f"{split}.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    program = """
import resource, sys, time
from uniformerv2.data.kinetics710 import build_kinetics710
start = time.monotonic()
report = build_kinetics710(k400="k400", k600="k600", k700="k700", out="out")
print(sum(report.clips.values()), time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows, seconds, gigabytes = map(float, done.stdout.split())
    assert rows == 1_200_000
    assert seconds < 30
    assert gigabytes < 2
