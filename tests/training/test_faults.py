"""What goes wrong in a training ends it clearly, nothing is lost, and the same command goes on."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from multiprocessing import active_children, forkserver
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as lightning
import pytest
import torch

from tests.training.fake_clips import tiny_network
from tests.training.resumed_run import load, steps_of, write_videos
from uniformerv2 import save_model
from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.cli import main
from uniformerv2.training.progress import TrainProgress
from uniformerv2.training.resume import CheckpointWriteError, LastCheckpoint, WholeFileIO
from uniformerv2.training.stopping import StopCleanly, TrainingStoppedError, stopping_at_once
from uniformerv2.zoo.files import write_json

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]

EPOCHS, BATCH, FAULT_STEP = 3, 4, 3
"""Two steps an epoch."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Fourteen of two classes."""
    return write_videos(tmp_path_factory.mktemp("videos"))


class TestFaults:
    """``uniformerv2 train``, with something that goes wrong after the third step."""

    def test_workers_that_are_gone(self, command, fault, capsys):
        """As where the system ends them for their memory; what they had read beforehand is still used."""
        words = [*command, "--workers", "1", "--batch-size", "1"]

        @fault
        def kill_the_workers(trainer):
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)

        assert main(words) == 1
        message = capsys.readouterr().err
        assert "A process that reads videos is gone (" in message
        assert "--workers" in message
        assert message.rstrip().endswith(f"--resume continues from {last_of(command)}.")
        assert FAULT_STEP <= steps_of(last_of(command)) < 8
        goes_on(words, capsys, steps=8 * EPOCHS)

    def test_a_disk_that_is_full(self, command, fault, capsys):
        """Files may have no more than so many bytes: the same words from the system as for a quota."""

        @fault
        def leave_no_room(trainer):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            assert main(command) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        message = capsys.readouterr().err
        assert re.search(
            r"run/checkpoints/(best|last)\.ckpt could not be written: \[Errno 27\] File too large\.", message
        )
        assert "Make room on the disk" in message
        assert steps_of(last_of(command)) == 2
        assert sorted(path.name for path in last_of(command).parent.iterdir()) == ["best.ckpt", "last.ckpt"]
        goes_on(command, capsys)

    def test_a_disk_without_a_byte_left(self, command, fault, capsys, tmp_path):
        """Then the log cannot be written either."""
        (tmp_path / "run").mkdir()
        with small_disk(tmp_path / "run"):

            @fault
            def fill(trainer):
                with (tmp_path / "run" / "filler").open("wb", buffering=0) as file, suppress(OSError):
                    while True:
                        file.write(bytes(4096))

            assert main(command) == 1
            message = capsys.readouterr().err
            assert "No space left on device" in message
            assert "Make room on the disk" in message
            assert steps_of(last_of(command)) == 2
            (tmp_path / "run" / "filler").unlink()
            goes_on(command, capsys)

    def test_a_log_without_room_says_how_to_go_on(self, tmp_path):
        """It is written by Lightning, whose error names no way on."""
        stop, trainer = StopCleanly(tmp_path / "last.ckpt"), SimpleNamespace(current_epoch=0, max_epochs=2)
        for is_there, way in (
            (False, "There is no checkpoint yet"),
            (True, "The same command with --resume continues"),
        ):
            if is_there:
                stop.last.touch()
            with (
                pytest.raises(CheckpointWriteError, match=rf"metrics\.csv'\. Make room on the disk\. {way}"),
                stop.listening(trainer),
            ):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")

    def test_a_loss_that_is_no_number(self, command, fault, capsys):
        @fault
        def poison(trainer):
            with torch.no_grad():
                trainer.lightning_module.network.head.weight.fill_(torch.nan)

        assert main(command) == 1
        message = capsys.readouterr().err
        assert f"The loss is nan at step {FAULT_STEP} (epoch 2, learning rate " in message
        assert message.count(".mp4") == BATCH
        assert f"Last good checkpoint: {last_of(command)}." in message
        assert "What helps: a lower learning rate, " in message
        assert "train continues with its own, and takes others in a new folder (--out)." in message
        assert all(value.isfinite().all() for value in load(last_of(command))["state_dict"].values())
        goes_on(command, capsys)

    def test_a_file_where_the_folder_should_be(self, command, tmp_path, capsys):
        """Found before the first step, not at the first checkpoint."""
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "checkpoints").write_text("mine")
        assert main(command) == 1
        message = capsys.readouterr().err
        assert f"{tmp_path / 'run' / 'checkpoints'} cannot be written (File exists)" in message
        assert "--out" in message
        assert "epoch 1" not in message
        assert (tmp_path / "run" / "checkpoints").read_text() == "mine"

    def test_sigterm(self, command, capsys):
        """As before a machine is taken away; the page says 143."""
        script = [sys.executable, "-m", "uniformerv2", *command]
        with subprocess.Popen(script, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
            told = ""
            for line in running.stderr:
                told += line
                if line.startswith("epoch 1 of"):
                    running.terminate()
            assert running.wait(timeout=60) == 143, told
        assert "The same command with --resume continues from there." in told
        assert "Traceback" not in told
        assert f"Stopped after step {steps_of(last_of(command))} " in told
        goes_on(command, capsys)

    @pytest.mark.skipif(os.name == "nt", reason="a group of processes is POSIX")
    def test_sigterm_to_the_whole_group_in_a_validation(self, command, capsys, monkeypatch):
        """As a cluster does it: the workers, and the server that they come from, get it too; nothing is lost.

        The validation has two batches: after the first one Lightning alone would end it.
        """
        words = [*command, "--workers", "1", "--batch-size", "1"]
        hit, survived = [], []

        class Killed(TrainProgress):
            def on_validation_start(self, trainer, *rest):
                others = [child.pid for child in active_children()]
                hit.extend([forkserver._forkserver._forkserver_pid, *others])
                for pid in hit:
                    os.kill(pid, signal.SIGTERM)
                time.sleep(0.2)  # who dies of it is dead by then
                survived.append(os.waitpid(hit[0], os.WNOHANG)[0] == 0)
                survived.extend(child.is_alive() for child in active_children())
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patched:
            patched.setattr("uniformerv2.autotrain.session.TrainProgress", Killed)
            assert main(words) == 143
        assert len(hit) >= 2
        assert survived == [True] * len(hit)
        assert f"Stopped after step 8 (epoch 1 of {EPOCHS}); {last_of(command)} is written." in capsys.readouterr().err
        assert steps_of(last_of(command)) == 8
        assert last_of(command).with_name("best.ckpt").exists()
        goes_on(words, capsys, steps=8 * EPOCHS)

    def test_stopped_before_the_first_checkpoint(self, command, capsys, monkeypatch):
        """No file is named that is not there, and --resume says that it starts anew."""

        class Twice(TrainProgress):
            def on_validation_start(self, trainer, *rest):
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patched:
            patched.setattr("uniformerv2.autotrain.session.TrainProgress", Twice)
            assert main(command) == 143
        told = capsys.readouterr().err
        assert f"Stopped in epoch 1 of {EPOCHS}. There is no checkpoint yet: the same command starts anew." in told
        assert not last_of(command).exists()
        assert main([*command, "--resume"]) == 0
        assert "holds no checkpoint yet: this training starts from its beginning." in capsys.readouterr().err
        assert steps_of(last_of(command)) == 2 * EPOCHS


@pytest.fixture
def command(videos, tmp_path):
    """Words that train on ten of the videos."""
    network = save_model(tiny_network(), tmp_path / "network")
    rows = [f"{path},{path.name[2]}" for path in sorted(videos.glob("*.mp4"))[:10]]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    fixed = f"--workers 0 --batch-size {BATCH} --epochs {EPOCHS} --clips 1 --crops 1 --no-probe --json".split()
    return ["train", str(tmp_path / "clips.csv"), "--model", str(network), "--out", str(tmp_path / "run"), *fixed]


@pytest.fixture
def fault(monkeypatch):
    """A decorator: what it is given is done once, after the third step."""

    def arrange(cause):
        class Fault(TrainProgress):
            def on_train_batch_end(self, trainer, *rest):
                super().on_train_batch_end(trainer, *rest)
                if trainer.global_step == FAULT_STEP:
                    monkeypatch.undo()
                    cause(trainer)

        monkeypatch.setattr("uniformerv2.autotrain.session.TrainProgress", Fault)

    return arrange


@contextmanager
def small_disk(folder):
    """A disk of 32 MB in memory, for those who may have one."""
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root can make a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def last_of(command):
    return Path(command[command.index("--out") + 1]) / "checkpoints" / "last.ckpt"


def goes_on(command, capsys, *, steps=2 * EPOCHS):
    """The same command, resumed, comes to its end."""
    assert main([*command, "--resume"]) == 0
    assert "Going on from" in capsys.readouterr().err
    assert steps_of(last_of(command)) == steps


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_no_error_of_what_it_interrupts(number):
    def wait():  # as a loader waits for its workers
        try:
            signal.raise_signal(number)
        except Exception as error:
            raise RuntimeError("a process that reads videos is gone") from error

    before = signal.getsignal(number)
    with (
        pytest.raises(TrainingStoppedError, match="Stopped in the final test") as stopped,
        stopping_at_once("Stopped in the final test."),
    ):
        wait()
    assert stopped.value.signal_number == number
    assert signal.getsignal(number) is before


class TestLeftovers:
    """What a killed process had not finished is removed; what looks like it is the user's."""

    def test_of_models_and_records(self, tmp_path, monkeypatch):
        folder = RunFolder(tmp_path)
        folder.model.mkdir()
        mine = [folder.model / ".my.notes", folder.model / ".config.json.old", tmp_path / ".run.json.mine"]
        for path in mine:
            path.write_text("mine")
        with monkeypatch.context() as killed:
            killed.setattr(Path, "replace", cut_short)
            killed.setattr(Path, "unlink", lambda *_, **__: None)
            for write in (
                lambda: save_model(tiny_network(), folder.model),
                lambda: write_json(folder.model / "config.json", {}),
                lambda: write_json(folder.record, {}),
            ):
                with pytest.raises(CutShortError):
                    write()
        assert len(list(tmp_path.rglob(".*"))) == 3 + len(mine)
        folder.prepare()
        assert sorted(tmp_path.rglob(".*")) == sorted(mine)

    def test_of_checkpoints(self, tmp_path):
        for name in (".last.ckpt.0123cdef.part", "notes.part"):
            (tmp_path / name).write_text("begun")
        trainer = lightning.Trainer(callbacks=[LastCheckpoint(tmp_path)], logger=False, accelerator="cpu")
        trainer.callbacks[-1].setup(trainer, lightning.LightningModule(), "fit")
        assert [path.name for path in tmp_path.iterdir()] == ["notes.part"]


class CutShortError(Exception):
    pass


def cut_short(*_):
    raise CutShortError


class TestWholeFiles:
    def test_what_was_there_stays_until_the_new_one_is_whole(self, tmp_path):
        """A disk without room ends the write; the file of before is loadable, and nothing is left over."""
        path = tmp_path / "new" / "last.ckpt"
        WholeFileIO().save_checkpoint({"step": 1}, path)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(CheckpointWriteError, match=r"last\.ckpt could not be written: .*File too large.*whole"):
                WholeFileIO().save_checkpoint({"weights": torch.zeros(10_000)}, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert load(path) == {"step": 1}
        assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]

    def test_a_place_that_is_no_folder(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointWriteError, match="could not be written"):
            WholeFileIO().save_checkpoint({}, tmp_path / "file" / "last.ckpt")
