from __future__ import annotations

import gc
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from uniformerv2.core import watch as watch_module
from uniformerv2.core.watch import Watch


def watched_threads():
    return {thread for thread in threading.enumerate() if thread.name == "watched"}


def test_the_same_thread_serves_call_after_call():
    watch = Watch()
    names = {watch(threading.get_ident, seconds=5) for _ in range(5)}
    assert len(names) == 1
    assert names != {threading.get_ident()}


def test_an_error_is_that_of_the_call():
    watch = Watch()
    with pytest.raises(ZeroDivisionError):
        watch(lambda: 1 / 0, seconds=5)
    with pytest.raises(TimeoutError, match="its own"):
        watch(lambda: (_ for _ in ()).throw(TimeoutError("its own")), seconds=5)
    assert watch(lambda: 3, seconds=5) == 3


def test_what_hangs_is_left_behind_and_its_thread_ends_with_it():
    watch, go_on = Watch(), threading.Event()
    before = watched_threads()
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        watch(go_on.wait, seconds=0.1)
    assert watch(lambda: 3, seconds=5) == 3
    assert time.monotonic() - start < 3
    started = watched_threads() - before
    assert len(started) == 2
    go_on.set()
    del watch
    gc.collect()
    wait_for(lambda: not started & watched_threads())


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_a_call_that_is_interrupted_may_end_first(leaving):
    """Else its thread may be in C++ while Python ends."""
    ended = []

    def interrupt(*_):
        raise leaving

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(leaving):
            Watch()(lambda: (time.sleep(0.5), ended.append(True)), seconds=5)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ended == [True]


def test_an_interrupted_call_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(watch_module, "END_SECONDS", 0.1)
    go_on = threading.Event()

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    start = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            Watch()(go_on.wait, seconds=20)
    finally:
        signal.signal(signal.SIGALRM, before)
        go_on.set()
    assert time.monotonic() - start < 5


def test_another_process_begins_anew():
    watch = Watch()
    watch(lambda: 3, seconds=5)
    assert pickle.loads(pickle.dumps(watch))(lambda: 4, seconds=5) == 4


def test_callers_do_not_wait_for_each_other():
    watch, go_on = Watch(), threading.Event()
    slow = threading.Thread(target=watch, args=(go_on.wait,), kwargs={"seconds": 5})
    slow.start()
    assert watch(lambda: 3, seconds=1) == 3
    go_on.set()
    slow.join()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system that stops processes")
def test_time_in_which_the_process_is_stopped_does_not_count():
    code = """
import time
from uniformerv2.core.watch import Watch

def work():
    print("begun", flush=True)
    for _ in range(10):
        time.sleep(0.05)
    return "done"

print(Watch()(work, seconds=2.5), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.6)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
