"""Devices by name, and a device without float64, as Apple's MPS."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import ssl_dc
from helpers.command_line import call
from helpers.settings import SHORT, config_of
from helpers.training import Told
from ssl_dc.assemble import build_network, build_objective, build_optimizer
from ssl_dc.calibration import calibrate
from ssl_dc.devices import available_devices, device_named, in_float64
from ssl_dc.errors import ConfigError
from ssl_dc.gating.cost import CostModel, LayerCost, Trace
from ssl_dc.objectives.statistics import effective_rank, mean_std
from ssl_dc.training.trainer import Trainer


class OnMPS(Tensor):
    """Stands in for a tensor on Apple's GPU: what is computed from it is there too, and nothing there is float64."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("mps")
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        result = super().__torch_function__(func, types, args, kwargs)
        if any(isinstance(leaf, OnMPS) and leaf.dtype is torch.float64 for leaf in tree_leaves(result)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        return result


def on_mps(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(OnMPS)


def test_the_stand_in_refuses_float64() -> None:
    there = on_mps(torch.ones(2))
    assert there.device.type == "mps"
    assert isinstance(there + 1, OnMPS)
    for convert in (
        Tensor.double,
        lambda x: x.to(torch.float64),
        lambda x: x.to("cpu", torch.float64),
        lambda x: x + x.double(),
    ):
        with pytest.raises(TypeError, match="float64"):
            convert(there)
    assert not isinstance(there.cpu(), OnMPS)


def test_float64_is_had_on_the_cpu_where_the_device_has_none() -> None:
    exact = in_float64(on_mps(torch.tensor([0.1, 2.0])))
    assert (exact.device.type, exact.dtype) == ("cpu", torch.float64)
    assert exact.tolist() == torch.tensor([0.1, 2.0]).double().tolist()
    assert in_float64(torch.ones(1, device="meta")).device.type == "meta"


def test_costs_are_exact_without_float64_on_the_device() -> None:
    layers = (
        LayerCost("stem", 1_813_561_343),
        LayerCost("conv", 16_777_219 * 24, ("a",)),
        LayerCost("both", 12 * 24 * 1_000_003, ("a", "b")),
        LayerCost("a.gate", 17, gate=True),
    )
    cost = CostModel(layers, {"a": 24, "b": 12})
    masks = {"a": (torch.arange(72).view(3, 24) % 5 < 2).float(), "b": (torch.arange(36).view(3, 12) % 3 < 1).float()}
    opened = {site: [int(row.sum()) for row in mask] for site, mask in masks.items()}
    expected = [
        1_813_561_343 + 16_777_219 * opened["a"][i] + 1_000_003 * opened["a"][i] * opened["b"][i] + 17 for i in range(3)
    ]
    for dtype in (torch.float32, torch.bfloat16):
        there = Trace({site: on_mps(mask.to(dtype)) for site, mask in masks.items()}, cost)
        assert there.macs().tolist() == expected
        assert there.macs().device.type == "cpu"
        assert torch.allclose(there.ratio(), torch.tensor(expected) / cost.dense_macs)


def test_an_embedding_is_watched_without_float64_on_the_device() -> None:
    z = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(effective_rank(on_mps(z)), effective_rank(z))
    assert torch.equal(mean_std(on_mps(z)), mean_std(z))


@pytest.mark.long
@pytest.mark.parametrize("objective", ["vicreg", "barlow_twins"])
def test_a_training_with_budget_and_evaluation_needs_no_float64_on_the_device(objective: str) -> None:
    config = config_of({**SHORT, "objective.name": objective})
    network = build_network(config)
    generator = torch.Generator().manual_seed(0)
    batches = [[on_mps(torch.randn(16, 3, 8, 8, generator=generator)) for _ in range(2)] for _ in range(3)]
    told = Told()
    Trainer(
        encoder=network.encoder,
        objective=build_objective(config, network.encoder.feature_dim),
        gating=network.gating,
        optimizer=partial(build_optimizer, config),
        loader=batches,
        image_size=8,
        training=config.training,
        cost=network.cost,
        budget=config.budget,
    ).fit(watchers=[told])
    assert len(told.metrics) == 3
    for metrics in told.metrics:
        assert set(metrics.values) >= {"cost_ratio", "effective_rank", "gate_threshold"}
    calibrate(network.encoder, [batches[0][0]], network.cost, [0.3])
    model = ssl_dc.Model(config, network.encoder, network.cost)
    gated, here = model.gated(batches[0][0]), model.gated(batches[0][0].cpu())
    assert isinstance(gated.features, OnMPS)
    assert torch.equal(gated.macs, here.macs)


# names


def test_auto_is_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert available_devices() == ["cpu"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert available_devices() == ["mps", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert available_devices() == ["cuda", "cuda:1", "mps", "cpu"]
    assert device_named("auto") == torch.device("cuda")


def test_a_device_is_itself() -> None:
    assert device_named(torch.device("cpu")) == device_named("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["nonsense", "cpu:", "cuda:99", "xla", "privateuseone"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^device '{name}' is not on this machine; allowed: auto, .*cpu$") as caught:
        device_named(name)
    assert caught.value.exit_status == 2


# the command line


@pytest.fixture(scope="module")
def run(finished_run: ssl_dc.Run) -> Path:
    return finished_run.folder


COMMANDS = [["evaluate"], ["cost"]]


@pytest.mark.parametrize("command", COMMANDS, ids="".join)
def test_commands_compute_on_the_device_that_is_named(
    run: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    to = ssl_dc.Model.to

    def moved(self: ssl_dc.Model, *args: Any, **kwargs: Any) -> Any:
        seen.extend(str(argument) for argument in args)
        return to(self, *args, **kwargs)

    monkeypatch.setattr(ssl_dc.Model, "to", moved)
    answers = []
    for device in ([], ["--device", "auto"], ["--device", "cpu"]):
        result = call(*command, run, *device, "--json")
        assert result.exit_code == 0, result.stderr
        answers.append(json.loads(result.stdout))
    best = available_devices()[0]
    assert seen == [best, best, "cpu"]
    if best == "cpu":
        assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("command", COMMANDS, ids="".join)
def test_commands_refuse_a_device_that_is_not_there(run: Path, command: list[str]) -> None:
    result = call(*command, run, "--device", "cuda:99")
    assert result.exit_code == 2
    assert (
        result.stderr.strip()
        == f"ssl-dc: device 'cuda:99' is not on this machine; allowed: auto, {', '.join(available_devices())}"
    )


def test_the_cost_of_options_takes_no_device() -> None:
    result = call("cost", "--budget", "0.3", "--device", "cpu")
    assert result.exit_code == 2
    assert result.stderr.strip() == (
        "ssl-dc: --device cpu: cost computes features only for the images of a run; name its folder"
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("bench", "bench times what runs on this machine's CPU"),
        ("export", "export computes what it shows on this machine's CPU, and the file runs anywhere"),
    ],
)
def test_what_measures_the_cpu_takes_no_other_device(run: Path, tmp_path: Path, command: str, said: str) -> None:
    result = call(command, run, "--device", "cuda")
    assert result.exit_code == 2
    assert result.stderr.strip() == f"ssl-dc: --device cuda: {said}; leave it out"
    assert "nothing but the CPU is used here" in " ".join(call(command, "--help").stdout.split())
    if command == "export":
        for device in ("cpu", "auto"):
            written = call(command, run, "--format", "torch", "--output", tmp_path / f"{device}.pt2", "--device", device)
            assert written.exit_code == 0, written.stderr


@pytest.mark.cuda
@pytest.mark.parametrize("command", COMMANDS, ids="".join)
def test_commands_compute_on_cuda(run: Path, command: list[str]) -> None:
    before = torch.cuda.max_memory_allocated()
    here, there = (call(*command, run, "--device", device, "--json") for device in ("cpu", "cuda"))
    assert here.exit_code == there.exit_code == 0, there.stderr
    assert torch.cuda.max_memory_allocated() > before
    assert json.loads(here.stdout).keys() == json.loads(there.stdout).keys()
