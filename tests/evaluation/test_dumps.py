"""Dumps of every format: read back exactly, opened without this package, and never run."""

from __future__ import annotations

import csv
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.made_evaluations import assert_same, make_evaluation
from uniformerv2.evaluation.dump_formats import FORMATS
from uniformerv2.evaluation.dumps import check_dump_path, read_dump, write_dump
from uniformerv2.evaluation.summary import summarize

KINDS = {
    "single": {"unreadable": {2, 5}, "unlabelled": {1}},
    "several": {"multi_label": True, "unreadable": {0}, "unlabelled": {1}, "no_class": {2, 3}},
    "no class at all": {"multi_label": True, "num_videos": 3, "no_class": range(3)},
    "segments": {"segments": True},
    "bad name": {"num_videos": 2},
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_dump_reads_back_to_the_last_bit(tmp_path, suffix, kind):
    evaluation = make_evaluation(**KINDS[kind], view_scores=suffix != ".csv")
    if kind == "bad name" and suffix != ".parquet":
        odd = replace(evaluation.videos[0], path=os.fsdecode(b"caf\xe9\n.mp4"))
        evaluation = replace(evaluation, videos=(odd, *evaluation.videos[1:]))
    path = write_dump(tmp_path / f"deep/dump{suffix}", evaluation)
    assert_same(read_dump(path), evaluation, one_view=suffix != ".csv")
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_scores_of_views_only_on_request(tmp_path, suffix):
    path = write_dump(tmp_path / f"dump{suffix}", make_evaluation())
    found = read_dump(path)
    assert all(video.view_scores is None for video in found.videos)
    assert all((video.one_view_scores is None) == (suffix == ".csv") for video in found.videos)


def test_a_pickle_opens_with_numpy_alone(tmp_path):
    """What MMAction2's users write, in an interpreter that finds neither this package nor torch."""
    evaluation = make_evaluation(unreadable={2}, view_scores=True)
    path = write_dump(tmp_path / "dump.pkl", evaluation)
    code = """
import pickle, sys, numpy
assert not any(name.startswith(("uniformerv2", "torch")) for name in sys.modules)
for name in ("uniformerv2", "torch"):
    sys.modules[name] = None
videos = pickle.load(open(sys.argv[1], "rb"))
right = [video["pred_score"].argmax() == video["gt_label"].item() for video in videos]
print(len(videos), sum(right), videos[2]["error"], videos[3]["test"]["num_clips"], videos[3]["view_scores"].shape)
assert videos[0]["test"] is videos[9]["test"]
"""
    site = str(Path(np.__file__).parents[1])
    bare = f"import sys; sys.path.append({site!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", bare, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    right = sum(int(video.scores.argmax()) == video.label for video in evaluation.videos)
    assert done.stdout == f'40 {right} truncated: no "end", 3 bytes 2 (6, 7)\n'


OPEN = """
lines = list(csv.DictReader(open(sys.argv[1], encoding='utf-8')))
scores = [[float(line[f'class, {number}']) for number in range(7)] for line in lines]
label = [int(line['label']) for line in lines]
"""


def test_a_csv_opens_with_numpy_alone(tmp_path):
    evaluation = make_evaluation()
    path = write_dump(tmp_path / "dump.csv", evaluation)
    site = str(Path(np.__file__).parents[1])
    code = f"import sys; sys.path.append({site!r})\nimport csv, numpy\nsys.modules['uniformerv2'] = None\n"
    code += "csv.field_size_limit(2**30)\n" + OPEN
    code += "\nprint(sum(numpy.argmax(numpy.array(scores), axis=1) == numpy.array(label)))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == sum(int(video.scores.argmax()) == video.label for video in evaluation.videos)


def test_multi_label_pickles_have_a_mark_for_each_class(tmp_path):
    evaluation = make_evaluation(multi_label=True)
    with write_dump(tmp_path / "dump.pkl", evaluation).open("rb") as file:
        entries = pickle.load(file)
    for entry, video in zip(entries, evaluation.videos, strict=True):
        assert tuple(np.flatnonzero(entry["gt_label"])) == video.label


def test_a_pickle_of_arrays_alone_is_a_dump(tmp_path):
    entries = [{"pred_score": np.array([0.2, 0.8]), "gt_label": np.array([1])}, {"pred_score": [0.6, 0.4]}]
    (tmp_path / "theirs.pkl").write_bytes(pickle.dumps(entries))
    found = read_dump(tmp_path / "theirs.pkl")
    assert [video.label for video in found.videos] == [1, None]
    assert found.class_names == ("0", "1")
    several = [{"pred_score": np.array([0.2, 0.8, 0.1]), "gt_label": np.array([0, 1, 1])}]
    (tmp_path / "several.pkl").write_bytes(pickle.dumps(several))
    found = read_dump(tmp_path / "several.pkl")
    assert found.is_multi_label
    assert found.videos[0].label == (1, 2)


def test_labels_that_nobody_knows_and_videos_of_no_class_are_told_apart(tmp_path):
    """In what other programs read, too."""
    evaluation = make_evaluation(multi_label=True, num_videos=3, unlabelled={1}, no_class={2})
    entries = pickle.loads(write_dump(tmp_path / "dump.pkl", evaluation).read_bytes())
    assert [entry["label"] for entry in entries[1:]] == [None, []]
    assert [entry["gt_label"].tolist() for entry in entries[1:]] == [[-1] * 7, [0] * 7]
    bare = [{"pred_score": entry["pred_score"], "gt_label": entry["gt_label"]} for entry in entries]
    (tmp_path / "theirs.pkl").write_bytes(pickle.dumps(bare))
    assert [video.label for video in read_dump(tmp_path / "theirs.pkl").videos[1:]] == [None, ()]
    with write_dump(tmp_path / "dump.csv", evaluation).open(newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)][1:] == ["", "none"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_videos_of_no_class_count_after_a_dump_as_before(tmp_path, suffix):
    evaluation = make_evaluation(multi_label=True, no_class=range(0, 40, 3))
    found = summarize(read_dump(write_dump(tmp_path / f"dump{suffix}", evaluation)), num_resamples=0)
    wanted = summarize(evaluation, num_resamples=0)
    assert found.num_labelled == wanted.num_labelled == 40
    assert found.all_videos["mean_ap"].value == wanted.all_videos["mean_ap"].value


class Evil:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused(tmp_path, protocol):
    trace = tmp_path / "trace"
    content = [{"pred_score": np.zeros(2), "extra": Evil(trace)}]
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(ValueError, match=r"evil\.pkl is no pickle of plain values .* posix\.mkdir"):
        read_dump(tmp_path / "evil.pkl")
    assert not trace.exists()
    array = np.array([Evil(trace)], dtype=object)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps([{"pred_score": array}], protocol=protocol))
    with pytest.raises(ValueError, match=r"evil\.pkl is no pickle of plain values .* of the type 'O8'"):
        read_dump(tmp_path / "evil.pkl")
    assert not trace.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol_are_read(tmp_path, protocol):
    entries = [{"pred_score": np.eye(3, dtype=np.float32)[2], "gt_label": np.int64(2), "name": b"x", "set": "ü"}]
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(entries, protocol=protocol))
    assert read_dump(tmp_path / "plain.pkl").videos[0].label == 2


