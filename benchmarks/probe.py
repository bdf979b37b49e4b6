"""The table and the picture of docs/probe.md: the probe on UCF101's six classes, on fights, and on the arrow of time.

python benchmarks/probe.py ../shared/data --weights dinov2_vits14_hf_fp16.safetensors
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uniformerv2 import arm
from uniformerv2.autotrain import ClipStatistics, Probe, ProbeResult, clip_statistics
from uniformerv2.data.annotations import class_names, read_records
from uniformerv2.evaluation.figure_style import BLUE, MUTED, figure_style, new_axes
from uniformerv2.model.precision import gains_from_bf16
from uniformerv2.model.statistics import KINDS


def statistics_of(folder: Path, weights: Path, *, blocks_of_ten: bool) -> ClipStatistics:
    """Statistics of all videos of a folder, grouped by their sources or by blocks of ten consecutive numbers."""
    records = read_records(folder, val_fraction=0.0)
    numbers = [int(re.sub(r"\D", "", Path(record.path).stem)) for record in records] if blocks_of_ten else []
    sources = [str((number - 1) // 10) for number in numbers] or None
    names = class_names(records)
    network = arm("vit_small_patch14_dinov2", num_classes=len(names), weights=weights, image_size=112)
    is_bfloat16 = gains_from_bf16(network, torch.device("cpu"))
    return clip_statistics(network, records, class_names=names, sources=sources, is_bfloat16=is_bfloat16)


def arrow_of_time(clips: ClipStatistics) -> ClipStatistics:
    """Each clip twice, once backwards: what knows the order turns its sign."""
    backwards = clips.values.copy()
    backwards[:, [clips.names.index(name) for name in KINDS["order"]]] *= -1
    target = np.eye(2, dtype=bool).repeat(len(clips), axis=0)
    values = np.concatenate([clips.values, backwards])
    return replace(
        clips, values=values, target=target, sources=clips.sources * 2, class_names=("forwards", "backwards")
    )


def draw(results: dict[str, ProbeResult], path: Path) -> None:
    """A panel for each task: the rows with their intervals, and what an answer without looking reaches."""
    with figure_style():
        figure, axes = new_axes(9.0, 2.6, columns=len(results))
        for axis, (title, result) in zip(axes, results.items(), strict=True):
            for place, row in enumerate(reversed(result.rows)):
                value, low, high = (100 * one for one in (row.score.value, row.score.low, row.score.high))
                axis.barh(place, value, color=BLUE if row.name == result.best.name else MUTED, alpha=0.85, height=0.6)
                axis.plot([low, high], [place, place], color="black", linewidth=1.2)
                axis.text(2, place, f"{value:.1f} %", va="center", color="white", fontsize=9)
            axis.axvline(100 * result.chance, color="black", linestyle=":", linewidth=1)
            axis.set_yticks(range(len(result.rows)), [row.name for row in reversed(result.rows)])
            axis.set_xlim(0, 100)
            axis.set_title(title)
            axis.set_xlabel("accuracy of held-out clips, %")
        figure.savefig(path)


def main() -> None:
    """Print a row for each task and kind, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="folder with ucf101_6class and fights")
    parser.add_argument("--weights", type=Path, required=True, help="DINOv2 ViT-S/14")
    parser.add_argument("--picture", type=Path, default=Path(__file__).parents[1] / "docs" / "images" / "probe.png")
    options = parser.parse_args()
    six = statistics_of(options.data / "ucf101_6class", options.weights, blocks_of_ten=False)
    fights = statistics_of(options.data / "fights", options.weights, blocks_of_ten=True)
    tasks: dict[str, Any] = {"UCF101, six classes": six, "fights": fights, "which way time runs": arrow_of_time(six)}
    results = {name: Probe()(clips) for name, clips in tasks.items()}
    for name, result in results.items():
        for row in result.rows:
            score = row.score
            print(f"{name:<22} {row.name:<11} {score.value:7.1%} ({score.low:.1%} to {score.high:.1%})")
        print(f"{name:<22} {'chance':<11} {result.chance:7.1%}")
    draw(results, options.picture)


if __name__ == "__main__":
    main()
