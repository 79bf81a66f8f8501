"""A matplotlib figure that a notebook shows."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

NOTEBOOK_DPI = 75
"""Resolution in a notebook, which shows a picture pixel by pixel."""


class Picture(Figure):
    """A figure that a notebook shows as the value of a cell, although pyplot knows nothing of it."""

    def _repr_png_(self) -> bytes:
        content = BytesIO()
        self.savefig(content, format="png", dpi=NOTEBOOK_DPI)
        return content.getvalue()
