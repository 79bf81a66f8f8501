"""A model of the Hub, downloaded into the Hub's cache on this machine."""

from __future__ import annotations

from pathlib import Path

from ssl_dc.errors import ConfigError
from ssl_dc.hub.names import hub_errors
from ssl_dc.run_folder import RunFolder

FILES = ("config.json", "model.safetensors")
"""The files that are downloaded. Both are data: nothing in them is executed."""


def downloaded(name: str, revision: str | None = None) -> RunFolder:
    """The files of a model of the Hub.

    Args:
        name: The model, ``owner/name``. There is no folder of that name here.
        revision: A branch, a tag or a commit; by default ``main``.

    Raises:
        ConfigError: If the Hub has no such model or revision, or the model is none of ssl-dc's.
        RunError: If the Hub cannot be reached and the model is not in its cache.
    """
    from huggingface_hub import HfApi

    with hub_errors(name, revision, first=f"{name} is no folder here."):
        folder = Path(HfApi().snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    absent = [file for file in FILES if not (folder / file).is_file()]
    if absent:
        raise ConfigError(f"the Hub's {name} is no model of ssl-dc's: it has no {' and no '.join(absent)}")
    # The cache's own links lead to its own files, so that a run folder's rule against links is not for it.
    return RunFolder(folder)
