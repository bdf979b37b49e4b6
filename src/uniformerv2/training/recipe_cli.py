"""LightningCLI for recipes: what ``uniformerv2 fit`` and ``validate`` run, and the network of their ``model`` section.

run_recipe("fit", ["--config", "recipe.yaml", "--data.train", "train.csv", "--data.val", "val.csv"])
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard

from uniformerv2.core.devices import best_device
from uniformerv2.core.messages import UsageError
from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.precision import computes_bf16
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.epoch_metrics import EpochLoss
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.resume import ExactResume, HoldFolder, LastCheckpoint, WholeFileIO
from uniformerv2.zoo.checkpoint import load_model, save_model
from uniformerv2.zoo.runs import random_network

__all__ = ["RecipeCLI", "ShardedVideoClassifier", "build_classifier", "build_network", "run_recipe", "whole_network"]

USED_FOR: Final = {
    "fit": "Train by a recipe or a configuration file.",
    "validate": "Measure on the validation videos, one view a video; for published protocols use uniformerv2 test.",
}

PRECISIONS: Final = frozenset({"None", "32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed"})
"""With the others Lightning converts each batch, which a ``VideoBatch`` does not let it."""


class RecipeCLI(LightningCLI):
    """LightningCLI that takes its words from us, and writes the trained network at the end."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Without the warning that the process has words of its own."""
        self.config = parser.parse_args(args)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Without ``predict`` and ``test``, which are verbs of their own."""
        every = LightningCLI.subcommands()
        return {verb: every[verb] for verb in USED_FOR}

    def before_instantiate_classes(self) -> None:
        """Checkpoints run no code, unless the user says that they may; a finished training is not replaced.

        Raises:
            UsageError: There is a training already, or no such precision here.
        """
        settings = self.config[self.subcommand]
        if str(settings.trainer.precision) not in PRECISIONS:
            raise UsageError(
                f"--trainer.precision is 32-true, bf16-mixed or 16-mixed, got {settings.trainer.precision}: weights "
                "stay 32-bit numbers."
            )
        if self.subcommand == "validate":
            measure_as_it_is(settings)
        root = Path(settings.trainer.default_root_dir or ".")
        if self.subcommand == "fit" and not getattr(rank_zero_only, "rank", 0):  # one looks: two would see each other
            HoldFolder(root / "checkpoints").refuse_held()
        if self.subcommand == "fit" and settings.ckpt_path is None:
            check_untaken(root)
        if settings.weights_only is None:
            settings.weights_only = True

    def instantiate_trainer(self, **options: Any) -> Any:
        """With ``checkpoints/last.ckpt`` in ``trainer.default_root_dir``, from which ``--ckpt_path last`` goes on."""
        trainer: Any = super().instantiate_trainer(**options)
        if self.subcommand == "fit":
            trainer.strategy.checkpoint_io = WholeFileIO()
            checkpoints = Path(trainer.default_root_dir) / "checkpoints"
            trainer.callbacks = [
                HoldFolder(checkpoints),
                EpochLoss(),
                *trainer.callbacks,
                ExactResume(),
                LastCheckpoint(checkpoints),
            ]
        return trainer

    def after_fit(self) -> None:
        """Write the network as it is at the end, as ``model`` in ``trainer.default_root_dir``."""
        network = whole_network(self.model.network)
        measured = {name: float(value) for name, value in self.trainer.callback_metrics.items() if "val_" in name}
        is_of_now = self.model.validated_step == self.trainer.global_step
        network.info = replace(network.info, metrics=measured if is_of_now else {})
        if self.trainer.is_global_zero:
            save_model(network, Path(self.trainer.default_root_dir) / "model")


def run_recipe(verb: str, words: Sequence[str]) -> int:
    """Train or validate by the words of a command line.

    Args:
        verb: "fit" or "validate".
        words: Options of Lightning, of the classifier and of the data; ``--config`` names files.

    Returns:
        The exit code: 143 where SIGTERM stopped it, with a checkpoint.
    """
    try:
        RecipeCLI(
            build_classifier,
            VideoDataModule,
            args=[verb, *words],
            parser_kwargs={"prog": "uniformerv2", **{name: explained(name) for name in USED_FOR}},
            trainer_defaults={"precision": default_precision()},
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
        )
    except SIGTERMException:
        return 128 + signal.SIGTERM
    return 0


def measure_as_it_is(settings: Any) -> None:
    """Change a recipe's ``model`` section from where training starts to what is measured.

    Args:
        settings: Of ``validate``, changed in place. The head is that of the weights; a checkpoint has all weights, so
            that those of the start need not be there.

    Raises:
        UsageError: Random weights would be measured.
    """
    if settings.model.weights is None and settings.ckpt_path is None:
        raise UsageError("There is nothing to validate: give --model.weights CHECKPOINT or --ckpt_path FILE.")
    settings.model.new_head = False
    if settings.model.network is not None and settings.ckpt_path and Path(settings.ckpt_path).is_file():
        settings.model.weights = settings.model.head_map = None


def explained(verb: str) -> dict[str, str]:
    """What ``--help-all`` opens with, instead of every option twice."""
    return {
        "usage": f"uniformerv2 {verb} --config RECIPE|FILE [--config FILE ...] [--OPTION VALUE ...]",
        "description": f"{USED_FOR[verb]} Every option follows; uniformerv2 {verb} --help has the usual ones.",
    }


def check_untaken(root: Path) -> None:
    """Refuse to begin a training where another one is.

    Args:
        root: ``trainer.default_root_dir``.

    Raises:
        UsageError: There is a checkpoint, and none of those from which Lightning goes on by itself under Slurm.
    """
    if (root / "checkpoints" / "last.ckpt").exists() and not any(root.glob("hpc_ckpt_*.ckpt")):
        raise UsageError(
            f"{root} holds a training already: add --ckpt_path last to go on with it, or give another folder with "
            "--trainer.default_root_dir."
        )


def default_precision() -> str:
    """bfloat16 autocast where the hardware computes it, full precision elsewhere."""
    return "bf16-mixed" if computes_bf16(best_device()) else "32-true"


class ShardedVideoClassifier(VideoClassifier):
    """A ``VideoClassifier`` for ``ModelParallelStrategy``; a class of its own because Lightning warns of this hook."""

    def configure_model(self) -> None:
        """Shard the network over the data-parallel processes, once: each UniBlock is a unit, and one more is the rest.

        Only the parameters of the unit at work are whole; the others lie in parts on the processes.

        Raises:
            ValueError: Another strategy.
        """
        if self.device_mesh is None:
            raise ValueError("sharded=True needs trainer.strategy: ModelParallelStrategy, which says over what.")
        if not isinstance(self.network, FSDPModule):
            units = (*self.network.blocks, *self.network.fusion.stages, self.network)
            for unit in units:
                fully_shard(unit, mesh=self.device_mesh["data_parallel"])


def build_classifier(
    network: UniFormerV2Config | None = None,
    *,
    weights: str | None = None,
    head_map: str | None = None,
    new_head: bool = False,
    freeze_backbone: bool = False,
    sharded: bool = False,
    **training: Any,
) -> VideoClassifier:
    """What a recipe's ``model`` section says.

    Args:
        network: The architecture; None takes that of the weights.
        weights: What training starts from: all that ``load_model`` takes, or the image tower of CLIP, to which the
            the video blocks are added at random. None is random altogether.
        head_map: Rows of the weights' head to keep, such as "kinetics710_to_kinetics400".
        new_head: Replace the weights' head by a random one of ``network.num_classes`` rows.
        freeze_backbone: The backbone does not learn.
        sharded: For Lightning's ``ModelParallelStrategy``: shard the parameters over the processes (FSDP2).
        **training: What ``VideoClassifier`` takes beside the network.

    Returns:
        The classifier, in training mode.

    Raises:
        ValueError: Neither a network nor weights, or arguments that contradict each other.
    """
    built = build_network(network, weights=weights, head_map=head_map, new_head=new_head)
    if freeze_backbone:
        built.freeze_backbone()
    if sharded:
        return ShardedVideoClassifier(built, **training)
    return VideoClassifier(built, **training)


def build_network(
    network: UniFormerV2Config | None, *, weights: str | None, head_map: str | None = None, new_head: bool = False
) -> UniFormerV2:
    """The first arguments of ``build_classifier`` -> the network.

    Raises:
        ValueError: As ``build_classifier``.
    """
    if weights is None:
        if network is None:
            raise ValueError("Give the network's architecture, or weights that bring one.")
        if head_map is not None or new_head:
            raise ValueError("head_map and new_head are about the head of weights, and none are given.")
        return random_network(network)
    fields = {} if network is None else network.to_dict()
    num_classes = fields.pop("num_classes", None)
    return load_model(weights, num_classes=num_classes, head_map=head_map, new_head=new_head, **fields)


def whole_network(network: UniFormerV2) -> UniFormerV2:
    """The network itself, or where it is sharded a whole copy on the CPU; to be called in every process.

    Args:
        network: Sharded or not.

    Returns:
        In process 0 a network to be saved; in the others, of a sharded one, a copy without meaning.
    """
    if not isinstance(network, FSDPModule):
        return network
    state = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    whole = random_network(network.config, network.info)
    whole.load_state_dict(state, strict=bool(state))  # gathered in process 0 alone
    return whole
