"""How far a run is: lines while it waits, and estimates from what runs steadily."""

from __future__ import annotations

import io
import re
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from uniformerv2.core import console as module
from uniformerv2.core.console import Progress, Ticker
from uniformerv2.training import progress as train_progress
from uniformerv2.training.epoch_metrics import EpochLoss
from uniformerv2.training.progress import TimeLeft, TrainProgress


class Clock:
    """A time that passes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The thread is quiet; lines come from ``advance`` and ``tick`` alone."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(Ticker, "_last_said", -1e9)
    return clock


def test_the_rate_is_of_what_follows_the_first(clock, capsys):
    """Before it, processes start: 6 seconds that no other video takes."""
    with Progress("check", 40, done=10, every_seconds=0.0) as progress:
        clock.now += 6
        progress.advance(is_bad=False)
        for _ in range(4):
            clock.now += 0.5
            progress.advance(is_bad=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "check: 11 of 40, 6 s so far"
    assert lines[-1] == "check: 15 of 40, 2.0 a second, 4 bad, about 15 s left"


def test_slow_ones_are_told_in_seconds_each_and_what_is_left_shrinks(clock, capsys):
    """Three of 24 s each; then nothing for 18 s, and for longer than each took."""
    with Progress("test", 6, every_seconds=0.0) as progress:
        for _ in range(4):
            clock.now += 24
            progress.advance()
        said = []
        for wait in (18, 6, 24):
            clock.now += wait
            said.append(progress._line())
    lines = [*capsys.readouterr().err.splitlines(), *said]
    assert lines == [
        "test: 1 of 6, 24 s so far",
        "test: 2 of 6, 48 s so far",
        "test: 3 of 6, 24 s each, about 80 s left",
        "test: 4 of 6, 24 s each, about 50 s left",
        "test: 4 of 6, 24 s each, about 30 s left",
        "test: 4 of 6, 24 s each, about 25 s left",
        "test: 4 of 6, 30 s each, about 30 s left",
    ]


def test_a_terminal_has_one_line_that_is_written_anew(clock, capsys, monkeypatch):
    """And that is gone at the end."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("loading", None, has_bar=False) as progress:
        for _ in range(35):
            clock.now += 0.1
            progress._ticker.tick()
    clear = "\r\x1b[2K"
    assert capsys.readouterr().err == f"{clear}loading: 2 s so far\r{clear}loading: 3 s so far\r{clear}"


