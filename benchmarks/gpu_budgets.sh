#!/usr/bin/env bash
# One network for many budgets beside its rivals at the medium scale, on a GPU: runs of budgets.py, several at a time.
#
#     bash benchmarks/gpu_budgets.sh CIFAR10_FOLDER OUTPUT_FOLDER PARALLEL SYSTEM:SEED ...
#
# A run whose file is in OUTPUT_FOLDER is not made again. Environment: BUDGETS_OPTIONS for budgets.py. Runs that share a GPU take
# turns. With MPS=1 their kernels run side by side, by NVIDIA's MPS, if this machine has it.
set -uo pipefail
cd "$(dirname "$0")/.."
data=$1 output=$2 parallel=$3
shift 3
mkdir -p "$output"
if [ -n "${MPS:-}" ] && command -v nvidia-cuda-mps-control >/dev/null; then
  export CUDA_MPS_PIPE_DIRECTORY=$output/mps CUDA_MPS_LOG_DIRECTORY=$output/mps
  mkdir -p "$output/mps"
  nvidia-cuda-mps-control -d
  trap 'echo quit | nvidia-cuda-mps-control' EXIT
  if timeout 60 python3 -c 'import torch; torch.ones(1).cuda().item()'; then
    echo "runs share the GPU by MPS"
  else
    echo "MPS does not work here: runs take turns"
    unset CUDA_MPS_PIPE_DIRECTORY
  fi
fi
printf '%s\n' "$@" | OMP_NUM_THREADS=2 xargs -P "$parallel" -I{} python3 benchmarks/budgets.py --cifar10 "$data" --output "$output" \
  ${BUDGETS_OPTIONS:---epochs 50 --batch 1024 --lr 0.004} {}
python3 benchmarks/budgets.py --output "$output" --show | tee "$output/table.md"
