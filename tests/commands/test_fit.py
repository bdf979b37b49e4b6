"""``uniformerv2 fit`` and ``validate``: a recipe with a small network laid over it, as a user types it."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests.locks import held_elsewhere
from tests.training.test_recipes import write_noise
from uniformerv2 import UniFormerV2Config, load_model, save_model
from uniformerv2.cli import main
from uniformerv2.commands.fit import with_recipe_files
from uniformerv2.core.messages import UsageError
from uniformerv2.recipes import recipe_path
from uniformerv2.training.optim import Optimization
from uniformerv2.training.recipe_cli import check_untaken
from uniformerv2.zoo.runs import random_network

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]

RECIPE = "uniformerv2_b16_k400_8x224"


@pytest.fixture
def small(tmp_path):
    """A file that makes the recipe small, and a list of four videos."""
    for index in range(4):
        write_noise(tmp_path / f"clip_{index}.mp4", seed=index)
    rows = [f"clip_{index}.mp4,{'ab'[index % 2]}\n" for index in range(4)]
    (tmp_path / "list.csv").write_text("".join(["path,label\n", *rows]))
    size = {"image_size": 32}
    network = {**size, "dim": 48, "depth": 4, "num_heads": 4, "num_frames": 4, "num_classes": 2}
    content = {
        "seed_everything": 0,
        "model": {"network": {**network, "fusion_stages": [0, 1, 2, 3]}, "weights": None, "new_head": False},
        "data": {
            "train": str(tmp_path / "list.csv"),
            "val": str(tmp_path / "list.csv"),
            "classes": None,
            "preprocessing": {**size, "num_frames": 4},
            "augmentation": size,
            "batch_size": 2,
            "num_workers": 0,
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "strategy": "auto",
            "precision": "32-true",
            "max_epochs": 1,
            "default_root_dir": str(tmp_path / "run"),
            "enable_progress_bar": False,
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": str(tmp_path / "run")},
            },
        },
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def test_fit_then_test(small, capsys):
    words = ["--config", RECIPE, f"--config={small / 'small.yaml'}"]
    assert main(["fit", *words, "--model.optimization.learning_rate", "3e-4"]) == 0
    (log,) = (small / "run").glob("lightning_logs/version_*")
    saved = yaml.safe_load((log / "config.yaml").read_text())
    assert saved["model"]["optimization"]["learning_rate"] == 3e-4
    assert saved["model"]["optimization"]["weight_decay"] == 0.05
    assert saved["data"]["augmentation"]["rand_augment"] == "rand-m7-n4-mstd0.5-inc1"
    model = load_model(small / "run" / "model")
    assert model.info.class_names == ("a", "b")
    assert model.info.preprocessing["num_clips"] == 4
    assert model.config.num_frames == 4
    assert model.info.source == "trained from random weights"
    assert 0 <= model.info.metrics["val_top1"] <= 1

    (checkpoint,) = log.glob("checkpoints/*.ckpt")
    capsys.readouterr()
    (small / "names.txt").write_text("a\nb\n")
    measure = [
        "test",
        str(small / "small.yaml"),
        "--head-classes",
        str(small / "names.txt"),
        "--workers",
        "0",
        "--json",
    ]
    assert main([*measure, "--model", str(checkpoint)]) == 0
    from_checkpoint = json.loads(capsys.readouterr().out)
    assert from_checkpoint["info"]["preprocessing"]["num_clips"] == 4
    assert main([*measure, "--model", str(small / "run" / "model")]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == from_checkpoint["metrics"]
    assert main(["fit", *words, "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "2"]) == 0
    assert list((small / "run").glob("lightning_logs/version_1/checkpoints/epoch=1-step=4.ckpt"))
    trained = ["--model.weights", str(small / "run" / "model"), "--model.network", "null"]
    assert main(["validate", *words, *trained]) == 0
    assert "val_top1" in capsys.readouterr().out


def test_a_second_training_in_the_same_folder_is_refused(small, capsys):
    checkpoints = small / "run" / "checkpoints"
    with held_elsewhere(checkpoints):
        assert main(["fit", "--config", str(small / "small.yaml")]) == 1
        assert f"A training is running in {checkpoints}: wait until it ends" in capsys.readouterr().err
        assert [path.name for path in (small / "run").rglob("*")] == ["checkpoints", ".lock"]


def test_without_room_for_checkpoints_nothing_starts(small, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert main(["fit", "--config", str(small / "small.yaml")]) == 1
    assert "This training needs about" in capsys.readouterr().err
    assert not list((small / "run").rglob("*.ckpt"))


def test_a_training_is_not_replaced_but_gone_on_with(small, capsys):
    """Refused without ``--ckpt_path``; with it, also at another rate, which counts from the first step."""
    words = ["fit", "--config", str(small / "small.yaml"), "--model.optimization.batch_size=null"]
    words += ["--model.optimization.warmup_epochs=0", "--trainer.log_every_n_steps=1"]
    assert main([*words, "--model.optimization.learning_rate=1e-3"]) == 0
    run = small / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {run / "checkpoints" / "last.ckpt", run / "model" / "model.safetensors"} <= set(before)
    capsys.readouterr()
    assert main([*words, "--model.optimization.learning_rate=1e-5"]) == 2
    message = capsys.readouterr().err
    assert f"{run} holds a training already: add --ckpt_path last" in message
    assert "--trainer.default_root_dir" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    lower = ["--model.optimization.learning_rate=1e-5", "--trainer.max_epochs=2", "--ckpt_path=last"]
    assert main([*words, *lower]) == 0
    with (run / "lightning_logs" / "version_1" / "metrics.csv").open(newline="") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]]
    optimization = Optimization(learning_rate=1e-5, warmup_epochs=0)
    assert rates == pytest.approx([optimization.rate(step / 2, 2) for step in (2, 3)])


@pytest.fixture
def start(small):
    """A network to start from, as a recipe says, whose head answers ``b``."""
    network = random_network(UniFormerV2Config.from_dict(settings_of(small)["model"]["network"]))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.0, 9.0]))
    network.info = replace(network.info, class_names=("a", "b"))
    rows = ["clip_0.mp4,a", "clip_1.mp4,b", "clip_2.mp4,b", "clip_3.mp4,b"]
    (small / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return save_model(network, small / "start")


def settings_of(folder):
    return yaml.safe_load((folder / "small.yaml").read_text())


def validated(small, capsys, *words):
    """Top-1 that ``validate`` shows for the recipe with a new head."""
    capsys.readouterr()
    config = ["--config", RECIPE, "--config", str(small / "small.yaml"), "--model.new_head=true"]
    assert main(["validate", *config, *words]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if " val_top1 " in line)
    return float(row.split()[-2])


def test_validate_measures_the_head_of_the_weights(small, start, capsys):
    """Though the recipe replaces it."""
    for seed in (1, 2, 3):
        assert validated(small, capsys, f"--model.weights={start}", f"--seed_everything={seed}") == 0.75


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_validate_takes_all_weights_from_a_checkpoint(small, start, capsys):
    """The recipe's start need not be there."""
    words = ["fit", "--config", str(small / "small.yaml"), f"--model.weights={start}"]
    assert main([*words, "--model.optimization.learning_rate=1e-9"]) == 0
    last = small / "run" / "checkpoints" / "last.ckpt"
    mapped = "--model.head_map=kinetics710_to_kinetics400"
    assert validated(small, capsys, "--model.weights=ViT-B-16.pt", mapped, f"--ckpt_path={last}") == 0.75


