"""Trains in processes that are killed again and again, at given moments, and go on each time.

python kill_and_resume.py '{"out": "DIR", "videos": "DIR", "epochs": 3, "kills": [[2, 0.01, "KILL"], "save"]}' ...

A kill is a number of new lines in ``steps.txt`` to wait for, of seconds after that, and a signal; or "save": SIGKILL as
soon as a checkpoint is being written. Then the training may end. A line of JSON for each argument: the exit codes, and
how many kills left a part of a checkpoint. This process imports nothing large; those that are killed come from a server
that has done it once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path


def run(out, videos, options):
    from tests.training.resumed_run import train_on
    from uniformerv2.training.stopping import TrainingStoppedError

    try:
        train_on(out, videos, **options)
    except TrainingStoppedError as stopped:
        sys.exit(128 + stopped.signal_number)


def parts(out):
    try:
        with os.scandir(out / "checkpoints") as entries:
            return {entry.inode() for entry in entries if entry.name.endswith(".part")}
    except FileNotFoundError:
        return set()


def num_lines(out):
    path = out / "steps.txt"
    return path.read_text().count("\n") if path.exists() else 0


def kill_when(process, out, kill):
    """Wait for the moment; whether it was in a save."""
    before_parts, before_lines = parts(out), num_lines(out)
    num, seconds, name = (sys.maxsize, 0, "KILL") if kill == "save" else kill
    process.start()
    while process.is_alive():
        if kill == "save" and parts(out) - before_parts:
            break
        if num_lines(out) - before_lines >= num:
            time.sleep(seconds)
            break
        time.sleep(0.0005)
    if process.is_alive():
        os.kill(process.pid, signal.Signals[f"SIG{name}"])
    process.join()
    return kill == "save" and bool(parts(out) - before_parts)


def main(*, out, videos, kills, **options):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.resumed_run"])
    exits, num_in_save = [], 0
    for kill in [*kills, [sys.maxsize, 0, "KILL"]]:
        process = context.Process(target=run, args=(out, videos, options))
        num_in_save += kill_when(process, Path(out), kill)
        exits.append(process.exitcode)
    sys.stdout.write(json.dumps({"exits": exits, "in_save": num_in_save}) + "\n")


if __name__ == "__main__":
    for job in sys.argv[1:]:
        main(**json.loads(job))
