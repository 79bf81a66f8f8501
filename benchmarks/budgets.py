"""One network for many budgets beside its rivals, on CIFAR-10: trained the same way, compared at equal paid cost.

    python benchmarks/budgets.py --cifar10 DIR --output DIR SYSTEM:SEED ...

DIR holds train.parquet and test.parquet. Each system is trained on all 50,000 images, calibrated on 2,000 of them, and
evaluated on the 10,000 test images at its last epoch: kNN-1, and one linear classifier a route (100 epochs), dense and at
each budget, with the cost that is paid in evaluation mode. One JSON file a run goes to the output folder; a run whose file
is there is not made again. Until then the resume points of the training and the trained encoder are kept beside it, so that
a call that was ended goes on from there, also on another machine. With --show the files are printed as one table, and with
--curve FILE they are drawn.

Systems: plain (dense alone); SCHEME-BUDGET, such as dgnet-0.3, ordered-0.1:0.9, prefix-0.3, random-0.3. A variant of a
system is SCHEME+VARIANT-BUDGET, such as ordered+distillation-0.3; --help lists the variants.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import Tensor

import ssl_dc
from ssl_dc.calibration import calibrate
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.base import ImageSet
from ssl_dc.training.checkpoint import CheckpointStore
from ssl_dc.training.device_batches import resident
from ssl_dc.training.from_config import trainer_from_config

VARIANTS: dict[str, dict[str, Any]] = {
    # What may bring the dense network nearer to the plain one.
    "dense": {"training.dense_share": 0.25},
    "warmup": {},
    "distillation": {"training.distillation": 10.0},
    "distillation2": {"training.distillation": 2.0},
    "gradient": {"training.gated_gradient": 0.3},
    "diversity": {"gating.diversity": 5.0},
    # The paper's rivals and ablations.
    "gated": {"routes": ["gated", "gated"]},
    "blind": {"objective.invariance": 0.0},
    "double": {"encoder.name": "double"},
    "shared": {"norm.name": "shared"},
    "barlow": {"objective.name": "barlow_twins"},
}
"""What differs from the system without it, for each variant by its name. "warmup" depends on the epochs."""
GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def settings_of(system: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole config of a system, as settings over the defaults."""
    settings: dict[str, Any] = {
        "seed": seed,
        "data.name": "parquet",
        "data.root": str(arguments.cifar10),
        "data.image_size": 32,
        "data.mean": (0.4914, 0.4823, 0.4466),
        "data.std": (0.247, 0.243, 0.261),
        "views.name": "batched",
        "views.blur_p": (0.0, 0.2),
        "objective.expander_width": 512,
        "backbone.width": arguments.width,
        "backbone.stem": arguments.stem,
        "optimizer.name": "adamw",
        "optimizer.lr": arguments.lr,
        "training.epochs": arguments.epochs,
        "training.batch_size": arguments.batch,
        "training.warmup_share": 0.1,
        "training.workers": 0,
        "training.precision": arguments.precision,
        "training.log_every": 100,
        "training.checkpoint_minutes": 60,
    }
    for name, value in (word.partition("=")[::2] for word in arguments.set):
        settings[name] = YAML(typ="safe").load(value)
    if "backbone.name" in settings:  # the others are options of the ResNets
        del settings["backbone.width"], settings["backbone.stem"]
    if system == "plain":
        return settings | {"gating.name": "none"}
    scheme, _, budget = system.partition("-")
    scheme, _, variant = scheme.partition("+")
    settings["budget.target"] = float(budget) if budget.replace(".", "").isdigit() else budget
    settings["gating.name"] = "dgnet" if scheme == "ordered" else scheme
    if settings["gating.name"] == "dgnet":
        settings |= {"gating.noise": 0.0, "gating.start": "ordered" if scheme == "ordered" else "even"}
    if scheme == "convnet_aig":
        settings |= {"gating.noise": 0.0, "gating.loss": "budget"}
    if variant == "warmup":
        settings["training.gate_warmup"] = max(1, arguments.epochs // 10)
    return settings | (VARIANTS[variant] if variant else {})


@torch.no_grad()
def features(model: ssl_dc.Model, pixels: Tensor, budget: float | None) -> tuple[Tensor, float]:
    """Features (n, d) of pixels (n, 3, H, W) uint8, and their mean cost as a share of the dense cost."""
    found, paid = [], []
    for part in pixels.split(1000):
        x = normalised(model, part)
        if budget is None:
            found.append(model.dense(x).float())
            paid.append(torch.ones(len(x)))
        else:
            out = model.gated(x, budget)
            found.append(out.features.float())
            paid.append(out.ratio.float().cpu())
    return torch.cat(found), float(torch.cat(paid).mean())


def normalised(model: ssl_dc.Model, pixels: Tensor) -> Tensor:
    """Pixels (n, 3, H, W) uint8 as the network sees them."""
    data = model.config.data
    mean, std = (torch.tensor(each, device=pixels.device).view(3, 1, 1) for each in (data.mean, data.std))
    return (pixels.float() / 255 - mean) / std


def knn1(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Top-1 accuracy of the nearest training feature, in percent."""
    hits = [labels[torch.cdist(block, train).argmin(dim=1)] for block in test.split(500)]
    return float(100 * (torch.cat(hits) == test_labels).float().mean())


def linear(train: Sequence[Tensor], labels: Tensor, test: Sequence[Tensor], test_labels: Tensor) -> list[float]:
    """Top-1 accuracy of a linear classifier on each route's features, all trained at once (method section 6)."""
    x, held_out = torch.stack(list(train)), torch.stack(list(test))
    routes, n, d = x.shape
    torch.manual_seed(0)
    bound = d**-0.5
    weight = torch.empty(routes, d, 10, device=x.device).uniform_(-bound, bound).requires_grad_()
    bias = torch.zeros(routes, 1, 10, device=x.device, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.3, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [60, 80])
    for _ in range(100):
        for batch in torch.randperm(n, device=x.device).split(512):
            logits = x[:, batch] @ weight + bias
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[batch].repeat(routes), reduction="sum")
            optimizer.zero_grad()
            (loss / len(batch)).backward()
            optimizer.step()
        schedule.step()
    predicted = (held_out @ weight + bias).argmax(dim=2)
    return [float(100 * (some == test_labels).float().mean()) for some in predicted]


def pixels_of(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (n, 3, 32, 32) uint8 and labels (n,) of a set."""
    pixels = resident(images, device)
    if pixels is None or images.labels is None:
        raise SystemExit("CIFAR-10 must be labelled images of one size")
    return pixels, torch.from_numpy(images.labels).to(device)


class Progress(ssl_dc.Watcher):
    """A line on standard output now and then.

    Args:
        system: What is trained.
    """

    def __init__(self, system: str) -> None:
        self.system = system

    def on_step(self, metrics: ssl_dc.StepMetrics) -> None:
        """Every thousand steps."""
        if metrics.step % 1000 == 0 or metrics.step == metrics.total_steps:
            values = metrics.values
            cost = f" cost {values['cost_ratio']:.3f}" if "cost_ratio" in values else ""
            print(f"{self.system}: step {metrics.step}/{metrics.total_steps} loss {values['loss']:.2f}{cost}", flush=True)


def made(system: str, seed: int, weights: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one system, unless its weights are there, and evaluate it."""
    settings = settings_of(system, seed, arguments)
    config = resolve([uniform_layer(settings, "benchmark")]).config
    splits = ssl_dc.open_splits(ssl_dc.build_data_set(config))
    trainer = trainer_from_config(config, splits.train)
    encoder = trainer.learner.encoder
    if weights.exists():
        kept = load_file(weights)
        seconds = float(kept.pop("seconds"))
        encoder.load_state_dict(kept)
    else:
        start = time.time()
        checkpoints = resume_points(weights.with_suffix(""), settings)
        begun_anew = checkpoints.newest() is None
        trainer.fit(watchers=[Progress(system)], checkpoints=checkpoints)
        seconds = time.time() - start if begun_anew else float("nan")
        state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
        save_file(state | {"seconds": torch.tensor(seconds)}, weights)
        shutil.rmtree(checkpoints.folder)
    model = ssl_dc.Model(config, encoder, trainer.cost)
    train, labels = pixels_of(splits.evaluation_train, model.device)
    test, test_labels = pixels_of(splits.test, model.device)
    if model.has_gates:
        calibrate(model.encoder, list(normalised(model, train[:2000]).split(500)), model.cost, config.budget.budgets)
    budgets: list[float | None] = [None]
    if model.has_gates:
        budgets += list(arguments.at if len(model.config.budget.budgets) > 1 else model.config.budget.budgets)
    by_budget = [(features(model, train, budget)[0], *features(model, test, budget)) for budget in budgets]
    accuracies = linear([each[0] for each in by_budget], labels, [each[1] for each in by_budget], test_labels)
    routes = {
        "dense" if budget is None else f"gated@{budget:g}": {
            "paid": paid,
            "knn1": knn1(some, labels, held_out, test_labels),
            "linear": accuracy,
        }
        for budget, (some, held_out, paid), accuracy in zip(budgets, by_budget, accuracies, strict=True)
    }
    seconds = None if math.isnan(seconds) else seconds  # unknown if the training was ended and went on
    plain = {key: value for key, value in settings.items() if key != "data.root"}
    return {"system": system, "seed": seed, "seconds": seconds, "settings": plain, "routes": routes}


def resume_points(folder: Path, settings: dict[str, Any]) -> CheckpointStore:
    """Where a training is kept while it runs. Those of a training with other settings are refused."""
    folder.mkdir(exist_ok=True)
    record = folder / "settings.json"
    text = json.dumps({key: value for key, value in settings.items() if key != "data.root"}, indent=1)
    if record.exists() and record.read_text() != text:
        raise SystemExit(f"{folder} holds a training with other settings ({record.name}): use these, or delete the folder")
    record.write_text(text)
    return CheckpointStore(folder)


def runs_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The results in a folder: those of each system, one for each seed."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*-seed*.json")):
        run = json.loads(file.read_text())
        runs.setdefault(run["system"], []).append(run)
    return runs


