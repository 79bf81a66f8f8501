#!/usr/bin/env bash
# The product on a CUDA GPU, in less than 4 minutes: the tests marked cuda, then trainings beside a plain loop and lightly,
# and what the GPU waits for in a compiled step.
#
#     [PRECISIONS="bf16 no"] bash benchmarks/gpu.sh CIFAR10_FOLDER [OUTPUT_FOLDER]
#
# The folder holds train.parquet. Results go to OUTPUT_FOLDER (gpu-results): tests.txt, training-*.json, device.txt.
set -uo pipefail
cd "$(dirname "$0")/.."
data=$1 output=${2:-gpu-results}
mkdir -p "$output"
python3 - <<'PYTHON' | tee "$output/device.txt"
import torch
print(torch.cuda.get_device_name(), "torch", torch.__version__, "cuda", torch.version.cuda)
PYTHON
# Compiled trainings first: they are what the time may not suffice for.
timeout 100 bash -c '
  for which in compiled "not compiled"; do
    python3 -m pytest -m cuda -k "$which" -q -p no:cacheprovider --durations 5 tests/test_cuda.py tests/views tests/test_model.py
  done' 2>&1 | tail -100 | tee "$output/tests.txt"
for precision in ${PRECISIONS:-bf16 no}; do
  left=$((235 - SECONDS)) # bash counts them from the start of this script
  if [ "$left" -lt 20 ]; then echo "no time left for precision $precision"; break; fi
  timeout "$((left < 150 ? left : 150))" python3 -u benchmarks/training.py --cifar10 "$data" --device cuda --precision "$precision" --no-views \
    --widths 64 --batch 512 --images 15360 --rounds 1 --workers 14 --compile --json "$output/training-$precision.json" \
    2>&1 | grep --line-buffered -v "USDT\|profiler" | tee "$output/training-$precision.txt"
done
