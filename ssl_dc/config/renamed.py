"""Settings that were renamed. Their old names are read for one more minor release, with a warning."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from ssl_dc.config.layers import Layer
from ssl_dc.errors import OldNameWarning


class NewName(NamedTuple):
    """The new name of a setting.

    Attributes:
        key: Its dotted key.
        gone_in: The first version that does not read the old name. In saved runs it is read for good.
    """

    key: str
    gone_in: str


RENAMED = {"training.tracker": NewName("tracker.name", gone_in="0.2")}
"""New names by old dotted key."""


def by_new_names(layer: Layer) -> Layer:
    """The layer with new names for old ones, and a warning for each."""
    for old in RENAMED.keys() & layer.values.keys():
        where = layer.sources.get(old, old)
        new = RENAMED[old]
        warnings.warn(f"{where}: {old} is {new.key} now; the old name goes in {new.gone_in}", OldNameWarning, stacklevel=2)

    def now(key: str) -> str:
        return RENAMED[key].key if key in RENAMED else key

    return Layer(
        {now(key): value for key, value in layer.values.items()},
        {now(key): source for key, source in layer.sources.items()},
    )
