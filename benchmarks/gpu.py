"""Correctness and speed on one GPU: what ``gpu.sh`` runs, in ten minutes at most.

Sections, each with a share of the time; what does not fit into it is listed as left out, what fails as failed, and
the report is written anew after every line, so that nothing measured is lost::

    ceilings      a copy inside the memory (bytes read and written), a bfloat16 matrix product
    goldens       logits and losses of the published code, in float32 and bfloat16
    kernels       each Triton kernel against its definition in float64, gradients included; the same bits twice
    stage         C_MHRA's stage, its DPE alone, LT_MHRA's mix: PyTorch, Triton, share of the copy's speed
    tiles         each kernel with other tiles than it has: which suit this device
    profile       where a forward pass and a training step of B/16 spend the device's time
    networks      B/16, L/14, L/14@336: forward and training step; eager, compiled, CUDA graphs; PyTorch, Triton
    plain         the published form of the same networks (plain_form.py)
    peers         other video networks that are installed here, random weights

Times are medians between synchronised clocks after warming up. A forward pass is that of the merged network in
bfloat16, as ``predict`` runs it; a training step is forward, backward and AdamW with float32 weights under bfloat16
autocast. Letters: B videos, T frames, C channels.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarks.gpu_report import Bench, Step
from benchmarks.plain_form import PlainUniFormerV2
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2.model.blocks import DynamicPositionEncoding, GlobalUniBlock, LocalTemporalMHRA
from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.summary import summarize
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.ops import set_impl
from uniformerv2.zoo.cards import model_card
from uniformerv2.zoo.convert import convert

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    "B/16": "uniformerv2_b16_k400_8x224",
    "B/16 motion": "uniformerv2_b16_ssv2_16x224",
    "L/14": "uniformerv2_l14_k400_k710_8x224",
    "L/14@336": "uniformerv2_l14_k400_k710_64x336",
}
TINY = {"image_size": 32, "patch_size": 16, "dim": 48, "depth": 2, "num_heads": 3, "fusion_stages": (0, 1)}
GOLDEN_MODELS = ("scene", "temporal", "single_local", "frozen")
PEERS = {  # module, maker, T, and where the channels stand in a batch
    "torchvision MViTv2-S": ("torchvision.models.video", "mvit_v2_s", 16, 1),
    "torchvision Swin3D-T": ("torchvision.models.video", "swin3d_t", 16, 1),
    "transformers VideoMAE-B": ("transformers", "VideoMAE", 16, 2),
    "transformers TimeSformer-B": ("transformers", "Timesformer", 8, 2),
}


@dataclass(frozen=True)
class Case:
    """One network on clips of one length."""

    name: str
    frames: int
    batch: int
    train: bool = False
    mode: str = "eager"
    impl: str = "triton"
    checkpointing: bool = False
    form: str = "ours"

    def row(self) -> dict[str, Any]:
        """What the report says of it."""
        step = "train" if self.train else "forward"
        row = {"model": self.name, "frames": self.frames, "batch": self.batch, "step": step, "mode": self.mode}
        return {**row, "impl": self.impl if self.form == "ours" else self.form, "checkpointing": self.checkpointing}


CASES = [  # the aims first: what the time does not allow is at the end
    Case("B/16", 8, 64),
    Case("B/16", 8, 32, train=True),
    Case("L/14", 8, 32),
    Case("L/14@336", 64, 2, train=True, checkpointing=True),
    Case("B/16", 8, 64, impl="torch"),
    Case("B/16", 8, 32, train=True, impl="torch"),
    Case("L/14", 8, 16, train=True),
    Case("B/16 motion", 16, 32),
    Case("B/16 motion", 16, 16, train=True),
    Case("B/16 motion", 16, 32, impl="torch"),
    Case("L/14@336", 8, 8),
    Case("L/14@336", 32, 2),
    Case("L/14@336", 64, 1),
    Case("L/14@336", 16, 4, train=True),
    Case("B/16", 8, 64, mode="compiled"),
    Case("B/16", 8, 32, train=True, mode="compiled"),
    Case("B/16", 8, 1),
    Case("B/16", 8, 1, impl="torch"),
    Case("B/16", 8, 1, mode="graphs"),
    Case("L/14", 8, 32, mode="compiled"),
    Case("B/16", 8, 64, mode="compiled", impl="torch"),
    Case("B/16", 8, 32, train=True, mode="compiled", impl="torch"),
    Case("B/16", 8, 64, mode="graphs"),
    Case("B/16", 8, 32, train=True, mode="graphs"),
    Case("L/14", 8, 16, train=True, mode="compiled"),
    Case("B/16 motion", 16, 32, mode="compiled"),
    Case("B/16", 8, 16),
    Case("B/16", 8, 256),
    Case("B/16", 32, 16),
]
PROFILED = [
    Case("B/16", 8, 64),
    Case("B/16", 8, 32, train=True),
    Case("B/16", 8, 64, impl="torch"),
    Case("B/16", 8, 32, train=True, impl="torch"),
    Case("B/16 motion", 16, 16, train=True),
]
TILES: dict[str, list[dict[str, int]]] = {  # what else each kernel could take; one thing changed at a time
    "POSITION": [
        {"block_n": 32},
        {"block_n": 16, "num_warps": 4},
        {"block_n": 32, "num_warps": 4},
        {"block_n": 16, "block_c": 128, "num_warps": 4},
        {"block_n": 32, "block_c": 128},
        {"num_warps": 4},
        {"frames": 4},
    ],
    "POSITION_GRADIENT": [
        {"block_l": 4},
        {"block_l": 16},
        {"block_c": 16},
        {"block_c": 64},
        {"num_warps": 8},
        {"block_c": 64, "num_warps": 8},
        {"frames": 2},
        {"frames": 1},
    ],
    "ATTEND": [
        {"num_stages": 1},
        {"num_stages": 2},
        {"block_s": 32},
        {"block_s": 32, "num_stages": 2},
        {"num_warps": 4},
    ],
    "ATTEND_GRADIENT": [{"num_stages": 1}, {"num_stages": 2}, {"block_s": 32, "num_stages": 1}, {"num_warps": 4}],
    "MIX": [{"block_l": 16}, {"block_l": 64}, {"block_l": 8, "block_d": 128}, {"block_l": 16, "block_d": 128}],
    "MIX_GRADIENT": [{"block_l": 8}, {"block_l": 32}, {"block_l": 8, "block_d": 128}, {"num_warps": 8}],
}
PLAIN_CASES = [
    Case("B/16", 8, 64, form="plain"),
    Case("B/16", 8, 32, train=True, form="plain"),
    Case("L/14", 8, 32, form="plain"),
    Case("B/16 motion", 16, 32, form="plain"),
    Case("B/16 motion", 16, 16, train=True, form="plain"),
    Case("B/16", 8, 64, mode="compiled", form="plain"),
    Case("B/16", 8, 32, train=True, mode="compiled", form="plain"),
]


def ceilings(bench: Bench) -> Iterator[Step]:
    """What the memory and the tensor cores can do, here and now."""

    def copy() -> dict[str, Any]:
        source = torch.randn(1 << (16 if bench.dry else 30), device=bench.device)
        target = torch.empty_like(source)
        bench.ceilings["bytes"] = 2 * source.nbytes / bench.seconds(lambda: target.copy_(source))
        return {"terabytes_per_second": bench.ceilings["bytes"] / 1e12}

    def product() -> dict[str, Any]:
        size = 64 if bench.dry else 8192
        left, right = torch.randn(2, size, size, device=bench.device, dtype=torch.bfloat16)
        bench.ceilings["operations"] = 2 * size**3 / bench.seconds(lambda: left @ right)
        return {"teraflops": bench.ceilings["operations"] / 1e12}

    yield {"what": "copy"}, copy
    yield {"what": "bfloat16 matrix product"}, product


def golden_steps(bench: Bench) -> Iterator[Step]:
    """The tiny published models."""
    folder = Path(os.environ.get("UNIFORMERV2_GOLDENS", ROOT.parent / "shared" / "goldens")) / "model"
    if not folder.is_dir():
        yield {"what": "goldens"}, lambda: {"left_out": "absent: set UNIFORMERV2_GOLDENS"}
        return
    for name in ("single_local",) if bench.dry else GOLDEN_MODELS:  # the one of few frames that has every kernel
        for impl in ("torch", "triton"):
            row = {"model": f"official {name}", "impl": impl}
            yield row, partial(golden_errors, bench, folder, name, impl)


def golden_errors(bench: Bench, folder: Path, name: str, impl: Any) -> dict[str, Any]:
    """Largest difference of the float32 logits, of the loss, and the relative error of bfloat16 logits."""
    from tests.parity import goldens

    path = folder / f"official_{name}.safetensors"
    fields = goldens.official_fields(goldens.read(folder / "official_tiny.json")[name])
    golden = {key: value.to(bench.device) for key, value in goldens.load_file(path).items()}
    video = golden["input"].transpose(1, 2)
    model = UniFormerV2(UniFormerV2Config(**fields))
    model.load_state_dict(convert(goldens.official_state(path)).state)
    model.to(bench.device)
    with set_impl(impl):
        loss = F.cross_entropy(model.train()(video), torch.tensor([3, 7], device=bench.device))
        model.load_state_dict(convert(goldens.official_state(path)).state)  # the pass moved the running statistics
        with torch.inference_mode():
            logits = model.eval()(video)
            low = model.bfloat16()(video.bfloat16())
    errors = {
        "logits": (logits - golden["logits"]).abs().max().item(),
        "loss": (loss - golden["train_loss"][0]).abs().item(),
        "bfloat16_relative": ((low - golden["logits"]).norm() / golden["logits"].norm()).item(),
    }
    return {**errors, "right": errors["logits"] < 1e-4 and errors["loss"] < 1e-4 and errors["bfloat16_relative"] < 0.05}


def kernel_steps(bench: Bench) -> Iterator[Step]:
    """Each kernel against its definition, at real sizes."""
    low, exact = torch.bfloat16, torch.float32
    cases: list[tuple[str, torch.dtype, tuple[Any, ...]]] = [
        ("position_encoding", low, (2, 9, (14, 14), 768, 1)),
        ("position_encoding", exact, (2, 9, (14, 14), 768, 1)),
        ("temporal_mix", low, (2, 9, 196, 512, 1)),
        ("temporal_mix", exact, (2, 9, 196, 512, 1)),
        ("attend", low, (4, 1576, 12, 768)),
        ("attend", low, (2, 2056, 16, 1024)),
        ("attend", exact, (2, 999, 4, 256)),
    ]
    if bench.dry:
        cases = [("temporal_mix", low, (1, 3, 5, 24, 1)), ("attend", low, (2, 70, 3, 24))]
    for name, dtype, shape in cases:
        row = {"kernel": name, "dtype": str(dtype).removeprefix("torch."), "shape": str(shape)}
        yield row, partial(kernel_errors, bench, name, dtype, shape)


def kernel_errors(bench: Bench, name: str, dtype: torch.dtype, shape: tuple[Any, ...]) -> dict[str, Any]:
    """Relative errors of the result and of each gradient, twice with the same numbers."""
    run = getattr(importlib.import_module("tests.ops.interpreted"), name)
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        with torch.device(bench.device):
            results.append(run(dtype, *shape))
    first, again = results
    limit = 2e-2 if dtype == torch.bfloat16 else 1e-4
    return {"errors": first, "same_twice": first == again, "right": max(first) < limit}


def stage_steps(bench: Bench) -> Iterator[Step]:
    """The two parts that have kernels, alone."""
    sizes = [(1, 2, 2, 48, 3)] if bench.dry else [(32, 8, 14, 768, 12), (32, 8, 16, 1024, 16), (2, 64, 24, 1024, 16)]
    for shape in sizes:
        for impl in ("torch", "triton"):
            for backward in (False, True):
                row = {"shape": "B {} T {} side {} C {} heads {}".format(*shape), "impl": impl, "backward": backward}
                yield {"part": "C_MHRA", **row}, partial(stage_speed, bench, shape, impl, backward=backward)
                yield {"part": "DPE", **row}, partial(position_speed, bench, shape, impl, backward=backward)
                yield {"part": "LT_MHRA", **row}, partial(mix_speed, bench, shape, impl, backward=backward)


def stage_speed(bench: Bench, shape: tuple[int, ...], impl: Any, *, backward: bool) -> dict[str, Any]:
    """C_MHRA's stage from the tokens to the answer; passes over the tokens as in ops/triton_kernels.py."""
    videos, frames, side, dim, heads = shape
    block = GlobalUniBlock(dim, heads).to(bench.device, torch.bfloat16)
    nn.init.normal_(block.cross.proj.weight, std=0.02)
    x = torch.randn(videos, frames, 1 + side * side, dim, device=bench.device, dtype=torch.bfloat16)
    query = torch.randn(videos, 1, dim, device=bench.device, dtype=torch.bfloat16)

    def run() -> Tensor:
        return block.cross(query, block.position(x, (side, side)).flatten(1, 2), norm=block.norm_tokens)

    return part_speed(bench, run, x, impl, passes=9 if backward else 3, backward=backward)


