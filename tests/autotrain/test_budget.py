"""``--budget``: what is given up first, and what is told where nothing fits; ``--patience`` and ``--log``."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.media import write_video
from tests.training.fake_clips import tiny_network
from uniformerv2 import save_model
from uniformerv2.autotrain import TrainOptions, prepare, train
from uniformerv2.autotrain.budget import REPORT_SECONDS, fit_budget, seconds_after
from uniformerv2.autotrain.measure import Estimate
from uniformerv2.autotrain.run import data_module
from uniformerv2.core.messages import SLOWER, UsageError, seconds_of

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]


@pytest.fixture
def planned(tmp_path):
    """A function: options -> their plan and its cost, in a world where an epoch is a minute and a test view six s."""
    from tests.training.resumed_run import plan_of
    from uniformerv2.data.splits import Splits

    splits = Splits(train=(), val=(), test=(), class_names=("a", "b"), rule="")
    plan = plan_of(tmp_path / "run", splits, epochs=10, num_workers=0)

    def planned(options):
        clips, crops = options.num_clips or 4, options.num_crops or 3
        views = options.cache_features and (options.cache_views or 4)
        epochs = options.epochs or 20
        epoch, test, cache = (1.0 if views else 60.0), 6.0 * clips * crops, 50.0 * views
        cost = Estimate(
            **{"num_parameters": 1, "num_trainable": 1, "memory_bytes": 1, "step_seconds": 1, "clip_seconds": 0.0},
            total_seconds=cache + epochs * epoch + test,
            cache_seconds=cache,
            epoch_seconds=epoch,
            test_seconds=test,
        )
        return replace(plan, epochs=epochs, num_clips=clips, num_crops=crops, cache_views=views or 0), cost

    return planned


@pytest.fixture
def exactly(monkeypatch):
    """Estimates that hold, and nothing after the test."""
    monkeypatch.setattr("uniformerv2.autotrain.budget.SLOWER", 1.0)
    monkeypatch.setattr("uniformerv2.autotrain.budget.REPORT_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("budget", "asked", "found"),
    [
        ("1h", {}, {}),
        ("21m", {}, {"num_clips": 1, "num_crops": 1}),
        ("10m", {}, {"num_clips": 1, "num_crops": 1, "epochs": 9}),
        ("5m", {}, {"preset": "scene", "freeze_backbone": True, "cache_features": True}),
        ("4m", {}, {"freeze_backbone": True, "num_clips": 1, "num_crops": 1}),
        ("3m38s", {}, {"freeze_backbone": True, "cache_views": None, "num_clips": 1, "epochs": 12}),
        ("3m32s", {}, {"freeze_backbone": True, "cache_views": 2, "epochs": None}),
        ("2m10s", {}, {"freeze_backbone": True, "cache_views": 2, "num_clips": 1}),
        ("2m10s", {"freeze_backbone": True, "cache_features": True}, {"cache_views": 2, "epochs": None}),
        ("2m10s", {"freeze_backbone": True, "cache_features": True, "cache_views": 1}, {"cache_views": 1}),
        ("1m2s", {}, {"freeze_backbone": True, "cache_views": 1, "epochs": 6}),
        ("10m", {"num_clips": 4, "num_crops": 3}, {"num_clips": 4, "num_crops": 3, "epochs": 8}),
        ("21m", {"epochs": 20}, {"epochs": 20, "num_clips": 1}),
        ("10m", {"preset": "motion"}, {"freeze_backbone": None, "epochs": 9}),
    ],
)
def test_what_is_given_up_first(planned, exactly, budget, asked, found):
    options = TrainOptions(data="v", budget=budget, probe=False, **asked)
    fitting = fit_budget(options, planned(options), planned, seconds=seconds_of(budget))
    changed, why = fitting.options, fitting.why
    assert (fitting.told, fitting.most_epochs) == (None, asked.get("epochs", 20))
    assert {name: getattr(changed, name) for name in found} == found
    assert planned(changed)[1].total_seconds <= seconds_of(budget)
    assert all(reason == f"so that all fits into {budget}" for reason in why.values())
    assert set(why) <= {"num_clips", "num_crops", "epochs", "cache_views"}
    if not found:
        assert changed == options


def test_the_probe_is_part_of_the_budget(planned, exactly):
    options = TrainOptions(data="v", budget="10m")
    changed = fit_budget(options, planned(options), planned, seconds=600).options
    assert changed.epochs == 8


def test_the_upper_end_of_the_estimate_fits_with_what_follows(planned):
    options = TrainOptions(data="v", budget="10m", probe=False)
    changed = fit_budget(options, planned(options), planned, seconds=600).options
    plan, cost = planned(changed)
    assert SLOWER * cost.total_seconds + REPORT_SECONDS <= 600
    assert changed.epochs == 7
    assert seconds_after(plan, cost, options) == SLOWER * cost.test_seconds + REPORT_SECONDS


def test_where_nothing_fits_it_says_what_that_takes(planned):
    options = TrainOptions(data="v", budget="30s", probe=False)
    fitting = fit_budget(options, planned(options), planned, seconds=25)  # 5 s have passed
    assert fitting.options.freeze_backbone
    assert fitting.told.startswith("--budget 30s is too short: the least that still trains takes up to 105 s.")


@pytest.mark.parametrize("probe", [None, False])
def test_what_it_is_said_to_take_is_enough(planned, probe):
    """The time that was named as a budget fits, a second less does not."""
    for seconds, fits in ((105, True), (104, False)) if probe is False else ((116, True), (115, False)):
        options = TrainOptions(data="v", budget=f"{seconds}s", probe=probe)
        fitting = fit_budget(options, planned(options), planned, seconds=seconds - 5)
        assert (fitting.told is None) is fits


@pytest.mark.parametrize("word", ["soon", "30", "0m", "1h 2x", "m", "-5m"])
def test_a_time_that_is_none(word):
    with pytest.raises(UsageError, match="A time is written 30m, 2h, 1h30m or 90s"):
        TrainOptions(data="v", budget=word)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    top = tmp_path_factory.mktemp("videos")
    for index in range(10):
        (top / "ab"[index % 2]).mkdir(exist_ok=True)
        write_video(top / "ab"[index % 2] / f"{index}.mp4", num_frames=4, seed=index)
    return top


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    network = str(save_model(tiny_network(), tmp_path_factory.mktemp("network") / "tiny"))
    fixed = {"num_workers": 0, "batch_size": 4, "probe": False, "preset": "scene"}
    return {"model": network, **fixed}


def test_a_budget_changes_the_plan(videos, few, tmp_path):
    """Measured, not only counted: a second is too short for fifty epochs of anything."""
    options = TrainOptions(data=str(videos), out=str(tmp_path / "run"), budget="1s", **few)
    plan = prepare(options, dry_run=True, progress=False).plan
    assert (plan.num_clips, plan.num_crops) == (1, 1)
    assert plan.epochs < 50
    assert plan.why["epochs"] == "so that all fits into 1s"


def test_patience_ends_a_training_and_resuming_does_not_continue_it(videos, few, tmp_path):
    """A network that cannot learn has the same score in each epoch."""
    options = {**few, "epochs": 6, "patience": 2, "learning_rate": 1e-12, "num_clips": 1, "num_crops": 1}
    first = train(videos, out=str(tmp_path / "run"), progress=False, **options)
    assert first.epoch == 3
    assert first.chosen == "last of 3 epochs (6 planned): none had a higher val_top1"
    again = train(videos, out=str(tmp_path / "run"), resume=True, progress=False, **options)
    assert (again.epoch, again.chosen) == (first.epoch, first.chosen)
    assert json.loads((again.model / "config.json").read_text())["metrics"]["epochs"] == 3


def test_classes_of_other_sizes_are_told_and_can_be_drawn_equally_often(videos, few, tmp_path):
    paths = sorted(videos.rglob("*.mp4"))
    rows = [f"{path},{'rare' if number in {0, 5} else 'common'}" for number, path in enumerate(paths)]
    rows = [f"{row},{'val' if number in {5, 6} else 'train'}" for number, row in enumerate(rows)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    options = {**few, "data": str(tmp_path / "clips.csv"), "out": str(tmp_path / "run"), "epochs": 1}
    told = prepare(TrainOptions(**options), dry_run=True, progress=False).plan.warnings
    assert any("common has 7 training videos and rare 1. --balanced draws" in one for one in told)
    prepared = prepare(TrainOptions(**options, balanced=True), dry_run=True, progress=False)
    assert not any("--balanced" in one for one in prepared.plan.warnings)
    weights = data_module(prepared.network, prepared.splits, prepared.plan).weights
    assert sorted(weights) == [1 / 7] * 7 + [1.0]


@pytest.mark.filterwarnings("ignore::Warning")  # of the packages, which are not ours
@pytest.mark.parametrize("name", ["none", "tensorboard", "wandb", "mlflow"])
def test_curves_go_where_they_are_wanted(videos, few, tmp_path, monkeypatch, name):
    if name in {"wandb", "mlflow"}:
        pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    options = {**few, "epochs": 1, "num_clips": 1, "num_crops": 1}
    out = train(videos, out=str(tmp_path / "run"), progress=False, log=name, **options)
    assert out.log.is_file()
    written = {path.name for path in (tmp_path / "run").iterdir()} & {"tensorboard", "wandb", "mlruns"}
    assert written == {"none": set(), "mlflow": {"mlruns"}}.get(name, {name})
    if name == "mlflow":
        assert list((tmp_path / "run" / "mlruns").rglob("val_top1"))
