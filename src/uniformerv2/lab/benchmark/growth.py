"""How cost grows with frames, resolution and fusion stages beside a linear law, and the multiply-adds of each part.

The linear law of frames and resolution is that of tokens: twice the tokens, twice the cost. Attention inside a frame is
quadratic in the tokens of a frame, so that resolution may lie above it; frames may not. The law of stages is that of
multiply-adds counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from uniformerv2.lab.benchmark.choices import FRAMES, SIZES
from uniformerv2.lab.benchmark.clock import time_in_turns
from uniformerv2.lab.benchmark.networks import Subject, TestClip, Work, build_run, peak_of
from uniformerv2.model.summary import count_macs, summarize
from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["PARTS", "Sweep", "count_flops", "measure_growth"]

Sweep = Literal["frames", "size", "stages"]


def measure_growth(
    make: Callable[..., tuple[UniFormerV2, Any]],
    work: Work,
    *,
    frames: Sequence[int] = FRAMES,
    sizes: Sequence[int] = SIZES,
    stages: Sequence[int] = (),
    repeats: int,
) -> list[dict[str, Any]]:
    """Change one thing at a time; each of the three curves is timed in turns.

    Args:
        make: ``make_ours`` or a ``partial`` of it.
        work: What one call does.
        frames: Numbers of frames, at the network's own size.
        sizes: Sides of a frame in pixels, at the network's own number of frames.
        stages: Numbers of fused blocks, counted from the last; none: about five of them, from one to all.
        repeats: Rounds.

    Returns:
        A row a point; ``linear`` is the cost that the law says, in units of the curve's first point.
    """
    with torch.device("meta"):
        depth = make()[0].config.depth
    counts = stages or sorted({1, *(round(depth * part / 4) for part in (1, 2, 3)), depth} - {0})
    rows = _measure_sweep("frames", {value: partial(make, num_frames=value) for value in frames}, work, repeats)
    rows += _measure_sweep("size", {value: partial(make, image_size=value) for value in sizes}, work, repeats)
    fused = {
        value: partial(make, fusion_stages=tuple(range(depth - value, depth)), global_dropout=(0.0,))
        for value in counts
    }
    return rows + _measure_sweep("stages", fused, work, repeats)


def _measure_sweep(
    sweep: Sweep, makers: Mapping[int, Callable[[], tuple[UniFormerV2, Any]]], work: Work, repeats: int
) -> list[dict[str, Any]]:
    subjects = {value: Subject(f"{sweep} {value}", make) for value, make in makers.items()}
    runs = {subject.name: build_run(subject, work) for subject in subjects.values()}
    times = time_in_turns(runs, repeats=repeats, device=work.device)
    runs.clear()
    rows: list[dict[str, Any]] = []
    for value, subject in subjects.items():
        tokens, macs = _counts(subject)
        timed = times[subject.name]
        row: dict[str, Any] = {"sweep": sweep, "value": value, "pass": work.kind, "tokens": tokens, "gmacs": macs / 1e9}
        row |= {"precision": work.precision, "batch_size": work.batch_size, **timed.to_row()}
        row["peak_bytes"] = peak_of(subject, work)
        first = rows[0] if rows else row
        law = "gmacs" if sweep == "stages" else "tokens"
        row["linear"] = row[law] / first[law]
        row["time_ratio"] = row["seconds"] / first["seconds"]
        row["memory_ratio"] = row["peak_bytes"] / first["peak_bytes"]
        rows.append(row)
    return rows


def _counts(subject: Subject) -> tuple[int, int]:
    """Tokens of a clip, and multiply-adds."""
    with torch.device("meta"):
        model, _ = subject.make()
    assert isinstance(model, UniFormerV2)
    config = model.config
    steps = config.num_frames // config.tubelet_size
    return steps * (model.embedding.num_prefix_tokens + config.grid[0] * config.grid[1]), count_macs(model)[0]


PARTS: Final = {
    "patch embedding": ("embedding",),
    "LT_MHRA": ("blocks", "local"),
    "GS_MHRA": ("blocks", "spatial"),
    "FFN of the blocks": ("blocks", "ffn"),
    "DPE": ("fusion", "position"),
    "C_MHRA": ("fusion", "cross"),
    "FFN of the stages": ("fusion", "ffn"),
    "head": ("head",),
}
"""Part -> names of modules on the way to it, from the outside in."""


def count_flops(model: UniFormerV2, clip: TestClip) -> list[dict[str, Any]]:
    """Compute one clip on the CPU, in float32, and count.

    Args:
        model: Is left in eval mode without gradients.
        clip: What it is shown.

    Returns:
        A row a part; then those of the whole: ``counted``, ``summarize``, and the ``published form``.
    """
    model.eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(clip.batch(1))
    by_module = {name: sum(flops.values()) / 2 for name, flops in counter.get_flop_counts().items()}
    macs = {part: _sum_of(by_module, names) for part, names in PARTS.items()}
    total = counter.get_total_flops() / 2
    summary = summarize(model, num_frames=clip.num_frames)
    rows = [{"part": part, "gmacs": value / 1e9, "share": value / total} for part, value in macs.items()]
    whole = {"counted": total, "summarize": summary.macs, "published form": summary.published_macs}
    return rows + [{"part": part, "gmacs": value / 1e9, "share": value / total} for part, value in whole.items()]


def _sum_of(by_module: dict[str, float], names: tuple[str, ...]) -> float:
    """Of the outermost modules whose path, behind the network's own name, has the names from its start on."""
    found: dict[str, float] = {}
    for path, macs in sorted(by_module.items()):
        words = [word for word in path.split(".")[1:] if not word.isdecimal() and word != "stages"]
        is_inside = any(path.startswith(f"{outer}.") for outer in found)
        if tuple(words[: len(names)]) == names and not is_inside:
            found[path] = macs
    return sum(found.values())
