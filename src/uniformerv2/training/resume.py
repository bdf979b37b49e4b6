"""Checkpoints from which training continues bit for bit, written so that a kill leaves the previous one.

Lightning restores weights, optimiser, schedule, averages and counters. What it leaves out is added here:

- random states, and the position in the data (Lightning forgets it where the optimiser asks how many steps there are);
- a ``last`` checkpoint every few minutes, at moments after which nothing is left out;
- files that are whole or absent: Lightning copies a file over the old one where the temporary folder is another disk.
"""

from __future__ import annotations

import io
import random
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed.checkpoint.stateful import Stateful

from uniformerv2.core.files import DiskFullError, check_room, lock_folder, refuse_held, remove_leftovers, write_whole
from uniformerv2.data.loader import WorkerDiedError
from uniformerv2.zoo.files import read_checkpoint

__all__ = [
    "NUM_CHECKPOINTS",
    "SAVE_EVERY",
    "CheckpointWriteError",
    "ExactResume",
    "HoldFolder",
    "LastCheckpoint",
    "WholeFileIO",
    "can_resume_from",
    "checkpoint_bytes",
]

NUM_CHECKPOINTS: Final = 3
"""On the disk at a time: the best, the last, and the one that is being written."""

SAVE_EVERY: Final = timedelta(minutes=5)
"""A kill costs no more."""

OF_WRONG_CONTENT: Final = frozenset(
    {
        *(ArithmeticError, AssertionError, AttributeError, IndexError, KeyError, OverflowError, RecursionError),
        *(RuntimeError, TypeError, ValueError, ZeroDivisionError),
    }
)
"""What Lightning, PyTorch and Python raise; errors with a class of their own say by themselves what is wrong."""


KINDS: Final = {
    "state_dict": Mapping,
    "epoch": int,
    "global_step": int,
    "loops": Mapping,
    "callbacks": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
    "pytorch-lightning_version": str,
}
"""What Lightning restores a training from."""

VERSION: Final = re.compile(r"\d{1,4}(\.\d{1,4}){1,3}((a|b|rc|\.post|\.dev)\d{1,4})*")


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; the one before is untouched."""


class WholeFileIO(TorchCheckpointIO):
    """Writes beside the old file, to the disk, and then takes its place; reads what runs no code and fits in memory.

    Attributes:
        loaded: The file that was read last.
    """

    loaded: Path | None = None

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """Read a checkpoint, onto the CPU; Lightning moves it to where it is used.

        Args:
            path: Where.
            map_location: Left to Lightning, where ``weights_only`` is False.
            weights_only: False: the user trusts the file, which may run code.

        Returns:
            What it holds.

        Raises:
            ValueError: It is damaged, or no checkpoint of a training.
        """
        if weights_only is False or "://" in str(path):
            return super().load_checkpoint(path, map_location or (lambda storage, _: storage), weights_only)
        content = read_checkpoint(Path(path))
        for name, kind in KINDS.items():
            if not isinstance(content.get(name), kind):
                raise ValueError(f"{path} is no checkpoint of a training: it holds no {name}.")
        if not VERSION.fullmatch(content["pytorch-lightning_version"]):
            raise ValueError(f"{path} is no checkpoint of a training: it is of no version of Lightning.")
        self.loaded = Path(path)
        return content

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a file; other places than this machine's folders are left to Lightning.

        Args:
            checkpoint: What it holds.
            path: Where.
            storage_options: None.

        Raises:
            CheckpointWriteError: The disk is full, or the folder cannot be written.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)

        try:
            write_whole(path, write)
        except (OSError, RuntimeError) as error:  # torch hides some of the former in the latter
            told = (isinstance(error, DiskFullError) and error.__cause__) or error
            reason = told if isinstance(told, OSError) else told.__context__ or told
            raise CheckpointWriteError(
                f"{path} could not be written: {reason}. Checkpoints that were written before are whole. Make room on "
                "the disk, or make the folder writable, and continue from the last one."
            ) from error


class LastCheckpoint(lightning.callbacks.ModelCheckpoint):
    """Keeps ``last.ckpt``: written after each validation, and between two of them when some time has passed.

    Args:
        dirpath: Folder.
        every: At least so long between two checkpoints within an epoch.
        save_on_train_epoch_end: See ``ModelCheckpoint``; False: right after the validation.
    """

    def __init__(
        self, dirpath: str | Path, *, every: timedelta = SAVE_EVERY, save_on_train_epoch_end: bool | None = None
    ) -> None:
        super().__init__(
            dirpath,
            filename="last",
            enable_version_counter=False,
            save_on_train_epoch_end=save_on_train_epoch_end,
        )
        self.every = every
        self._looked = time.monotonic()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Remove what a killed process had not finished; the clock starts."""
        super().setup(trainer, pl_module, stage)
        self._looked = time.monotonic()
        if stage == "fit" and trainer.is_global_zero and "://" not in str(self.dirpath):
            remove_leftovers(Path(str(self.dirpath)), "*.ckpt")

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Write it where it is time."""
        is_due = trainer.strategy.broadcast(time.monotonic() - self._looked >= self.every.total_seconds())
        if is_due and can_resume_from(trainer):
            self._write(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write it where nothing is wrong with the training itself, and no other process is left to wait for."""
        is_common = trainer.world_size == 1 or isinstance(exception, SIGTERMException)
        if is_common and isinstance(exception, SIGTERMException | WorkerDiedError) and can_resume_from(trainer):
            self._write(trainer)

    def _write(self, trainer: Any) -> None:
        self._looked = time.monotonic()
        self.best_model_path = self.format_checkpoint_name({})  # where others look for the last checkpoint
        trainer.save_checkpoint(self.best_model_path)


