"""``uniformerv2 doctor``: what this machine has for the package, what is missing, and how to install it."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import add_json
from uniformerv2.core.files import free_bytes, in_words
from uniformerv2.core.limits import Limits, get_limits

if TYPE_CHECKING:
    import torch

__all__ = ["add_arguments", "check", "diagnose", "run"]

EXAMPLE: Final = "uniformerv2 doctor --json"
LOADS: Final = "uniformerv2.lab.benchmark.machine"
PACKAGE: Final = "uniformerv2"
NOT_FOR_USERS: Final = frozenset({"dev", "all", "peers"})
"""Extras that are not listed: of developers, of everything, of comparisons."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    add_json(parser)


def check(_options: argparse.Namespace) -> None:
    """Nothing can be wrong."""


def run(options: argparse.Namespace) -> int:
    """Print what is there; 1 where no decoder works or a package of the core is missing."""
    found = diagnose()
    is_ill = bool(found["missing"].get("")) or not any(not reason for reason in found["decoders"].values())
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return int(is_ill)
    from rich.table import Table

    from uniformerv2.core.console import make_console

    table = Table(box=None, show_header=False, padding=(0, 1))
    for name, value in _rows(found):
        table.add_row(name, value)
    make_console().print(table, markup=False)
    return int(is_ill)


def diagnose() -> dict[str, Any]:
    """Versions, processor and devices, decoders, cache, disk, limits, missing packages by extra; in plain values."""
    import torch

    from uniformerv2.core.files import cache_home
    from uniformerv2.lab.benchmark.machine import machine_of
    from uniformerv2.zoo.download import is_offline

    devices = [torch.device("cpu"), *(torch.device("cuda", index) for index in range(torch.cuda.device_count()))]
    devices += [torch.device("mps")] if torch.backends.mps.is_available() else []
    machine, cache, here = machine_of(devices[0]), cache_home(), Path.cwd()
    defaults = asdict(Limits())
    needs = list(_needs())
    return {
        "versions": {"python": platform.python_version(), **{name: has for name, _, _, has in needs if has}},
        "system": platform.platform(),
        "processor": {name: machine[name] for name in ("processor", "instructions", "cores", "memory_gib")},
        "devices": {str(device): _device(device) for device in devices},
        "decoders": {"pyav": "", "torchcodec": _torchcodec()},
        "ffmpeg_of_pyav": _ffmpeg(),
        "cache": {"folder": str(cache), "bytes": _bytes_below(cache), "offline": is_offline()},
        "disk": {"here": free_bytes(here), "cache": free_bytes(cache)},
        "limits": {name: value for name, value in asdict(get_limits()).items() if value != defaults[name]},
        "missing": _missing(needs),
    }


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    versions, processor, cache = found["versions"], found["processor"], found["cache"]
    shown = ("uniformerv2", "python", "torch", "torchvision", "timm", "av", "lightning")
    yield "versions", ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    yield "system", found["system"]
    memory = f", {processor['memory_gib']} GiB memory" if processor["memory_gib"] else ""
    yield "processor", f"{processor['processor']}, {processor['cores']} cores{memory}"
    for name, device in found["devices"].items():
        memory = f", {in_words(device['bytes'])}" if device["bytes"] else ""
        fast = "float32 and bfloat16" if device["is_bf16_fast"] else "float32; bfloat16 is slow here"
        yield name, f"{device['name']}{memory}; computes {fast}"
    for name, reason in found["decoders"].items():
        yield f"decoder {name}", reason or f"works, FFmpeg {found['ffmpeg_of_pyav']}" * (name == "pyav") or "works"
    offline = "; offline mode is on" if cache["offline"] else ""
    yield "cache", f"{cache['folder']}, {in_words(cache['bytes'])}{offline}"
    yield "disk", f"{in_words(found['disk']['here'])} free here, {in_words(found['disk']['cache'])} for the cache"
    limits = ", ".join(f"{name}={value}" for name, value in found["limits"].items())
    yield "limits", limits or "the defaults"
    for extra, packages in found["missing"].items():
        command = f"pip install '{PACKAGE}[{extra}]'" if extra else f"pip install {PACKAGE}"
        yield f"missing for {extra or 'the core'}", f"{', '.join(packages)}: {command}"
    if not found["missing"]:
        yield "missing", "nothing"


def _needs() -> Iterator[tuple[str, str, str, str]]:
    """Each required package: its name, its least version, its extra, the version that is installed or nothing."""
    try:
        yield PACKAGE, "", "", importlib.metadata.version(PACKAGE)
        needs = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return
    for need in needs:
        name = re.match(r"[\w.-]+", need)
        floor, extra = re.search(r">=([\d.]+)", need), re.search(r"extra == ['\"](\w+)", need)
        assert name is not None  # so does every requirement begin
        try:
            has = importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            has = ""
        yield name[0], floor[1] if floor else "", extra[1] if extra else "", has


def _missing(needs: list[tuple[str, str, str, str]]) -> dict[str, list[str]]:
    """Extra -> packages that are not installed, or too old."""
    missing: dict[str, list[str]] = {}
    for name, floor, extra, has in needs:
        if extra not in NOT_FOR_USERS and (not has or _numbers(has) < _numbers(floor)):
            missing.setdefault(extra, []).append(f"{name} {has} is older than {floor}" if has else name)
    return missing


def _numbers(version: str) -> list[int]:
    """The release of a version, for comparison."""
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3]]


def _device(device: torch.device) -> dict[str, Any]:
    import torch

    from uniformerv2.model.precision import computes_bf16

    is_cuda = device.type == "cuda"
    return {
        "name": torch.cuda.get_device_name(device) if is_cuda else {"cpu": "the processor"}.get(device.type, "GPU"),
        "bytes": torch.cuda.get_device_properties(device).total_memory if is_cuda else None,
        "is_bf16_fast": computes_bf16(device),
    }


def _torchcodec() -> str:
    """Why it does not work; empty where it does."""
    from uniformerv2.media.frame_sources import torchcodec_decoder

    try:
        torchcodec_decoder()
    except (ImportError, ValueError, RuntimeError, OSError) as error:
        return str(error).partition("\n")[0]
    return ""


def _ffmpeg() -> str:
    import av

    return str(getattr(av, "ffmpeg_version_info", "of the wheel"))


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
