"""Class names and the maps between label spaces, against the published lists."""

from __future__ import annotations

import json

import pytest

from uniformerv2.data.labels import (
    LABEL_SPACES,
    RENAMED,
    ClassNames,
    class_names_of,
    label_index,
    label_map,
    label_names,
)

COUNTS = {
    "activitynet": 200,
    "diving48": 48,
    "hacs": 200,
    "hmdb51": 51,
    "jester": 27,
    "kinetics400": 400,
    "kinetics400_authors_order": 400,
    "kinetics600": 600,
    "kinetics700": 700,
    "kinetics710": 710,
    "moments_in_time_v1": 339,
    "something_something_v1": 174,
    "something_something_v2": 174,
    "ucf101": 101,
}


@pytest.mark.parametrize("space", LABEL_SPACES)
def test_every_name_leads_to_its_number_and_back(space):
    names = label_names(space)
    assert len(names) == COUNTS[space]
    assert [label_index(space, name) for name in names] == list(range(len(names)))
    # Also as folder names have them: no two names of a benchmark become the same.
    assert [label_index(space, name.upper().replace(" ", "_")) for name in names] == list(range(len(names)))


@pytest.mark.parametrize("space", sorted(set(LABEL_SPACES) - {"hacs"}))
def test_names_are_the_published_ones(shared, space):
    assert list(label_names(space)) == shared(f"facts/labels/{space}.txt").read_text(encoding="utf-8").splitlines()


def test_something_something_numbers_are_those_of_its_own_label_file(shared):
    published = json.loads(shared("facts/something_something/something-something-v2-labels.json").read_text())
    assert {name: str(number) for number, name in enumerate(label_names("something_something_v2"))} == published


@pytest.mark.parametrize("smaller", [400, 600, 700])
def test_head_maps_are_the_published_ones(shared, smaller):
    published = json.loads(shared(f"facts/labels/kinetics710_to_kinetics{smaller}.json").read_text())
    assert list(label_map("kinetics710", f"kinetics{smaller}")) == published


def test_authors_order_goes_there_and_back():
    there = label_map("kinetics400_authors_order", "kinetics400")
    back = label_map("kinetics400", "kinetics400_authors_order")
    authors = label_names("kinetics400_authors_order")
    assert tuple(authors[row] for row in there) == label_names("kinetics400")
    assert [there[number] for number in back] == list(range(400))
    assert there != tuple(range(400))


def test_something_something_v1_and_v2_name_the_same_classes_in_another_order():
    rows = label_map("something_something_v1", "something_something_v2")
    assert [label_names("something_something_v1")[row] for row in rows] == list(label_names("something_something_v2"))
    assert sorted(rows) == list(range(174))
    assert rows != tuple(range(174))


def test_renamed_classes_join_names_that_no_set_has_both_of():
    for space in ("kinetics400", "kinetics600", "kinetics700"):
        names = set(label_names(space))
        assert not [old for old, new in RENAMED.items() if old in names and new in names]
    assert not set(RENAMED) & set(label_names("kinetics710"))
    assert set(RENAMED.values()) <= set(label_names("kinetics710"))


def test_a_map_to_more_classes_says_how_many_are_missing():
    with pytest.raises(ValueError, match=r"kinetics400 lacks \d+ of the 600 classes of kinetics600.*acting in play"):
        label_map("kinetics400", "kinetics600")


def test_unknown_class_names_the_nearest():
    with pytest.raises(ValueError, match=r"No class of kinetics400 is called 'tying ties'.*Did you mean 'tying tie'"):
        label_index("kinetics400", "tying ties")
    with pytest.raises(ValueError, match="It has 101 classes, such as 'ApplyEyeMakeup'"):
        label_index("ucf101", "zzzz")


def test_unknown_space_names_the_nearest():
    with pytest.raises(ValueError, match=r"'kinetics40'.*Did you mean 'kinetics400'.*Allowed: activitynet"):
        label_names("kinetics40")


def test_own_classes_are_found_loosely_only_where_that_is_not_ambiguous():
    classes = ClassNames(["Cat", "cat", "big dog"])
    assert (classes.index("Cat"), classes.index("cat"), classes.find("CAT"), classes.find("Big_Dog")) == (0, 1, None, 2)


def test_bad_class_lists_are_refused():
    with pytest.raises(ValueError, match="'cat' occurs twice"):
        class_names_of(["cat", "dog", "cat"])
    with pytest.raises(ValueError, match="no class names"):
        class_names_of([])