def test_random_weights_are_not_validated(small, capsys):
    assert main(["validate", "--config", str(small / "small.yaml"), "--model.weights=null"]) == 2
    assert "nothing to validate: give --model.weights CHECKPOINT or --ckpt_path FILE" in capsys.readouterr().err


def test_validate_refuses_other_names(small, start, capsys):
    words = ["validate", "--config", str(small / "small.yaml"), f"--model.weights={start}", "--data.classes=[b, a]"]
    assert main(words) == 1
    assert "Class 0 is 'b' in the data and 'a' in the network" in capsys.readouterr().err


@pytest.mark.parametrize(("every", "kept"), [(2, False), (3, True)])
def test_the_model_has_metrics_of_its_own_weights_alone(small, every, kept):
    """After the third epoch, where it was validated after the second or the third."""
    words = ["fit", "--config", str(small / "small.yaml"), "--trainer.max_epochs=3"]
    assert main([*words, f"--trainer.check_val_every_n_epoch={every}"]) == 0
    assert ("val_top1" in load_model(small / "run" / "model").info.metrics) == kept


def test_steps_alone_are_an_end(small):
    content = settings_of(small)
    del content["trainer"]["max_epochs"]
    (small / "steps.yaml").write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(small / "steps.yaml"), "--trainer.max_steps=3"]) == 0
    last = torch.load(small / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64"])
def test_precisions_that_convert_batches_are_refused(small, precision, capsys):
    words = ["fit", "--config", str(small / "small.yaml"), "--trainer.precision", precision]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert f"--trainer.precision is 32-true, bf16-mixed or 16-mixed, got {precision}" in message
    assert not (small / "run").exists()


def test_slurm_may_begin_the_same_command_again(tmp_path):
    """Lightning goes on by itself from the checkpoint that it wrote when Slurm took the machine away."""
    last = tmp_path / "checkpoints" / "last.ckpt"
    check_untaken(tmp_path)
    last.parent.mkdir()
    last.touch()
    with pytest.raises(UsageError, match="holds a training already"):
        check_untaken(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    check_untaken(tmp_path)


def test_a_list_without_classes_is_refused(small, capsys):
    (small / "list.csv").write_text("path\nclip_0.mp4\nclip_1.mp4\n")
    assert main(["fit", "--config", str(small / "small.yaml")]) == 1
    assert "2 of 2 training videos have no class, for instance " in capsys.readouterr().err
    assert not (small / "run").exists()


def test_checkpoints_run_no_code(small, tmp_path):
    """A pickle that would leave a trace is refused."""
    evil = tmp_path / "evil.ckpt"

    class Trace:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trace",)

    torch.save({"state_dict": Trace()}, evil)
    with pytest.raises(pickle.UnpicklingError):
        main(["validate", "--config", RECIPE, f"--config={small / 'small.yaml'}", "--ckpt_path", str(evil)])
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_help_opens_with_what_a_user_needs(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"usage: uniformerv2 {verb} --config RECIPE|FILE [--config FILE ...] [--OPTION VALUE ...]"
    assert len(others) < 40
    for option in (
        "--data.train LIST",
        "--data.val LIST",
        "--model.weights CHECKPOINT",
        "--ckpt_path",
        "--print_config",
    ):
        assert option in "\n".join(others)


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_help_all_explains_every_option(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help-all"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: uniformerv2 {verb} --config")
    assert all(
        option in said for option in ("--model.optimization", "--data.preprocessing", "--trainer.limit_val_batches")
    )


def test_near_misses(capsys):
    assert main(["fit", "--config", "uniformerv2_b16_k400_8x225"]) == 2
    assert f"Did you mean '{RECIPE}'?" in capsys.readouterr().err


def test_unknown_options_are_usage_errors(small, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", RECIPE, "--config", str(small / "small.yaml"), "--model.optimization.rate", "1"])
    assert stopped.value.code == 2
    assert "rate" in capsys.readouterr().err
    assert not (small / "run").exists()


def test_recipe_names_become_files():
    file = str(recipe_path(RECIPE))
    assert with_recipe_files(["-c", RECIPE, f"--config={RECIPE}", "--ckpt_path", RECIPE]) == [
        "-c",
        file,
        f"--config={file}",
        "--ckpt_path",
        RECIPE,
    ]
    assert json.dumps(with_recipe_files(["--config"])) == '["--config"]'
    with pytest.raises(UsageError, match=r"no file other\.yaml"):
        with_recipe_files(["--config", "other.yaml"])
