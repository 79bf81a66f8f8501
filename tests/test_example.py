"""The example to read in one sitting computes what the product computes: losses, gradients, weights, cost."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.datasets import FakeData

import ssl_dc
from helpers.settings import config_of
from ssl_dc.assemble import build_network, build_objective, build_optimizer
from ssl_dc.training.trainer import Trainer

FILE = Path(__file__).parent.parent / "examples" / "dual_training.py"
IMAGES, WIDTH, EXPANDED, PEAK_LR = 12, 16, 48, 0.2
STEPS, WARMUP_STEPS, EPOCHS = 6, 3, 10
"""Steps that are taken, which are one epoch; steps of warm-up; epochs of the run that these steps begin."""
BUDGET = 0.6
"""Above the densities of untrained gates, so that the bound term acts for several steps."""
SETTINGS: dict[str, Any] = {
    "data.name": "cifar10",
    "backbone.width": WIDTH,
    "objective.expander_width": EXPANDED,
    "budget.target": BUDGET,
    "budget.control": "penalty",
    "optimizer.lr": PEAK_LR,
    "optimizer.lr_scaling": "none",
    "training.epochs": EPOCHS,
    "training.warmup_share": WARMUP_STEPS / (EPOCHS * STEPS),
    "training.least_warmup": 0,
    "training.log_every": 1,
}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dual_training", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def product_name(name: str) -> str:
    """The product's name of a tensor of the example's encoder or head."""
    if name.startswith("head."):
        return name.replace("head.", "objective.expander.")
    _, *words = name.split(".")
    if words[0] == "blocks":
        number, layer, *rest = words[1:]
        if layer == "gate":
            layer = "hidden.gate"
        elif layer == "shortcut":
            layer = {"0": "shortcut.conv", "1": "shortcut.norm.both"}[rest.pop(0)]
        words = ["stages", f"layer{int(number) // 2 + 1}", str(int(number) % 2), layer, *rest]
    elif words[0] == "norm1":
        words.insert(1, "both")
    return ".".join(["encoder.both", *words])


def named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the example under the product's names."""
    return {product_name(name): value for name, value in state.items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], when: str) -> None:
    """Each tensor is equal to 1e-5 of its largest entry; one that is 0 but for rounding, to 1e-9."""
    for name, value in ours.items():
        error = (value - theirs[name]).abs().max().item()
        assert error <= max(1e-5 * theirs[name].abs().max().item(), 1e-9), f"{name} {when}"


class Enough(Exception):  # noqa: N818  # not an error
    """Ends a training."""


class FirstEpoch(ssl_dc.Watcher):
    """Remembers the metrics of every step of the first epoch, then ends the training."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_step(self, metrics: ssl_dc.StepMetrics) -> None:
        self.steps.append(dict(metrics.values))

    def on_epoch_end(self, epoch: int) -> None:  # noqa: ARG002
        raise Enough


@pytest.mark.long
def test_several_steps_of_the_example_are_those_of_the_product(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "PEAK_LR", PEAK_LR)
    monkeypatch.setattr(example, "BUDGET", BUDGET)
    # In float64 throughout: in float32 a rounding error can carry an activation over the kink of a ReLU, which changes a
    # gradient by more than 1e-5.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = config_of(SETTINGS)
    network = build_network(config)
    network.encoder.double()
    objective = build_objective(config, network.encoder.feature_dim).double()
    start = {
        **{f"encoder.{name}": value.clone() for name, value in network.encoder.state_dict().items()},
        **{f"objective.{name}": value.clone() for name, value in objective.state_dict().items()},
    }
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(STEPS, 2, IMAGES, 3, 32, 32, generator=generator, dtype=torch.float64)
    batches = [list(views) for views in images]

    calls = itertools.count()
    network.encoder.register_forward_pre_hook(lambda *_: torch.manual_seed(next(calls) // 2) and None)
    gradients: list[dict[str, Tensor]] = []
    epoch = FirstEpoch()
    trainer = Trainer(
        encoder=network.encoder,
        objective=objective,
        gating=network.gating,
        optimizer=partial(build_optimizer, config),
        loader=batches,
        image_size=32,
        training=config.training,
        budget=config.budget,
    )

    def remember(*_: Any) -> None:
        named_parameters = trainer.learner.named_parameters()
        gradients.append({name: p.grad.clone() for name, p in named_parameters if p.grad is not None})

    trainer.optimizer.optimizer.register_step_pre_hook(remember)
    with pytest.raises(Enough):
        trainer.fit(watchers=[epoch])

    both = nn.ModuleDict({"encoder": example.ResNet18(WIDTH), "head": example.expander(8 * WIDTH, EXPANDED)}).double()
    both.load_state_dict({name: start[product_name(name)] for name in both.state_dict()})
    optimizer = example.optimizer_of(both["encoder"], both["head"])
    for step, views in enumerate(batches):
        torch.manual_seed(step)
        terms = example.dual_step(both["encoder"], both["head"], optimizer, views, step, WARMUP_STEPS, EPOCHS * STEPS)
        assert {name: term.item() for name, term in terms.items()} == pytest.approx(
            {name.removeprefix("terms/"): value for name, value in epoch.steps[step].items() if "terms/" in name}, rel=1e-5
        )
        assert optimizer.param_groups[0]["lr"] == pytest.approx(epoch.steps[step]["lr"])
        ours = named({name: p.grad for name, p in both.named_parameters()})
        assert ours.keys() == gradients[step].keys()
        same(ours, gradients[step], f"gradient at step {step + 1}")

    trained = trainer.learner.state_dict()
    ours = named(both.state_dict())
    assert {name for name in trained if not name.endswith((".gate.budgets", ".gate.thresholds"))} == ours.keys()
    same(ours, trained, "after training")
    assert not any(torch.equal(ours[name], start[name]) for name in ours if name.endswith("weight"))


@pytest.mark.long
def test_the_example_trains_from_images_to_a_saved_encoder(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def few_images(_folder: str, transform: Any, **_: Any) -> torch.utils.data.Dataset[Any]:
        return FakeData(size=5, image_size=(3, 32, 32), transform=transform)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(example.torchvision.datasets, "CIFAR10", few_images)
    for name, value in {"EPOCHS": 2, "WARMUP_EPOCHS": 1, "BATCH": 4}.items():
        monkeypatch.setattr(example, name, value)
    example.main(str(tmp_path))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1: invariance ")
    assert second.startswith("epoch 2: invariance ")
    assert "encoder.pt" in [path.name for path in tmp_path.iterdir()]


def test_the_example_counts_the_papers_cost(example: ModuleType) -> None:
    encoder = example.ResNet18().to("meta").eval()
    counted: list[int] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: counted.append(output[2]))
    encoder(torch.empty(1, 3, 32, 32, device="meta"), "dense")
    stem = 34 * 34 * encoder.conv1.weight.numel()
    assert stem + sum(counted) == 703_560_448


def test_the_example_imports_torch_and_torchvision_only() -> None:
    imported = {
        line.split()[1].partition(".")[0] for line in FILE.read_text().splitlines() if line.startswith(("import ", "from "))
    }
    assert imported - {"torch", "torchvision"} <= sys.stdlib_module_names


def test_the_example_can_be_read_in_one_sitting() -> None:
    assert len([line for line in FILE.read_text().splitlines() if line.strip()]) <= 150
