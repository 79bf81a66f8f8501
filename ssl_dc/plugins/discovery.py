"""Which plugins there are: installed distributions, single files, and what the caller wants of them."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ssl_dc.errors import PluginError

BUILT_IN = "ssl-dc"
"""The distribution whose parts cannot be replaced by another's."""

GROUP = "ssl_dc"
"""The entry point group that plugins offer themselves under."""

NO_PLUGINS = "SSL_DC_NO_PLUGINS"
"""Environment variable: set and not 0, only the built-in parts are there (and those of single files)."""
ONLY_PLUGINS = "SSL_DC_PLUGINS"
"""Environment variable: the distributions whose plugins are loaded, with commas between them; unset, all installed ones."""
PLUGIN_FILES = "SSL_DC_PLUGIN_FILES"
"""Environment variable: plugins of one file each, without packaging, with the system's path separator between them."""


@dataclass(frozen=True)
class Plugin:
    """Something that offers parts.

    Attributes:
        name: The entry point's, or the file's without its ending.
        distribution: Where it comes from: an installed distribution, or the path of a single file.
        version: Of the distribution; empty for a file.
        load: Imports it and gives its namespace, whose functions implement the hooks.
    """

    name: str
    distribution: str
    version: str
    load: Callable[[], Any]


def chosen_plugins() -> list[Plugin]:
    """The plugins that the environment asks for: the built-in ones first, then by distribution and name, then single files.

    Raises:
        PluginError: If the environment names a distribution that brings no plugin.
    """
    wanted = _wanted()
    plugins = installed_plugins()
    if wanted is not None:
        there = {_normalised(plugin.distribution) for plugin in plugins}
        missing = [name for name in wanted if _normalised(name) not in there]
        if missing:
            others = sorted({plugin.distribution for plugin in plugins} - {BUILT_IN})
            raise PluginError(
                f"{ONLY_PLUGINS} names {', '.join(missing)}, which brings no plugin here; there are: "
                f"{', '.join(others) or 'none'}"
            )
        kept = {BUILT_IN, *map(_normalised, wanted)}
        plugins = [plugin for plugin in plugins if _normalised(plugin.distribution) in kept]
    return [*plugins, *map(file_plugin, _files())]


def installed_plugins() -> list[Plugin]:
    """Every entry point of the group ``ssl_dc``, the built-in ones first, then by distribution and name."""
    try:
        found = [_entry_point_plugin(entry_point) for entry_point in metadata.entry_points(group=GROUP)]
    except Exception:  # some package's own list of entry points cannot be read: look at each package alone
        found = [plugin for distribution in metadata.distributions() for plugin in _plugins_of(distribution)]
    return sorted(found, key=lambda plugin: (plugin.distribution != BUILT_IN, plugin.distribution, plugin.name))


def _entry_point_plugin(entry_point: metadata.EntryPoint) -> Plugin:
    return Plugin(
        name=entry_point.name,
        distribution=entry_point.dist.name if entry_point.dist else "unknown",
        version=entry_point.dist.version if entry_point.dist else "unknown",
        load=entry_point.load,
    )


def _plugins_of(distribution: metadata.Distribution) -> list[Plugin]:
    """The plugins of one package; one that says why, if its list of entry points cannot be read."""
    try:
        return [_entry_point_plugin(entry_point) for entry_point in distribution.entry_points.select(group=GROUP)]
    except Exception as error:  # whatever is in that file
        reason = f"its entry_points.txt cannot be read: {type(error).__name__}: {error}"

        def refuse() -> Any:
            raise ImportError(reason)

        return [Plugin("entry_points.txt", distribution.metadata["Name"] or "unknown", distribution.version, refuse)]


def file_plugin(path: Path) -> Plugin:
    """A plugin of one file, without packaging."""

    def load() -> Any:
        module = sys.modules.get(path.stem)
        if module is not None and getattr(module, "__file__", None) == str(path):
            return module
        # the file itself may be found by name, where its folder is the working directory of python -m
        found = None if module is not None else importlib.util.find_spec(path.stem)
        if module is not None or (found is not None and found.origin != str(path)):
            raise ImportError(f"there is another module named {path.stem!r}; name the file otherwise")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # its records name it by import string
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
        # processes that prepare images may have to import it by name
        sys.path.append(str(path.parent))
        return module

    return Plugin(path.stem, str(path), "", load)


def _wanted() -> list[str] | None:
    """The distributions asked for besides the built-in one; None for all."""
    if os.environ.get(NO_PLUGINS, "0") not in {"", "0"}:
        return []
    if ONLY_PLUGINS not in os.environ:
        return None
    return [name.strip() for name in os.environ[ONLY_PLUGINS].split(",") if name.strip()]


def _files() -> list[Path]:
    return [Path(name).absolute() for name in os.environ.get(PLUGIN_FILES, "").split(os.pathsep) if name]


def _normalised(distribution: str) -> str:
    """A distribution's name as packaging tools compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
