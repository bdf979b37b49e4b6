"""``--devices``: the processes beside this one; each trains the same network on its part of every batch.

::

    this process, the first                            the others
    plan, network, videos             --pickled-->     the same
    waits until each of them is ready <------------
    steps, checkpoints, all messages  <-- gradients -> steps; their weights are those of the first from the start

Lightning would start the whole command again in each, with its probe and its measured plan, which may come out another.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

import torch

from uniformerv2.core.limits import Limits, get_limits
from uniformerv2.core.optional import require
from uniformerv2.core.workers import available_cores, begin_worker, nothing_from_here
from uniformerv2.training.stopping import TrainingStoppedError

if TYPE_CHECKING:
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning_utilities.core.rank_zero import rank_zero_only
else:
    LightningEnvironment = require("lightning.pytorch.plugins.environments", extra="train").LightningEnvironment
    rank_zero_only = require("lightning.pytorch.utilities", extra="train").rank_zero_only

__all__ = ["Seat", "others_beside"]

STOP_SECONDS: Final = 10.0
"""For the others to say why they ended, and to end."""


class Seat(LightningEnvironment):
    """One of several processes on this machine, for Lightning, which is to start none.

    Args:
        rank: Its number.
        size: Processes.
        port: Where they meet.
    """

    def __init__(self, rank: int, size: int, port: int) -> None:
        super().__init__()
        self.rank, self.size, self.port = rank, size, port

    @property
    def creates_processes_externally(self) -> bool:
        """They are there."""
        return True

    @property
    def main_address(self) -> str:
        """This machine, for no other one."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """See the class."""
        return self.port

    def local_rank(self) -> int:
        """See the class."""
        return self.rank

    def node_rank(self) -> int:
        """The only machine."""
        return 0


Work = Callable[..., None]
"""Called with what was pickled, its seat, and what it calls when it is ready to begin."""


@contextmanager
def others_beside(work: Work, content: tuple[Any, ...], size: int) -> Iterator[Seat | None]:
    """Start the others, which work until this one has left the ``with`` statement, and share the cores with them.

    Args:
        work: A function of a module.
        content: Its first arguments.
        size: Processes, this one included.

    Yields:
        The seat of this process; None where it is alone.

    Raises:
        RuntimeError: One of them failed; with what it says.
    """
    if size == 1:
        yield None
        return
    port, context, own_threads = _free_port(), multiprocessing.get_context("spawn"), torch.get_num_threads()
    num_threads = max(1, min(own_threads, available_cores() // size))
    pickled = pickle.dumps((work, content))  # by value: tensors that processes share would be trained by both
    pipes, processes = [], []
    for rank in range(1, size):
        pipe, theirs = context.Pipe(duplex=False)
        arguments = (pickled, Seat(rank, size, port), num_threads, theirs, get_limits())
        process = context.Process(target=_work, args=arguments, daemon=False)
        with nothing_from_here():
            process.start()
        theirs.close()
        pipes.append(pipe)
        processes.append(process)
    torch.set_num_threads(num_threads)
    hook = sys.excepthook  # which PyTorch changes for good
    try:
        _wait_until_ready(pipes)
        yield Seat(0, size, port)
        for process in processes:
            process.join(STOP_SECONDS)
    except RuntimeError as error:
        told = _words(pipes) if type(error) is not TrainingStoppedError else []
        if told:
            raise type(error)("\n".join([str(error), *told])) from error
        raise
    finally:
        torch.set_num_threads(own_threads)
        for process in processes:
            process.kill()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        sys.excepthook = hook


def _wait_until_ready(pipes: list[Connection]) -> None:
    """Until each says so.

    Raises:
        RuntimeError: One of them ended instead.
    """
    for rank, pipe in enumerate(pipes, 1):
        try:
            words = pipe.recv()
        except EOFError:
            words = "it ended without a word; perhaps the memory is too small for so many."
        if words is not None:
            raise RuntimeError(f"Process {rank + 1} of {len(pipes) + 1} that were to train could not begin: {words}")


def _words(pipes: list[Connection]) -> list[str]:
    """What those that failed say."""
    told = []
    for rank, pipe in enumerate(pipes, 1):
        with suppress(EOFError, OSError):
            if pipe.poll(STOP_SECONDS):
                told.append(f"Process {rank + 1} of {len(pipes) + 1} that train says: {pipe.recv()}")
    return told


def _work(pickled: bytes, seat: Seat, num_threads: int, pipe: Connection, limits: Limits) -> None:
    begin_worker(limits)
    if hasattr(signal, "pthread_sigmask"):  # Lightning takes SIGTERM, and would wait in it for the first process
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    torch.set_num_threads(num_threads)
    rank_zero_only.rank = seat.rank  # type: ignore[attr-defined]  # before Lightning makes anything that writes
    try:
        work, content = pickle.loads(pickled)
        work(*content, seat, lambda: pipe.send(None))
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except TrainingStoppedError:
        return  # stopped on purpose, as all are: the first process says so
    except Exception as error:  # to be told by the first process, whatever it is
        with suppress(OSError):
            pipe.send(f"{error or type(error).__name__}")
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
