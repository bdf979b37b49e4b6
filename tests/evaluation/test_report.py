"""The report: what the page holds, that its numbers are the metrics, that text stays text; in a browser too."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from uniformerv2.evaluation.breakdown import (
    by_class,
    by_confidence,
    by_duration,
    by_num_views,
    classes_of_worst_pairs,
    confusion_counts,
    order_by_confusion,
    worst_pairs,
)
from uniformerv2.evaluation.comparison import compare
from uniformerv2.evaluation.curves import read_curves
from uniformerv2.evaluation.gallery import every_video, make_preview, top_guesses
from uniformerv2.evaluation.metrics import Rate
from uniformerv2.evaluation.report import write_comparison, write_report
from uniformerv2.evaluation.scores import Evaluation, VideoScores
from uniformerv2.evaluation.summary import differences, summarize

pytest.importorskip("matplotlib")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs headless Chromium: apt-get install chromium")
NAMES = ("Archery", "BasketballDunk", "HorseRace", "PlayingPiano", "PlayingViolin", "Surfing")
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Elements of a page with their attributes; text of each id; what is left open."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.texts.append(([id for _, id in self.open if id], self.open[-1][0] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, id=None):
        kept = [data for ids, tag, data in self.texts if tag not in {"script", "style"} and (id is None or id in ids)]
        return " ".join(" ".join(kept).split())


def make(names=NAMES, *, num_videos=60, num_clips=2, num_crops=3, unreadable=(), seed=0, info=None):
    """Scores of a network that is mostly right; views and durations are kept."""
    rng = np.random.default_rng(seed)
    num_classes, videos = len(names), []
    for index in range(num_videos):
        label = index % num_classes
        logits = rng.normal(size=num_classes) + 2.2 * np.eye(num_classes)[label]
        views = np.exp(logits + 0.6 * rng.normal(size=(num_clips * num_crops, num_classes)))
        views = (views / views.sum(axis=1, keepdims=True)).astype(np.float32)
        is_bad = index in unreadable
        videos.append(
            VideoScores(
                index=index,
                path=f"val/{index:04d}.mp4",
                id=str(index),
                label=label,
                scores=np.zeros(num_classes, np.float32) if is_bad else views.mean(axis=0),
                view_scores=None if is_bad else views,
                one_view_scores=None if is_bad else views[len(views) // 2],
                error="truncated: bytes are missing" if is_bad else "",
                duration_seconds=None if is_bad else float(2 + index % 17),
            )
        )
    return Evaluation(
        videos=tuple(videos), class_names=tuple(names), num_clips=num_clips, num_crops=num_crops, info=info or {}
    )


def bare(evaluation):
    """The same with nothing but the scores."""
    videos = [
        replace(video, view_scores=None, one_view_scores=None, duration_seconds=None) for video in evaluation.videos
    ]
    return replace(evaluation, videos=tuple(videos))


def frames(video):
    """Frames of any video but one."""
    return None if video.path.endswith("0001.mp4") else np.full((4, 60, 80, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    first, second = folder / "first.csv", folder / "second.csv"
    first.write_text(
        "epoch,learning_rate,step,train_loss,val_loss,val_top1\n"
        "0,1e-5,4,0.9,,\n0,,4,,0.8,0.5\n1,2e-5,8,0.7,,\n1,,9,,nan,0.55\n"
    )
    second.write_text("epoch,step,train_loss,val_loss,val_top1\n1,8,0.65,,\n1,9,,0.6,0.75\n2,13,,inf,\n")
    return [first, second, folder / "missing.csv"]


@pytest.fixture(scope="module")
def six(tmp_path_factory, curves):
    evaluation = make(unreadable={7}, info={"checkpoint": "demo", "model": {"dim": 384, "gate": True, "none": None}})
    folder = tmp_path_factory.mktemp("six")
    path = write_report(evaluation, folder, strips=frames, curves=curves, commands=["uniformerv2 test DATA 'a b'"])
    return evaluation, path, Page(path.read_text(encoding="utf-8"))


def test_the_page_has_its_sections_and_is_well_formed(six):
    _, path, page = six
    assert page.open == []
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == [
        "results", "training", "confusion", "gallery", "classes", "calibration", "conditions", "failures", "card",
        "reproduce",
    ]  # fmt: skip
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.all("a")]
    assert links == [f"#{section}" for section in sections]
    assert len(page.all("h1")) == 1
    labelled = {attributes["aria-labelledby"] for attributes in page.all("section")}
    assert labelled <= set(ids)
    assert "uniformerv2 test DATA 'a b'" in page.text("reproduce")
    assert "none – " in page.text("card") + " "
    assert "gate yes" in page.text("card")
    drawn = {file.name for file in (path.parent / "figures").iterdir()}
    panels = ("training_loss", "training_validation", "training_rate")
    names = (*panels, "confusion", "calibration", "views", "duration")
    assert drawn == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "figures"}


def test_every_picture_has_words(six):
    _, path, page = six
    pictures = page.all("img")
    assert pictures
    assert all(attributes["alt"] and attributes["src"].startswith("data:image/webp;base64,") for attributes in pictures)
    drawings = page.all("svg")
    assert len(drawings) == 7
    assert all(len(attributes["aria-label"]) > 20 for attributes in drawings)
    for file in (path.parent / "figures").glob("*.svg"):
        ElementTree.parse(file)
    for file in (path.parent / "figures").glob("*.png"):
        with Image.open(file) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_the_page_asks_for_nothing_from_elsewhere(six):
    _, path, page = six
    html = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:", html)
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset", "action", "data"}
    ]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    assert len(html) < 600_000


def test_the_numbers_on_the_page_are_the_metrics(six):
    evaluation, _, page = six
    summary, shown = summarize(evaluation), page.text("results")
    for group in (summary.all_videos, summary.one_view, summary.readable):
        for name in ("top1", "mean_class_accuracy", "calibration_error"):
            number = group[name]
            low, value, high = (100 * part for part in (number.low, number.value, number.high))
            assert f"{value:.1f} % ({low:.1f} % – {high:.1f} %)" in shown
        assert f"{group['loss'].value:.3f}" in shown
    assert "What could not be read (1 video) counts as wrong." in shown
    assert "1 video could not be read" in page.text()
    labels = np.array([video.label for video in evaluation.videos])
    hit = np.array([video.is_readable and video.scores.argmax() == video.label for video in evaluation.videos])
    for index, result in enumerate(by_class(evaluation)):
        assert result.top1 == Rate(int(hit[labels == index].sum()), int((labels == index).sum()))
        assert f"{NAMES[index]} 10 {100 * result.top1.value:.1f} %" in page.text("class-table")
    mean = np.mean([result.top1.value for result in by_class(evaluation)])
    assert mean == pytest.approx(summary.all_videos["mean_class_accuracy"].value)


def test_of_one_view_the_table_has_its_numbers(tmp_path):
    """There is no second column for the one view, and the first is not lost."""
    page = Page(write_report(make(num_clips=1, num_crops=1, unreadable={7}), tmp_path).read_text(encoding="utf-8"))
    summary = summarize(make(num_clips=1, num_crops=1, unreadable={7}))
    shown = page.text("results")
    assert "Measure One view One view, readable videos Top-1 accuracy" in shown
    for group in (summary.all_videos, summary.readable):
        for name in ("top1", "mean_class_accuracy", "calibration_error"):
            assert f"{100 * group[name].value:.1f} %" in shown
        assert f"Loss {summary.all_videos['loss'].value:.3f}" in shown


def test_breakdowns_add_up_to_the_headline():
    evaluation = make(unreadable={7}, num_videos=120)
    numbers = summarize(evaluation, num_resamples=0).all_videos
    bins = by_confidence(evaluation)
    assert sum(part.rate.total for part in bins) == 119
    gap = sum(part.rate.total * abs(part.rate.value - part.confidence) for part in bins if part.rate.total) / 119
    assert gap == pytest.approx(numbers["calibration_error"].value, abs=1e-6)
    views = by_num_views(evaluation)
    assert [count.num_views for count in views] == [1, 2, 3, 4, 5, 6]
    assert views[-1].mean == views[-1].lowest == views[-1].highest == pytest.approx(numbers["top1"].value)
    assert views[0].lowest < views[0].mean < views[0].highest
    groups = by_duration(evaluation)
    assert sum(group.rate.total for group in groups) == 119
    assert all(first.to_seconds <= second.from_seconds for first, second in pairwise(groups))


def test_views_of_averaged_logits_are_left_out():
    """Their probabilities alone are kept, whose mean is another one than the headline's."""
    assert len(by_num_views(make(info={"fingerprint": {"average": "softmax"}}))) == 6
    assert by_num_views(make(info={"fingerprint": {"average": "logits"}})) == []


