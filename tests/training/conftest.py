"""Fixtures of the tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from helpers.planted_training import Train, forget_plugin, train_planted


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Train]:
    """Trains by a plugin in which some lines are changed."""
    monkeypatch.chdir(tmp_path)
    yield partial(train_planted, tmp_path)
    forget_plugin(tmp_path)
