"""Reports, tables, figures, and the page that is made of them."""

from __future__ import annotations

import json
from dataclasses import replace

import benchmarks.performance as performance
import pytest
import torch
from PIL import Image

from uniformerv2.cli import main
from uniformerv2.lab.benchmark.machine import machine_of, versions
from uniformerv2.lab.benchmark.measures import BenchmarkReport
from uniformerv2.lab.benchmark.render import TABLES, draw, table_of


def startup_report(**changes):
    rows = [{"what": "python", "seconds": 0.02, "seconds_low": 0.01, "seconds_high": 0.03}, {"what": "x", "seconds": 1}]
    report = BenchmarkReport(
        benchmark="startup",
        rows=tuple(rows),
        settings={"repeats": 3},
        absent={"y": "why"},
        date="2026-11-27",
        machine={**machine_of(torch.device("cpu")), "load_before": 0.2},
        versions=versions(),
    )
    return replace(report, **changes)


def test_a_report_comes_back_from_its_file(tmp_path):
    report = startup_report()
    report.write(tmp_path / "new" / "report.json")
    assert BenchmarkReport.read(tmp_path / "new" / "report.json") == report
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.json"]
    assert report.machine["cores"] >= 1
    assert report.versions["torch"]


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', "{'a': 1}"])
def test_a_file_that_is_no_report_is_refused(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"report\.json is no"):
        BenchmarkReport.read(path)


def test_a_table_has_no_empty_column_and_no_other_names():
    rows = [{"videos": "original", "reader": "ours", "frames": "all", "ratio_to_first": 1.0}]
    table = table_of("decode", rows)
    assert table.header == ("videos", "frames", "reader", "time, first = 1")
    assert table.to_markdown().splitlines()[-1] == "| original | all | ours | 1.00 |"
    with pytest.raises(ValueError, match="it must be one of model, growth"):
        table_of("speed", rows)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_is_written_whole_and_says_what_it_is_made_from(tmp_path, suffix):
    path = tmp_path / f"figure.{suffix}"
    draw("startup", startup_report().rows, path, source="abc")
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]
    if suffix == "png":
        with Image.open(path) as image:
            assert image.info["Source"] == "abc"


def test_a_report_without_rows_is_refused(tmp_path):
    startup_report(rows=()).write(tmp_path / "report.json")
    with pytest.raises(ValueError, match="with rows"):
        BenchmarkReport.read(tmp_path / "report.json")


def test_every_measurement_is_a_valid_command_and_has_its_place(capsys, monkeypatch):
    monkeypatch.chdir(performance.ROOT)
    shown = [name for names in performance.BLOCKS.values() for name in names]
    assert sorted(shown) == sorted(performance.COMMANDS)
    for name, command in performance.COMMANDS.items():
        words = [{"DATA": "nowhere", "PREPARED": "nowhere"}.get(word, word) for word in command.split()]
        assert words[0] in TABLES
        assert main(["benchmark", *words, "--plot", "no.suffix"]) == 2, name  # parsed, and stopped before it measures
        assert "nowhere" in (said := capsys.readouterr().err) or "no.suffix" in said


def test_the_page_is_what_the_committed_results_say(capsys):
    assert performance.check() == 0, capsys.readouterr().err


def test_the_page_follows_the_results_and_keeps_what_is_written_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(performance, "RESULTS", tmp_path)
    monkeypatch.setattr(performance, "PAGE", tmp_path / "page.md")
    markers = [f"<!-- begin {name}: x -->\nold\n<!-- end {name} -->" for name in ("machine", *performance.BLOCKS)]
    performance.PAGE.write_text("By hand.\n" + "\nAlso by hand.\n".join(markers))
    startup_report().write(tmp_path / "startup.json")
    assert performance.check() == 1
    assert "the text" in capsys.readouterr().err
    performance.write_page()
    text = performance.PAGE.read_text()
    assert text.startswith("By hand.\n")
    assert text.count("Also by hand.") == len(performance.BLOCKS)
    assert "old" not in text
    assert "| python | 0.02000 (0.01000 to 0.03000) |" in text
    assert "Not measured: y: why." in text
    assert text.count("Not measured yet.") == len(performance.BLOCKS) - 1
    assert "--repeats 3\n" in text
    assert performance.check() == 0
    performance.PAGE.write_text(text.replace("<!-- end data -->", ""))
    with pytest.raises(ValueError, match="markers of 'data' once"):
        performance.check()


def test_a_figure_drawn_from_other_results_is_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(performance, "RESULTS", tmp_path)
    monkeypatch.setattr(performance, "IMAGES", tmp_path)
    row = {"videos": "original", "reader": "ours", "frames": "all", "ratio_to_first": 1.0, "processor_seconds": 0.1}
    report = startup_report(benchmark="decode", rows=(row,))
    report.write(tmp_path / "decode.json")
    assert performance.stale_figures() == ["decode"]
    draw("decode", report.rows, performance.image_path("decode"), source=performance.digest("decode"))
    assert performance.stale_figures() == []
    values = json.loads((tmp_path / "decode.json").read_text())
    values["rows"][0]["processor_seconds"] = 0.2
    (tmp_path / "decode.json").write_text(json.dumps(values))
    assert performance.stale_figures() == ["decode"]
