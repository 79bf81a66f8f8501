"""Settings that have another name now: the old one is taken for one more minor release, with a warning."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from ssl_dc.config.layers import Layer
from ssl_dc.errors import OldNameWarning


class NewName(NamedTuple):
    """What a setting is called now.

    Attributes:
        key: Its dotted key.
        gone_in: The first version that does not know the old name. Saved runs keep theirs for good.
    """

    key: str
    gone_in: str


RENAMED = {"training.tracker": NewName("tracker.name", gone_in="0.2")}
"""Old dotted key to new name."""


def by_new_names(layer: Layer) -> Layer:
    """The layer with every old name replaced; warns of each."""
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