def test_confidence_falls_into_fifteen_bins():
    scores = np.array([[1.0, 0.0], [0.95, 0.05], [0.9, 0.1], [0.4, 0.6], [0.5, 0.5]], np.float32)
    videos = tuple(
        VideoScores(index=index, path=str(index), id=str(index), label=0, scores=row)
        for index, row in enumerate(scores)
    )
    bins = by_confidence(Evaluation(videos=videos, class_names=("run", "jump")))
    found = {index: (part.rate.count, part.rate.total) for index, part in enumerate(bins) if part.rate.total}
    assert found == {7: (1, 1), 9: (0, 1), 13: (1, 1), 14: (2, 2)}  # 0.6 is the lower edge of bin 9
    assert bins[14].confidence == pytest.approx(0.975)
    assert (bins[14].low, bins[14].high) == pytest.approx((14 / 15, 1))


def test_wilson_intervals():
    assert Rate(10, 10).interval == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert Rate(0, 10).interval == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert Rate(50, 100).interval == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert Rate(0, 0).interval == (0.0, 1.0)


def test_what_was_not_kept_leaves_its_section_out(tmp_path, six):
    full = make()
    write_report(full, tmp_path)
    path = write_report(bare(replace(full, num_clips=1, num_crops=1)), tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["results", "confusion", "gallery", "classes", "calibration"]
    assert not page.all("img")
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == {"confusion", "calibration"}


def test_without_labels_there_is_nothing_to_measure(tmp_path):
    evaluation = make(num_videos=4)
    unlabelled = replace(evaluation, videos=tuple(replace(video, label=None) for video in evaluation.videos))
    page = Page(write_report(unlabelled, tmp_path).read_text(encoding="utf-8"))
    assert [attributes["id"] for attributes in page.all("section")] == ["results", "gallery"]
    assert "nothing to measure" in page.text()


def test_only_unreadable_videos_give_a_page(tmp_path):
    page = Page(write_report(make(num_videos=4, unreadable=range(4)), tmp_path).read_text(encoding="utf-8"))
    assert [attributes["id"] for attributes in page.all("section")] == ["results", "gallery", "classes", "failures"]
    assert "4 of 4 videos" in page.text("failures")


def test_the_same_scores_give_the_same_bytes(tmp_path):
    evaluation = make()
    first, second = (write_report(evaluation, tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    for file in (tmp_path / "a" / "figures").glob("*.svg"):
        assert file.read_bytes() == (tmp_path / "b" / "figures" / file.name).read_bytes()


EVIL = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    names = (EVIL, "$\\frac{$", "日本語 & <b>", "a\x00b\x1b", "x" * 300)
    evaluation = make(names, num_videos=40, unreadable={3, 4}, info={EVIL: EVIL, "nested": {EVIL: [EVIL]}})
    videos = [replace(video, path=EVIL + video.path, error=video.error and EVIL) for video in evaluation.videos]
    return write_report(
        replace(evaluation, videos=tuple(videos)),
        tmp_path_factory.mktemp("evil"),
        strips=frames,
        commands=[EVIL],
        title=EVIL,
    )


def test_names_from_outside_stay_text(evil):
    page = Page(evil.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 2
    assert all(attributes["src"].startswith("data:image/webp") for attributes in page.all("img"))
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for part in ("gallery", "failures", "card", "reproduce", "class-table"):
        assert EVIL in page.text(part)
    (data,) = [data for ids, _, data in page.texts if "confusion-data" in ids]
    assert EVIL in json.loads(data)["names"]
    for file in evil.parent.glob("figures/*.svg"):
        ElementTree.parse(file)
    assert "$\\frac{$" in (evil.parent / "figures" / "confusion.svg").read_text(encoding="utf-8")


def test_several_labels(tmp_path):
    scores = np.array([[0.9, 0.2, 0.1], [0.8, 0.7, 0.3], [0.4, 0.6, 0.2], [0.3, 0.1, 0.25]], np.float32)
    labels = [(0,), (0, 1), (0,), (1,)]
    videos = tuple(
        VideoScores(index=index, path=f"{index}.mp4", id=str(index), label=label, scores=row)
        for index, (label, row) in enumerate(zip(labels, scores, strict=True))
    )
    evaluation = Evaluation(videos=videos, class_names=("run", "jump", "swim"), is_multi_label=True)
    first, second, third = by_class(evaluation)
    assert first.average_precision == pytest.approx(1.0)
    assert second.average_precision == pytest.approx((1 + 2 / 4) / 2)  # ranks 1 and 4
    assert np.isnan(third.average_precision)
    assert sum(part.rate.total for part in by_confidence(evaluation)) == 12
    page = Page(write_report(evaluation, tmp_path).read_text(encoding="utf-8"))
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["results", "gallery", "classes", "calibration"]
    assert "Mean average precision 87.5 %" in page.text("results")
    assert "75.0 %" in page.text("class-table")
    assert "2 of 3 classes occur" in page.text("classes")
    assert "decisions" in page.text("calibration")
    assert page.text("gallery").count("✓") == 5


def test_four_hundred_classes(tmp_path):
    names = [f"class {index}" for index in range(400)]
    evaluation = make(names, num_videos=2000, num_clips=1, num_crops=1)
    start = time.process_time()
    path = write_report(evaluation, tmp_path)
    assert time.process_time() - start < 20
    page = Page(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 2_000_000
    assert (tmp_path / "figures" / "confusion_worst.png").is_file()
    rows = [attributes for attributes in page.all("tr")]
    assert len(rows) > 400 + 20
    assert "worst pairs, enlarged" in page.text("confusion")
    assert len(kinds_of(page)) == 2000


def test_confused_classes_stand_side_by_side():
    counts = 20 * np.eye(8, dtype=np.int64)
    for true, predicted, count in [(0, 5, 9), (5, 0, 4), (5, 2, 3), (3, 7, 6)]:
        counts[true, predicted] += count
        counts[true, true] -= count
    order = order_by_confusion(counts)
    assert sorted(order) == list(range(8))
    place = {index: order.index(index) for index in order}
    assert abs(place[0] - place[5]) == abs(place[5] - place[2]) == abs(place[3] - place[7]) == 1
    assert order[5:] == [1, 4, 6]
    pairs = worst_pairs(counts)
    assert [(pair.true, pair.predicted, pair.count, pair.total, pair.reverse) for pair in pairs] == [
        (0, 5, 9, 20, 4), (3, 7, 6, 20, 0), (5, 0, 4, 20, 9), (5, 2, 3, 20, 0),
    ]  # fmt: skip
    assert worst_pairs(counts, limit=1) == pairs[:1]
    assert classes_of_worst_pairs(pairs, order, limit=4) == [index for index in order if index in {0, 5, 3, 7}]
    assert order_by_confusion(np.zeros((0, 0), np.int64)) == []


def test_unreadable_and_unlabelled_videos_are_in_no_confusion():
    evaluation = make(num_videos=12, unreadable={0, 1})
    videos = (replace(evaluation.videos[2], index=2, label=None), *evaluation.videos[3:])
    assert confusion_counts(replace(evaluation, videos=(*evaluation.videos[:2], *videos))).sum() == 9


@pytest.mark.parametrize(("num_videos", "is_told"), [(16, True), (20, False)])
def test_of_few_videos_the_page_says_what_each_one_counts(tmp_path, num_videos, is_told):
    page = write_report(make(num_videos=num_videos), tmp_path).read_text(encoding="utf-8")
    assert ("These are few videos: each is 6\u00a0% of the accuracy" in page) == is_told


def test_of_few_classes_top5_is_nowhere(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,step,val_top1,val_top5,learning_rate\n0,9,0.5,1.0,1e-3\n1,19,0.75,1.0,5e-4\n")
    for names in (NAMES[:2], NAMES, [f"class {number}" for number in range(20)]):
        path = write_report(make(names, num_videos=24), tmp_path / str(len(names)), curves=[log])
        html = path.read_text(encoding="utf-8")
        assert ("top-5" in html.lower()) == ("top5" in html) == (len(names) >= 20)
        drawn = (path.parent / "figures" / "training_rate.svg").read_text(encoding="utf-8")
        assert ">epochs<" in drawn
        assert ">Highest learning rate<" in drawn


def test_long_names_stand_at_the_rows_and_numbers_at_the_columns(tmp_path):
    names = [f"Pretending to put something {word} something" for word in ("into", "onto", "behind")]
    write_report(make(names, num_videos=30), tmp_path)
    drawn = (tmp_path / "figures" / "confusion.svg").read_text(encoding="utf-8")
    assert all(f">{name}\u2002" in drawn for name in names)
    assert "rotate(-45" not in drawn
    write_report(make(num_videos=60), tmp_path)
    assert "rotate(-45" in (tmp_path / "figures" / "confusion.svg").read_text(encoding="utf-8")


def test_a_resumed_log_is_one_curve(curves):
    read = read_curves(curves)
    assert read["train_loss"] == ((1.0, 1.8), (0.9, 0.65))  # epochs of five steps
    assert read["val_loss"] == ((1.0, 2.0), (0.8, 0.6))
    assert read["val_top1"][1] == (0.5, 0.75)
    assert set(read) == {"train_loss", "val_loss", "val_top1", "learning_rate"}


def test_the_training_loss_is_the_mean_of_an_epoch_as_the_console_tells_it(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text(
        "epoch,step,train_loss,train_loss_epoch,val_loss\n0,3,9.9,,\n0,4,,1.25,\n0,4,,,0.8\n1,9,8.8,,\n1,9,,0.75,\n1,9,,,0.7\n"
    )
    html = write_report(make(), tmp_path / "report", curves=[log]).read_text(encoding="utf-8")
    assert "Loss over the epochs. Last values: train loss 0.75, val loss 0.7." in html


def test_examples_leave_out_the_folder_that_all_videos_share(tmp_path):
    evaluation = make(num_videos=12)
    for folders, shown in ((("/data/a", "/data/a"), ">0000.mp4<"), (("/data/ab", "/data/ac"), ">ab/0000.mp4<")):
        videos = [
            replace(video, path=f"{folders[index % 2]}/{index:04d}.mp4")
            for index, video in enumerate(evaluation.videos)
        ]
        html = write_report(replace(evaluation, videos=tuple(videos)), tmp_path).read_text(encoding="utf-8")
        assert shown in html
        assert f'title="{folders[0]}/0000.mp4"' in html


def kinds_of(page):
    """The kind of every video of the gallery, in order."""
    return [each["data-kind"] for each in page.all("li") if "data-kind" in each]


def test_the_gallery_has_every_video_and_those_worth_a_look_first():
    evaluation = make(num_videos=90, unreadable={5})
    unlabelled = replace(evaluation.videos[0], label=None)
    evaluation = replace(evaluation, videos=(unlabelled, *evaluation.videos[1:]))
    gallery = every_video(evaluation, None)
    kinds = [item.kind for item in gallery.items]
    assert len(kinds) == 90
    assert list(dict.fromkeys(kinds)) == ["wrong", "right", "unknown", "unreadable"]
    assert (kinds.count("unknown"), kinds.count("unreadable")) == (1, 1)
    by_path = {video.path: video for video in evaluation.videos}
    wrong, right = ([item for item in gallery.items if item.kind == kind] for kind in ("wrong", "right"))
    assert all(by_path[item.path].scores.argmax() != item.labels[0] for item in wrong)
    assert [item.confidence for item in wrong] == sorted((item.confidence for item in wrong), reverse=True)
    assert [item.confidence for item in right] == sorted(item.confidence for item in right)
    scores = np.array([0.3, 0.2, 0.15, 0.12, 0.11, 0.1, 0.02], np.float32)
    guesses = top_guesses(replace(unlabelled, label=6, scores=scores))
    assert [guess.index for guess in guesses] == [0, 1, 2, 6]
    assert [guess.is_label for guess in guesses] == [False] * 3 + [True]


def test_previews_are_small_films():
    preview = make_preview(np.zeros((20, 60, 80, 3), np.uint8))
    assert (preview.width, preview.height, preview.num_frames) == (160, 120, 12)
    with Image.open(io.BytesIO(base64.b64decode(preview.data))) as film:
        assert (film.format, film.size) == ("WEBP", (160, 12 * 120))
    assert make_preview(np.zeros((1, 10, 1000, 3), np.uint8)).width == 360
    noise = np.random.default_rng(0).integers(0, 255, (12, 120, 160, 3), np.uint8)
    assert make_preview(noise, max_bytes=10_000).num_frames < 12
    assert len(make_preview(noise, max_bytes=10_000).data) <= 4 * 10_000 / 3 + 4
    assert make_preview(noise, max_bytes=10) is None
    for wrong in (
        np.zeros((4, 60, 80), np.uint8),
        np.zeros((4, 60, 80, 3), np.float32),
        np.zeros((0, 6, 8, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match="uint8 RGB"):
            make_preview(wrong)


@pytest.mark.parametrize("num_videos", [112, 600])
def test_a_page_with_previews_has_at_most_ten_million_bytes(tmp_path, num_videos):
    """Whatever the videos show: noise cannot be made smaller."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 60, 80, 3), np.uint8)
    path = write_report(make(num_videos=num_videos), tmp_path, strips=lambda video: noise)
    assert path.stat().st_size < 10_000_000
    pictures = Page(path.read_text(encoding="utf-8")).all("img")
    assert len(pictures) == min(num_videos, 400)


def test_two_tests_stand_side_by_side(tmp_path):
    before, after = make(seed=0), make(seed=1, unreadable={7})
    page = Page(write_comparison(before, after, tmp_path, names=(EVIL, "new")).read_text(encoding="utf-8"))
    found = compare(before, after)
    assert [each["id"] for each in page.all("section")] == ["results", "gallery", "classes", "confusion"]
    assert kinds_of(page) == ["lost"] * len(found.lost) + ["gained"] * len(found.gained)
    shown = page.text("results")
    assert EVIL in shown
    low, value, high = (100 * part for part in (found.difference.low, found.difference.value, found.difference.high))
    assert f"{value:+.1f} points ({low:+.1f} points – {high:+.1f} points)" in shown
    loss = differences(before, after)["loss"]
    assert f"{loss.value:+.3f} ({loss.low:+.3f} – {loss.high:+.3f})" in shown
    assert all(change.path.rpartition("/")[2] in page.text("gallery") for change in found.lost)
    assert len(page.all("script")) == 1


def test_differences_are_of_the_same_resamples():
    """So the interval of a difference is narrower than the two intervals, and none where nothing differs."""
    same = differences(make(), make())
    assert all((each.value, each.low, each.high) == (0, 0, 0) for each in same.values())
    before, after = make(seed=0), make(seed=0, num_videos=60)
    turned = replace(after.videos[0], scores=np.roll(after.videos[0].scores, 1))
    found = differences(before, replace(after, videos=(turned, *after.videos[1:])))["mean_class_accuracy"]
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.1


def chromium(folder: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")  # fmt: skip
    logged = ("--enable-logging=stderr", "--window-size=1200,2400", f"--user-data-dir={folder / 'profile'}")
    command = [CHROMIUM, "--headless", *quiet, *logged, *options, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    shutil.rmtree(folder / "profile", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    return done


DRIVE = """<script>
const rows = () => Array.from(document.querySelectorAll("#class-table tbody tr"));
const column = (place) => rows().map((row) => row.cells[place].textContent);
const header = (place) => document.querySelectorAll("#class-table thead th")[place];
const found = {start: column(2), errors: window.errors};
header(0).querySelector("button").click();
found.names = column(0);
found.state = header(0).getAttribute("aria-sort");
found.before = header(2).getAttribute("aria-sort");
header(1).querySelector("button").focus();
found.focused = document.activeElement.textContent;
header(2).querySelector("button").click();
found.rising = column(2);
header(2).querySelector("button").click();
found.falling = column(2);
const map = document.querySelector("#confusion-figure image"), box = map.getBoundingClientRect();
const cell = {clientX: box.left + box.width / 12, clientY: box.top + box.height / 12, bubbles: true};
map.dispatchEvent(new MouseEvent("mousemove", cell));
found.readout = document.getElementById("readout").textContent;
const shown = () => Array.from(document.querySelectorAll("#gallery-videos > li")).filter((each) => !each.hidden);
map.dispatchEvent(new MouseEvent("click", cell));
found.cell = shown().map((each) => [each.dataset.t, each.dataset.p]);
found.counted = document.getElementById("gallery-count").textContent;
const form = document.getElementById("gallery-filter");
form.reset();
form.elements.kind.value = "wrong";
form.elements.low.value = "50";
form.dispatchEvent(new Event("input"));
found.sure = shown().map((each) => [each.dataset.kind, each.dataset.c]);
document.querySelector(".command button").click();
found.selected = getSelection().toString();
found.wide = document.documentElement.scrollWidth > innerWidth;
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(found);
document.body.append(result);
</script></body>"""
WATCH = '<head><script>window.errors = []; addEventListener("error", (event) => errors.push(event.message));</script>'


PRINT = """<script>
const shown = () => Array.from(document.querySelectorAll("#gallery-videos > li")).filter((each) => !each.hidden);
const counts = [shown().length];
dispatchEvent(new Event("beforeprint"));
counts.push(shown().length);
dispatchEvent(new Event("afterprint"));
counts.push(shown().length);
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(counts);
document.body.append(result);
</script></body>"""


def driven(folder, html, script=DRIVE):
    page = folder / "driven.html"
    page.write_text(html.replace("<head>", WATCH, 1).replace("</body>", script), encoding="utf-8")
    done = chromium(folder, page, "--dump-dom")
    result = Page(done.stdout).text("result")
    return json.loads(result) if result else {}, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_chromium
@pytest.mark.chromium
def test_in_a_browser_it_sorts_and_reports_no_error(tmp_path, six):
    evaluation, path, _ = six
    found, console = driven(tmp_path, path.read_text(encoding="utf-8"))
    assert found["errors"] == []
    assert console == []
    parts = [float(text.split()[0]) for text in found["start"]]
    assert parts == sorted(parts)
    assert found["names"] == sorted(NAMES)
    assert (found["state"], found["before"]) == ("ascending", None)
    assert found["focused"] == "Videos"
    assert [float(text.split()[0]) for text in found["rising"]] == sorted(parts)
    assert [float(text.split()[0]) for text in found["falling"]] == sorted(parts, reverse=True)
    counts = confusion_counts(evaluation)
    first = order_by_confusion(counts)[0]
    name = NAMES[first]
    told = f"{counts[first, first]} of {counts[first].sum()} videos of “{name}” are taken for “{name}”"
    assert found["readout"] == told
    assert found["cell"] == [[str(first), str(first)]] * counts[first, first]
    assert found["counted"] == f"{counts[first, first]} of 60 videos"
    wrong = [item for item in every_video(evaluation, None).items if item.kind == "wrong" and item.confidence >= 0.5]
    assert found["sure"] == [["wrong", f"{item.confidence:.3f}"] for item in wrong]
    assert found["selected"].strip() == "uniformerv2 test DATA 'a b'"
    assert not found["wide"]


@needs_chromium
@pytest.mark.chromium
def test_on_paper_the_gallery_has_every_video(tmp_path, six):
    html = six[1].read_text(encoding="utf-8").replace("PAGE = 60", "PAGE = 5")
    assert driven(tmp_path, html, PRINT) == ([5, 60, 5], [])


@needs_chromium
@pytest.mark.chromium
def test_the_browser_test_sees_a_broken_page(tmp_path, six):
    html = six[1].read_text(encoding="utf-8").replace('"use strict";', '"use strict"; nothing.here();')
    found, console = driven(tmp_path, html)
    assert "nothing is not defined" in " ".join([*found["errors"], *console])


@needs_chromium
@pytest.mark.chromium
def test_in_a_browser_names_run_no_script(tmp_path, evil):
    done = chromium(tmp_path, evil, "--dump-dom")
    assert "<title>&lt;/script&gt;" in done.stdout
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_chromium
@pytest.mark.chromium
def test_a_screenshot_shows_something(tmp_path, six):
    picture = tmp_path / "page.png"
    chromium(tmp_path, six[1], f"--screenshot={picture}", "--hide-scrollbars")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (2400, 1200, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
    rows = pixels.reshape(24, -1)
    assert sum(len(np.unique(row)) > 5 for row in rows) >= 20  # no large empty parts
