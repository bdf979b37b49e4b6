#!/usr/bin/env bash
# Correctness and speed on one GPU, in under 10 minutes: results/<date>-<device>.json and a table in Markdown.
#
#     benchmarks/gpu.sh            # on the GPU machine; needs torch >= 2.11, torchvision, timm, numpy, safetensors
#     benchmarks/gpu.sh --only goldens kernels stage     # some sections; see benchmarks/gpu.py
#     benchmarks/gpu.sh --dry      # everything at tiny sizes on a CPU, kernels in Triton's interpreter
#
# Nothing need be installed or reachable: the package is read from src/. Results go to $OUT, else benchmarks/results.
# The numbers of the published code are looked for in $UNIFORMERV2_GOLDENS, then in ../shared/goldens.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
for argument in "$@"; do
    if [ "$argument" = --dry ]; then export TRITON_INTERPRET=1; fi
done
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
