"""Processes that train together on the CPUs of a machine keep to processors of their own."""

from __future__ import annotations

import os

import pytest
import torch

from ssl_dc.training.accelerator import keep_to_own_processors


def kept(
    monkeypatch: pytest.MonkeyPatch, here: str | None, rank: int, allowed: set[int], machine: int, threads: int
) -> set[int]:
    """The processors that a process may run on afterwards."""
    now = set(allowed)

    def keep(_process: int, processors: list[int]) -> None:
        now.intersection_update(processors)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(allowed), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", keep, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    if here is None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    keep_to_own_processors()
    return now


@pytest.mark.parametrize(("processes", "machine", "threads"), [(2, 2, 1), (2, 5, 2), (4, 8, 1), (3, 8, 2)])
def test_each_process_has_as_many_as_the_others_and_none_of_theirs(
    monkeypatch: pytest.MonkeyPatch, processes: int, machine: int, threads: int
) -> None:
    every = set(range(machine))
    shares = [kept(monkeypatch, str(processes), rank, every, machine, threads) for rank in range(processes)]
    assert {len(share) for share in shares} == {machine // processes}
    assert len(set().union(*shares)) == sum(map(len, shares))


@pytest.mark.parametrize(
    ("here", "allowed", "threads"),
    [
        pytest.param("1", 8, 1, id="alone"),
        pytest.param(None, 8, 1, id="not-told"),
        pytest.param("several", 8, 1, id="told-nonsense"),
        pytest.param("0", 8, 1, id="of-none"),
        pytest.param("2", 4, 1, id="its-launcher-has-chosen"),
        pytest.param("2", 8, 5, id="more-threads-than-its-share"),
    ],
)
def test_a_process_stays_free(monkeypatch: pytest.MonkeyPatch, here: str | None, allowed: int, threads: int) -> None:
    every = set(range(allowed))
    assert kept(monkeypatch, here, 0, every, 8, threads) == every
