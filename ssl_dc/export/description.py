"""What an exported file says of itself: which images it takes, and which network of the run it is."""

from __future__ import annotations

import json
from typing import Any

from ssl_dc.model import Model

PREFIX = "ssl_dc."
"""Every key in a file begins with it."""


def description(model: Model, route: str, **more: Any) -> dict[str, str]:
    """The metadata of an exported file: JSON values by key.

    Args:
        model: The exported model.
        route: ``dense``, ``gated`` or ``static``.
        more: Further values.

    Returns:
        ``ssl_dc.image_size`` (pixels), ``mean`` and ``std`` (of RGB values in [0, 1]), ``resize`` (what brings a picture to
        that size), ``route``, and ``budget`` (share of the dense cost; only with gates).
    """
    data = model.config.data
    budget = model.gated_route.budget or model.config.budget.target
    values: dict[str, Any] = {
        "image_size": data.image_size,
        "mean": list(data.mean),
        "std": list(data.std),
        "resize": "shorter side to image_size, bicubic, antialiased; then the middle square",
        "route": route,
        **({} if budget is None or route == "dense" else {"budget": budget}),
        **more,
    }
    return {PREFIX + key: json.dumps(value) for key, value in values.items()}
