"""Seeds that depend on the place of a random draw. A resumed run draws the same, and no random state is saved."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*key: int) -> int:
    """A seed in [0, 2**63) that depends on every number of the key (at least 0 each) and on their order."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Leave the generators of Python, NumPy and torch (all devices) as they are, whatever draws from them here."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


def seed_everything(*key: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices) from a key."""
    seed = derived_seed(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
