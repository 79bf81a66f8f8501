"""What cutting seldom open channels saves on a clock: a dense and a slimmed ResNet-18 of width 64, both in one runtime.

    python benchmarks/static_speed.py --images DIR [--json FILE]

Of each block's hidden channels the same share stays, with counts rounded up as ``ssl-dc export --static`` does. Both networks
are ordinary ones; the speed-up is set against the ratio of their own MACs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from gated_speed import SIZES, load_images, network

import ssl_dc
from ssl_dc.inference.capture import capture
from ssl_dc.inference.executor import Executor
from ssl_dc.inference.export import dense_network
from ssl_dc.inference.fuse import fuse
from ssl_dc.inference.onnx_files import onnx_session
from ssl_dc.inference.plain import Plain
from ssl_dc.inference.slim import macs_of, slim
from ssl_dc.inference.timing import in_turns

SHARES = (0.14, 0.31, 0.48)
LEAST = 0.5


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="A folder of images.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(options.threads)
    rows = []
    print("| px | runtime | share that stays | MACs ratio | promise | dense ms | slim ms | speed-up | kept |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in SIZES:
        images = load_images(options.images, size, 8)
        model = network(size, images)
        gated = ssl_dc.Route.GATED
        full = fuse(capture(model.encoder.backbone(gated), gated))
        plans = {}
        for share in SHARES:
            order = torch.Generator().manual_seed(0)
            open_shares = {
                site.name: (torch.rand(site.channels, generator=order).argsort() < share * site.channels).float()
                for site in full.sites
            }
            plans[share] = slim(full, open_shares, LEAST)
        ways = {}
        example = images[:1]
        sessions = {"dense": dense_network(model), **{share: Plain(plan) for share, plan in plans.items()}}
        for name, plain in sessions.items():
            session = onnx_session(plain, example, options.threads)
            ways["onnxruntime", name] = lambda i, session=session: session.run(
                None, {"images": images[i % 8][None].numpy()}
            )
        ways["executor", "dense"] = lambda i, run=model.compile_dense(): run(images[i % 8][None])
        for share, plan in plans.items():
            run = Executor(plan, model.encoder.cost_model, threads=options.threads)
            ways["executor", share] = lambda i, run=run: run(images[i % 8][None])
        times = in_turns({f"{a} {b}": way for (a, b), way in ways.items()}, seconds=options.seconds)
        for runtime in ("onnxruntime", "executor"):
            for share, plan in plans.items():
                ratio = macs_of(plan, size) / model.cost.dense_macs
                dense, small = f"{runtime} dense", f"{runtime} {share}"
                speed_up = times.ratio(dense, small)
                row = {
                    "px": size,
                    "threads": options.threads,
                    "runtime": runtime,
                    "share": share,
                    "macs_ratio": ratio,
                    "dense": vars(times.timing(dense)),
                    "slim": vars(times.timing(small)),
                    "speed_up": speed_up,
                    "kept_share_of_promise": speed_up * ratio,
                }
                rows.append(row)
                print(
                    f"| {size} | {runtime} | {share} | {ratio:.3f} | {1 / ratio:.2f} | {times.timing(dense).median:.3f} |"
                    f" {times.timing(small).median:.3f} | {speed_up:.2f} | {100 * speed_up * ratio:.0f} % |"
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
