"""``Watch``: call a function with a time limit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Thread, local
from typing import Any, Self, TypeVar

__all__ = ["Watch"]

SLICE_SECONDS = 1.0
"""The clock runs on while a process is stopped; of waiting in slices, at most one is lost."""

END_SECONDS = 5.0
"""How long a call that was interrupted may take to end."""

Result = TypeVar("Result")
Calls = SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]


class Watch(local):
    """Runs calls in a second thread, the same one each time, and leaves it behind where a call takes too long.

    A decoder that hangs in C cannot be interrupted, but it does not hold Python's lock. Its thread stays until the call
    returns or the process ends, which it does not delay. Each thread that calls has a second thread of its own. Time in
    which the whole process is stopped (Ctrl-Z, a suspended job) does not count. Where the waiting is interrupted, by
    Ctrl-C or SIGTERM, the call may end first: a thread that is in C++ while Python ends aborts the process.
    """

    _helper: _Helper | None = None

    def __call__(self, call: Callable[[], Result], *, seconds: float) -> Result:
        """The result of ``call``, or its error.

        Raises:
            TimeoutError: It took longer.
            KeyboardInterrupt: The waiting was interrupted.
            SystemExit: Likewise.
        """
        if self._helper is None:
            self._helper = _Helper()
        result: Future[Result] = Future()
        self._helper.calls.put((call, result))
        try:
            return self._result(result, seconds)
        except (KeyboardInterrupt, SystemExit):
            wait([result], timeout=END_SECONDS)
            raise

    def _result(self, result: Future[Result], seconds: float) -> Result:
        left = seconds
        while True:
            step = min(left, SLICE_SECONDS)
            try:
                return result.result(timeout=step)
            except TimeoutError:
                if result.done():
                    return result.result()
                left -= step
                if left <= 0:
                    self._helper = None
                    raise

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        """Another process starts its own thread."""
        return type(self), ()


class _Helper:
    """A thread that ends with this object, once it has nothing to do."""

    def __init__(self) -> None:
        self.calls: Calls = SimpleQueue()
        Thread(target=_serve, args=(self.calls,), name="watched", daemon=True).start()

    def __del__(self) -> None:
        self.calls.put(None)


def _serve(calls: Calls) -> None:
    while (waiting := calls.get()) is not None:
        call, result = waiting
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)
        del waiting, call, result  # of a clip, until the next one comes