@pytest.mark.parametrize("suffix", FORMATS)
def test_damage_is_told(tmp_path, suffix):
    path = write_dump(tmp_path / f"dump{suffix}", make_evaluation())
    whole = path.read_bytes()
    for damaged in (b"", b"\x00\x01 not a dump", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="dump" + suffix.replace(".", r"\.")):
            read_dump(path)


def test_wrong_content_is_told(tmp_path):
    path = write_dump(tmp_path / "dump.pkl", make_evaluation(num_videos=3))
    entries = pickle.loads(path.read_bytes())
    for change, said in (
        ({"label": [7]}, "has the label 7; there are 7 classes"),
        ({"pred_score": [0.5]}, "shape"),
        ({"pred_score": [float("nan")] * 7}, "no finite number"),
        ({"index": 1}, "each once"),
    ):
        path.write_bytes(pickle.dumps([entries[0] | change, *entries[1:]]))
        with pytest.raises(ValueError, match=said):
            read_dump(path)
    written = write_dump(tmp_path / "dump.csv", make_evaluation(num_videos=3)).read_text(encoding="utf-8")
    line = next(csv.reader(written.splitlines()[1:]))[-1].replace('"', '""')
    (tmp_path / "dump.csv").write_text(written.replace(line, "null"), encoding="utf-8")
    with pytest.raises(ValueError, match="does not say of which classes"):
        read_dump(tmp_path / "dump.csv")


def test_a_csv_is_for_spreadsheets(tmp_path):
    evaluation = make_evaluation(num_videos=3, unreadable={1})
    with write_dump(tmp_path / "dump.csv", evaluation).open(newline="") as file:
        rows = list(csv.DictReader(file))
    video = evaluation.videos[0]
    assert rows[0]["label_name"] == f"class, {video.label}"
    assert rows[0]["predicted_name"] == f"class, {video.scores.argmax()}"
    assert np.float32(rows[0]["class, 3"]) == video.scores[3]
    assert rows[1]["predicted_name"] == ""
    assert rows[1]["error"] == evaluation.videos[1].error


def test_what_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"A dump is called \*\.pkl, .* got 'dump\.json'"):
        check_dump_path("dump.json")
    with pytest.raises(ValueError, match="no room for the scores of each view"):
        check_dump_path("dump.csv", view_scores=True)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_dump(tmp_path / "absent.pkl")
    with pytest.raises(ValueError, match="no scores to write"):
        write_dump(tmp_path / "dump.pkl", make_evaluation(num_videos=0))


def test_a_failed_write_leaves_the_old_dump(tmp_path, monkeypatch):
    path = write_dump(tmp_path / "dump.pkl", make_evaluation(seed=1))
    before = path.read_bytes()
    monkeypatch.setattr(pickle, "dump", lambda entries, file, **_: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_dump(path, make_evaluation(seed=2))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["dump.pkl"]
