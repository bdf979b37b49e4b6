"""The table and the picture of docs/see_where_the_model_looked.md: does the score fall without the patches of the map?

python benchmarks/explanation.py ../shared/data/ucf101_6class --model models/demo --scores scores.jsonl

Deletion: the patches of a clip are replaced by blurred ones (or by the mean colour), those that an order ranks first
before the others, and the clip is scored anew after each share of them. Insertion: the other way round, from a blurred
clip. An order is good where the score of the class that the network gave the whole clip falls fast, or rises fast.

Source:
    Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models (2018),
    https://arxiv.org/abs/1806.07421, "Causal metrics": the same with grey and blurred pixels of an image.

Letters of this file: T frames of a clip, h x w pixels, T' x H x W patches, N = T' H W.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniformerv2 import Predictor
from uniformerv2.core.console import Progress
from uniformerv2.data.annotations import VideoRecord, read_records
from uniformerv2.data.annotations.held_out import source_of
from uniformerv2.evaluation.figure_style import BLUE, GREEN, INK, MUTED, RED, figure_style, new_axes
from uniformerv2.inference.explanations.pictures import draw_overlays
from uniformerv2.inference.strips import pictures_of

SHARES: Final = (0.1, 0.2, 0.3, 0.5, 0.7)
"""The shares of the patches that are removed or brought back."""
ORDERS: Final = {"gradient": BLUE, "attention": GREEN, "runner-up": RED, "centre": MUTED, "random": INK}
"""The two methods; the gradient map of the second-best class; from the middle of the frame outwards; any order."""
TESTS: Final = {
    "deletion, blurred": ("blurred", False),
    "insertion, blurred": ("blurred", True),
    "deletion, mean colour": ("mean", False),
}
RESAMPLES: Final = 10_000
EXAMPLES: Final = (
    ("examples/violin.mp4", "PlayingViolin"),
    ("examples/violin.mp4", "Archery"),
    ("examples/surfing.mp4", "Surfing"),
)
"""Videos and classes of the picture of maps."""


def chosen(records: list[VideoRecord], per_class: int) -> list[tuple[str, VideoRecord]]:
    """As many clips of each class and half of its sources, source by source in turn; with the name of the half."""
    sources: dict[Any, dict[str, list[VideoRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        sources[record.label][source_of(record.path)].append(record)
    found = []
    for by_source in sources.values():
        names = sorted(by_source)
        for half, part in (("first", names[: len(names) // 2]), ("second", names[len(names) // 2 :])):
            turns = [(place, name) for name in part for place in range(len(by_source[name]))]
            found += [(half, by_source[name][place]) for place, name in sorted(turns)[:per_class]]
    return found


def orders_of(predictor: Predictor, video: str, *, seed: int) -> tuple[int, dict[str, NDArray[np.int64]]]:
    """The class of the whole clip, and by name all N patches, the first to go first."""
    best = predictor.explain(video)
    maps = {
        "gradient": best.map,
        "attention": predictor.explain(video, method="attention").map,
        "runner-up": predictor.explain(video, best.top[1].index).map,
    }
    steps, height, width = best.map.shape
    row, column = np.mgrid[:height, :width]
    from_middle = (row - (height - 1) / 2) ** 2 + (column - (width - 1) / 2) ** 2
    maps["centre"] = np.broadcast_to(-from_middle, best.map.shape)
    orders = {name: np.argsort(-values.ravel(), kind="stable") for name, values in maps.items()}
    return best.target.index, {**orders, "random": np.random.default_rng(seed).permutation(steps * height * width)}


def blurred(pixels: Tensor, patch: int) -> Tensor:
    """[T, C, h, w] with a Gaussian as wide as a patch."""
    from torchvision.transforms.v2 import functional

    return functional.gaussian_blur(pixels, [4 * patch + 1] * 2, [float(patch)] * 2)


def masks(order: NDArray[np.int64], grid: tuple[int, int, int], shape: torch.Size) -> Iterator[Tensor]:
    """For each of ``SHARES`` a mask [T, 1, h, w] that is 1 where a patch is among the first of the order."""
    num_frames, _, height, width = shape
    for share in SHARES:
        mask = torch.zeros(len(order))
        mask[torch.from_numpy(order[: round(share * len(order))].copy())] = 1
        large = mask.view(*grid).repeat_interleave(num_frames // grid[0], 0)
        large = large.repeat_interleave(height // grid[1], 1).repeat_interleave(width // grid[2], 2)
        yield large[:, None]


def scores_of(predictor: Predictor, record: VideoRecord, *, seed: int) -> dict[str, Any]:
    """The class, its score for the whole clip, and by test and order the scores after each share."""
    target, orders = orders_of(predictor, record.path, seed=seed)
    pixels = predictor.reader.read(record).video[0].float()
    config = predictor.model.config
    grid = (config.num_frames // config.tubelet_size, *(side // config.patch_size for side in pixels.shape[2:]))
    mean = torch.tensor(predictor.preprocessing.mean).mul(255).view(3, 1, 1).expand_as(pixels)
    fills = {"blurred": blurred(pixels, config.patch_size), "mean": mean}

    def probabilities(clips: list[Tensor]) -> list[float]:
        return predictor.logits(torch.stack(clips)).softmax(dim=-1)[:, target].tolist()

    content: dict[str, Any] = {"target": target, "whole": probabilities([pixels])[0]}
    for test, (fill, brings_back) in TESTS.items():
        start, end = (fills[fill], pixels) if brings_back else (pixels, fills[fill])
        content[test] = {
            name: probabilities([torch.lerp(start, end, mask) for mask in masks(order, grid, pixels.shape)])
            for name, order in orders.items()
        }
    return content


def better(rows: list[dict[str, Any]], test: str, name: str, other: str) -> tuple[float, float, float]:
    """How much faster the score falls (or rises) by an order than by another, and the 95 % bootstrap over sources.

    The mean over the shares and clips, in points of probability; whole sources are drawn, as their clips look alike.
    """
    sign = 1 if TESTS[test][1] else -1
    by_source = defaultdict(list)
    for row in rows:
        gap = np.mean(row[test][name]) - np.mean(row[test][other])
        by_source[row["source"]].append(sign * 100 * gap)
    sums = np.array([[sum(gaps), len(gaps)] for gaps in by_source.values()])
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    totals = sums[drawn].sum(axis=1)
    low, high = np.percentile(totals[:, 0] / totals[:, 1], [2.5, 97.5])
    return float(sums[:, 0].sum() / sums[:, 1].sum()), float(low), float(high)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each test: the mean score after each share, by order."""
    with figure_style():
        figure, axes = new_axes(10.0, 3.2, columns=len(TESTS))
        for axis, (test, (_, brings_back)) in zip(axes, TESTS.items(), strict=True):
            for name, colour in ORDERS.items():
                curve = np.mean([row[test][name] for row in rows], axis=0)
                whole = [] if brings_back else [np.mean([row["whole"] for row in rows])]
                shares = [*([] if brings_back else [0.0]), *SHARES]
                axis.plot(
                    [100 * share for share in shares], [*whole, *curve], color=colour, label=name, marker="o", ms=3
                )
            axis.set_ylim(0, 1)
            axis.set_title(test)
            axis.set_xlabel(f"patches {'brought back' if brings_back else 'removed'}, %")
        axes[0].set_ylabel("score of the class")
        axes[0].legend(loc="lower left", fontsize=8)
        figure.savefig(path)


