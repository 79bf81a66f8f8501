"""Measures how much time a static network saves: a dense and a static ResNet-18 of width 64, both in the same runtime.

    python benchmarks/static_speed.py --images DIR [--json FILE]

The same share of each block's hidden channels stays. Both networks are ordinary ones. The speed-up is compared with the
ratio of their MACs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from gated_speed import SIZES, load_images, network
from torch import Tensor

import ssl_dc
from ssl_dc.bench.timing import Way, in_turns
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.compiled.plan_size import macs_of
from ssl_dc.compiled.static import make_static
from ssl_dc.export.networks import dense_network
from ssl_dc.export.onnx_files import onnx_session

SHARES = (0.14, 0.31, 0.48)
MIN_OPEN_SHARE = 0.5


def static_plan(full: Plan, share: float, multiple: int) -> Plan:
    """The network with a share of each block's hidden channels, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    shares = {
        site.name: (torch.rand(site.channels, generator=generator).argsort() < share * site.channels).float()
        for site in full.sites
    }
    return make_static(full, shares, MIN_OPEN_SHARE, multiple=multiple)


def measure(size: int, images: Tensor, multiple: int, threads: int, seconds: float) -> list[dict[str, Any]]:
    """Time both runtimes at one image size; the rows of the table."""
    model = network(size, images)
    gated = ssl_dc.Route.GATED
    full = fuse(capture(model.encoder.backbone(gated), gated))
    plans = {share: static_plan(full, share, multiple) for share in SHARES}

    def by_onnxruntime(plain: torch.nn.Module) -> Way:
        session = onnx_session(plain, images[:1], threads)
        return lambda call: session.run(None, {"images": images[call % len(images)][None].numpy()})

    def by_executor(executor: Executor) -> Way:
        return lambda call: executor(images[call % len(images)][None])

    ways = {"onnxruntime dense": by_onnxruntime(dense_network(model))}
    ways |= {f"onnxruntime {share}": by_onnxruntime(PlanNetwork(plan)) for share, plan in plans.items()}
    ways["executor dense"] = by_executor(model.compile_dense(threads=threads))
    for share, plan in plans.items():
        ways[f"executor {share}"] = by_executor(Executor(plan, model.encoder.cost_model, threads=threads))
    times = in_turns(ways, seconds=seconds)
    rows = []
    for runtime in ("onnxruntime", "executor"):
        for share, plan in plans.items():
            ratio = macs_of(plan, size) / model.cost.dense_macs
            dense, small = f"{runtime} dense", f"{runtime} {share}"
            speed_up = times.ratio(dense, small)
            rows.append(
                {
                    "px": size,
                    "threads": threads,
                    "runtime": runtime,
                    "share": share,
                    "macs_ratio": ratio,
                    "dense": vars(times.timing(dense)),
                    "static": vars(times.timing(small)),
                    "speed_up": speed_up,
                    "kept_share_of_promise": speed_up * ratio,
                }
            )
    return rows


def main() -> None:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="A folder of images.")
    parser.add_argument("--multiple", type=int, default=1, help="Counts of channels are rounded up to multiples of this.")
    parser.add_argument("--px", type=int, action="append", choices=tuple(SIZES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    print("| px | runtime | share that stays | MACs ratio | promise | dense ms | static ms | speed-up | kept |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in options.px or SIZES:
        some = measure(size, load_images(options.images, size, 8), options.multiple, options.threads, options.seconds)
        for row in some:
            times = f"{row['dense']['median']:.3f} | {row['static']['median']:.3f} | {row['speed_up']:.2f}"
            print(
                f"| {size} | {row['runtime']} | {row['share']} | {row['macs_ratio']:.3f} | {1 / row['macs_ratio']:.2f} |"
                f" {times} | {100 * row['kept_share_of_promise']:.0f} % |"
            )
        rows += some
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
