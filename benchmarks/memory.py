"""Measures the peak memory of the dense network and of the executor, each in its own process that first loads a run.

    python benchmarks/memory.py [--px 224] [--batch 1]

The run is an untrained ResNet-18 of width 64. The memory of the imported libraries is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

STEM = {224: "imagenet", 96: "imagenet", 32: "cifar"}

PROGRAM = """
import gc, json, resource, sys, threading, time
import torch
torch.set_num_threads(2)
import ssl_dc
from ssl_dc.assemble import build_network
from ssl_dc.tensor_files import read_tensors
from ssl_dc.config import resolve, uniform_layer
import ssl_dc.compiled.executor, ssl_dc.compiled.native, torchvision
from pathlib import Path

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

kind, folder, size, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
images = torch.randn(batch, 3, size, size)
torch.nn.Conv2d(3, 8, 3)(images)  # so that what torch allocates once is not counted
before = resident()
model = ssl_dc.load(folder)
if kind == "dense":
    run = model.dense
elif kind == "reference":
    run = model.gated
else:
    run = model.compile_gated(backend="native")
    del model
loaded_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
gc.collect()
highest = []
stop = False
def watch():
    while not stop:
        highest.append(resident())
        time.sleep(0.0005)
thread = threading.Thread(target=watch)
thread.start()
for _ in range(20):
    run(images)
stop = True
thread.join()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak - before, "running": max(highest) - before}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--px", type=int, action="append", choices=tuple(STEM))
    parser.add_argument("--batch", type=int, action="append")
    options = parser.parse_args()
    print("| px | batch | dense: peak, running MiB | executor: peak, running MiB | executor / dense |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for size in options.px or STEM:
        with tempfile.TemporaryDirectory() as folder:
            _make_run(Path(folder), size)
            for batch in options.batch or (1, 32):
                found = {}
                for kind in ("dense", "executor"):
                    call = [sys.executable, "-c", PROGRAM, kind, folder, str(size), str(batch)]
                    answer = subprocess.run(call, capture_output=True, text=True, check=True).stdout
                    found[kind] = {name: value / 2**20 for name, value in json.loads(answer).items()}
                dense, executor = found["dense"], found["executor"]
                print(
                    f"| {size} | {batch} | {dense['peak']:.0f}, {dense['running']:.0f} |"
                    f" {executor['peak']:.0f}, {executor['running']:.0f} |"
                    f" {executor['peak'] / dense['peak']:.2f}, {executor['running'] / dense['running']:.2f} |"
                )


def _make_run(folder: Path, size: int) -> None:
    from ssl_dc.assemble import build_network
    from ssl_dc.config import resolve, uniform_layer
    from ssl_dc.run_folder import RunFolder

    settings = {
        "data.name": "digits",
        "data.image_size": size,
        "backbone.width": 64,
        "backbone.stem": STEM[size],
        "budget.target": 0.9,
    }
    config = resolve([uniform_layer(settings, "benchmark")]).config
    RunFolder.create(folder, config).save_model(build_network(config).encoder)


if __name__ == "__main__":
    main()
