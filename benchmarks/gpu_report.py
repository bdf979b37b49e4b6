"""The clock and the report of the GPU benchmark: rows in sections, written anew after every row."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

__all__ = ["Bench", "Step"]

Step = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


@dataclass
class Bench:
    """The device, the clock and the report."""

    device: torch.device
    dry: bool
    out: Path
    report: dict[str, Any]
    ceilings: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, seconds: float, steps: Iterable[Step]) -> None:
        """Run a section's steps until its time is up; each gives a row."""
        rows = self.report["sections"].setdefault(name, [])
        deadline = time.monotonic() + seconds
        for row, step in steps:
            start = time.monotonic()
            if start > deadline:
                rows.append({**row, "left_out": "the section's time was up"})
                continue
            try:
                result = step()
            except Exception as error:
                reason = str(error).strip().partition("\n")[0][:300]
                result = {"failed": f"{type(error).__name__}: {reason}"}
            rows.append({**row, **result, "took_seconds": round(time.monotonic() - start, 1)})
            print(name, json.dumps(rows[-1]))
            self.write()
            gc.collect()
            torch._dynamo.reset()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def write(self) -> None:
        """JSON and Markdown, whole or not at all."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (self.out, json.dumps(self.report, indent=1) + "\n"),
            (self.out.with_suffix(".md"), _markdown(self.report)),
        ):
            part = path.with_name(path.name + ".part")
            part.write_text(text)
            part.replace(path)

    def seconds(self, run: Callable[[], Any]) -> float:
        """Median time of a call: three to warm up, then for half a second, at least five."""
        times: list[float] = []
        for _ in range(0 if self.dry else 3):
            run()
        self.synchronize()
        end = time.perf_counter() + (0 if self.dry else 0.5)
        while len(times) < (1 if self.dry else 5) or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            self.synchronize()
            times.append(time.perf_counter() - start)
        return median(times)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _markdown(report: dict[str, Any]) -> str:
    """A table for each section."""
    lines = [f"# {report['device']}, {report['date']}", "", f"torch {report['torch']}, triton {report['triton']}"]
    for name, rows in report["sections"].items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += ["", f"## {name}", "", "| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
        lines += ["| " + " | ".join(_cell(row.get(key, "")) for key in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")
