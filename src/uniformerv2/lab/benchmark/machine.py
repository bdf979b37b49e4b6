"""Time and memory on this machine, and what it is: calls timed in turns, the peak of a process of its own."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import torch

from uniformerv2.core.devices import memory_bytes, processor_name
from uniformerv2.core.workers import available_cores, worker_context

__all__ = [
    *("Times", "fresh_processes", "load_average", "machine_of", "peak_bytes", "time_in_turns", "versions"),
]

Run = Callable[[], object]

PACKAGES: Final = ("torch", "torchvision", "timm", "av", "torchcodec", "decord", "transformers")


@dataclass(frozen=True)
class Times:
    """How long the calls of one thing took.

    Attributes:
        seconds: Of each call that counts, at least one.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the calls was faster than the first, a quarter slower than the second.

        >>> Times((1.0, 2.0, 3.0, 4.0, 9.0)).quartiles
        (2.0, 4.0)
        """
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def to_row(self) -> dict[str, float]:
        """Median and quartiles, in seconds, for a report."""
        low, high = self.quartiles
        return {"seconds": self.median, "seconds_low": low, "seconds_high": high}


def time_in_turns(
    runs: Mapping[str, Run], *, repeats: int, device: torch.device | str = "cpu", warm: bool = True
) -> dict[str, Times]:
    """Time several things so that whatever else the machine does slows all of them alike.

    In each round every thing has its turn: a call that does not count, as the others have left the caches and the
    allocator in another state, then one that does::

        round 1    a [a]  b [b]  c [c]      [ ]: counted
        round 2    a [a]  b [b]  c [c]

    Args:
        runs: Name -> what to call.
        repeats: Rounds, at least one.
        device: Is waited for before the clock is read.
        warm: False leaves the calls that do not count out, for things that start from nothing in any case.

    Returns:
        The times of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if warm:
                run()
            _wait_for(device)
            start = time.perf_counter()
            run()
            _wait_for(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def peak_bytes(
    make: Callable[[], Run], device: torch.device | str = "cpu", *, imports: Callable[[], object] | None = None
) -> int:
    """The most memory that a thing takes when it is called: itself and what its calls need.

    On a CPU this is the resident memory of a fresh process beyond what its modules take, so that nothing that was freed
    before can be used again and hide a need. What making it and its first call, which may compile, took for a while
    does not count (elsewhere than on Linux it does). On a GPU it is what PyTorch has allocated there.

    Args:
        make: Makes the thing; must be importable in another process (a function of a module, or a ``partial`` of one).
        device: Where the thing lies.
        imports: Called before, to import what ``make`` would import.
    """
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        run = make()
        run()
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh_processes()) as process:
        return process.submit(_growth_of_this_process, make, imports, torch.get_num_threads()).result()


def fresh_processes() -> Any:
    """Processes that inherit nothing of this one: from a server that has imported PyTorch, where there is one."""
    return worker_context(preload="uniformerv2.lab.benchmark.networks")


def _growth_of_this_process(make: Callable[[], Run], imports: Callable[[], object] | None, num_threads: int) -> int:
    torch.set_num_threads(num_threads)
    if imports is not None:
        imports()
    _forget_peak()
    before = _peak_resident_bytes()
    run = make()
    run()
    _forget_peak()
    run()
    return _peak_resident_bytes() - before


def _forget_peak() -> None:
    """Give memory that is free back to the system, and let its count of the peak begin anew; Linux only."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):  # a container may not allow it
            Path("/proc/self/clear_refs").write_text("5")


def _peak_resident_bytes() -> int:
    """Linux's own count where there is one: that of ``getrusage`` begins with the process this one was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    import resource  # not on Windows

    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _wait_for(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def load_average() -> float:
    """Processes that ran or waited in the last minute; 0.0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def machine_of(device: torch.device) -> dict[str, Any]:
    """What a reader needs to judge numbers measured on it, and nothing that tells which machine it was."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    known = torch.cpu.get_capabilities()
    instructions = [key for key in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "sve", "sve_bf16") if known.get(key)]
    memory = memory_bytes()
    return {
        "processor": processor_name(),
        "instructions": instructions,
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory / 2**30) if math.isfinite(memory) else None,
        "device": name,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are measured."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
