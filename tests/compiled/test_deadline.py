"""A budget that follows a deadline, on a clock of the test's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import ssl_dc


class Machine:
    """Stands for an executor and a clock: a call takes time in proportion to its budget, to the load, and to chance.

    Attributes:
        held_up: Share of the calls that another process holds up for 3 ms.
    """

    def __init__(self, seed: int) -> None:
        self.now, self.load = 0.0, 1.0
        self.draw = np.random.default_rng(seed)
        self.took: list[float] = []
        self.budgets: list[float] = []
        self.prepared: list[float] = []
        self.held_up = 0.0

    def prepare(self, budgets: list[float]) -> None:
        """Remember them."""
        self.prepared += budgets

    def __call__(self, _images: torch.Tensor, budget: float) -> str:
        seconds = 0.004 * (0.1 + 0.9 * budget) * self.load * self.draw.lognormal(0, 0.1)
        seconds += 0.003 * (self.draw.random() < self.held_up)
        self.now += seconds
        self.took.append(1000 * seconds)
        self.budgets.append(budget)
        return "result"


def deadline(machine: Machine, milliseconds: float, least: float = 0.05, largest: float = 1.0) -> ssl_dc.Deadline:
    return ssl_dc.Deadline(machine, milliseconds, least=least, largest=largest, clock=lambda: machine.now)  # type: ignore[arg-type]


def call(held: ssl_dc.Deadline, times: int) -> None:
    for _ in range(times):
        held(torch.zeros(1))


@pytest.mark.parametrize("seed", range(5))
def test_nine_calls_of_ten_are_in_time_under_a_changing_load(seed: int) -> None:
    machine = Machine(seed)
    held = deadline(machine, 2.0)
    for load in (1.0, 2.0, 0.8, 3.0):
        machine.load, machine.took = load, []
        for _ in range(1000):
            assert held(torch.zeros(1)) == "result"
        settled = machine.took[200:]
        assert np.percentile(settled, 90) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_the_deadline_is_kept_where_another_process_holds_up_some_calls(seed: int) -> None:
    machine = Machine(seed)
    machine.held_up = 0.06
    held = deadline(machine, 2.0)
    call(held, 2000)
    assert np.percentile(machine.took[200:], 90) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_bursts_in_which_no_budget_is_in_time_are_made_up_for(seed: int) -> None:
    machine = Machine(seed)
    held = deadline(machine, 1.0)
    for _ in range(20):
        for machine.load, calls in ((10.0, 15), (1.0, 285)):
            call(held, calls)
    assert np.mean(np.array(machine.took[200:]) > 1.0) == pytest.approx(0.1, abs=0.01)


def test_a_long_overload_is_forgotten_in_time() -> None:
    machine = Machine(0)
    held = deadline(machine, 2.0)
    machine.load = 100.0
    call(held, 1000)
    machine.load = 0.1
    for _ in range(180 + 2):
        assert held.budget == pytest.approx(0.05)
        held(torch.zeros(1))
    call(held, 150)
    assert held.budget == pytest.approx(1.0)


def test_every_budget_is_prepared() -> None:
    machine = Machine(0)
    held = deadline(machine, 2.0)
    call(held, 1000)
    assert len(machine.prepared) == 64
    assert machine.prepared[0] == pytest.approx(0.05)
    assert machine.prepared[-1] == pytest.approx(1.0)
    assert set(machine.budgets) <= set(machine.prepared)
    assert len(set(machine.budgets)) > 10


def test_there_may_be_one_budget_only() -> None:
    machine = Machine(0)
    held = deadline(machine, 2.0, 0.3, 0.3)
    call(held, 20)
    assert set(machine.budgets) == {held.budget}
    assert held.budget == pytest.approx(0.3)


def test_the_budget_stays_between_its_ends() -> None:
    machine = Machine(0)
    held = deadline(machine, 1e-6, 0.2, 0.7)
    call(held, 50)
    assert held.budget == pytest.approx(0.2)
    easy = deadline(machine, 1e6, 0.2, 0.7)
    call(easy, 100)
    assert easy.budget == pytest.approx(0.7)
    assert all(0.19 < budget < 0.71 for budget in machine.budgets)


@pytest.mark.parametrize(
    "wrong",
    [{"milliseconds": 0}, {"milliseconds": float("nan")}, {"least": 0.0}, {"least": 0.9}, {"largest": 1.5}],
)
def test_a_deadline_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    settings = {"milliseconds": 2.0, "least": 0.1, "largest": 0.5, **wrong}
    with pytest.raises(ValueError, match="not"):
        ssl_dc.Deadline(Machine(0), **settings)  # type: ignore[arg-type]
