"""Whether ssl-dc is installed: its own parts are found by the entry points of its distribution, as those of plugins are."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ssl_dc.errors import PluginError
from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.registry import registry


def is_distribution() -> bool:
    """Whether Python knows a distribution of ssl-dc, without a look at its parts."""
    try:
        distribution(BUILT_IN)
    except PackageNotFoundError:
        return False
    return True


def check_installed() -> None:
    """Check that the built-in parts are registered, or that there is a reason why one of their plugins was left out.

    Raises:
        PluginError: If not, as where the package is imported from a checkout that was never installed.
    """
    parts = registry()
    there = {part.distribution for part in parts.all()} | {broken.distribution for broken in parts.broken}
    if BUILT_IN not in there:
        raise PluginError(
            "no part of any kind is registered, not even a built-in one, because ssl-dc is imported from a folder and is"
            f" not installed: run python -m pip install {Path(__file__).resolve().parents[2]}"
        )