class HoldFolder(lightning.Callback):
    """Finds out whether a folder has room for the checkpoints, and keeps other trainings out of it while this one runs.

    The first of its processes does.

    Args:
        folder: Folder of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held = ExitStack()

    def refuse_held(self) -> None:
        """Find out before anything is made.

        Raises:
            FolderInUseError: Another training has it.
        """
        refuse_held(self.folder, what="A training")

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Take it.

        Raises:
            FolderInUseError: Another training has it.
            DiskFullError: The disk has no room.
        """
        if stage == "fit" and trainer.is_global_zero:
            needed = NUM_CHECKPOINTS * checkpoint_bytes(pl_module)
            check_room(self.folder, needed, what="This training")
            self._held.enter_context(lock_folder(self.folder, what="A training"))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give it back."""
        self._held.close()

    def on_exception(self, *_: Any) -> None:
        """Give it back."""
        self._held.close()


class ExactResume(lightning.Callback):
    """Adds the random states and the position in the data to every checkpoint, and restores them."""

    KEY = "exact_resume"

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._has_started = False

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Called in all processes; one of them writes."""
        loader = trainer.train_dataloader
        checkpoint[self.KEY] = {
            "random": _of_all_processes(_random_states(pl_module.device)),
            "loader": loader.state_dict() if isinstance(loader, Stateful) else None,
        }

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep it until training starts."""
        self._state = checkpoint.get(self.KEY)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """After everything that draws, before the first batch."""
        state, self._state = self._state, None
        if state is None:
            self._has_started = True
            return
        if state["loader"] is not None and isinstance(trainer.train_dataloader, Stateful):
            trainer.train_dataloader.load_state_dict(state["loader"])
        if len(state["random"]) == trainer.world_size:
            _restore(state["random"][trainer.global_rank], pl_module.device)
        self._has_started = True

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Name the checkpoint where what it holds does not fit the training; Lightning names nothing.

        Raises:
            ValueError: In the place of what was raised.
        """
        path = getattr(trainer.strategy.checkpoint_io, "loaded", None)
        if self._has_started or path is None or type(exception) not in OF_WRONG_CONTENT or str(path) in str(exception):
            return
        reason = str(exception) if isinstance(exception, ValueError) else repr(exception)
        raise ValueError(f"Training can't continue from {path}: {reason}") from exception


def checkpoint_bytes(network: torch.nn.Module) -> int:
    """Bytes of a checkpoint: all weights, and AdamW's two moments of those that learn."""
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    return weights + 2 * sum(weight.nbytes for weight in network.parameters() if weight.requires_grad)


def can_resume_from(trainer: Any) -> bool:
    """Whether a checkpoint of this moment leaves nothing out.

    Not within a step, nor between batches whose gradients add up; not during a validation, when averaged weights are in
    the network; nor before one, which Lightning would not make up for.

    Args:
        trainer: Trainer of this training.
    """
    if trainer.state.fn != "fit" or not trainer.training:
        return False
    progress = trainer.fit_loop.epoch_loop.batch_progress
    num_done = progress.current.processed
    num_counted = progress.total.processed if trainer.check_val_every_n_epoch is None else num_done
    validates = trainer.val_check_batch is not None and num_counted % trainer.val_check_batch == 0
    is_between_steps = progress.current.ready == num_done and num_done % trainer.accumulate_grad_batches == 0
    return bool(is_between_steps and not progress.is_last_batch and not validates)


def _random_states(device: torch.device) -> dict[str, Any]:
    """Random states of Python, NumPy, PyTorch and the device, in values that a checkpoint may hold."""
    numpy: Any = np.random.get_state(legacy=False)
    numpy["state"]["key"] = torch.from_numpy(numpy["state"]["key"])
    states = {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _restore(states: dict[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    numpy = states["numpy"]
    numpy["state"]["key"] = numpy["state"]["key"].numpy()
    np.random.set_state(numpy)
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _of_all_processes(states: dict[str, Any]) -> list[dict[str, Any]]:
    if not torch.distributed.is_initialized():
        return [states]
    own = io.BytesIO()
    torch.save(states, own)  # as bytes: PyTorch's own way for objects fails on tensors of some types
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, own.getvalue())
    return [torch.load(io.BytesIO(one), weights_only=True) for one in gathered]
