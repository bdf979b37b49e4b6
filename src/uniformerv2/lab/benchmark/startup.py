"""How long it takes to start: fresh processes, in turns, so that each pays for its own imports."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

from uniformerv2.lab.benchmark.clock import Times, time_in_turns

__all__ = ["measure_startup"]

_PUBLIC_FACE: Final = "import uniformerv2\nfor name in uniformerv2.__all__: getattr(uniformerv2, name)"
_IMPORTS: Final = {
    "python": "pass",
    "import torch, timm": "import torch, timm",
    "import uniformerv2": "import uniformerv2",
    "every public name": _PUBLIC_FACE,
}


def measure_startup(
    *, model: str | None, video: str | Path | None, repeats: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Imports, the command's help, the first prediction.

    Args:
        model: What ``predict --model`` takes.
        video: What it is to classify.
        repeats: Processes each.

    Returns:
        A row each, and what is absent.

    Raises:
        ValueError: A process fails; the message has what it said.
    """
    python = [sys.executable, "-c"]
    words = {name: [*python, code] for name, code in _IMPORTS.items()}
    words["uniformerv2 --help"] = [sys.executable, "-m", "uniformerv2", "--help"]
    absent = {}
    if model is None or video is None:
        absent["first prediction"] = "give --model and --video"
    else:
        words["first prediction"] = [sys.executable, "-m", "uniformerv2", "predict", str(video), "--model", model]
    runs = {name: partial(_run, command) for name, command in words.items()}
    for run in runs.values():
        run()  # files into the memory, modules compiled
    times = time_in_turns(runs, repeats=repeats, warm=False)
    beyond = times["every public name"].median - times["import torch, timm"].median
    rows = [_row(name, timed) for name, timed in times.items()]
    return [*rows, {"what": "every public name, beyond torch and timm", "seconds": beyond}], absent


def _row(name: str, timed: Times) -> dict[str, Any]:
    return {"what": name, **timed.to_row()}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command[1:])} failed:\n{done.stderr.strip()}")
