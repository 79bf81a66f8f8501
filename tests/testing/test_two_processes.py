"""The two processes of the kit: what they show, and what becomes of them when a part fails in them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.registry import Registered, registry
from ssl_dc.testing import ConformanceError, Subject
from ssl_dc.testing.objective import take_steps
from ssl_dc.testing.two_processes import WORLD, in_two_processes

OBJECTIVES = [each for each in registry().all() if each.kind == "objective" and each.distribution == BUILT_IN]


def gradients(step: dict[str, Any]) -> dict[str, Any]:
    return {what: numbers for what, numbers in step.items() if "gradient" in what}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.part.name)
def test_half_the_batch_alone_gives_another_gradient(objective: Registered) -> None:
    small = {"expander_width": 8} if "expander_width" in objective.options_model().model_fields else {}
    subject = Subject(objective, small)
    whole = take_steps(subject)[0]
    halves = [gradients(take_steps(subject, rank)[0]) for rank in range(WORLD)]
    largest = max(np.abs(numbers).max() for numbers in gradients(whole).values())
    off = max(np.abs((halves[0][what] + halves[1][what]) / 2 - numbers).max() for what, numbers in gradients(whole).items())
    assert off > 1e-3 * largest, "this objective does not mix images: that two processes are one shows nothing"
    terms = [numbers for what, numbers in whole.items() if "term" in what]
    assert all(np.abs(numbers).min() > 1e-4 for numbers in terms), "a term that is 0 shows nothing"


def ranks_added(offset: int, rank: int) -> tuple[int, float]:
    total = torch.tensor(float(rank + offset))
    dist.all_reduce(total)
    return rank, total.item()


def raises_in_both(rank: int) -> None:
    raise LookupError(f"no such thing for {rank}")


def raises_in_the_second(rank: int) -> None:
    if rank == 1:
        raise LookupError("only here")
    dist.barrier()


def ends_the_second(rank: int) -> None:
    if rank == 1:
        print("these are my last words", flush=True)
        os._exit(3)
    dist.barrier()


def identity(rank: int) -> int:
    return os.getpid()


def test_both_answer_and_compute_together() -> None:
    assert in_two_processes(ranks_added, 10) == [(0, 21.0), (1, 21.0)]


def test_the_same_two_are_used_again_also_after_an_error_in_both() -> None:
    before = in_two_processes(identity)
    with pytest.raises(ConformanceError, match="process 0 of two, saw: LookupError: no such thing for 0"):
        in_two_processes(raises_in_both)
    assert in_two_processes(identity) == before
    assert os.getpid() not in before


def test_one_that_dies_while_the_other_waits_is_told_and_others_take_their_place() -> None:
    with pytest.raises(ConformanceError, match="process 1: it ended without an answer; its last words: these are my"):
        in_two_processes(ends_the_second)
    assert in_two_processes(ranks_added, 0) == [(0, 1.0), (1, 1.0)]


@pytest.mark.long
def test_one_that_fails_while_the_other_waits_is_told() -> None:
    with pytest.raises(ConformanceError, match="process 1: LookupError: only here"):
        in_two_processes(raises_in_the_second)
