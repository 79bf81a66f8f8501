"""UMAP in a twentieth of its steps, for tests that do not ask where it puts the points."""

from __future__ import annotations

from functools import partial

import pytest


def brief_umap(patch: pytest.MonkeyPatch) -> None:
    """Take few steps, the same ones each time."""
    from umap import UMAP  # not at the top: it takes seconds to import

    patch.setattr("umap.UMAP", partial(UMAP, n_epochs=20))
