"""Settings that make any training one of a second, whatever else it is about."""

from __future__ import annotations

import re
from typing import Any

SMALL = {
    "backbone.width": 16,
    "backbone.stem": "cifar",
    "objective.expander_width": 16,
    "data.image_size": 8,
    "data.limit": 32,
    "data.test_limit": 20,
    "training.batch_size": 8,
    "training.epochs": 1,
    "training.workers": 0,
    "optimizer.name": "adamw",
}
"""What makes a training one of seconds."""


def small_for(text: str) -> dict[str, Any]:
    """The settings that make a training small, but for those that the text is about."""
    from_weights = "training.init" in text or re.search(r"--init \S+\.", text) is not None
    without = {"backbone.width", "backbone.stem"} if from_weights else set()
    if "--objective spread" in text:  # a page's own, which has no expander
        without.add("objective.expander_width")
    return {key: value for key, value in SMALL.items() if key not in without}