def test_a_terminal_that_moves_no_cursor_has_lines(clock, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("check", 3, every_seconds=0.0) as progress:
        clock.now += 1
        progress.advance()
    assert capsys.readouterr().err == "check: 1 of 3, 1 s so far\n"


def test_lines_are_two_seconds_apart_at_first_and_half_a_minute_at_most(clock, capsys):
    ticker, said = Ticker(lambda: "so far"), []
    ticker.start()
    for _ in range(40_000):
        clock.now += 0.1
        ticker.tick()
        if capsys.readouterr().err:
            said.append(clock.now - 1000)
    ticker.stop()
    gaps = [after - before for before, after in zip([0, *said], said, strict=False)]
    assert max(gap for gap, when in zip(gaps, said, strict=True) if when <= 60) < 2.2
    assert gaps == sorted(gaps) or max(gaps) < 30.2
    assert len(said) < 300


def test_the_silence_of_the_stage_before_counts(clock, capsys):
    with Progress("look at videos", 2) as progress:
        clock.now += 2
        progress.advance(is_bad=False)
        clock.now += 1.5
    with Progress("measure a few steps", 2) as progress:
        clock.now += 0.6
        progress.advance(is_bad=False)
    assert capsys.readouterr().err.splitlines() == [
        "look at videos: 1 of 2, 2 s so far",
        "measure a few steps: 1 of 2, 1 s so far",
    ]


def test_it_speaks_though_nothing_is_done(capsys):
    with Progress("measure a few steps", None, every_seconds=0.05):
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(re.fullmatch(r"measure a few steps: \d s so far", line) for line in lines)


class TestTimeLeft:
    def test_first_steps_and_the_first_epoch_are_no_measure(self):
        """Ten epochs of four steps of 1 s and a validation of 2 s; reading starts in 100 s, later in 3 s."""
        left, now = TimeLeft(), 0.0
        for epoch in range(3):
            left.epoch_begins(now)
            assert (left.seconds(steps=4, epochs=9 - epoch, steps_per_epoch=4) is None) == (epoch == 0)
            for step in range(4):
                now += (100 if epoch == 0 else 3) if step == 0 else 1
                left.step_done(now)
                if (epoch, step) == (0, 0):
                    assert left.seconds(steps=3, epochs=9, steps_per_epoch=4) is None
                if (epoch, step) == (0, 1):
                    assert left.seconds(steps=2, epochs=9, steps_per_epoch=4) == 2 + 9 * 4
            now += 2
            assert left.epoch_done(now, is_whole=True) == (105 if epoch == 0 else 8)
        assert left.seconds(steps=0, epochs=7, steps_per_epoch=4) == 7 * 8
        assert left.seconds(steps=2, epochs=6, steps_per_epoch=4) == 2 * 1 + 2 + 6 * 8

    def test_steps_that_come_in_twos_are_averaged(self):
        """Two processes read: after each wait of 5 s two steps are done, and their median would be the short one."""
        left, now = TimeLeft(), 0.0
        left.epoch_begins(now)
        for step in range(9):
            now += 9.8 if step % 4 == 0 else 0.1
            left.step_done(now)
        assert left.seconds(steps=12, epochs=0, steps_per_epoch=21) == pytest.approx(12 * (2 * 9.8 + 6 * 0.1) / 8)

    def test_an_epoch_has_its_start_its_validation_and_its_checkpoint(self):
        """From the second epoch's first step on, though only one epoch is over: 8 s, 3 steps of 1 s, 2 s, 3 s."""
        left = TimeLeft()
        left.epoch_begins(0.0)
        for now in (30.0, 31.0, 32.0, 33.0):
            left.step_done(now)
        left.epoch_done(35.0, is_whole=True)
        left.epoch_begins(38.0)
        assert left.seconds(steps=4, epochs=8, steps_per_epoch=4) == 9 * (4 + 2 + 3)
        left.step_done(46.0)
        assert left.seconds(steps=3, epochs=8, steps_per_epoch=4) == (3 + 2 + 3) + 8 * (8 + 3 + 2 + 3)

    def test_a_machine_that_becomes_slower_is_followed(self):
        """100 steps of 1 s, then 20 of 4 s; epochs of 5 s, then of 20 s."""
        left, now = TimeLeft(), 0.0
        left.epoch_begins(now)
        for step in range(121):
            now += 1 if step <= 100 else 4
            left.step_done(now)
        assert left.seconds(steps=10, epochs=0, steps_per_epoch=131) == 10 * 4
        left = TimeLeft()
        for seconds in [30, *[5] * 6, *[20] * 3]:
            left.epoch_begins(now)
            now += seconds
            left.step_done(now)
            left.epoch_done(now, is_whole=True)
        assert left.seconds(steps=0, epochs=5, steps_per_epoch=1) == 5 * 20

    def test_epochs_of_one_step(self):
        """Of 8 s, and 2 s more for the checkpoint."""
        left = TimeLeft()
        for now in (0.0, 10.0):
            left.epoch_begins(now)
            left.step_done(now + 6)
            left.epoch_done(now + 8, is_whole=True)
        assert left.seconds(steps=0, epochs=5, steps_per_epoch=1) == 5 * (8 + 2)

    def test_after_one_epoch_its_steps_are_the_measure(self):
        """And not what started in it: 100 s, then three steps of 1 s and a validation of 2 s."""
        left = TimeLeft()
        left.epoch_begins(0.0)
        for now in (100.0, 101.0, 102.0, 103.0):
            left.step_done(now)
        assert left.epoch_done(105.0, is_whole=True) == 105
        assert left.seconds(steps=0, epochs=9, steps_per_epoch=4) == 9 * (4 + 2)
        assert left.seconds_per_epoch == 105


def test_on_a_terminal_something_moves_before_the_first_step(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    shown, file = TrainProgress("val_top1"), io.StringIO()
    shown._console = Console(file=file, force_terminal=True, width=100)
    shown.setup(None, None, "fit")
    shown.on_exception()
    assert "training starts ..." in file.getvalue()


def test_what_is_left_shrinks_while_a_step_takes_long(clock, monkeypatch):
    monkeypatch.setattr(train_progress, "time", clock)
    shown = TrainProgress("val_top1")
    shown._total = 9
    trainer = SimpleNamespace(current_epoch=0, max_epochs=3, global_step=2)
    shown._show(trainer, "loss 1.0", left=62.0)
    assert shown._now() == "epoch 1 of 3, loss 1.0, about 70 s left"
    clock.now += 30
    assert shown._now() == "epoch 1 of 3, loss 1.0, about 35 s left"
    clock.now += 40
    assert shown._now() == "epoch 1 of 3, loss 1.0"


def test_a_training_tells_the_mean_of_the_epoch(capsys, clock, monkeypatch):
    """Not of the steps since it was resumed in the middle of it; it is as long as what was seen, and counts from 1."""
    monkeypatch.setattr(train_progress, "time", clock)
    loss, shown = EpochLoss(), TrainProgress("val_top1")
    loss.load_state_dict({"total": 6.0, "count": 2})
    metrics = {"train_loss": 1.5, "val_loss": 0.25, "val_top1": 0.5}
    logged = []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append((step, values)))
    trainer = SimpleNamespace(
        callbacks=[loss, shown],
        callback_metrics=metrics,
        current_epoch=0,
        estimated_stepping_batches=6,
        global_step=3,
        is_last_batch=True,
        loggers=[logger],
        max_epochs=2,
        num_training_batches=3,
        state=SimpleNamespace(fn="fit"),
    )
    shown.on_train_start(trainer, None)
    clock.now += 3
    for callback in (loss, shown):
        callback.on_train_batch_end(trainer, None, None, None, 2)
    shown.on_validation_end(trainer, None)
    assert loss.mean == 2.5
    assert logged == [(2, {"train_loss_epoch": 2.5, "epoch": 0})]
    assert capsys.readouterr().err.startswith("epoch 1 of 2: loss 2.500, val loss 0.250, val_top1 0.5000, 3 s\n")
