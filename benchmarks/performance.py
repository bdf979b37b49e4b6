"""Measure everything that docs/performance.md shows, and write its tables and figures from the results.

    python benchmarks/performance.py DATA                       # all of it, about 12 minutes on a quiet machine
    python benchmarks/performance.py DATA --only model peers    # some measurements; the others stay as they are
    python benchmarks/performance.py                            # only the page and its figures, from the results
    python benchmarks/performance.py --check                    # is the page what the results say?

Each measurement is one ``uniformerv2 benchmark`` command in a process of its own, and writes results/NAME.json. DATA is
a folder or list of videos; 48 of them are taken, and prepared by ``uniformerv2 data prepare`` for what needs prepared
ones. In the page, what stands between two markers is made here; what stands elsewhere is written by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from PIL import Image

from uniformerv2.data.list_files import write_lists
from uniformerv2.lab.benchmark.measures import BenchmarkReport
from uniformerv2.lab.benchmark.reading import evenly_chosen
from uniformerv2.lab.benchmark.render import draw, table_of

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
PAGE: Final = ROOT / "docs" / "performance.md"
IMAGES: Final = ROOT / "docs" / "images"
NUM_VIDEOS: Final = 48

PLAIN: Final = "--against benchmarks.plain_form:PlainUniFormerV2"
COMMANDS: Final = {
    "model": f"model {PLAIN} --precision fp32 bf16",
    "step": f"model {PLAIN} --pass step --precision bf16-mixed --batch-size 2 --repeats 3",
    "step_checkpointed": "model --pass step --checkpointing --precision bf16-mixed --batch-size 2 --repeats 2",
    "step_armour": "model --pass step --freeze-backbone --precision bf16-mixed --batch-size 2 --repeats 3",
    "peers": "model --peers --precision bf16 --repeats 2",
    "growth": "growth --precision bf16 --repeats 2",
    "growth_step": "growth --backbone vit_small_patch16_224 --pass step --precision bf16-mixed --repeats 2",
    "flops": "flops --model uniformerv2_b16_ssv2_16x224",
    "decode": "decode DATA --prepared PREPARED --max-videos 24",
    "data": "data DATA --prepared PREPARED --max-videos 48 --repeats 2 --workers 2",
    "pipeline": "pipeline DATA --repeats 2",
    "pipeline_demo": "pipeline DATA --model models/demo --repeats 2",
    "startup": "startup --model models/demo --video examples/archery.mp4 --repeats 3",
}
"""Measurement -> the command behind ``uniformerv2 benchmark``."""

BLOCKS: Final = {
    "model": ("model",),
    "step": ("step", "step_checkpointed", "step_armour"),
    "peers": ("peers",),
    "growth": ("growth", "growth_step"),
    "flops": ("flops",),
    "decode": ("decode",),
    "data": ("data",),
    "pipeline": ("pipeline", "pipeline_demo"),
    "startup": ("startup",),
}
"""Block of the page -> the measurements it shows."""

FIGURES: Final = {
    "model": "Share of the GEMM ceiling",
    "peers": "Share of the GEMM ceiling, ours and other networks",
    "growth": "Time and memory over frames, resolution and fusion stages, beside the linear law",
    "decode": "Processor time of a video by reader",
}
"""Blocks with a figure -> what it shows."""

MEMORY_STAYS: Final = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
"""Keeps glibc from giving memory back between calls: page faults, which come and go, else cost up to a tenth."""


def measure(names: Sequence[str], data: Path, *, repeats: int | None = None) -> None:
    """Run the commands; a result is replaced when its command is done.

    Args:
        names: Keys of ``COMMANDS``.
        data: A folder or list of videos.
        repeats: Instead of what the commands say.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = {"DATA": str(data)}
        if any("DATA" in COMMANDS[name] for name in names):
            chosen = Path(folder, "chosen")
            records = [replace(record, split="train") for record in evenly_chosen(data, NUM_VIDEOS)]
            (videos,) = write_lists(records, chosen)
            places = {"DATA": str(videos), "PREPARED": str(Path(folder, "prepared"))}
        if any("PREPARED" in COMMANDS[name] for name in names):
            _run(["data", "prepare", str(videos), places["PREPARED"]])
        for name in names:
            command = with_repeats(COMMANDS[name], repeats)
            print(f"{name}: uniformerv2 benchmark {command}", flush=True)
            words = [places.get(word, word) for word in command.split()]
            _run(["benchmark", *words, "--out", str(RESULTS / f"{name}.json")])