def draw_examples(predictor: Predictor, path: Path) -> None:
    """Bundled videos under their maps, a row for each video and class."""
    shown = []
    for video, target in EXAMPLES:
        found = predictor.explain(video, target)
        numbers = found.view.frame_indices
        overlays = draw_overlays(found, pictures_of(VideoRecord(video), numbers, side=480, reader=predictor.reader))
        shown.append((found, overlays[:: len(overlays) // 4][:4]))
    with figure_style():
        figure, axes = new_axes(10.0, 6.2, rows=len(shown), columns=4)
        for row, (found, overlays) in enumerate(shown):
            for axis, overlay in zip(axes[4 * row : 4 * row + 4], overlays, strict=True):
                axis.imshow(np.asarray(overlay.shown), aspect="equal")
                axis.set_axis_off()
            axes[4 * row].set_title(f"{Path(found.video).name}: {found.target.name} {found.target.score:.2f}")
        figure.savefig(path, dpi=90)


def main() -> None:
    """Score, print the table of both halves, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="folder with val.txt")
    parser.add_argument("--model", default="models/demo")
    parser.add_argument("--per-class", type=int, default=5, help="clips of each class in each half")
    parser.add_argument(
        "--scores", type=Path, required=True, help="a line per clip; what is there is not computed again"
    )
    parser.add_argument("--picture", type=Path, default=Path("docs/images/explanation_test.png"))
    options = parser.parse_args()
    predictor = Predictor(options.model)
    clips = chosen(read_records(options.data / "val.txt"), options.per_class)
    done = {}
    if options.scores.exists():
        done = {row["video"]: row for row in map(json.loads, options.scores.read_text().splitlines())}
    with options.scores.open("a") as file, Progress("clips", len(clips), done=len(done)) as progress:
        for seed, (half, record) in enumerate(clips):
            if record.id not in done:
                row = {"video": record.id, "source": source_of(record.path), "half": half}
                done[record.id] = row | scores_of(predictor, record, seed=seed)
                file.write(json.dumps(done[record.id]) + "\n")
                file.flush()
                progress.advance()
    rows = [done[record.id] for _, record in clips]
    for half, part in (("first", "choice"), ("second", "confirmation"), ("both", "all")):
        some = [row for row in rows if half in {row["half"], "both"}]
        print(f"{part}: {len(some)} clips of {len({row['source'] for row in some})} sources")
        for test in TESTS:
            for name in ("gradient", "attention", "runner-up"):
                gaps = [better(some, test, name, other) for other in ("random", "centre")]
                words = "  ".join(f"{gap:+6.1f} ({low:+.1f} to {high:+.1f})" for gap, low, high in gaps)
                print(f"  {test:<22} {name:<10} against random and centre: {words}")
            gap, low, high = better(some, test, "gradient", "attention")
            print(f"  {test:<22} gradient against attention: {gap:+.1f} ({low:+.1f} to {high:+.1f})")
    draw(rows, options.picture)
    draw_examples(predictor, options.picture.with_name("explanation.png"))


if __name__ == "__main__":
    main()
