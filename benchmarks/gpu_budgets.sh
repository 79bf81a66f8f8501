#!/usr/bin/env bash
# One network for many budgets beside its rivals at the medium scale, on a GPU: runs of budgets.py, several at a time.
#
#     bash benchmarks/gpu_budgets.sh CIFAR10_FOLDER OUTPUT_FOLDER PARALLEL SYSTEM:SEED ...
#
# A run whose file is in OUTPUT_FOLDER is not made again. Environment: BUDGETS_OPTIONS for budgets.py.
set -uo pipefail
cd "$(dirname "$0")/.."
data=$1 output=$2 parallel=$3
shift 3
mkdir -p "$output"
printf '%s\n' "$@" | OMP_NUM_THREADS=2 xargs -P "$parallel" -I{} python3 benchmarks/budgets.py --cifar10 "$data" --output "$output" \
  ${BUDGETS_OPTIONS:---epochs 50 --batch 1024 --lr 0.004} {}
python3 benchmarks/budgets.py --output "$output" --show | tee "$output/table.md"
