"""What is measured is reported: gates that cost more than they save, layer by layer."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

import ssl_dc
from ssl_dc.bench.benchmark import Benchmark
from ssl_dc.bench.measure import DENSE_EXECUTOR, EXECUTOR, MASKED, Measured, Situation, measure
from ssl_dc.bench.profile import GateTime, LayerTime, Profile, _saved, profile
from ssl_dc.bench.quality import Qualities, Quality
from ssl_dc.bench.runtimes import DenseNetwork
from ssl_dc.bench.timing import Times
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.gating.base import Gate
from ssl_dc.gating.cost import CostModel, LayerCost
from ssl_dc.routes import Route
from tests.helpers.random_networks import random_encoder


class SlowGate(Gate):
    """A gate in torch that takes ten milliseconds, which no layer of a tiny network does."""

    macs = 0

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        time.sleep(0.01)
        return torch.ones(len(x), len(threshold))


def model_with(slow_sites: int) -> ssl_dc.Model:
    """A tiny model, some of whose gates are slow."""
    encoder = random_encoder()
    gated = [point for point in encoder.backbone(Route.GATED).gate_points() if point.gate is not None]
    for point in gated[:slow_sites]:
        point.gate = SlowGate(point.site)
    config = resolve([uniform_layer({"data.name": "digits", "backbone.width": 8, "budget.target": 0.9}, "test")]).config
    return ssl_dc.Model(config, encoder.eval())


def times_of(**milliseconds: float) -> Times:
    return Times({way.replace("_", ": "): [value] * 3 for way, value in milliseconds.items()})


def test_gates_that_cost_more_than_they_save_are_named() -> None:
    measured = profile(model_with(2), torch.randn(2, 3, 32, 32), threads=1)
    slow = [gate for gate in measured.gates if gate.in_torch]
    assert [gate.site for gate in slow] == ["stages.layer1.0.hidden", "stages.layer1.1.hidden"]
    assert all(gate.cost > 9_000 for gate in slow)
    assert set(slow) <= set(measured.losing_gates)
    table = Benchmark([], measured).tables()[-1]
    assert table.title == "gates that cost more time than they save: microseconds for a single image"
    assert [row[0] for row in table.rows][:2] == [gate.site for gate in slow]
    assert table.rows[0][-1] == "torch"
    assert "pooled_rule" in table.note


@pytest.mark.long
def test_a_gated_route_that_is_slower_than_the_dense_one_is_said_to_be() -> None:
    network = DenseNetwork(model_with(1), lambda: torch.randn(4, 3, 32, 32))
    measured = measure(network, torch.randn(1, 3, 32, 32), Situation(1, 1), seconds=0.1, runtimes=["executor", "eager"])
    assert measured.gates_save is False
    assert measured.as_json()["gates_save_time"] is False
    assert "The gates cost more time than they save: the executor takes" in measured.tables()[0].note


def test_a_missing_runtime_is_told_once_for_all_its_precisions_and_situations() -> None:
    missing = dict.fromkeys(("openvino", "openvino-bf16", "openvino-int8"), "OpenVINO is not installed: pip install x")
    times = times_of(dense_eager=4.0, gated_executor=1.0)
    situations = [Measured(Situation(batch, 1), times, 0.5, {**missing, "inductor": "no compiler"}) for batch in (1, 2, 4)]
    notes = [line for table in Benchmark(situations, None).tables() for line in table.note.splitlines()]
    assert [line for line in notes if "not measured" in line] == [
        "not measured: openvino, openvino-bf16, openvino-int8: OpenVINO is not installed: pip install x",
        "not measured: inductor: no compiler",
    ]


def test_gates_that_save_are_not_accused() -> None:
    times = times_of(dense_executor=4.0, dense_eager=8.0, gated_masked=9.0, gated_executor=1.0)
    measured = Measured(Situation(1, 2), times, cost_ratio=0.2)
    assert (measured.fastest_dense, measured.speed_up(EXECUTOR), measured.kept) == (DENSE_EXECUTOR, 4.0, 0.8)
    assert measured.gates_save is True
    (table,) = measured.tables()
    assert table.title == "batch 1, 2 threads: milliseconds"
    assert [row[0] for row in table.rows] == [DENSE_EXECUTOR, "dense: eager", MASKED, EXECUTOR]
    assert table.rows[-1] == (EXECUTOR, "float32", "1.000", "1.000", "1.000", "1,000.0", "4.00")
    assert "the executor keeps 80 % of that" in table.note
    assert "cost more" not in table.note
    saving = Profile([LayerTime("conv", 9.0, 3.0, 0.3)], [GateTime("site", 1.0, 6.0, in_torch=True)], 1, 4)
    assert saving.losing_gates == []
    (whole,) = Benchmark([measured], saving).tables()
    assert (whole.title, whole.rows) == (table.title, table.rows)
    assert whole.note.startswith(table.note)


def test_what_holds_for_all_situations_is_said_once() -> None:
    times = times_of(dense_executor=4.0, gated_executor=1.0)
    situations = [Measured(Situation(batch, 1), times, cost_ratio=0.2) for batch in (1, 2)]
    first, last = Benchmark(situations, None, images=32).tables()
    for words in ("A speed-up is the median of ratios", "The cost is that of the 32 images that were timed"):
        assert words not in first.note
        assert last.note.count(words) == 1
    (ungated,) = Benchmark([Measured(Situation(1, 1), times_of(dense_executor=4.0), None)], None, images=32).tables()
    assert "The cost is" not in ungated.note


def test_more_than_the_promise_is_laid_on_the_slow_dense_way() -> None:
    (table,) = Measured(Situation(1, 1), times_of(dense_eager=8.0, gated_executor=1.0), 0.5).tables()
    assert "promises 2.00; the executor is faster than that, since 'dense: eager' is slow" in table.note


def test_whether_gates_save_is_open_where_the_executor_did_not_run_the_dense_route() -> None:
    assert Measured(Situation(1, 1), times_of(dense_eager=4.0, gated_executor=1.0), 0.5).gates_save is None
    assert Measured(Situation(1, 1), times_of(dense_executor=4.0), None).gates_save is None


def test_the_saving_of_a_layer_is_shared_by_its_sites() -> None:
    costs = (LayerCost("a", 8, ("s",)), LayerCost("b", 8, ("s", "t")), LayerCost("elsewhere", 8, ("t",)))
    cost = CostModel(costs, {"s": 1, "t": 1})
    layers = [LayerTime("a", 5.0, 2.0, 0.5), LayerTime("b", 9.0, 1.0, 0.1)]
    assert _saved(layers, cost) == {"s": 3.0 + 4.0, "t": 4.0}


def test_speed_ups_are_over_float32_and_what_is_faster_is_said() -> None:
    times = Times(
        {
            "dense: executor": [4.0] * 3,
            "dense: onnxruntime-int8": [1.0] * 3,
            "dense: openvino-bf16": [3.0] * 3,
            EXECUTOR: [2.0] * 3,
        }
    )
    measured = Measured(Situation(1, 1), times, cost_ratio=0.25)
    assert (measured.fastest_dense, measured.fastest_dense_of_all) == ("dense: executor", "dense: onnxruntime-int8")
    assert [measured.speed_up(way) for way in times.milliseconds] == [1.0, 4.0, 4 / 3, 2.0]
    assert [way["precision"] for way in measured.as_json()["ways"].values()] == ["float32", "int8", "bf16", "float32"]
    (table,) = measured.tables()
    assert "'dense: onnxruntime-int8', the fastest dense way of all, takes 0.50 times as long as 'gated: exec" in table.note


def test_the_recommended_way_is_the_fastest_that_loses_at_most_a_point() -> None:
    def qualities(int8: float, gated: float) -> Qualities:
        ways = {
            "dense: executor": Quality(80.0, 85.0, 4.0, 1.0),
            "dense: onnxruntime-int8": Quality(80.0, int8, 1.0, 0.5),
            EXECUTOR: Quality(80.0, gated, 4.0, 0.25),
        }
        return Qualities(ways, 100, 50, 1)

    assert qualities(84.5, 84.0).recommended == EXECUTOR
    assert qualities(84.5, 83.9).recommended == "dense: onnxruntime-int8"
    assert qualities(83.0, 83.9).recommended == "dense: executor"
    (table,) = qualities(84.5, 83.9).tables()
    assert table.rows[1] == ("dense: onnxruntime-int8", "int8", "80.00", "84.50", "1.00", "0.500")
    assert "Deploy 'dense: onnxruntime-int8' (0.500 ms, 84.50 %)" in table.note
