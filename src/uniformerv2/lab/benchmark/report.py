"""``BenchmarkReport``: what was measured, on what, when; JSON there and back."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import torch

from uniformerv2.core.files import write_text
from uniformerv2.core.workers import available_cores

__all__ = ["BenchmarkReport", "load_average", "machine_of"]

PACKAGES: Final = ("torch", "torchvision", "timm", "av", "torchcodec", "decord", "transformers")


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport:
    """One measurement.

    Attributes:
        benchmark: Its name, as on the command line.
        rows: What was measured, in plain values; times in seconds, memory in bytes where the name says nothing else.
        settings: The options that decide what was measured.
        absent: What could not be measured -> why.
        date: The day of the measurement, UTC.
        machine: Processor, cores, memory, device, and how many processes ran or waited in the minute before.
        versions: Python's version and those of the packages that were measured.
    """

    benchmark: str
    rows: tuple[dict[str, Any], ...]
    settings: Mapping[str, Any]
    absent: Mapping[str, str]
    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]

    @classmethod
    def of_now(
        cls,
        benchmark: str,
        rows: Sequence[dict[str, Any]],
        *,
        settings: Mapping[str, Any],
        absent: Mapping[str, str],
        device: torch.device | str,
        load: float,
    ) -> Self:
        """With date, machine and versions; ``load`` is what ``load_average`` said before the measurement."""
        return cls(
            benchmark=benchmark,
            rows=tuple(rows),
            settings=dict(settings),
            absent=dict(absent),
            date=datetime.now(UTC).date().isoformat(),
            machine={**machine_of(torch.device(device)), "load_before": round(load, 1)},
            versions=_versions(),
        )

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """What ``write`` wrote.

        Raises:
            ValueError: The file holds no such report.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names or not values["rows"]:
            raise ValueError(f"{path} is no report of a benchmark: it must have {', '.join(sorted(names))}, with rows.")
        return cls(**{**values, "rows": tuple(values["rows"])})


def load_average() -> float:
    """Processes that ran or waited in the last minute; 0.0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def machine_of(device: torch.device) -> dict[str, Any]:
    """What a reader needs to judge numbers measured on it, and nothing that tells which machine it was."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    known = torch.cpu.get_capabilities()
    instructions = [key for key in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "sve", "sve_bf16") if known.get(key)]
    return {
        "processor": _processor(),
        "instructions": instructions,
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "device": name,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family)\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE))
    if "model name" not in found:
        return platform.machine()
    return found["model name"].strip() + (f", family {found['cpu family']}" if "cpu family" in found else "")


def _memory_gib() -> int | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
