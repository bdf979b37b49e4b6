"""Dumps that ask for memory that they do not hold, or for numpy to believe what they say: refused before that."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.made_evaluations import assert_same, make_evaluation
from uniformerv2.core.limits import set_limits
from uniformerv2.evaluation.breakdown import confusion_counts
from uniformerv2.evaluation.dumps import read_dump, write_dump
from uniformerv2.evaluation.safe_pickle import read_pickle

HOSTILE = {
    "dump_fake_object.pkl": "of the type 'V8'",
    "dump_ndarray_1.5GB.pkl": "makes an array in another way than numpy",
    "fuzz_dump_252.pkl": "asks for 975336293 cells of memory",
    "dump_bomb.parquet": "above the limit dump_bytes",
}


@pytest.mark.parametrize(("name", "said"), HOSTILE.items())
def test_what_was_found_is_refused_by_its_name(shared, name, said):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=rf"{name.replace('.', '[.]')}.*{said}"):
        read_dump(shared(f"cases/hostile/{name}"))


class Call:
    """Pickles as a call of a function, and what is set afterwards."""

    def __init__(self, function, arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def dtype(code, **parts):
    state = {"version": 3, "order": "<", "subtype": None, "names": None, "fields": None, "size": -1, "align": -1}
    return Call(np.dtype, (code, False, True), (*(state | parts).values(), 0))


def array(shape, kind, data, *, start=(0,)):
    return Call(np._core.multiarray._reconstruct, (np.ndarray, start, b"b"), (1, shape, kind, False, data))


PICKLES = {
    "an object in a field": (array((1,), dtype("V8", names=("a",), fields={"a": (dtype("O8"), 0)}), b"A" * 8), "V8"),
    "parts of a plain type": (array((1,), dtype("f8", names=("a",), fields={}), b"A" * 8), "a type with parts"),
    "a dtype within a type": (array((1,), dtype("f8", subtype=(dtype("O8"), (1,))), b"A" * 8), "O8|with parts"),
    "more than its bytes": (array((10**12,), dtype("u1"), b"A" * 8), r"shape \(1000000000000,\) in 8 bytes"),
    "less than nothing": (array((-1, -8), dtype("u1"), b"A" * 8), "other parts than bytes"),
    "no size": (array((10**12,), dtype("S0", size=0), b""), "in 0 bytes"),
    "objects": (array((1,), dtype("O8"), [1]), "O8"),
    "a list of bytes": (array((1,), dtype("f4"), [0.5]), "other parts than bytes"),
    "made large": (array((1,), dtype("f4"), b"A" * 4, start=(10**9,)), "another way than numpy"),
    "called": (Call(np.ndarray, ((10**12,), "u1")), "another way than numpy"),
    "a type": (np.dtype("f4"), "a type in the place of a value"),
    "a class": (np.ndarray, "a type in the place of a value"),
    "never filled": (Call(np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b")), "without values"),
    "a scalar of 9 bytes": (Call(np._core.multiarray.scalar, (dtype("f8"), b"A" * 9)), r"shape \(1,\) in 9 bytes"),
}


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(("value", "said"), PICKLES.values(), ids=PICKLES)
def test_numpy_believes_nothing_that_a_pickle_says(tmp_path, value, said, protocol):
    path = tmp_path / "dump.pkl"
    path.write_bytes(pickle.dumps([{"pred_score": value}], protocol=protocol))
    with pytest.raises(ValueError, match=rf"dump\.pkl is .*({said})"):
        read_dump(path)


@pytest.mark.parametrize(
    "program",
    [
        b"]r" + struct.pack("<I", 2**31) + b".",  # a cell of memory with a large number
        b"]p9999999999\n.",
        b"\x8e" + struct.pack("<Q", 2**40) + b"x.",  # bytes that are not there
        b"\x8d" + struct.pack("<Q", 2**40) + b"x.",
        b"\x96" + struct.pack("<Q", 2**40) + b"x.",
        b"\x95" + struct.pack("<Q", 2**40) + b"].",
        b"\x8b" + struct.pack("<i", 2**30) + b"x.",
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b".",  # a tuple in a tuple in a tuple ...
    ],
)
def test_a_pickle_gets_no_memory_that_it_does_not_fill(tmp_path, program):
    (tmp_path / "dump.pkl").write_bytes(program)
    with pytest.raises(ValueError, match=r"dump\.pkl is (damaged or )?no pickle"):
        read_pickle(tmp_path / "dump.pkl")


ARRAYS = [
    np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(["ü", "abc"]),
    np.array([b"xy"]),
    np.arange(4, dtype=">i4"),
    np.arange(10, dtype=np.float16)[::2],
    np.array([True, False]),
    np.array(3.0),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wanted", ARRAYS, ids=lambda wanted: f"{wanted.dtype}")
def test_arrays_come_back_as_numpy_itself_reads_them(tmp_path, wanted, protocol):
    content = [wanted, {"twice": (wanted, np.float32(0.1))}]
    content.append(content)  # a list that holds itself
    (tmp_path / "arrays.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    first, second, itself = found = read_pickle(tmp_path / "arrays.pkl")
    assert itself is found
    assert second["twice"][0] is first
    assert second["twice"][1] == np.float32(0.1)
    assert first.dtype == wanted.dtype
    assert np.array_equal(first, wanted)


def laughs(start):
    """A list of lists of lists: 2^40 numbers when somebody walks through all of them."""
    for _ in range(40):
        start = [start, start]
    return start


@pytest.mark.parametrize("name", ["pred_score", "gt_label", "label", "path", "id", "view_scores", "test", "index"])
def test_what_holds_the_same_many_times_is_not_walked_through(tmp_path, name):
    entry = {"pred_score": np.array([0.5, 0.5]), "gt_label": 1, name: laughs(0.5)}
    (tmp_path / "dump.pkl").write_bytes(pickle.dumps([entry]))
    with pytest.raises(ValueError, match=r"dump\.pkl"):
        read_dump(tmp_path / "dump.pkl")


@pytest.mark.parametrize("suffix", [".pkl", ".parquet", ".csv"])
def test_the_limit_counts_what_a_dump_holds(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    evaluation = make_evaluation(num_videos=10)
    path = write_dump(tmp_path / f"dump{suffix}", evaluation)
    with set_limits(dump_bytes=1_000_000):
        assert_same(read_dump(path), evaluation, one_view=suffix != ".csv")
    with set_limits(dump_bytes=30_000), pytest.raises(ValueError, match="above the limit dump_bytes=30000"):
        read_dump(path)


def test_equal_texts_of_a_parquet_count_each_time(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"scores": [[0.5, 0.5]] * 1000, "path": ["x" * 10_000] * 1000})
    parquet.write_table(table, tmp_path / "dump.parquet")
    assert Path(tmp_path / "dump.parquet").stat().st_size < 20_000
    with set_limits(dump_bytes=10_000_000), pytest.raises(ValueError, match="above the limit dump_bytes"):
        read_dump(tmp_path / "dump.parquet")


def test_classes_have_a_limit(tmp_path):
    path = write_dump(tmp_path / "dump.pkl", make_evaluation(num_videos=1))
    with set_limits(width=6), pytest.raises(ValueError, match="scores of 7 classes is above the limit width=6"):
        read_dump(path)
    with set_limits(dump_bytes=391), pytest.raises(ValueError, match=r"7 x 7 classes \(392 bytes\) is above the limit"):
        confusion_counts(make_evaluation(num_videos=1))
