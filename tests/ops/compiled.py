"""Compiles every Triton kernel for an NVIDIA GPU of compute capability 9.0, at full size, and prints what it takes.

Needs no GPU: Triton brings its compiler along. The interpreter forgives what the compiler does not: types that change
in a loop, annotations, tiles that do not fit. Bytes of shared memory a kernel, as JSON.
"""

from __future__ import annotations

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from uniformerv2.ops import triton_attention as attention
from uniformerv2.ops import triton_convolutions as convolutions
from uniformerv2.ops import triton_kernels as kernels

TOKENS = {"tokens", "query", "gradient", "gradient_tokens", "gradient_x", "x", "y"}
WIDE = {"weight", "bias", "partial", "extent", "mixed", "log_sum", "inner"}
TILE = {"num_rows": 16, "chunks": 8, "columns": 128, "num_warps": 8}  # C of 513 to 1024
KERNELS = {
    attention.attend_kernel: {**TILE, **kernels.ATTEND},
    attention.attend_backward_kernel: {**TILE, **kernels.ATTEND_GRADIENT},
    attention.combine_kernel: {"block_c": 1024, "block_splits": 16},
    convolutions.temporal_mix_kernel: kernels.MIX,
    convolutions.temporal_mix_backward_kernel: kernels.MIX_GRADIENT,
    convolutions.position_encoding_kernel: kernels.POSITION,
    convolutions.position_gradient_kernel: kernels.POSITION_GRADIENT,
}


def kind(name):
    """Type of an argument, as Triton writes it."""
    return "*bf16" if name in TOKENS else "*fp32" if name in WIDE else "fp32" if name == "eps" else "i32"


def shared_bytes(kernel, launch):
    """Compile for bfloat16 tokens whose last dimension is contiguous, as triton_kernels.py launches it."""
    options = {name: launch[name] for name in ("num_warps", "num_stages") if name in launch}
    constants = {name: value for name, value in launch.items() if name not in options}
    constants |= {name: 1 for name in ("stride_c", "stride_d") if name in kernel.arg_names}
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in constants else kind(name) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(index,): [["tt.divisibility", 16]] for index, name in enumerate(names) if name in TOKENS | WIDE},
    )
    return triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={**options, **kernels.OPTIONS}
    ).metadata.shared


if __name__ == "__main__":
    json.dump({kernel.fn.__name__: shared_bytes(kernel, launch) for kernel, launch in KERNELS.items()}, sys.stdout)
