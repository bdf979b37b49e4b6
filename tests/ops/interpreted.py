"""Runs the Triton kernels in Triton's interpreter and prints how far each is from its definition, as JSON.

A program of its own, because TRITON_INTERPRET must be set before Triton is imported. Definitions are evaluated in
float64; errors are relative, in the 2-norm: of the result, then of the gradient of each input.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace

import torch
from torch.library import opcheck
from torch.nn import functional as F

from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.ops import dispatch, functional, set_impl, triton_kernels

CONFIG = UniFormerV2Config(
    image_size=32,
    patch_size=16,
    dim=48,
    depth=2,
    num_heads=3,
    num_classes=5,
    num_frames=3,
    num_local_steps=1,
    fusion_stages=(0, 1),
    classifier_dropout=0.0,
    global_dropout=(0.0,),
)


def error(value, wanted):
    return ((value.double() - wanted.double()).norm() / wanted.double().norm()).item()


def compare(fast, definition, inputs):
    """Errors of the result and of every gradient, for one random gradient of the result."""
    inputs = [value.detach().requires_grad_() for value in inputs]
    result = fast(*inputs)
    upstream = torch.randn(result.shape).to(result.dtype)
    exact = [value.detach().double().requires_grad_() for value in inputs]
    wanted = definition(*exact)
    gradients = zip(
        torch.autograd.grad(result, inputs, upstream),
        torch.autograd.grad(wanted, exact, upstream.double()),
        strict=True,
    )
    return [error(result, wanted), *(error(value, exact) for value, exact in gradients)]


def temporal_mix(dtype, videos, frames, patches, dim, prefix):
    x = torch.randn(videos, frames, prefix + patches, dim).to(dtype)[:, :, prefix:]  # a view where there is a prefix
    return compare(triton_kernels.temporal_mix, functional.temporal_conv, [x, torch.randn(dim, 3), torch.randn(dim)])


def position_encoding(dtype, videos, frames, grid, dim, prefix):
    x = torch.randn(dim, videos, frames, prefix + grid[0] * grid[1]).to(dtype).permute(1, 2, 3, 0)
    return compare(
        lambda x, weight, bias: triton_kernels.position_encoding(x, weight, bias, *grid, dtype),
        lambda x, weight, bias: functional.position_encoding(x, weight, bias, grid),
        [x, torch.randn(dim, 1, 3, 3, 3), torch.randn(dim)],
    )


def attend(dtype, videos, length, rows, dim):
    tokens = torch.randn(length, videos, dim).transpose(0, 1) * (0.2 + torch.rand(videos, length, 1)) + 2
    query = torch.randn(videos, rows, dim) * 2 * dim**-0.5
    return compare(
        lambda tokens, query: triton_kernels.attend(tokens, query, 1e-5)[0],
        lambda tokens, query: functional.pool_tokens(query, F.layer_norm(tokens, tokens.shape[-1:], eps=1e-5)),
        [tokens.to(dtype), query.to(dtype)],
    )


CASES = {
    "temporal_mix": (temporal_mix, [(2, 5, 7, 72, 1), (1, 1, 40, 24, 0), (1, 2, 33, 65, 0)]),
    "position_encoding": (position_encoding, [(2, 3, (3, 4), 40, 1), (1, 9, (2, 2), 65, 0), (1, 1, (9, 8), 16, 3)]),
    "attend": (attend, [(2, 150, 5, 200), (1, 3, 1, 24), (1, 65, 16, 384)]),
}


def network(fusion, **fields):
    torch.manual_seed(1)
    model = UniFormerV2(replace(CONFIG, fusion=fusion, **fields))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def whole_network(fusion, *, autocast):
    """Errors of logits and of all gradients together: with the kernels, and with the definitions in the same type."""
    video = torch.randn(2, 3, 3, 32, 32)
    results = []
    for impl, low in (("torch", False), ("triton", autocast), ("torch", autocast)):
        model = network(fusion)
        with set_impl(impl), torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = model(video).float()
        F.cross_entropy(logits, torch.tensor([1, 3])).backward()
        results.append((logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    exact, fast, plain = results
    return [[error(a, b) for a, b in zip(each, exact, strict=True)] for each in (fast, plain)]


def compiled():
    """Difference between the compiled network and the eager one, both with the kernels, in bfloat16; and gradients."""
    video = torch.randn(2, 3, 3, 32, 32, dtype=torch.bfloat16)
    model = network(
        "sequential", depth=1, fusion_stages=(0,), global_dropout=(0.0,)
    ).bfloat16()  # every kernel; compiling takes long
    results = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        logits = run(video)
        logits.float().square().sum().backward()
        results.append(torch.cat([logits.detach().flatten(), *(p.grad.flatten() for p in model.parameters())]))
    return error(results[1], results[0])


def check_operators():
    """PyTorch's own checks of each operator: schema, gradient, shapes without data, compiled."""
    x, taps, bias = torch.randn(1, 2, 5, 24), torch.randn(24, 1, 3, 3, 3), torch.randn(24)
    leaves = [value.requires_grad_() for value in (x, taps, bias)]
    opcheck(torch.ops.uniformerv2.position_encoding, (*leaves, 2, 2, torch.float32))
    opcheck(torch.ops.uniformerv2.temporal_mix, (x, torch.randn(24, 3, requires_grad=True), bias))
    opcheck(torch.ops.uniformerv2.attend, (x.flatten(1, 2), torch.randn(1, 3, 24, requires_grad=True), 1e-5))
    try:
        torch.ops.uniformerv2.attend(x.flatten(1, 2), torch.randn(1, dispatch.MAX_ROWS + 1, 24), 1e-5)
    except ValueError as error:
        return f"has {dispatch.MAX_ROWS + 1} rows; at most {dispatch.MAX_ROWS} are taken at once" in str(error)
    return False


def trial():
    """The trial of the kernels, also while a graph is traced; on few tokens, since the interpreter is slow."""
    dispatch.TRIAL_SHAPE, dispatch.TRIAL_GRID = (1, 2, 5), (2, 2)
    in_graph = torch.compile(
        lambda x: x + dispatch._kernels_work("cpu", torch.bfloat16, 56), fullgraph=True, backend="eager"
    )
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        traced = in_graph(torch.ones(1)).item() == 2
    return traced and all(dispatch._kernels_work("cpu", dtype, 40) for dtype in dispatch.DTYPES)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # the interpreter's numpy, on lanes that are masked away
    errors = {}
    for name, (run, shapes) in CASES.items():
        for dtype in (torch.float32, torch.bfloat16):
            errors[f"{name}-{str(dtype).removeprefix('torch.')}"] = [run(dtype, *shape) for shape in shapes]
    with set_impl("triton"):
        errors["compiled"] = compiled()
    for fusion in ("sequential", "hierarchical_kv", "hierarchical_q"):
        errors[f"network-{fusion}-float32"] = whole_network(fusion, autocast=False)
        errors[f"network-{fusion}-bfloat16"] = whole_network(fusion, autocast=True)
    errors["operators"] = check_operators()
    errors["trial"] = trial()
    json.dump(errors, sys.stdout)


if __name__ == "__main__":
    main()
