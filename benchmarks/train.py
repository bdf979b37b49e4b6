"""Training speed and memory: a step of the whole network and of the armour alone, and how long it waits for videos.

    python benchmarks/train.py DATA --json benchmarks/results/train.json

Each case runs in a process of its own, so that its peak memory is its own: batches of DATA (what
``uniformerv2.data.annotations.read_records`` reads) come from the loader, augmented as in training, and go through
forward, backward and AdamW under bfloat16 autocast. The first step is left out; times are medians of the others. What
the loader keeps a step waiting for is given as a part of the step; its worker shares the processor with the training.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from uniformerv2 import create_model
from uniformerv2.data.annotations import read_records
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.training.optim import Optimization, parameter_groups

MODEL = "uniformerv2_b16_k400_8x224"
CASES = {"all": (False, False), "all, checkpointed": (False, True), "armour": (True, False)}
"""Name -> whether the image ViT is frozen, whether blocks are recomputed. Frozen blocks keep nothing."""


def measure(case: str, data: str, *, batch_size: int, num_steps: int, device: torch.device) -> dict[str, float]:
    """Medians of one case, in this process.

    Args:
        case: One of ``CASES``.
        data: Videos; all of them are used.
        batch_size: Videos of a step.
        num_steps: Steps that count.
        device: Where the network is trained.
    """
    is_frozen, is_checkpointed = CASES[case]
    network = create_model(MODEL).to(device).train()
    if is_frozen:
        network.freeze_image_vit()
    network.set_grad_checkpointing(is_checkpointed)
    preprocessing = Preprocessing.from_dict(network.info.preprocessing)
    optimizer = torch.optim.AdamW(parameter_groups(network, Optimization()))
    augmentation = TrainAugmentation(image_size=preprocessing.image_size)
    dataset = VideoDataset(read_records(data), preprocessing, augmentation=augmentation)
    loader = VideoLoader(dataset, batch_size=batch_size, num_workers=1)
    batches, waits, steps = iter(loader), [], []
    for _ in range(num_steps + 1):
        start = time.perf_counter()
        batch = next(batches).to(device)
        ready = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = network(preprocessing.normalize(batch.video))
        loss = F.cross_entropy(logits.float(), batch.label % logits.shape[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        waits.append(ready - start)
        steps.append(time.perf_counter() - start)
    loader.close()
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "clips_per_second": batch_size / median(steps[1:]),
        "wait_part": median(waits[1:]) / median(steps[1:]),
        "peak_gib": peak / 2**30,
    }


def main() -> None:
    """Measure every case, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        size = {"batch_size": options.batch_size, "num_steps": options.steps}
        sys.stdout.write(json.dumps(measure(options.case, options.data, device=torch.device(options.device), **size)))
        return
    results = {}
    for case in CASES:
        command = [sys.executable, __file__, *sys.argv[1:], "--case", case]
        results[case] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    table = Table("trained", "clips/s", "waits for videos", "peak memory, GiB", title=f"{MODEL}, bfloat16")
    for case, result in results.items():
        speed, wait, peak = result["clips_per_second"], result["wait_part"], result["peak_gib"]
        table.add_row(case, f"{speed:.2f}", f"{wait:.1%}", f"{peak:.2f}")
    Console().print(table)
    report = {
        "model": MODEL,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "device": options.device,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "torch": torch.__version__,
        "results": results,
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
