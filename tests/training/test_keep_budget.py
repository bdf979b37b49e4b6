"""``KeepBudget``: as many epochs as fit, by a clock that the test turns, and a rate that falls to its end."""

from __future__ import annotations

import lightning.pytorch as lightning
import pytest

from tests.training.fake_clips import FakeClips, loader, tiny_network
from uniformerv2.training import keep_budget
from uniformerv2.training.keep_budget import KeepBudget
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.optim import Optimization, SchedulePlace
from uniformerv2.training.resume import WholeFileIO

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec", "ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]

STEPS, EPOCHS = 4, 6
RATES = Optimization(learning_rate=1e-3, batch_size=None, warmup_epochs=1, warmup_start_rate=1e-4, end_rate=1e-5)


class Clock(lightning.Callback):
    """Each step takes ten seconds, from some epoch on other ones; the rates of all steps are kept."""

    def __init__(self, *, changed: float = 10.0, from_epoch: int = EPOCHS) -> None:
        self.now, self.changed, self.from_epoch = 100.0, changed, from_epoch
        self.rates: list[float] = []

    def monotonic(self):
        return self.now

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(max(group["lr"] for group in trainer.optimizers[0].param_groups))
        self.now += self.changed if trainer.current_epoch >= self.from_epoch else 10.0


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """A function: a clock and seconds -> the trainer, and what was said."""

    def trained(clock, seconds, *, resume=None, most=0):
        monkeypatch.setattr(keep_budget, "time", clock)
        said: list[str] = []
        clips = FakeClips(4 * STEPS)
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            default_root_dir=tmp_path,
            callbacks=[
                clock,
                KeepBudget(seconds, most=most, say=said.append),
                lightning.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1),
            ],
            logger=False,
            plugins=[WholeFileIO()],
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        classifier = VideoClassifier(tiny_network(), optimization=RATES)
        trainer.fit(classifier, loader(clips, batch_size=4), loader(clips, batch_size=8), ckpt_path=resume)
        return trainer, said

    return trained


def test_a_training_that_fits_is_left_alone(trained):
    clock = Clock()
    trainer, said = trained(clock, 10 * STEPS * EPOCHS + 1)
    assert (trainer.global_step, said) == (STEPS * EPOCHS, [])
    assert clock.rates == pytest.approx([RATES.rate(step / STEPS, EPOCHS) for step in range(STEPS * EPOCHS)])


def test_fewer_epochs_where_they_take_longer_and_the_rate_falls_to_its_end(trained, tmp_path):
    clock = Clock()
    trainer, said = trained(clock, 150)
    assert trainer.global_step == 3 * STEPS
    assert said == [
        "To keep the budget, the training has 3 epochs; 6 were planned. The learning rate falls to its end by then."
    ]
    assert clock.now - 100 <= 150
    assert max(clock.rates) == pytest.approx(1e-3, rel=0.1)
    falling = clock.rates[4:]
    assert falling == sorted(falling, reverse=True)
    assert trainer.optimizers[0].param_groups[-1]["lr"] == pytest.approx(1e-5)

    again = Clock()
    resumed, said = trained(again, 1e6, resume=tmp_path / "epoch=1.ckpt")
    assert (resumed.global_step, said) == (3 * STEPS, [])
    assert again.rates == pytest.approx(clock.rates[2 * STEPS :])


def test_an_epoch_that_has_begun_is_finished(trained):
    trainer, said = trained(Clock(), 5)
    assert trainer.global_step == STEPS
    assert said[-1].startswith("To keep the budget, the training ends with this epoch; 6 were planned.")
    assert trainer.optimizers[0].param_groups[-1]["lr"] == pytest.approx(1e-5)


def test_a_machine_that_gets_quicker_gets_its_epochs_back(trained):
    trainer, said = trained(Clock(changed=1.0, from_epoch=1), 150)
    assert trainer.global_step == EPOCHS * STEPS
    assert "has 3 epochs" in said[0]
    assert "has 6 epochs" in said[-1]
    assert trainer.optimizers[0].param_groups[-1]["lr"] == pytest.approx(1e-5)


def test_a_training_that_is_quicker_than_planned_gets_more_epochs(trained):
    """Forty seconds an epoch: after the first one there is time for 19 more, and nine tenths of them are taken."""
    clock = Clock()
    trainer, said = trained(clock, 40 * 20 + 1, most=30)
    assert trainer.global_step == 18 * STEPS
    assert said == [
        "As there is time for them, the training has 18 epochs; 6 were planned. The learning rate falls to its end by "
        "then."
    ]
    assert max(clock.rates) == pytest.approx(1e-3, rel=0.1)
    assert trainer.optimizers[0].param_groups[-1]["lr"] == pytest.approx(1e-5)
    assert clock.now - 100 <= 40 * 20 + 1


def test_never_more_epochs_than_without_a_budget(trained):
    trainer, said = trained(Clock(), 1e6, most=8)
    assert trainer.global_step == 8 * STEPS
    assert len(said) == 1


def test_a_place_that_was_saved_is_the_same():
    place, other = SchedulePlace(20), SchedulePlace(20)
    place.end_at(12, now=5)
    other.load_state_dict(place.state_dict())
    assert [other.at(step) for step in range(5, 13)] == [place.at(step) for step in range(5, 13)]
    assert (place.at(5), place.at(12)) == (5.0, 20.0)
