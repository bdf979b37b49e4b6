"""Rows, intervals, Markdown, CSV and the plot of an ablation, against numbers worked out otherwise."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from uniformerv2.lab.ablation_table import markdown, tabulate, write_results

RNG = np.random.default_rng(0)
SOURCES = [f"source_{number // 4}" for number in range(200)]
GOOD = [(RNG.random(200) < part).tolist() for part in (0.75, 0.8, 0.85)]
VARIANTS = {"frame_average": [[True, False] * 100] * 3, "both": GOOD, "local": []}


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in tabulate(VARIANTS, sources=SOURCES, control="frame_average")}


def test_means_and_spreads(rows):
    per_seed = np.mean(GOOD, axis=1)
    assert rows["both"].top1 == pytest.approx(per_seed.mean())
    assert rows["both"].spread == pytest.approx(per_seed.std(ddof=1))
    assert rows["both"].difference == pytest.approx(per_seed.mean() - 0.5)
    assert rows["both"].num_seeds == 3


def test_a_variant_that_is_right_once_in_each_pair_has_no_uncertainty(rows):
    control = rows["frame_average"]
    assert (control.top1, control.low, control.high, control.spread) == (0.5, 0.5, 0.5, 0.0)
    assert math.isnan(control.difference)
    both = rows["both"]
    assert both.difference_low == pytest.approx(both.low - 0.5)  # as the control does not vary


def test_intervals_hold_both_kinds_of_chance(rows):
    """Of independent videos and one seed: the binomial one; with clustered videos or differing seeds it is wider."""
    single = tabulate({"both": GOOD[:1]}, sources=[str(n) for n in range(200)], control="both")[0]
    half = 1.96 * math.sqrt(single.top1 * (1 - single.top1) / 200)
    assert single.high - single.top1 == pytest.approx(half, rel=0.15)
    assert single.top1 - single.low == pytest.approx(half, rel=0.15)
    assert math.isnan(single.spread)
    clustered = [[number // 4 % 3 > 0 for number in range(200)]]
    (torn,) = tabulate({"a": clustered}, sources=[str(n) for n in range(200)], control="a")
    (whole,) = tabulate({"a": clustered}, sources=SOURCES, control="a")
    assert whole.high - whole.low > 1.5 * (torn.high - torn.low)
    apart = [[True] * 200, [False] * 200]
    (row,) = tabulate({"a": apart}, sources=SOURCES, control="a")
    assert (row.low, row.high) == (0.0, 1.0)


def test_a_difference_on_the_same_videos_is_surer_than_on_others():
    hard = RNG.random(200) < 0.5
    better = hard | (np.arange(200) % 10 == 0)
    pair = {"a": [hard.tolist()], "b": [better.tolist()]}
    row = tabulate(pair, sources=[str(n) for n in range(200)], control="a")[1]
    assert 0 < row.difference_low < row.difference < row.difference_high
    assert row.difference_high - row.difference_low < (row.high - row.low) * 0.8


def test_the_same_hits_give_the_same_table():
    known = {name: VARIANTS[name] for name in ("frame_average", "both")}
    again = [tabulate(known, sources=SOURCES, control="both") for _ in range(2)]
    assert repr(again[0]) == repr(again[1])


def test_markdown_says_what_the_numbers_are(rows):
    lines = markdown(list(rows.values()), control="frame_average", chance=0.5).splitlines()
    assert "minus frame_average" in lines[0]
    assert lines[2].startswith("| frame_average | 3 | 50.0 % | 0.0 % | 50.0 to 50.0 |")
    assert f"| {100 * rows['both'].top1:.1f} %" in lines[3]
    assert f"| +{100 * rows['both'].difference:.1f} %" in lines[3]
    assert lines[4].startswith("| local | failed |")
    assert "Chance is 50.0 %" in lines[-1]
    assert "bootstrap over the sources" in lines[-1]


def test_files(rows, tmp_path):
    page = write_results(
        tmp_path / "new",
        list(rows.values()),
        VARIANTS,
        title="components: what?",
        about="224 samples.",
        control="frame_average",
        chance=0.5,
    )
    assert sorted(path.name for path in page.parent.iterdir()) == [
        f"results.{end}" for end in ("csv", "md", "png", "svg")
    ]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# components: what?\n\n224 samples.\n\n| variant")
    with (page.parent / "results.csv").open(newline="") as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    assert float(table["both"]["top1"]) == rows["both"].top1
    assert float(table["both"]["difference_high"]) == rows["both"].difference_high
    assert table["local"] == {**dict.fromkeys(table["local"], ""), "name": "local", "num_seeds": "0"}
    svg = (page.parent / "results.svg").read_text(encoding="utf-8")
    assert all(word in svg for word in ("frame_average", "both", "failed", "dashed: chance"))
    assert (page.parent / "results.png").read_bytes().startswith(b"\x89PNG")


def test_hits_of_other_videos_are_refused():
    with pytest.raises(ValueError, match="'both' has 200 samples, but there are 3"):
        tabulate({"both": GOOD}, sources=["a", "b", "c"], control="both")