def with_repeats(command: str, repeats: int | None) -> str:
    """The command with so many rounds; ``flops`` has none.

    >>> with_repeats("model --repeats 3 --peers", 1)
    'model --peers --repeats 1'
    """
    if repeats is None or command.startswith("flops"):
        return command
    return f"{re.sub(r' --repeats [0-9]+', '', command)} --repeats {repeats}"


def _run(words: list[str]) -> None:
    environment = {**os.environ, **MEMORY_STAYS}
    subprocess.run([sys.executable, "-m", "uniformerv2", *words], check=True, cwd=ROOT, env=environment)


def reports(block: str) -> dict[str, BenchmarkReport]:
    """What has been measured for a block of the page."""
    paths = {name: RESULTS / f"{name}.json" for name in BLOCKS[block]}
    return {name: BenchmarkReport.read(path) for name, path in paths.items() if path.exists()}


def page(text: str) -> str:
    """The page with its blocks as the results say.

    Args:
        text: The page as it is.

    Raises:
        ValueError: A block is not in the page.
    """
    for name in ("machine", *BLOCKS):
        pattern = re.compile(rf"(<!-- begin {name}:[^>]*-->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{PAGE.name} must have the markers of '{name}' once.")
        lines = machine_lines() if name == "machine" else block_lines(name)
        content = "\n".join(["", *lines, "", ""])
        text = pattern.sub(lambda found, content=content: found[1] + content + found[2], text)
    return text


def machine_lines() -> list[str]:
    """What was measured where and when."""
    found: dict[str, list[str]] = {}
    for block in BLOCKS:
        for name, report in reports(block).items():
            machine = report.machine
            flags = [flag for flag in machine["instructions"] if "bf16" in flag] or machine["instructions"][-1:]
            where = (
                f"{report.date}: {machine['processor']} ({', '.join(flags)}), {machine['cores']} cores, "
                f"{machine['threads']} threads, {machine['memory_gib']} GiB, {machine['device']}; "
                f"torch {report.versions['torch']}, Python {report.versions['python']}"
            )
            found.setdefault(where, []).append(f"{name} ({machine['load_before']})")
    return [
        f"- {where}. Processes that ran just before, by measurement: {', '.join(names)}"
        for where, names in found.items()
    ]


def block_lines(block: str) -> list[str]:
    """Commands, table, figure, and what is missing."""
    found = reports(block)
    if not found:
        return ["Not measured yet."]
    commands = [
        f"$ python -m uniformerv2 benchmark {with_repeats(COMMANDS[name], report.settings.get('repeats'))}"
        for name, report in found.items()
    ]
    kind = next(iter(found.values())).benchmark
    rows = [row for report in found.values() for row in report.rows]
    lines = ["```console", *commands, "```", "", table_of(kind, rows).to_markdown()]
    if block in FIGURES:
        lines += ["", f"![{FIGURES[block]}](images/{image_path(block).name})"]
    absent = {name: reason for report in found.values() for name, reason in report.absent.items()}
    return [*lines, *(f"\nNot measured: {name}: {reason}." for name, reason in absent.items())]


def image_path(block: str) -> Path:
    """Where the figure of a block lies."""
    return IMAGES / f"performance_{block}.png"


def digest(block: str) -> str:
    """Of the rows that a figure is drawn from; it stands in the PNG."""
    rows = [report.rows for report in reports(block).values()]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()


def stale_figures() -> list[str]:
    """Blocks whose figure is missing or was drawn from other results."""
    stale = []
    for block in FIGURES:
        path = image_path(block)
        if reports(block) and (not path.exists() or _source(path) != digest(block)):
            stale.append(block)
    return stale


def _source(path: Path) -> str | None:
    """What a figure says it was drawn from."""
    with Image.open(path) as image:
        return image.info.get("Source")


def write_page() -> None:
    """Draw what is stale and write the page."""
    for block in stale_figures():
        found = reports(block)
        rows = [row for report in found.values() for row in report.rows]
        draw(next(iter(found.values())).benchmark, rows, image_path(block), source=digest(block))
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def check() -> int:
    """1 where the page or a figure is not what the results say."""
    text = PAGE.read_text(encoding="utf-8")
    wrong = [f"the figure of {block}" for block in stale_figures()] + (["the text"] if page(text) != text else [])
    if wrong:
        print(f"{PAGE.name}: {', '.join(wrong)}: run python benchmarks/performance.py", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    """Measure what is asked for, then write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="a folder or list of videos; none: measure nothing")
    parser.add_argument(
        "--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="NAME", help="these alone"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="rounds of each, instead of what is set here")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    if options.check:
        return check()
    if options.data:
        if not options.data.exists():
            parser.error(f"there is no file or folder {options.data}")
        measure(options.only, options.data.resolve(), repeats=options.repeats)
    write_page()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
