"""Measures which share of the speed-up that the MACs promise the executor reaches, for a ResNet-18 of width 64.

    python benchmarks/gated_speed.py --images DIR --rates RUN --rates RUN ... [--precision bf16] [--json FILE]

Speed-ups are over the fastest dense way in the same precision, with whose MACs the promise compares. Sizes are 224,
96 and 32 px. Weights are random, which does not change the time. Each gate is a real one with random weights, and its time
counts. Its threshold is set so that, over the images, as many channels are open as in the same block of a trained run
(``--rates``), or the same share in every block (the sweep). Masks differ from image to image. All ways take turns, and each
call uses another image. Ratios are medians over calls. With ``--ways`` only the named dense ways are timed beside the
gated ones: batches of large images take minutes otherwise.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import ssl_dc
from ssl_dc.assemble import build_network
from ssl_dc.bench.runtimes import RUNTIMES, DenseNetwork, Precision, Unavailable, runtime_or_reason
from ssl_dc.bench.timing import in_turns
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.gating.base import Gate

SIZES = {224: "imagenet", 96: "imagenet", 32: "cifar"}
"""The stem for each side of the images."""
MASKED = "masked"
"""The way that computes all channels and masks them."""
SWEEP = {224: (0.14, 0.31, 0.48), 96: (0.14, 0.31, 0.48), 32: (0.20, 0.35, 0.50)}
"""Open share of every block's channels, for cost ratios of about 0.2, 0.35 and 0.5."""


def network(size: int, images: Tensor) -> ssl_dc.Model:
    """An untrained model of width 64 whose batch norms have the statistics of the images."""
    settings = {
        "data.name": "digits",
        "data.image_size": size,
        "backbone.name": "resnet18",
        "backbone.width": 64,
        "backbone.stem": SIZES[size],
        "budget.target": 0.9,
    }
    config = resolve([uniform_layer(settings, "benchmark")]).config
    torch.manual_seed(0)
    encoder = build_network(config).encoder
    encoder.train()
    with torch.no_grad():
        for route in ssl_dc.Route.BOTH:
            for _ in range(20):
                encoder(images, route)
    return ssl_dc.Model(config, encoder)


def with_rates(model: ssl_dc.Model, rates: Sequence[float], images: Tensor) -> ssl_dc.Model:
    """A copy whose gates open these shares of their channels, mean over the images, set one gate after the other."""
    encoder = copy.deepcopy(model.encoder)
    backbone = encoder.backbone(ssl_dc.Route.GATED)
    gates = [point.gate for point in backbone.gate_points() if point.gate is not None]
    for gate, rate in zip(gates, rates, strict=True):
        torch.nn.init.normal_(gate.excite.weight)  # with initial weights a decision hardly depends on the image
        hook = gate.register_forward_pre_hook(_set_threshold(rate))
        with torch.no_grad():
            backbone(images, ssl_dc.Route.GATED)
        hook.remove()
    return ssl_dc.Model(model.config, encoder)


def _set_threshold(rate: float) -> Callable[[Gate, tuple[Tensor, ...]], None]:
    def hook(gate: Gate, inputs: tuple[Tensor, ...]) -> None:
        gate.thresholds.fill_(torch.quantile(gate.logits(inputs[0]).flatten(), 1 - rate))

    return hook


def trained_rates(run: Path) -> list[float]:
    """The open share of each site of a trained run, over its held-out images."""
    report = ssl_dc.evaluate(run, "gates").as_json()
    return [site["rate"] for site in report["sites"]]


