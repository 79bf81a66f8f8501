"""Checking the contract changes no training, and ends with the first step."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

import ssl_dc
from helpers.hand_made import Random, by_hand
from helpers.settings import SHORT
from helpers.training import assert_same_files
from ssl_dc.trackers.base import Watcher
from ssl_dc.training.contract import Contract


def test_nothing_is_looked_at_after_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[int] = []

    class Counts(Watcher):
        def on_step_end(self, step: int) -> None:  # noqa: ARG002
            modules = trainer.learner.modules()
            hooks.append(sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules))

    trainer, _ = by_hand(gating=Random(), epochs=3)
    began: list[int] = []
    begin = Contract._check_cost
    monkeypatch.setattr(Contract, "_check_cost", lambda self, image: (began.append(1), begin(self, image)))
    trainer.fit(watchers=[Counts()])
    assert hooks == [0, 0, 0]
    assert began == [1]


@pytest.mark.long
def test_looking_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for norm in ("separate", "shared"):
        ssl_dc.train({**SHORT, "norm.name": norm}, output=tmp_path / f"{norm}-looked")
        with monkeypatch.context() as patched:
            patched.setattr(Contract, "watched", lambda *_arguments: nullcontext())
            patched.setattr(Contract, "check_drawn", lambda *_arguments: None)
            ssl_dc.train({**SHORT, "norm.name": norm}, output=tmp_path / norm)
        assert_same_files(tmp_path / norm, tmp_path / f"{norm}-looked")
