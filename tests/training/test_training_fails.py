"""What ends a training: one message, and the resume points are kept."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from helpers.hand_made import Distance, Random, by_hand
from helpers.training import Told
from ssl_dc.data.digits import ArrayImages
from ssl_dc.errors import ConfigError, DataError, RunError
from ssl_dc.gating.cost import Trace
from ssl_dc.training.checkpoint import CheckpointStore


def test_a_loss_that_is_not_finite_names_step_and_term_and_keeps_the_resume_point(tmp_path: Path) -> None:
    trainer, _ = by_hand(Distance(broken_from=2), epochs=3, batch_size=4, checkpoint_every=1)
    told = Told()
    with pytest.raises(RunError, match=r"step 3: the loss is nan; not finite: distance of the objective \w+\.") as caught:
        trainer.fit(watchers=[told], checkpoints=CheckpointStore(tmp_path, keep=1))
    assert caught.value.exit_status == 1
    assert "step-00000002" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert told.events[-1] == ("end", None)


class NotFinite(Random):
    """A gating scheme whose loss is infinite."""

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        return {"rate": trace.ratio().mean() * math.inf}


def test_a_gating_term_that_is_not_finite_is_named() -> None:
    trainer, _ = by_hand(gating=NotFinite())
    with pytest.raises(RunError, match=r"step 1: the loss is inf; not finite: rate"):
        trainer.fit()


def test_a_full_disk_ends_training_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    trainer, _ = by_hand()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"learner\.safetensors.*MiB.*No space left"):
        trainer.fit(checkpoints=CheckpointStore(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_batch_larger_than_the_data_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        by_hand(batch_size=9)


class Unreadable(ArrayImages):
    """Images of which one cannot be read."""

    def image(self, index: int) -> Any:
        if index == 3:
            raise DataError("image cats/3.png cannot be read: truncated.")
        return super().image(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_ends_training_with_its_name(workers: int) -> None:
    trainer, _ = by_hand(workers=workers)
    trainer.batches.view_sets.images = Unreadable(np.zeros((8, 4, 4, 3), np.uint8), None)
    with pytest.raises(DataError) as caught:
        trainer.fit()
    assert str(caught.value) == "image cats/3.png cannot be read: truncated."


def test_a_launch_that_does_not_say_where_its_processes_meet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", "")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"):
        by_hand()


def test_a_launch_of_processes_that_would_train_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand()  # from here on this process counts as one that trains alone
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="launched as 2 processes, but they train as 1"):
        by_hand()
