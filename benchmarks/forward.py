"""How near a forward pass comes to its matrix products alone, in float32 and bfloat16.

    MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000 \
        python benchmarks/forward.py --json benchmarks/results/forward.json

The bound is the time of the network's matrix products on inputs of the same shapes, and of nothing else: every
``linear``, and the two products of each block's attention. Model and bound are timed in turn in one process, three
calls each after one that does not count, and compared as medians. The variables keep glibc from giving memory back
between calls: else page faults, which come and go with what else the process holds, cost up to a tenth.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2 import create_model

MODELS = {"b16": "uniformerv2_b16_k400_8x224", "b16_motion": "uniformerv2_b16_ssv2_16x224"}


def linears_of(model: nn.Module, video: Tensor) -> list[tuple[nn.Linear, Tensor]]:
    """Every linear layer that a forward pass calls, with an input of the shape it is called with."""
    calls: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: calls.append((module, torch.randn_like(inputs[0]))))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.inference_mode():
        model(video)
    for hook in hooks:
        hook.remove()
    return calls


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.inference_mode()
def measure(name: str, dtype: torch.dtype, *, repeats: int) -> dict[str, float]:
    """Medians for one model and precision, in seconds a clip."""
    model = create_model(MODELS[name]).eval().to(dtype)
    video = torch.randn(1, model.config.num_frames, 3, 224, 224, dtype=dtype)
    calls = linears_of(model, video)
    patches = F.unfold(video.flatten(0, 1).float(), 16, stride=16).transpose(1, 2).to(dtype)
    patches = patches[:: model.config.tubelet_size].repeat(1, 1, model.config.tubelet_kernel_size)
    kernel = model.embedding.weight.flatten(1)

    steps, heads, tokens = len(patches), model.config.num_heads, 1 + patches.shape[1]
    queries = torch.randn(steps * heads, tokens, model.config.dim // heads, dtype=dtype)
    weights = torch.randn(steps * heads, tokens, tokens, dtype=dtype)

    def linears() -> None:
        F.linear(patches, kernel)
        for layer, x in calls:
            F.linear(x, layer.weight, layer.bias)

    def attention() -> None:
        for _ in model.blocks:
            torch.bmm(queries, queries.transpose(1, 2))
            torch.bmm(weights, queries)

    runs = {"forward": lambda: model(video), "linears": linears, "attention": attention}
    times: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(repeats):
        for key, run in runs.items():
            run()  # also gives the allocator what it will give again
            times[key] += [seconds(run) for _ in range(3)]
    return {key: median(values) for key, values in times.items()}


def bound(times: dict[str, float]) -> float:
    """Seconds of all matrix products."""
    return times["linears"] + times["attention"]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for name in options.models:
        times = {str(dtype): measure(name, dtype, repeats=options.repeats) for dtype in (torch.float32, torch.bfloat16)}
        exact, low = times.values()
        results.append(
            {
                "model": MODELS[name],
                "seconds": times,
                "forward_over_bound": {key: value["forward"] / bound(value) for key, value in times.items()},
                "forward_over_linears": {key: value["forward"] / value["linears"] for key, value in times.items()},
                "bf16_speedup": exact["forward"] / low["forward"],
            }
        )
        print(f"{MODELS[name]}: bf16 is {results[-1]['bf16_speedup']:.2f} x fp32")
        for key, value in times.items():
            ratios = value["forward"] / bound(value), value["forward"] / value["linears"]
            print(
                f"  {key}: {value['forward']:.3f} s a clip, {ratios[0]:.3f} x its matrix products, "
                f"{ratios[1]:.3f} x its linear layers alone"
            )
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    report = {"torch": torch.__version__, "machine": machine, "results": results}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