def show(runs: dict[str, list[dict[str, Any]]]) -> None:
    """All runs as one table: mean over seeds, and the standard deviation where there are several."""
    print("| system | seeds | route | paid | kNN-1 | linear |\n| --- | --- | --- | --- | --- | --- |")
    for system, some in runs.items():
        for route in some[0]["routes"]:
            values = [[run["routes"][route][key] for run in some] for key in ("paid", "knn1", "linear")]
            cells = [f"{statistics.mean(values[0]):.4f}", *(_mean_and_deviation(each) for each in values[1:])]
            print(f"| {system} | {len(some)} | {route} | {' | '.join(cells)} |")


def draw(runs: dict[str, list[dict[str, Any]]], picture: Path) -> None:
    """Accuracy of the linear classifier against paid cost: a line for many budgets, points for the others."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.set_prop_cycle(color=plt.colormaps["tab20"].colors)
    for system, some in runs.items():
        points = [
            [statistics.mean(run["routes"][route][key] for run in some) for key in ("paid", "linear")]
            for route in some[0]["routes"]
        ]
        costs, accuracies = zip(*sorted(points), strict=True)
        axes.plot(costs, accuracies, "o-" if ":" in system else "x", label=system)
    axes.set(xlabel="paid cost, share of the dense network", ylabel="linear accuracy, % of the test images")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(picture)


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main() -> None:
    """Make the runs that are asked for, or show those that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "systems",
        nargs="*",
        metavar="SYSTEM:SEED",
        help=f"such as plain:0 or ordered-0.1:0.9:1; variants: {', '.join(VARIANTS)}",
    )
    parser.add_argument("--cifar10", type=Path, help="folder with train.parquet and test.parquet")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--stem", default="strided")
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"], default="no")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another setting of all systems")
    parser.add_argument(
        "--at", type=float, nargs="+", default=GRID, metavar="BUDGET", help="where a run of many is evaluated"
    )
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--curve", type=Path, help="a picture of what is in the output folder")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for word in arguments.systems:
        system, _, seed = word.rpartition(":")
        file = arguments.output / f"{system.replace(':', 'to').replace('+', '-with-')}-seed{seed}.json"
        if file.exists():
            continue
        weights = file.with_suffix(".safetensors")
        file.write_text(json.dumps(made(system, int(seed), weights, arguments), indent=1) + "\n")
        weights.unlink()
    if arguments.show:
        show(runs_of(arguments.output))
    if arguments.curve is not None:
        draw(runs_of(arguments.output), arguments.curve)


if __name__ == "__main__":
    main()
