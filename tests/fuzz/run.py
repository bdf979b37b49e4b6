"""Reads each mutant in a process of its own, with limits of memory and time, and prints one line of JSON for each.

A program of its own, so that the libraries are imported once and a fork has nothing of pytest in it:
``python -m tests.fuzz.run < lines``, a line being kind and path with a tab between. A mutant is right where it is read
and keeps what its reader promises, or where it is refused by a documented error that names it; a signal, a hang and any
other exception are faults.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import torch

from uniformerv2 import cli, load_model, open_video
from uniformerv2.data.annotations import read_records
from uniformerv2.evaluation.dumps import read_dump
from uniformerv2.inference.features.index import FeatureIndex
from uniformerv2.media.decoding import VideoError

DOCUMENTED = (ValueError, OSError, ModuleNotFoundError, VideoError)
MEMORY_BYTES = 1500 * 2**20
IMPORTED_ONCE = {"recipe": "lightning.pytorch.cli", "suite": "uniformerv2.lab.ablation"}  # and not in each fork
CPU_SECONDS, WALL_SECONDS = 10, 30


def read_checkpoint(path):
    model = load_model(path, **({"num_heads": 4} if path.suffix in {".pth", ".pyth"} else {}))
    names = model.info.class_names
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert not names or (
        len(names) == model.num_classes == len(set(names)) and all(type(name) is str for name in names)
    )
    assert type(model.info.is_multi_label) is bool
    video = torch.zeros(1, model.config.num_frames, 3, *np.broadcast_to(model.config.image_size, 2).tolist())
    if video.numel() < 10**6:
        assert model(video).shape == (1, model.num_classes)


def read_scores(path):
    evaluation = read_dump(path)
    count = len(evaluation.class_names) or max(len(video.scores) for video in evaluation.videos)
    assert len(set(evaluation.class_names)) == len(evaluation.class_names)
    for video in evaluation.videos:
        assert video.scores.shape == (count,)
        assert np.isfinite(video.scores).all()
        assert video.scores.min() >= 0
        assert video.scores.max() <= 1 + 1e-3
        assert all(-1 <= label < count for label in np.atleast_1d(video.label))


def read_index(path):
    index = FeatureIndex.read(path)
    assert index.vectors.shape == (len(index.videos), 8)
    assert np.isfinite(index.vectors).all()
    assert all(abs(one.cosine) < 1.01 for one in index.nearest(index.vectors[0], k=9))


def read_list(path):
    records = read_records(path)
    assert records
    for record in records:
        assert record.path
        if record.start_seconds is not None and record.end_seconds is not None:
            assert record.start_seconds < record.end_seconds


def read_suite(path):
    from uniformerv2.lab.ablation import read_suite

    assert read_suite(str(path)).variants


def read_recipe(path):
    """By the verb itself: its exit code is documented."""
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            code = cli.main(["fit", "--config", str(path), "--print_config"])
        except SystemExit as stop:
            code = stop.code
    assert code in {0, 1, 2, None}, code
    if code:
        raise ValueError(f"{path}: exit code {code}")


def read_video(path):
    with open_video(path) as reader:
        last = len(reader) - 1
        wanted = sorted({0, last // 2, last})
        there = reader.frames(wanted)
        back = reader.frames(wanted[::-1])
        assert torch.equal(there, back.flip(0)), "the same frame has other pixels"


READERS = {
    "checkpoint": read_checkpoint,
    "configuration": read_checkpoint,
    "dump": read_scores,
    "index": read_index,
    "list": read_list,
    "suite": read_suite,
    "recipe": read_recipe,
    "video": read_video,
    "frames": read_video,
}


def outcome(read, path):
    """What reading it came to: "read", "refused", or what is wrong."""
    try:
        read(path)
    except DOCUMENTED as error:
        return "refused" if path.name in str(error) else f"{type(error).__name__} that does not name it: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def in_a_fork(read, path):
    """The outcome, or the signal that ended the process."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(WALL_SECONDS)
        os.write(sender, outcome(read, path)[:300].encode(errors="replace"))
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said or f"ended by {signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else status}"


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    tasks = [line.split("\t") for line in sys.stdin.read().splitlines()]
    for module in (module for kind, module in IMPORTED_ONCE.items() if kind in {kind for kind, _ in tasks}):
        import_module(module)
    for kind, path in tasks:
        row = {"kind": kind, "mutant": path, "outcome": in_a_fork(READERS[kind], Path(path))}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