def position_speed(bench: Bench, shape: tuple[int, ...], impl: Any, *, backward: bool) -> dict[str, Any]:
    """The position encoding alone: one pass reads, one writes; backward, two more of each and one of weights."""
    videos, frames, side, dim, _ = shape
    position = DynamicPositionEncoding(dim).to(bench.device, torch.bfloat16)
    x = torch.randn(videos, frames, 1 + side * side, dim, device=bench.device, dtype=torch.bfloat16)
    return part_speed(bench, lambda: position(x, (side, side)), x, impl, passes=6 if backward else 2, backward=backward)


def mix_speed(bench: Bench, shape: tuple[int, ...], impl: Any, *, backward: bool) -> dict[str, Any]:
    """LT_MHRA's mix of neighbour frames, in its bottleneck."""
    videos, frames, side, dim, _ = shape
    affinity = LocalTemporalMHRA(dim).affinity.to(bench.device, torch.bfloat16)
    shape = (videos, frames, side * side, affinity.weight.shape[0])
    x = torch.randn(shape, device=bench.device, dtype=torch.bfloat16)
    return part_speed(bench, lambda: affinity(x), x, impl, passes=5 if backward else 2, backward=backward)


def part_speed(
    bench: Bench, run: Callable[[], Tensor], x: Tensor, impl: Any, *, passes: int, backward: bool
) -> dict[str, Any]:
    """Time, and the bytes of so many passes over the tokens a second as a share of the copy's."""
    x.requires_grad_(backward)
    with set_impl(impl), torch.set_grad_enabled(backward):
        upstream = torch.ones_like(run())

        def step() -> None:
            y = run()
            if backward:
                x.grad = None
                y.backward(upstream)

        seconds = bench.seconds(step)
    speed = x.nbytes / seconds
    shares = {
        f"share_of_copy_{passes}_passes": passes * speed / bench.ceilings["bytes"],
        "share_of_copy_1_pass": speed / bench.ceilings["bytes"],
    }
    return {"microseconds": seconds * 1e6, **shares}


