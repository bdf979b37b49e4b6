"""Workers that hang, die and raise: the others go on, and every task is accounted for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from uniformerv2.core.limits import get_limits, set_limits
from uniformerv2.core.workers import NEEDS_GUARD, Lost, run_isolated, worker_context


def behave(task):
    """What the task says, in the worker's process."""
    if task == "hang":
        time.sleep(60)
    if task == "exit":
        os._exit(3)
    if task == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "raise":
        raise MemoryError("no room")
    if task == "pid":
        return os.getpid()
    if task == "unpicklable":
        return lambda: None
    return f"{task} done"


def test_lost_tasks_are_told_apart_and_the_others_are_answered():
    tasks = ["a", "hang", "b", "exit", "c", "segfault", "d", "raise", "e", "unpicklable", "f"]
    start = time.monotonic()
    answers = dict(run_isolated(behave, tasks, num_workers=2, timeout_seconds=2.0))
    assert time.monotonic() - start < 30
    assert list(answers) != []
    assert {task: answers[task] for task in "abcdef"} == {task: f"{task} done" for task in "abcdef"}
    assert answers["hang"] == Lost("timeout", "not done in 2 seconds")
    assert answers["exit"] == Lost("crashed", "the decoder's process ended with code 3")
    assert answers["segfault"] == Lost("crashed", "the decoder's process died of SIGSEGV")
    assert answers["raise"] == Lost("crashed", "MemoryError: no room")
    assert answers["unpicklable"].reason == "crashed"
    assert len(answers) == len(tasks)


def test_a_worker_keeps_its_process_until_it_is_lost():
    answers = [
        answer
        for _, answer in run_isolated(behave, ["pid"] * 3 + ["exit"] + ["pid"] * 3, num_workers=1, timeout_seconds=10)
    ]
    assert len(set(answers[:3])) == 1
    assert len(set(answers[4:])) == 1
    assert answers[0] != answers[4]
    assert os.getpid() not in answers


def test_a_slow_consumer_makes_no_timeouts():
    answers = []
    for _, answer in run_isolated(behave, ["a", "b", "c"], num_workers=2, timeout_seconds=1.0):
        answers.append(answer)
        time.sleep(1.2)
    assert sorted(answers) == ["a done", "b done", "c done"]


def test_workers_end_with_the_generator():
    running = run_isolated(behave, ["a", "hang", "hang"], num_workers=3, timeout_seconds=50)
    assert next(running) == ("a", "a done")
    workers = multiprocessing.active_children()
    assert workers
    running.close()
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system that kills processes")
def test_a_worker_that_hangs_ends_with_a_killed_parent():
    """They all have the same output: it ends with the last of them."""
    code = """
import time
from uniformerv2.core.workers import run_isolated

for _ in run_isolated(time.sleep, [0, 3600, 3600], num_workers=2, timeout_seconds=3600):
    print("begun", flush=True)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            process.kill()
            process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_no_tasks_start_no_workers():
    assert list(run_isolated(behave, [], num_workers=4, timeout_seconds=1)) == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("workers", "seconds"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_refused_arguments(workers, seconds):
    with pytest.raises(ValueError, match=r"num_workers|timeout_seconds"):
        next(run_isolated(behave, ["a"], num_workers=workers, timeout_seconds=seconds))


def test_a_script_without_main_guard_is_told_so_and_does_not_multiply(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from uniformerv2.core.workers import run_isolated\n"
        "print(list(run_isolated(Path, ['a'], num_workers=1, timeout_seconds=5)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith(NEEDS_GUARD)


PROCESSES = """
import multiprocessing, sys
import beside
from uniformerv2.core.workers import nothing_from_here
from uniformerv2.core.workers import run_isolated, worker_context

if __name__ == "__main__":
    server = worker_context(preload="uniformerv2.core.limits")
    print([answer for _, answer in run_isolated(beside.look, ["grp"], num_workers=1, timeout_seconds=60)])
    with nothing_from_here():
        spawned = multiprocessing.get_context("spawn").Process(target=beside.look, args=("grp",))
        spawned.start()
    spawned.join()
    print(spawned.exitcode)
"""
BESIDE = """
import importlib

def look(name):
    return importlib.import_module(name).__name__
"""


def test_processes_import_nothing_of_the_current_folder_and_what_lies_beside_the_script(tmp_path):
    """An empty random.py breaks whatever imports it; any other module of the folder would leave a file."""
    data, scripts = tmp_path / "data", tmp_path / "scripts"
    data.mkdir()
    scripts.mkdir()
    for name in ("grp", "tempfile", "signal", "multiprocessing", "uniformerv2", "beside"):
        (data / f"{name}.py").write_text(f"open({str(data / 'ran')!r}, 'a').write({name!r})")
    (data / "random.py").touch()
    (scripts / "run.py").write_text(PROCESSES)
    (scripts / "beside.py").write_text(BESIDE)
    command = [sys.executable, scripts / "run.py"]
    done = subprocess.run(command, cwd=data, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("['grp']\n0\n", "")
    assert not (data / "ran").exists()


def test_a_worker_has_the_limits_that_hold_when_it_starts():
    worker_context()  # the server from which it comes has started before
    with set_limits(depth=123):
        assert list(run_isolated(depth_limit, ["a"], num_workers=1, timeout_seconds=60)) == [("a", 123)]


def depth_limit(_):
    return get_limits().depth
