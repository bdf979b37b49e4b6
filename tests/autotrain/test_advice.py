"""What ``uniformerv2 train`` advises: the cheaper way with its price before it starts, more epochs after it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from tests.evaluation.made_evaluations import make_evaluation
from tests.training.fake_clips import tiny_network
from uniformerv2.autotrain.advice import PRICE, cheaper_way, more_epochs
from uniformerv2.autotrain.measure import Estimate
from uniformerv2.autotrain.plan import TrainOptions
from uniformerv2.autotrain.session import Prepared
from uniformerv2.commands.train import _show_result, show
from uniformerv2.evaluation.curves import Falling, forecast, read_curves, still_falling
from uniformerv2.evaluation.summary import summarize

COST = Estimate(
    num_parameters=1, num_trainable=1, memory_bytes=1, step_seconds=1, total_seconds=3600, frozen_seconds=240
)


@pytest.fixture
def plan(tmp_path):
    """Of fifteen videos without a GPU."""
    from tests.training.resumed_run import plan_of
    from uniformerv2.data.splits import Splits

    splits = Splits(train=(), val=(), test=(), class_names=("a", "b"), rule="")
    return plan_of(tmp_path / "run", splits, epochs=10, num_workers=0)


def test_the_plan_names_the_cheaper_way_and_its_price(plan, capsys):
    show(
        Console(soft_wrap=True, width=1000),
        Prepared(options=TrainOptions(data="videos"), splits=None, plan=plan, network=tiny_network(), cost=COST),
    )
    told = capsys.readouterr().out
    assert "Cheaper: --freeze-backbone --cache-features takes about 3 to 6 min" in told
    assert "91.7 instead of 94.3 %" in told
    frozen = replace(plan, freeze_backbone=True)
    assert cheaper_way(frozen, COST).startswith("Cheaper: --cache-features takes about 3 to 6 min")


def test_the_price_is_bounded_by_the_probe_of_these_videos(plan):
    score = {"value": 0.925, "low": 0.89, "high": 0.96}
    probed = {"measure": "top1", "num_folds": 5, "best": "appearance", "rows": {"appearance": {"score": score}}}
    words = cheaper_way(replace(plan, probed=probed), COST)
    assert "the probe of frozen features has 92.5 % (89 to 96) of those held out right" in words
    assert words.endswith("can add 7.5 points at most.")
    assert "probe" not in cheaper_way(replace(plan, probed={**probed, "num_folds": 0}), COST)


@pytest.mark.parametrize("changes", [{"frozen_seconds": 0.0}, {"total_seconds": 100.0}, {"frozen_seconds": 2000.0}])
def test_no_advice_where_it_is_not_much_cheaper(plan, changes):
    assert cheaper_way(plan, replace(COST, **changes)) is None
    assert cheaper_way(plan, None) is None


def test_the_price_is_that_of_the_pages():
    page = (Path(__file__).parents[2] / "docs" / "fine_tune.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\d\d\.\d", PRICE)
    assert len(numbers) == 4
    assert all(f"{number} %" in page for number in numbers)


def test_a_loss_that_still_falls_gets_more_epochs_and_their_cost(plan):
    epochs = tuple(range(1, 11))
    train, val = [2.0 * 0.9**epoch for epoch in epochs], [1.0 / epoch for epoch in epochs]
    falling = still_falling({"train_loss_epoch": (epochs, train), "val_loss": (epochs, val)})
    assert falling == Falling(last=train[9], before=train[7], epoch=8)
    words = more_epochs(plan, falling, seconds_per_epoch=12.0)
    assert words.startswith(
        "The loss is still falling: 0.697 in the last epoch, 0.861 in epoch 8. --epochs 20 costs about 4"
    )
    assert "about 4.0 min" in words
    cached = replace(plan, freeze_backbone=True, cache_views=4)
    assert f"--epochs 20 with --cache-dir {plan.out}/features costs" in more_epochs(
        cached, falling, seconds_per_epoch=1.0
    )
    assert "costs" not in more_epochs(plan, falling, seconds_per_epoch=None)


def test_the_advice_stands_at_the_end_of_a_training(plan, capsys):
    log = Path(plan.out) / "logs" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    rows = [f"{epoch},{epoch},{2.0 * 0.9**epoch},{1 / (epoch + 1)}" for epoch in range(10)]
    log.write_text("\n".join(["epoch,step,train_loss_epoch,val_loss", *rows]) + "\n")
    advice = more_epochs(plan, still_falling(read_curves([log])), seconds_per_epoch=12.0)
    splits = SimpleNamespace(val=[SimpleNamespace(path="a.mp4")])
    summary = summarize(make_evaluation(num_videos=5), num_resamples=0)
    outcome = SimpleNamespace(
        chosen="epoch 10",
        val_score=0.5,
        model="model",
        log=log,
        advice=advice,
        summary=summary,
        report="page",
        contest=None,
    )
    _show_result(Console(width=1000), SimpleNamespace(plan=plan, splits=splits), outcome)
    assert "The loss is still falling: 0.775 in the last epoch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ((1.0, 0.8, 0.79, 0.785), (1.0, 0.9, 0.8, 0.7)),
        ((1.0, 0.8, 0.6, 0.4), (1.0, 0.5, 0.6, 0.7)),
        ((1.0,), (1.0,)),
        ((), ()),
    ],
    ids=["flat", "overfits", "one epoch", "no log"],
)
def test_no_advice_where_more_promise_nothing(plan, train, val):
    epochs = tuple(float(epoch) for epoch in range(1, len(train) + 1))
    falling = still_falling({"train_loss_epoch": (epochs, train), "val_loss": (epochs, val)})
    assert falling is None
    assert more_epochs(plan, falling, seconds_per_epoch=1.0) is None


class TestForecast:
    """Where a validation loss leads, with an error that holds."""

    def test_a_curve_is_continued(self):
        losses = [0.3 + 1.2 * epoch**-0.8 for epoch in range(1, 9)]
        found = forecast(losses, 16)
        assert found.value == pytest.approx(0.3 + 1.2 * 16**-0.8, abs=0.01)
        assert found.high - found.low < 0.05

    @pytest.mark.parametrize(
        "losses",
        [
            [1.0, 0.5, 0.4, 0.3],
            [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
            [1.0, 0.2, 0.9, 0.3, 0.8, 0.4],
            [1.0, 0.5, float("nan"), 0.4, 0.3, 0.2],
            [0.5] * 8,
        ],
        ids=["too few", "rises", "jumps", "no number", "stands"],
    )
    def test_no_forecast_where_there_is_no_curve(self, losses):
        assert forecast(losses, 20) is None

    def test_noise_is_in_the_interval(self):
        """In nine of ten runs or more that go on as they began."""
        rng, inside, told = np.random.default_rng(0), 0, 0
        for _ in range(200):
            floor, exponent = rng.uniform(0.1, 0.5), rng.uniform(0.6, 2.0)
            noisy = [floor + epoch**-exponent + rng.normal(scale=0.02) for epoch in range(1, 21)]
            if found := forecast(noisy[:10], 20):
                told += 1
                inside += found.low <= noisy[-1] <= found.high
        assert told > 150
        assert inside >= 0.9 * told

    def test_the_advice_says_what_more_epochs_bring(self, plan):
        falling = Falling(last=0.7, before=0.9, epoch=8)
        losses = [0.3 + 1.2 * epoch**-0.8 for epoch in range(1, 11)]
        words = more_epochs(plan, falling, seconds_per_epoch=1.0, val_losses=losses)
        assert re.search(r"the validation loss, now 0\.490, would then be 0\.4\d\d \(.*\): lower than now\.$", words)
        flat = more_epochs(plan, falling, seconds_per_epoch=1.0, val_losses=[1.0, *[0.31, 0.29, 0.3] * 3])
        assert flat.endswith("which may be no lower than now.")
        assert "curve" not in more_epochs(plan, falling, seconds_per_epoch=1.0, val_losses=[1.0, 0.1] * 5)