def tile_steps(bench: Bench) -> Iterator[Step]:
    """Each kernel as it is, then with one thing changed."""
    kernels = importlib.import_module("uniformerv2.ops.triton_kernels")
    for name, changes in TILES.items():
        for change in [{}, *changes][: 1 if bench.dry else None]:
            row = {"kernel": name, **getattr(kernels, name), **change}
            yield row, partial(tile_speed, bench, name, {**getattr(kernels, name), **change})


def tile_speed(bench: Bench, name: str, tile: dict[str, int]) -> dict[str, Any]:
    """Time of a kernel on the tokens of 32 clips of B/16."""
    kernels = importlib.import_module("uniformerv2.ops.triton_kernels")
    videos, frames, side, dim = (1, 2, 2, 48) if bench.dry else (32, 8, 14, 768)
    run = tile_calls(kernels, bench.device, videos, frames, side, dim)[name]
    with mock.patch.object(kernels, name, tile):
        return {"microseconds": bench.seconds(run) * 1e6}


def tile_calls(
    kernels: Any, device: torch.device, videos: int, frames: int, side: int, dim: int
) -> dict[str, Callable[[], Any]]:
    """One call of each kernel."""
    low = {"device": device, "dtype": torch.bfloat16}
    x = torch.randn(videos, frames, 1 + side * side, dim, **low)
    inner = torch.randn(videos, frames, side * side, 2 * dim // 3, **low)
    taps, bias = torch.randn(dim, 1, 3, 3, 3, device=device), torch.randn(dim, device=device)
    rows = torch.randn(videos, 12, dim, **low) * dim**-0.5
    gradient, tokens = torch.randn(videos, 12, dim, device=device), x.flatten(1, 2)
    mixed, log_sum = kernels.attend(tokens, rows, 1e-5)
    small = taps[: inner.shape[-1], 0, 0, 0], bias[: inner.shape[-1]]
    return {
        "MIX": lambda: kernels.temporal_mix(inner, *small),
        "MIX_GRADIENT": lambda: kernels.temporal_mix_backward(inner, inner, small[0]),
        "POSITION": lambda: kernels.position_encoding(x, taps, bias, side, side, torch.bfloat16),
        "POSITION_GRADIENT": lambda: kernels.position_encoding_weights(x, x, side, side),
        "ATTEND": lambda: kernels.attend(tokens, rows, 1e-5),
        "ATTEND_GRADIENT": lambda: kernels.attend_backward(gradient, mixed, log_sum, tokens, rows, 1e-5),
    }


def profile_steps(bench: Bench) -> Iterator[Step]:
    """The device's time of one step, by kernel."""
    for case in PROFILED[2::2] if bench.dry else PROFILED:
        yield case.row(), partial(network_profile, bench, case)


def network_profile(bench: Bench, case: Case) -> dict[str, Any]:
    """Shares of the kernels that take most, and the share of the time in which the device waits."""
    model, video, _ = network_of(bench, case)
    kind = torch.profiler.ProfilerActivity.CPU if bench.dry else torch.profiler.ProfilerActivity.CUDA
    with set_impl(case.impl):
        step = step_of(bench, model, video, train=case.train, mode=case.mode)
        seconds = bench.seconds(step)
        with torch.profiler.profile(activities=[kind]) as profile:
            step()
            bench.synchronize()
    field = "self_cpu_time_total" if bench.dry else "self_device_time_total"
    times = {event.key[:90]: getattr(event, field) / 1e6 for event in profile.key_averages()}
    busy = sum(times.values())
    most = sorted(times.items(), key=lambda item: -item[1])[:15]
    shares = [f"{time / busy:.1%} {name}" for name, time in most]
    return {"milliseconds": seconds * 1e3, "device_milliseconds": busy * 1e3, "shares": shares}


def network_steps(bench: Bench, cases: list[Case]) -> Iterator[Step]:
    """Networks on random clips."""
    for case in cases:
        yield case.row(), partial(network_speed, bench, case)


def network_speed(bench: Bench, case: Case) -> dict[str, Any]:
    """Clips a second, memory at most, and the share of the matrix product's speed."""
    held = torch.cuda.memory_allocated() if bench.device.type == "cuda" else 0  # by what an earlier row left behind
    model, video, operations = network_of(bench, case)
    with set_impl(case.impl):
        result = network_time(bench, model, video, train=case.train, mode=case.mode)
    result["peak_gibibytes"] -= held / 2**30
    clips = result["clips_per_second"]
    share = clips * operations * (3 if case.train else 1) / bench.ceilings["operations"]
    return {**result, "share_of_matrix_product": share}


def network_of(bench: Bench, case: Case) -> tuple[nn.Module, Tensor, int]:
    """The network of a case, its clips, and the operations that one clip costs (a multiply-add is two)."""
    torch.manual_seed(0)
    config = UniFormerV2Config.from_dict({**model_card(MODELS[case.name]).config, "num_frames": case.frames})
    if bench.dry:
        small = {**TINY, "num_frames": 2 * config.tubelet_size, "global_num_heads": 3, "global_dropout": (0.0,)}
        config = UniFormerV2Config.from_dict({**config.to_dict(), **small})
    with bench.device:
        ours = UniFormerV2(config)
        ours.set_grad_checkpointing(case.checkpointing)
        operations = 2 * summarize(ours).macs
        model = PlainUniFormerV2(ours) if case.form == "plain" else ours if case.train else ours.eval().merge_linear()
    side, batch = config.image_size, 1 if bench.dry else case.batch
    return model, torch.randn(batch, config.num_frames, 3, side, side, device=bench.device), operations


def network_time(bench: Bench, model: nn.Module, video: Tensor, *, train: bool, mode: str) -> dict[str, Any]:
    """One network, one step."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = bench.seconds(step_of(bench, model, video, train=train, mode=mode))
    peak = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else 0.0
    return {"clips_per_second": len(video) / seconds, "milliseconds": seconds * 1e3, "peak_gibibytes": peak}


def step_of(bench: Bench, model: nn.Module, video: Tensor, *, train: bool, mode: str) -> Callable[[], None]:
    """A forward pass, or a training step, to be called again and again."""
    call: Callable[[Tensor], Tensor] = model
    if mode != "eager":
        kind = {"backend": "eager"} if bench.dry else {"mode": "reduce-overhead" if mode == "graphs" else "default"}
        call = torch.compile(model, fullgraph=True, **kind)
    if train:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=bench.device.type == "cuda")
        labels = torch.zeros(len(video), dtype=torch.long, device=bench.device)

        def step() -> None:
            if mode == "graphs":
                torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(bench.device.type, torch.bfloat16):
                loss = F.cross_entropy(scores(call(video)), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    else:
        model.eval().bfloat16()
        video = video.bfloat16()

        def step() -> None:
            if mode == "graphs":
                torch.compiler.cudagraph_mark_step_begin()
            with torch.inference_mode() if mode == "eager" else torch.no_grad():
                call(video)

    return step


def scores(output: Any) -> Tensor:
    """The class scores in what a network returns."""
    return output if isinstance(output, Tensor) else output.logits


def peer_steps(bench: Bench) -> Iterator[Step]:
    """Other networks, where installed."""
    for name in PEERS:
        for train in (False, True):
            row = {"model": name, "step": "train" if train else "forward"}
            yield row, partial(peer_speed, bench, name, train=train)


def peer_speed(bench: Bench, name: str, *, train: bool, batch: int = 16) -> dict[str, Any]:
    """A network of another package, with random weights."""
    module, maker, frames, channel_dim = PEERS[name]
    package = importlib.import_module(module)
    if bench.dry:
        return {"left_out": "a dry run"}
    if module == "transformers":
        config = getattr(package, f"{maker}Config")(num_frames=frames, num_labels=400)
        model = getattr(package, f"{maker}ForVideoClassification")(config)
    else:
        model = getattr(package, maker)(weights=None)
    video = torch.randn(batch, frames, 3, 224, 224, device=bench.device)
    video = video if channel_dim == 2 else video.transpose(1, 2).contiguous()
    result = network_time(bench, model.to(bench.device), video, train=train, mode="eager")
    return {"frames": frames, "batch": batch, **result}


def version_of(module: str) -> str:
    """Of an installed package."""
    try:
        return str(importlib.import_module(module).__version__)
    except ImportError:
        return "absent"


def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU: does everything run?")
    parser.add_argument("--only", nargs="+", default=[], metavar="SECTION", help="these sections, after the ceilings")
    parser.add_argument("--share", type=float, default=1.0, help="of each section's time (default: 1)")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        parser.error("no CUDA device here; --dry runs everything at tiny sizes on the CPU")
    device = torch.device("cpu" if options.dry else "cuda")
    name = platform.machine() if options.dry else torch.cuda.get_device_name()
    today = datetime.now(UTC).date().isoformat()
    folder = Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results")
    versions = {name: version_of(name) for name in ("torch", "triton", "torchvision", "timm", "transformers")}
    report = {"device": name, "date": today, "dry": options.dry, **versions, "sections": {}}
    out = folder / f"{today}-{'dry-' * options.dry}{name.lower().replace(' ', '-')}.json"
    bench = Bench(device, options.dry, out, report)

    torch.backends.cudnn.allow_tf32 = False  # float32 comparisons are meant in float32
    _, compiled_step, graphs, *_ = (case for case in CASES if case.mode != "eager")
    dry_cases = [CASES[0], CASES[3], compiled_step, graphs]  # forward, training with checkpoints, compiled, graphs
    sections = {
        "ceilings": (20, ceilings(bench)),
        "goldens": (40, golden_steps(bench)),
        "kernels": (60, kernel_steps(bench)),
        "stage": (60, stage_steps(bench)),
        "tiles": (60, tile_steps(bench)),
        "profile": (30, profile_steps(bench)),
        "networks": (190, network_steps(bench, dry_cases if options.dry else CASES)),
        "plain": (60, network_steps(bench, PLAIN_CASES[:2] if options.dry else PLAIN_CASES)),
        "peers": (30, peer_steps(bench)),
    }
    if unknown := set(options.only) - set(sections):
        parser.error(f"no section is called {', '.join(sorted(unknown))}; there are: {', '.join(sections)}")
    for section, (seconds, steps) in sections.items():
        if section == "ceilings" or not options.only or section in options.only:
            bench.run(section, options.share * seconds, steps)
    print(out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