def load_images(folder: Path, size: int, number: int) -> Tensor:
    """A number of images of a folder, normalised: (n, 3, size, size)."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    chosen = files[:: max(1, len(files) // number)][:number]
    transform = ssl_dc.Model.untrained(_plain_config(size)).transform
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in chosen])


def _plain_config(size: int) -> ssl_dc.RunConfig:
    settings = {"data.name": "digits", "data.image_size": size, "backbone.width": 8, "budget.target": 0.9}
    return resolve([uniform_layer(settings, "benchmark")]).config


def measure(
    size: int,
    images: Tensor,
    all_rates: Mapping[str, Sequence[float]],
    batch: int,
    threads: int,
    seconds: float,
    precision: Precision,
    chosen: Sequence[str],
) -> list[dict[str, Any]]:
    """Time the gated ways of a precision and the chosen others at one image size; the rows of the table."""
    torch.set_num_threads(threads)
    model = network(size, images)
    batches = list(images.split(batch))
    batches = [some for some in batches if len(some) == batch]
    ways: dict[str, Any] = {}
    dense = DenseNetwork(model, lambda: images)
    for name in (name for name in chosen if name != MASKED):
        run = runtime_or_reason(name, dense, batches[0], threads)
        if isinstance(run, Unavailable):
            print(f"not measured: {name}: {run.reason}")
        else:
            ways[f"dense: {name}"] = run
    ratios = {}
    masked = None
    for name, rates in all_rates.items():
        gated = with_rates(model, rates, images)
        calibration = {"calibration": images} if precision == "int8" else {}
        executor = gated.compile_gated(threads=threads, precision=precision, **calibration)
        ratios[f"gated: {name}"] = float(executor(images).ratio.mean())
        ways[f"gated: {name}"] = lambda x, executor=executor: executor(x).features
        masked = masked or gated
    if MASKED in chosen:
        ways[MASKED] = lambda x: masked.gated(x).features
    times = in_turns(
        {name: lambda number, way=way: way(batches[number % len(batches)]) for name, way in ways.items()}, seconds=seconds
    )
    dense_ways = [f"dense: {name}" for name, runtime in RUNTIMES.items() if runtime.precision == precision]
    fastest = min((name for name in dense_ways if name in ways), key=lambda name: times.timing(name).median)
    return [
        {
            "px": size,
            "precision": precision,
            "batch": batch,
            "threads": threads,
            "way": name,
            **vars(times.timing(name)),
            "over_fastest_dense": times.ratio(fastest, name),
            "fastest_dense": fastest,
            "cost_ratio": ratios.get(name),
            "kept_share_of_promise": times.ratio(fastest, name) * ratios[name] if name in ratios else None,
            "calls": len(times.milliseconds[name]),
        }
        for name in ways
    ]


def usual_ways(precision: Precision) -> list[str]:
    """What the gated ways are timed beside.

    In float32 these are all dense ways in it, and the masked network as it was trained. In int8 and bf16 onnxruntime in
    float32 stands for those that are slower.
    """
    if precision == "float32":
        return [*(name for name, runtime in RUNTIMES.items() if runtime.precision == precision), MASKED]
    return [name for name, runtime in RUNTIMES.items() if runtime.precision == precision or name == "onnxruntime"]


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of a table in Markdown."""
    for row in rows:
        promise = "" if row["cost_ratio"] is None else f"{row['cost_ratio']:.3f} | {1 / row['cost_ratio']:.2f}"
        kept = "" if row["kept_share_of_promise"] is None else f"{100 * row['kept_share_of_promise']:.0f} %"
        print(
            f"| {row['px']} | {row['batch']} | {row['threads']} | {row['way']} | {row['median']:.3f} | {row['p10']:.3f} |"
            f" {row['p90']:.3f} | {row['over_fastest_dense']:.2f} | {promise or ' | '} | {kept} |"
        )


def main() -> None:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="A folder of images.")
    parser.add_argument(
        "--rates", type=Path, action="append", default=[], help="A trained run of a ResNet-18; can be given several times."
    )
    parser.add_argument("--precision", choices=("float32", "bf16", "int8"), default="float32")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=(*RUNTIMES, MASKED),
        help="Time only these beside the gated ones; one is dense in --precision.",
    )
    parser.add_argument("--px", type=int, action="append", choices=tuple(SIZES))
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--number", type=int, default=32, help="How many images.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chosen = options.ways or usual_ways(options.precision)
    if all(name == MASKED or RUNTIMES[name].precision != options.precision for name in chosen):
        parser.error(f"--ways must name a dense way in {options.precision}")
    torch.set_grad_enabled(False)
    every = torch.get_num_threads()
    print("| px | batch | threads | way | median ms | p10 | p90 | over fastest dense | MACs ratio | promise | kept |")
    print("| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    trained = {f"rates of {run.name}": trained_rates(run) for run in options.rates}
    rows: list[dict[str, Any]] = []
    for size in options.px or SIZES:
        images = load_images(options.images, size, options.number)
        for batch in options.batch or (1,):
            for threads in options.threads or (every,):
                sweep = {f"every block {rate:g}": [rate] * 8 for rate in SWEEP[size]}
                some = measure(
                    size, images, {**trained, **sweep}, batch, threads, options.seconds, options.precision, chosen
                )
                print_rows(some)
                rows += some
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
