"""Which videos train and which validate, where sources have several classes, or the data say what nobody knows."""

from __future__ import annotations

import os
import random
import re
from dataclasses import replace

import pytest

from uniformerv2.data.annotations.held_out import held_out
from uniformerv2.data.splits import HELD_OUT_RULE, read_splits


def write_list(path, rows, header="path,label,start_seconds,end_seconds"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def paths(records):
    return {os.path.basename(record.path) for record in records}  # noqa: PTH119


def segments(path, *, videos=10):
    """Each video has a segment of either class."""
    rows = [f"v{v}.mp4,{name},{start},{start + 1}" for v in range(videos) for start, name in enumerate(("run", "swim"))]
    return write_list(path, rows)


class TestHeldOut:
    def test_segments_of_a_video_stay_together_whatever_their_classes(self, tmp_path):
        found = read_splits(segments(tmp_path / "clips.csv"))
        assert (len(found.train), len(found.val)) == (16, 4)
        assert not paths(found.train) & paths(found.val)
        assert {record.label for record in found.val} == {record.label for record in found.train} == {0, 1}

    def test_where_each_source_has_one_class_it_is_the_smallest_hashes_of_the_class(self):
        """One in five by the order of one class alone, also beside sources of several classes elsewhere."""
        names = random.Random(0).sample(range(10**6), 600)
        classes = {label: [f"{label}/{name}.mp4" for name in names[label::7]] for label in range(7)}
        classes[7], classes[8] = ["7/one.mp4"], ["8/one.mp4", "8/two.mp4"]
        alone = [held_out({label: found}, fraction=0.2) for label, found in classes.items()]
        assert [len(held) for held in alone] == [17, 17, 17, 17, 17, 17, 17, 0, 1]
        assert held_out(classes, fraction=0.2) == set().union(*alone)
        assert held_out(dict(reversed(classes.items())), fraction=0.2) == set().union(*alone)

    @pytest.mark.parametrize("seed", range(20))
    def test_no_class_loses_its_last_source(self, seed):
        """Sources of one to three classes at random: both sides have every class, and val has its fifth."""
        rng = random.Random(seed)
        of_source = {f"{number}.mp4": rng.sample(range(8), rng.randint(1, 3)) for number in range(60)}
        classes = {label: [path for path, its in of_source.items() if label in its] for label in range(8)}
        held = held_out(classes, fraction=0.2)
        for found in classes.values():
            assert 0 < len(held.intersection(found)) < len(found)
            assert len(held.intersection(found)) >= max(1, round(0.2 * len(found)))

    def test_the_only_source_of_a_class_trains(self):
        """Though its hash is the smallest, and another class could do without it."""
        first = min(
            (f"{number}.mp4" for number in range(10)),
            key=lambda path: path not in held_out({0: [path, "x.mp4"]}, fraction=0.5),
        )
        classes = {"many": [first, "x.mp4"], "rare": [first]}
        assert held_out({"many": classes["many"]}, fraction=0.5) == {first}
        assert held_out(classes, fraction=0.5) == {"x.mp4"}

    def test_a_class_that_lost_its_validation_videos_takes_whole_sources(self, tmp_path):
        found = read_splits(segments(tmp_path / "clips.csv"))
        lost = [record for record in found.val if record.label == 1]
        left = found.without(lost)
        assert {record.label for record in left.val} == {0, 1}
        assert not paths(left.train) & paths(left.val)
        assert len(left.train) + len(left.val) == 20 - len(lost)

    def test_segments_alone_may_be_left_out(self, tmp_path):
        found = read_splits(segments(tmp_path / "clips.csv"))
        left = found.without([found.train[0]])
        assert left.train == found.train[1:]
        assert left.val == found.val

    def test_segments_of_a_video_on_both_sides_are_told_where_the_split_is_ours(self, tmp_path):
        rows = [
            f"{v}.mp4,{'ab'[v % 2]},{start},{start + 1},{split}"
            for v in range(60)
            for start, split in ((0, "train"), (1, "test"))
        ]
        data = write_list(tmp_path / "clips.csv", rows, "path,label,start_seconds,end_seconds,split")
        found = read_splits(data)
        assert found.rule == HELD_OUT_RULE
        assert any("48 videos train and validate" in warning for warning in found.warnings())
        own = replace(found, rule="as the data say")
        assert not any("train and validate" in warning for warning in own.warnings())


class TestWhatTheDataSay:
    def test_dev_and_eval_validate(self, tmp_path):
        rows = [f"{v}.mp4,{'ab'[v % 2]},{('train', 'train', 'dev', 'eval')[v // 4]}" for v in range(16)]
        found = read_splits(write_list(tmp_path / "clips.csv", rows, "path,label,split"))
        assert (len(found.train), len(found.val), found.rule) == (8, 8, "as the data say")

    @pytest.mark.parametrize("labels", ["ab", ("a", "")])
    def test_a_split_that_nobody_knows_is_refused(self, tmp_path, labels):
        rows = [f"{v}.mp4,{'ab'[v % 2]},train" for v in range(8)]
        rows += [f"x{v}.mp4,{labels[v % 2]},{('extra', 'None')[v % 2]}" for v in range(4)]
        data = write_list(tmp_path / "clips.csv", rows, "path,label,split")
        with pytest.raises(
            ValueError, match=r"clips\.csv has videos of the split 'None', 'extra', which is none of train"
        ):
            read_splits(data)

    def test_the_name_of_the_list_is_said_where_it_decided(self, tmp_path):
        rows = [f"{v}.mp4,{'ab'[v % 2]}" for v in range(8)]
        data = write_list(tmp_path / "my_test.csv", rows, "path,label")
        with pytest.raises(ValueError, match=r"nothing of it is 'train'\. Its name makes 'test' of all .*: rename it"):
            read_splits(data)
        assert len(read_splits(data.rename(tmp_path / "mine.csv")).every) == 8

    def test_a_column_of_classes_that_is_called_otherwise_is_named(self, tmp_path):
        data = write_list(tmp_path / "clips.csv", ["a.mp4,run", "b.mp4,jump"], "path,Class Id")
        with pytest.raises(ValueError, match=r"2 of 2 videos have no class.* None of its columns 'Class Id' is called"):
            read_splits(data)

    def test_years_as_class_numbers(self, tmp_path):
        rows = [f"{v}.mp4,{2019 + v % 2}" for v in range(10)]
        data = write_list(tmp_path / "clips.csv", rows, "path,label")
        with pytest.raises(ValueError, match="would make 2021 classes"):
            read_splits(data)
        found = read_splits(data, classes=("2019", "2020", "2021"))
        assert found.class_names == ("2019", "2020", "2021")
        assert {record.label for record in found.train} == {0, 1}


class TestDigest:
    def test_it_is_of_names_below_the_data_classes_segments_and_splits(self, tmp_path):
        (tmp_path / "here").mkdir()
        (tmp_path / "there").mkdir()
        here, there = (read_splits(segments(tmp_path / where / "clips.csv")) for where in ("here", "there"))
        digest = here.digest(tmp_path / "here")
        assert there.digest(tmp_path / "there") == digest
        first, *others = here.train
        for other in (
            replace(first, path=first.path.replace("v", "w")),
            replace(first, label=1 - first.label),
            replace(first, start_seconds=0.5),
            replace(first, end_seconds=0.5),
            replace(first, start_frame=1),
            replace(first, end_frame=9),
        ):
            assert replace(here, train=(other, *others)).digest(tmp_path / "here") != digest
        assert replace(here, train=(*others, first)).digest(tmp_path / "here") != digest
        assert replace(here, test=(first,)).digest(tmp_path / "here") != digest
        assert replace(here, val=(), test=here.val).digest(tmp_path / "here") != digest
        assert replace(here, train=(replace(first, path="Jos\udce9.mp4"), *others)).digest(tmp_path)  # no UTF-8


class TestSources:
    """What clips were cut from: a column says it where names do not, and where nothing does, it is told."""

    def listed(self, path, *, sources):
        rows = [f"clip_{n:02}.mp4,{'ab'[n % 2]},recording_{n // 4}" for n in range(24)]
        head = "path,label,source" if sources else "path,label,weather"
        path.write_text("\n".join([head, *rows]) + "\n")
        return read_splits(path)

    def test_a_column_keeps_recordings_together(self, tmp_path):
        found = self.listed(tmp_path / "clips.csv", sources=True)
        recordings = [{record.source for record in side} for side in (found.train, found.val)]
        assert recordings[0] | recordings[1] == {f"recording_{n}" for n in range(6)}
        assert not recordings[0] & recordings[1]
        assert (len(found.train), len(found.val)) == (20, 4)
        assert not any("neighbours" in one for one in found.warnings())

    def test_neighbours_on_both_sides_are_told(self, tmp_path):
        told = [one for one in self.listed(tmp_path / "clips.csv", sources=False).warnings() if "neighbours" in one]
        assert len(told) == 1
        assert re.search(r"clip_\d\d\.mp4 trains and clip_\d\d\.mp4 validates.*column 'source'", told[0])

    def test_names_that_tell_sources_are_not_doubted(self, tmp_path):
        rows = [f"v_{'ab'[n % 2]}_g{n // 4:02}_c{n % 4:02}.mp4,{'ab'[n % 2]}" for n in range(40)]
        (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows]) + "\n")
        assert not any("neighbours" in one for one in read_splits(tmp_path / "clips.csv").warnings())
